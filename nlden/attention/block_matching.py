"""Block matching between two pictures, to a part of a pixel, and copies of what it finds.

The search of non-local filters: for each block the block of the other picture that is most like it
(K. Dabov et al.: BM3D, IEEE TIP 2007; M. Maggioni et al.: V-BM4D, IEEE TIP 2012). The part of a
pixel is where the paraboloid through the least error and its neighbours is lowest; copies between
pixels are those of Lanczos (C. E. Duchon, J. Appl. Meteorol. 1979), which blur less than cubic
convolutions: a recursive average copies its copies.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from nlden.attention.precision import full_precision

_RIDGE = 0.01  # of the curvature
_TRUST = 0.75  # of a pixel, as far as the paraboloid is believed: more than half, on a slope
_NEARER = 0.75  # sqrt(2) is a standard deviation per pixel
_STEPS = 32  # of a pixel, that copies are interpolated at
_ALIKE = 0.5  # of a pixel, within which neighbours are one motion
_WHOLE = 1 / 16  # of a pixel, that a displacement may lack to a whole one: it is not blurred
_LOBES = 3  # of the Lanczos window, so many pixels to each side


def match_blocks(
    x: Tensor, other: Tensor, *, block: int, margin: int, reach: int, around: Tensor | None = None
) -> Tensor:
    """Return for each block of a picture where the other picture is most like it.

    The block with its margin is compared by the sum of squared differences with all places up to
    ``reach`` whole pixels away from where ``around`` puts it; borders are repeated. Of places that
    noise may exchange the nearer wins: if it is all that is left at the best place, a pixel farther
    away must be better by half a standard deviation of such a sum.

    Args:
        x: ``(B, 1, H, W)``.
        other: of the same shape.
        block: extent of a block; blocks begin at multiples of it.
        margin: pixels around the block that are compared too.
        reach: largest distance along each axis, in whole pixels.
        around: displacements to start from, ``(B, rows, columns, 2)``, which are rounded; None
            is no displacement.

    Returns:
        Displacements down and to the right in pixels, ``(B, rows, columns, 2)``.
    """
    batch, _, height, width = x.shape
    rows, columns = -(-height // block), -(-width // block)
    none = torch.zeros(batch, rows, columns, 2, dtype=torch.long, device=x.device)
    start = none if around is None else around.round().long()
    a, b = (t.movedim(1, -1) for t in (x, other))
    template = _windows(a, _corners(none, block), block, margin, margin).flatten(0, 2)[..., 0]
    wide = margin + reach
    places = _windows(b, _corners(start, block), block, wide, wide).flatten(0, 2)[..., 0]
    count = len(template)
    # Differences stay; the rounding of large equal sums goes.
    middle = template.mean((1, 2), keepdim=True)
    template, places = template.sub_(middle), places.sub_(middle)  # copies, of no other use
    # |a - b|^2 = |a|^2 - 2 ab + |b|^2, whose first term is the same everywhere.
    extent, size = template.shape[-1], places.shape[-1]
    band = torch.ones(size, size, dtype=x.dtype, device=x.device).tril().triu(1 - extent)
    band = band[extent - 1 :]  # sums over the extent at every place
    with full_precision(x):  # sums of squares that are all but equal
        product = F.conv2d(places[None], template[:, None], groups=count)[0]
        error = band @ places.square() @ band.mT - 2 * product
    offset = torch.arange(-reach, reach + 1, device=x.device)
    away = offset[:, None].square() + offset.square()
    # Relative to the contrast of the block: rounding must not decide between equals.
    energy = template.square().sum((1, 2))[:, None, None]
    error = error + away * (1e-4 * energy / extent**2 + 1e-12)
    least = (error + energy).amin((1, 2), keepdim=True).clamp_min(0)
    # The standard deviation of a sum of squares of noise is sqrt(2) / extent of it.
    best = (error + _NEARER / extent * least * away.sqrt()).flatten(1).argmin(1)
    place = torch.stack([best // len(offset), best % len(offset)], dim=1)
    moved = place - reach + _fraction(error, place)
    return start + moved.view_as(start)


def _fraction(error: Tensor, place: Tensor) -> Tensor:
    """Return how far from the least error its paraboloid is lowest, ``(N, 2)``."""
    last = error.shape[-1] - 1
    steps = torch.arange(-1, 2, device=error.device)
    y, x = ((place[:, axis, None] + steps).clamp(0, last) for axis in (0, 1))
    each = torch.arange(len(error), device=error.device)[:, None, None]
    near = error[each, y[:, :, None], x[:, None, :]]
    slope_y, slope_x = (
        (b - a) / 2 for a, b in ((near[:, 0, 1], near[:, 2, 1]), (near[:, 1, 0], near[:, 1, 2]))
    )
    here = 2 * near[:, 1, 1]
    yy, xx = near[:, 0, 1] + near[:, 2, 1] - here, near[:, 1, 0] + near[:, 1, 2] - here
    yx = (near[:, 0, 0] + near[:, 2, 2] - near[:, 0, 2] - near[:, 2, 0]) / 4
    # Along a straight edge all places are as good: it stays where it is.
    ridge = _RIDGE * (yy + xx) + 1e-12
    yy, xx = yy + ridge, xx + ridge
    determinant = (yy * xx - yx * yx).clamp_min(1e-24)
    lowest = torch.stack([yx * slope_x - xx * slope_y, yx * slope_y - yy * slope_x], dim=1)
    inside = (place > 0) & (place < last)
    return torch.where(inside, (lowest / determinant[:, None]).clamp(-_TRUST, _TRUST), 0.0)


def smooth_displacement(displacement: Tensor) -> Tensor:
    """Replace the displacement of each block by what the eight around it agree on.

    Noise finds other places for single blocks; most that lie beside each other move alike. The
    median, taken along each axis, keeps the borders between what moves differently; the mean of
    those within half a pixel of it is more exact. Each is taken twice. What is all but a whole
    number of pixels becomes that.

    Args:
        displacement: ``(B, rows, columns, 2)``, as :func:`match_blocks` returns it.

    Returns:
        Likewise.
    """
    field = displacement.movedim(3, 1)
    for _ in range(2):
        field = _around(field).median(4).values
    for _ in range(2):
        around = _around(field)
        away = (around - field[..., None]).abs().amax(1, keepdim=True)
        alike = (away <= _ALIKE).to(field.dtype)
        field = (around * alike).sum(4) / alike.sum(4)
    whole = field.round()
    return torch.where((field - whole).abs() < _WHOLE, whole, field).movedim(1, 3)


def _around(field: Tensor) -> Tensor:
    """Return the values at each place and the eight around it, ``(B, C, rows, columns, 9)``."""
    wide = F.pad(field, (1, 1, 1, 1), mode="replicate")
    return wide.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)


def copy_blocks(x: Tensor, displacement: Tensor, block: int) -> Tensor:
    """Put a picture together from displaced blocks of another; borders are repeated.

    Between pixels the picture is interpolated by a Lanczos window of three lobes.

    Args:
        x: ``(B, C, H, W)``.
        displacement: of each block, in pixels, as :func:`match_blocks` returns it,
            ``(B, ceil(H / block), ceil(W / block), 2)``; it is rounded to a 32nd. Whole pixels,
            as integers, are copied as they are.
        block: extent of a block.

    Returns:
        ``(B, C, H, W)``.
    """
    height, width = x.shape[2:]
    pixels = x.movedim(1, -1)
    if displacement.is_floating_point():
        steps = (displacement * _STEPS).round().long()
        corners = _corners(steps.div(_STEPS, rounding_mode="floor"), block)
        places = _windows(pixels, corners, block, _LOBES - 1, _LOBES)
        weights = _lanczos(x)[steps % _STEPS]
        for axis in (0, 1):
            first, *others = weights[..., axis, :, None, None, None].unbind(3)
            total = first * places.narrow(3 + axis, 0, block)
            for i, tap in enumerate(others, 1):
                total.addcmul_(tap, places.narrow(3 + axis, i, block))
            places = total
    else:
        places = _windows(pixels, _corners(displacement, block), block, 0, 0)
    blocks = places.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
    return blocks[:, :, :height, :width]


def _lanczos(like: Tensor) -> Tensor:
    """Return the weights of the pixels around each part of one, between the two middle pixels.

    They have the type and the device of ``like``.
    """
    place = torch.arange(_STEPS, dtype=torch.float64)[:, None] / _STEPS  # MPS has no float64
    distance = place - torch.arange(1 - _LOBES, 1 + _LOBES)
    weights = distance.sinc() * (distance / _LOBES).sinc()
    weights[0] = distance[0] == 0  # exactly
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype).to(like.device)


def _corners(displacement: Tensor, block: int) -> Tensor:
    """Return where each displaced block begins, ``(B, rows, columns, 2)``."""
    rows, columns = (torch.arange(n, device=displacement.device) for n in displacement.shape[1:3])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    return displacement + grid * block


def _windows(pixels: Tensor, corners: Tensor, block: int, before: int, after: int) -> Tensor:
    """Copy the blocks that begin at corners, widened on both sides; borders are repeated.

    Args:
        pixels: ``(B, H, W, C)``.
        corners: rows and columns, ``(B, rows, columns, 2)``.
        block: extent of a block.
        before: pixels above and left of the block.
        after: pixels below and right of it.

    Returns:
        ``(B, rows, columns, extent, extent, C)``.
    """
    batch, height, width, channels = pixels.shape
    extent = before + block + after
    # Columns are repeated as often as a window is wide: one that lies farther out shows the same.
    first, last = (pixels[:, :, i : i + 1].expand(-1, -1, extent, -1) for i in (0, width - 1))
    wide = torch.cat([first, pixels, last], dim=2)
    top, left = (corners - before).unbind(-1)
    y = (top[..., None] + torch.arange(extent, device=pixels.device)).clamp(0, height - 1)
    x = left.clamp(-extent, width) + extent
    picture = torch.arange(batch, device=pixels.device).view(-1, 1, 1, 1)
    starts = (picture * height + y) * wide.shape[2] + x[..., None]
    # Rows of windows are copied whole, pixels one by one take ten times as long.
    rows = wide.contiguous().flatten().unfold(0, extent * channels, channels)
    return rows.index_select(0, starts.flatten()).view(*starts.shape, extent, channels)
