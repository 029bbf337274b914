"""Non-local means from one picture into another, around where block matching finds each block.

A. Buades, B. Coll, J.-M. Morel: "A non-local algorithm for image denoising", CVPR 2005; with
learned features it is the embedded Gaussian of X. Wang et al. (CVPR 2018) with a squared distance
for its energy. That a small neighbourhood of the best match is enough is what V-BM4D (M. Maggioni
et al., TIP 2012) and VNLnet (A. Davy et al., ICIP 2019) build on.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from nlden.attention.affinity import fused, tracing

_PIECE = 1 << 23  # numbers in the copied neighbourhoods of a piece: 32 MiB in float32


def match_blocks(
    x: Tensor, other: Tensor, *, block: int, margin: int, reach: int, around: Tensor | None = None
) -> Tensor:
    """Return for each block of a picture where the other picture is most like it.

    The block with its margin is compared by the sum of squared differences with all places up to
    ``reach`` away from where ``around`` puts it; borders are repeated. Of equal places the
    nearest wins.

    Args:
        x: ``(B, 1, H, W)``.
        other: of the same shape.
        block: extent of a block; blocks begin at multiples of it.
        margin: pixels around the block that are compared too.
        reach: largest distance along each axis.
        around: displacements to start from, ``(B, rows, columns, 2)``; None is no displacement.

    Returns:
        Displacements down and to the right in pixels, ``(B, rows, columns, 2)``.
    """
    batch, _, height, width = x.shape
    rows, columns = -(-height // block), -(-width // block)
    none = torch.zeros(batch, rows, columns, 2, dtype=torch.long, device=x.device)
    start = none if around is None else around
    a, b = (t.movedim(1, -1) for t in (x, other))
    template = _windows(a, _corners(none, block), block, margin).flatten(0, 2)[..., 0]
    places = _windows(b, _corners(start, block), block, margin + reach).flatten(0, 2)[..., 0]
    count = len(template)
    # Differences stay; the rounding of large equal sums goes.
    middle = template.mean((1, 2), keepdim=True)
    template, places = template - middle, places - middle
    # |a - b|^2 = |a|^2 - 2 ab + |b|^2, whose first term is the same everywhere.
    product = F.conv2d(places[None], template[:, None], groups=count)[0]
    extent = template.shape[-1]
    square = F.avg_pool2d(places.square()[None], (extent, 1), stride=1)
    square = F.avg_pool2d(square, (1, extent), stride=1)[0]
    error = square * extent**2 - 2 * product
    offset = torch.arange(-reach, reach + 1, device=x.device)
    away = offset[:, None].square() + offset.square()
    # Relative to the contrast of the block: noise must not decide between equals.
    contrast = template.square().mean((1, 2))[:, None, None]
    error = error + away * (1e-4 * contrast + 1e-12)
    best = error.flatten(1).argmin(1)
    moved = torch.stack([best // len(offset), best % len(offset)], dim=-1) - reach
    return start + moved.view_as(start)


def cross_non_local_means(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    displacement: Tensor,
    *,
    block: int,
    reach: int,
    width: Tensor | None = None,
) -> Tensor:
    """Return ``y_i = sum_j softmax_j(-|q_i - k_j|^2 / 2) v_j`` over a displaced neighbourhood.

    The positions of a block share the neighbourhood: the block in the other picture, displaced
    and widened by ``reach`` on all sides, borders repeated. Divide ``query`` and ``key`` by the
    distance at which likeness shall end, for instance by the level of their noise.

    Args:
        query: features of every s-th position along each axis, ``(B, D, H / s, W / s)``.
        key: features of the positions of the other picture, ``(B, D, H, W)``.
        value: what is gathered, ``(B, E, H, W)``.
        displacement: of each block, in positions of ``key``, as :func:`match_blocks` returns it.
        block: extent of a block in positions of ``key``, a multiple of s.
        reach: how far the neighbourhood exceeds the block.
        width: standard deviation of a Gaussian, in positions, by which places far from the
            displaced one count less (a bilateral filter); None is none.

    Returns:
        ``(B, E, H / s, W / s)``.
    """
    batch, channels, height, across = query.shape
    own = block * height // key.shape[2]
    rows, columns = displacement.shape[1:3]
    # Widths are brought to what the kernel wants before neighbourhoods are copied.
    heads = max(channels + (1 if width is None else 3), value.shape[1])
    heads += -heads % 8
    # |q|^2 is the same for all keys; what is left of the square is a product with one more entry.
    one = torch.ones_like(query[:, :1])
    query, key, seen = (
        _widened([query, one], heads),
        _widened([key, key.square().sum(1, keepdim=True) / -2], heads),
        _widened([value], heads),
    )
    padded = F.pad(query, (0, columns * own - across, 0, rows * own - height))
    blocks = padded.unflatten(3, (columns, own)).unflatten(2, (rows, own))
    queries = blocks.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)
    corners = _corners(displacement, block)
    # Pixels lie side by side with all their channels: whole rows are copied.
    pixels = [m.movedim(1, -1).contiguous() for m in (key, seen)]
    there, here = queries.new_zeros(2, 1, 1, heads).unbind(0)
    if width is not None:
        steps = torch.arange(-reach, block + reach, device=query.device) / width
        near = torch.cartesian_prod(steps, steps)
        own_places = torch.cartesian_prod(*[steps[reach : block + reach : block // own]] * 2)
        square = near.square().sum(1, keepdim=True) / -2
        empty = heads - channels - 3
        there = F.pad(torch.cat([square, near], dim=1), (channels, empty))
        here = F.pad(own_places, (channels + 1, empty))

    def gather(piece: slice) -> Tensor:
        k, v = (_windows(p, corners[:, piece], block, reach) for p in pixels)
        k, v = (t.flatten(0, 2).flatten(1, 2) for t in (k, v))
        y = fused(queries[:, piece].flatten(0, 2) + here, k + there, v)
        return y[..., : value.shape[1]].unflatten(0, (batch, -1, columns))

    extent = (block + 2 * reach) ** 2
    step = rows
    if not (torch.is_grad_enabled() or tracing()):
        # Neighbourhoods overlap: copies of all at once would be many times the map.
        step = max(1, _PIECE // (batch * columns * extent * heads))
    pieces = [gather(slice(r, r + step)) for r in range(0, rows, step)]
    y = torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]
    y = y.unflatten(3, (own, own)).permute(0, 5, 1, 3, 2, 4)
    return y.reshape(batch, -1, rows * own, columns * own)[:, :, :height, :across]


def _widened(maps: list[Tensor], channels: int) -> Tensor:
    first = maps[0]
    missing = channels - sum(m.shape[1] for m in maps)
    zeros = first.new_zeros(1, 1, 1, 1).expand(len(first), missing, *first.shape[2:])
    return torch.cat([*maps, zeros], dim=1)


def _corners(displacement: Tensor, block: int) -> Tensor:
    """Return where each displaced block begins, ``(B, rows, columns, 2)``."""
    rows, columns = (torch.arange(n, device=displacement.device) for n in displacement.shape[1:3])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    return displacement + grid * block


def _windows(pixels: Tensor, corners: Tensor, block: int, margin: int) -> Tensor:
    """Copy the blocks that begin at corners, widened by a margin; borders are repeated.

    Args:
        pixels: ``(B, H, W, C)``.
        corners: rows and columns, ``(B, rows, columns, 2)``.
        block: extent of a block.
        margin: what it is widened by on all sides.

    Returns:
        ``(B, rows, columns, extent, extent, C)``.
    """
    batch, height, width, channels = pixels.shape
    steps = torch.arange(-margin, block + margin, device=pixels.device)
    top, left = corners.unbind(-1)
    y = (top[..., None] + steps).clamp(0, height - 1)
    x = (left[..., None] + steps).clamp(0, width - 1)
    first = torch.arange(batch, device=pixels.device).view(-1, 1, 1, 1, 1) * (height * width)
    index = first + y[..., :, None] * width + x[..., None, :]
    flat = pixels.reshape(-1, channels)
    return flat.index_select(0, index.flatten()).view(*index.shape, channels)
