"""Neighbourhoods on an absolute grid: blocks of positions and the halo around each.

The map is cut into blocks whose corners lie at multiples of the block's extent, counted from
the map's first position. Every position of a block looks at the same neighbourhood, the block
widened by a halo on all sides, so that the cost is positions times neighbourhood and the
neighbours come from plain memory copies. All functions take maps of any number of dimensions.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def cut(
    x: Tensor, block: Sequence[int], halo: Sequence[int], held: tuple[int, int] = (0, 0)
) -> Tensor:
    """Cut a map into blocks, each widened by a halo; zeros stand where the map has ended.

    Args:
        x: ``(B, C, *size)``.
        block: extents of a block, in positions.
        halo: positions added on each side.
        held: how many of its first and of its last rows belong to the halo.

    Returns:
        ``(B, C, *counts, *extents)`` with ``extents = block + 2 * halo``: a view of the padded
        map, in which neighbours overlap.
    """
    # A block less one position at the end is enough for any size; unfold leaves the surplus.
    padding = [p for b, h in zip(block, halo, strict=True) for p in (h + b - 1, h)][::-1]
    padding[-2:] = [padding[-2] - held[0], padding[-1] - held[1]]
    x = F.pad(x, padding)
    for axis, (b, h) in enumerate(zip(block, halo, strict=True), start=2):
        x = x.unfold(axis, b + 2 * h, b)
    return x


def rows(x: Tensor) -> Tensor:
    """Copy cut blocks to rows of features: ``(B, C, *counts, *extents)`` to ``(B * blocks, N, C)``.

    Blocks and the positions of a block stand in reading order.
    """
    dims = (x.ndim - 2) // 2
    extents = math.prod(x.shape[2 + dims :])
    return x.movedim(1, -1).reshape(-1, extents, x.shape[1])


def from_blocks(blocks: Tensor, block: Sequence[int], size: Sequence[int]) -> Tensor:
    """Put blocks without halo back together: the inverse of :func:`cut` and :func:`rows`.

    Args:
        blocks: ``(B * blocks, N, C)`` in reading order, with N the positions of a block.
        block: extents of a block.
        size: extents of the map.

    Returns:
        ``(B, C, *size)``; as the blocks do, it holds the features of a position side by side.
    """
    dims = len(block)
    counts = [(s + b - 1) // b for s, b in zip(size, block, strict=True)]
    x = blocks.reshape(-1, *counts, *block, blocks.shape[2])
    order = [axis + 1 + part * dims for axis in range(dims) for part in range(2)]
    x = x.permute(0, *order, 2 * dims + 1)
    extents = (c * b for c, b in zip(counts, block, strict=True))
    x = x.reshape(len(x), *extents, x.shape[-1]).movedim(-1, 1)
    for axis, extent in enumerate(size, start=2):
        if torch.compiler.is_exporting():
            # That slices end inside the map is beyond the exporter's algebra.
            x = x.index_select(axis, torch.arange(extent, device=x.device))
        else:
            x = x.narrow(axis, 0, extent)
    return x


def inside(
    size: Sequence[int],
    block: Sequence[int],
    halo: Sequence[int],
    device: torch.device,
    held: tuple[int, int] = (0, 0),
) -> Tensor:
    """Tell which positions of each widened block lie inside the map; see :func:`cut`.

    Returns:
        Boolean ``(1, 1, *counts, *extents)``, as :func:`cut` gives it.
    """
    return cut(torch.ones((1, 1, *size), device=device), block, halo, held) > 0


def pieces(counts: Sequence[int], limit: int) -> Iterator[tuple[slice, ...]]:
    """Split a grid of blocks into boxes of at most ``limit`` blocks (at least one), in order.

    A box spans several rows of the first dimension, or one row and a box of the dimensions that
    follow.
    """
    rest = math.prod(counts[1:])
    if rest > limit and len(counts) > 1:
        for first in range(counts[0]):
            for box in pieces(counts[1:], limit):
                yield slice(first, first + 1), *box
        return
    step = max(1, limit // max(1, rest))
    for first in range(0, counts[0], step):
        yield slice(first, first + step), *(slice(None) for _ in counts[1:])


def strips(height: int, step: int, halo: int) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Split rows into strips, in order.

    Args:
        height: how many rows there are.
        step: of a strip, a multiple of the block's extent.
        halo: rows that a block looks at on both sides.

    Yields:
        The rows of a strip, those that it looks at, and how many of these are its halo, above and
        below, as :func:`cut` takes them.
    """
    for top in range(0, height, step):
        bottom = min(height, top + step)
        above, below = max(0, top - halo), min(height, bottom + halo)
        yield slice(top, bottom), slice(above, below), (top - above, below - bottom)


def neighbourhoods(
    positions: Tensor, size: Sequence[int], block: Sequence[int], window: Sequence[int]
) -> Tensor:
    """Tell which positions of a map lie in the neighbourhood of each chosen one.

    Args:
        positions: integers ``(P,)`` in reading order.
        size: extents of the map.
        block: extents of a block.
        window: extents of a block with its halo.

    Returns:
        Boolean ``(P, N)``.
    """
    chosen = torch.stack(torch.unravel_index(positions, tuple(size)), dim=1)
    every = torch.cartesian_prod(*(torch.arange(s, device=positions.device) for s in size))
    extents, wide = (torch.tensor(e, device=positions.device) for e in (block, window))
    first = chosen // extents * extents - (wide - extents) // 2
    away = every.view(-1, len(size)) - first[:, None]
    return ((away >= 0) & (away < wide)).all(-1)
