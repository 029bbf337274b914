"""Tiles with a halo: a large picture piece by piece, with the result of the whole."""

import math
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor


def tiled(
    network: Callable[..., tuple[Tensor, ...]],
    maps: Sequence[Tensor],
    tile: int,
    reach: int,
    grid: int,
) -> tuple[Tensor, ...]:
    """Apply a network tile by tile.

    Each tile is computed with a halo as wide as the network reaches and cropped before it is
    put in place, so that nothing is blended and no seam can arise.

    Args:
        network: takes a tile of each map, ``(B, C, h, w)``, and returns maps ``(B, D, h, w)``.
        maps: what it is applied to, each ``(B, C, H, W)``.
        tile: largest extent of a tile without its halo; at least ``grid`` is taken.
        reach: how many positions away an input changes an output.
        grid: tiles and halos start at multiples of this.

    Returns:
        What ``network(*maps)`` returns.
    """
    height, width = maps[0].shape[2:]
    if max(height, width) <= tile:
        return network(*maps)
    halo = math.ceil(reach / grid) * grid
    outputs: tuple[Tensor, ...] = ()
    for top, bottom in _spans(height, tile, grid):
        for left, right in _spans(width, tile, grid):
            above, before = max(0, top - halo), max(0, left - halo)
            seen = (..., slice(above, bottom + halo), slice(before, right + halo))
            pieces = network(*(m[seen] for m in maps))
            if not outputs:
                outputs = tuple(p.new_empty(*p.shape[:2], height, width) for p in pieces)
            inner = (..., slice(top - above, bottom - above), slice(left - before, right - before))
            for output, piece in zip(outputs, pieces, strict=True):
                output[..., top:bottom, left:right] = piece[inner]
    return outputs


def _spans(extent: int, tile: int, grid: int) -> Iterator[tuple[int, int]]:
    """Cut an extent into spans of at most ``tile``, as equal as the grid allows."""
    tile = max(grid, tile // grid * grid)
    count = math.ceil(extent / tile)
    step = math.ceil(extent / count / grid) * grid
    for start in range(0, extent, step):
        yield start, min(extent, start + step)
