"""Tiles with a halo: a large picture piece by piece, with the result of the whole."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import Tensor

Scale: TypeAlias = tuple[float, float]


def tiled(
    network: Callable[..., tuple[Tensor, ...]],
    maps: Sequence[Tensor],
    like: Sequence[Tensor],
    tile: int,
    reach: int,
    grid: int,
    scales: Sequence[Scale] | None = None,
) -> tuple[Tensor, ...]:
    """Apply a network tile by tile.

    Each tile is computed with a halo as wide as the network reaches and cropped before it is
    put in place, so that nothing is blended and no seam can arise.

    Args:
        network: takes a tile of each map, ``(*, h, w)``, and returns maps ``(*, h, w)``.
        maps: what it is applied to, each ``(*, H, W)``.
        like: maps of the shapes and types of those that it returns, on whose device they are
            put together.
        tile: tiles without their halo are no larger than a square of this extent, or of ``grid``.
        reach: how many positions away an input changes an output.
        grid: tiles and halos start at multiples of this.
        scales: how many samples, down and across, each map, and the map that is returned in its
            place, has for a position by which tiles are measured; None is one of every map. On
            the grid they must be whole numbers.

    Returns:
        What ``network(*maps)`` returns.
    """
    scales = scales or [(1, 1)] * len(maps)
    height, width = (
        max(math.ceil(m.shape[axis] / s[axis]) for m, s in zip(maps, scales, strict=True))
        for axis in (-2, -1)
    )
    places = cut_tiles(height, width, tile, grid)
    if len(places) == 1:
        return network(*maps)
    halo = math.ceil(reach / grid) * grid
    outputs = tuple(t.new_empty(t.shape) for t in like)
    for top, bottom, left, right in places:
        # Where a tile begins decides where blocks lie; where it ends does not.
        above, before = max(0, top - halo), max(0, left - halo)
        seen = [_window(s, above, bottom + reach, before, right + reach) for s in scales]
        pieces = network(*(m[where] for m, where in zip(maps, seen, strict=True)))
        for output, piece, scale in zip(outputs, pieces, scales, strict=False):
            inner = (top - above, bottom - above, left - before, right - before)
            output[_window(scale, top, bottom, left, right)] = piece[_window(scale, *inner)]
    return outputs


def _window(scale: Scale, top: int, bottom: int, left: int, right: int) -> tuple[Any, ...]:
    """Return the part of a map that lies over some positions, as an index."""
    (down, across) = scale
    rows = slice(int(top * down), math.ceil(bottom * down))
    return (..., rows, slice(int(left * across), math.ceil(right * across)))


def cut_tiles(height: int, width: int, tile: int, grid: int) -> list[tuple[int, int, int, int]]:
    """Cut a picture into as few tiles of about a size as may be.

    Args:
        height: of the picture.
        width: of the picture.
        tile: none is larger than a square of this extent, or of ``grid``.
        grid: tiles begin at multiples of this.

    Returns:
        Top, bottom, left and right of each.
    """
    extents, counts = (height, width), [1, 1]
    while True:
        steps = [math.ceil(e / c / grid) * grid for e, c in zip(extents, counts, strict=True)]
        if math.prod(map(min, steps, extents)) <= tile**2 or max(steps) <= grid:
            break
        counts[steps.index(max(steps))] += 1
    rows, columns = (
        [(start, min(e, start + step)) for start in range(0, e, step)]
        for e, step in zip(extents, steps, strict=True)
    )
    return [(*row, *column) for row in rows for column in columns]
