"""Tiles with a halo: a large picture piece by piece, with the result of the whole."""

import math
from collections.abc import Callable, Iterator

from torch import Tensor


def tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, tile: int, reach: int, grid: int
) -> Tensor:
    """Apply a network tile by tile.

    Each tile is computed with a halo as wide as the network reaches and cropped before it is
    put in place, so that nothing is blended and no seam can arise.

    Args:
        network: maps ``(B, C, h, w)`` to ``(B, D, h, w)``.
        x: ``(B, C, H, W)``.
        tile: largest extent of a tile without its halo; at least ``grid`` is taken.
        reach: how many positions away an input changes an output.
        grid: tiles and halos start at multiples of this.

    Returns:
        What ``network(x)`` returns.
    """
    height, width = x.shape[2:]
    if max(height, width) <= tile:
        return network(x)
    halo = math.ceil(reach / grid) * grid
    output: Tensor | None = None
    for top, bottom in _spans(height, tile, grid):
        for left, right in _spans(width, tile, grid):
            above, before = max(0, top - halo), max(0, left - halo)
            piece = network(x[:, :, above : bottom + halo, before : right + halo])
            if output is None:
                output = piece.new_empty(*piece.shape[:2], height, width)
            output[:, :, top:bottom, left:right] = piece[
                :, :, top - above : bottom - above, left - before : right - before
            ]
    assert output is not None
    return output


def _spans(extent: int, tile: int, grid: int) -> Iterator[tuple[int, int]]:
    """Cut an extent into spans of at most ``tile``, as equal as the grid allows."""
    tile = max(grid, tile // grid * grid)
    count = math.ceil(extent / tile)
    step = math.ceil(extent / count / grid) * grid
    for start in range(0, extent, step):
        yield start, min(extent, start + step)
