"""Neighbourhoods on an absolute grid: blocks of positions and the halo around each.

The map is cut into blocks whose corners lie at multiples of the block's extent, counted from
the map's first position. Every position of a block looks at the same neighbourhood, the block
widened by a halo on all sides, so that the cost is positions times neighbourhood and the
neighbours come from plain memory copies.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def to_blocks(x: Tensor, block: int, halo: int = 0) -> Tensor:
    """Cut a map into blocks, each widened by a halo; zeros stand where the map has ended.

    Args:
        x: ``(B, C, H, W)``.
        block: extent of a block, in positions.
        halo: positions added on each side.

    Returns:
        ``(B * blocks, N, C)`` with ``N = (block + 2 * halo) ** 2``; blocks in reading order.
    """
    batch, channels, height, width = x.shape
    below, right = -height % block, -width % block
    x = F.pad(x, (halo, halo + right, halo, halo + below))
    extent = block + 2 * halo
    x = x.unfold(2, extent, block).unfold(3, extent, block)  # (B, C, rows, columns, e, e)
    rows, columns = x.shape[2], x.shape[3]
    return x.permute(0, 2, 3, 4, 5, 1).reshape(batch * rows * columns, extent * extent, channels)


def from_blocks(blocks: Tensor, block: int, size: tuple[int, int]) -> Tensor:
    """Put blocks without halo back together: the inverse of :func:`to_blocks`.

    Args:
        blocks: ``(B * blocks, block * block, C)`` in reading order.
        block: extent of a block.
        size: height and width of the map.

    Returns:
        ``(B, C, H, W)``.
    """
    height, width = size
    rows, columns = -(-height // block), -(-width // block)
    x = blocks.unflatten(0, (-1, rows, columns)).unflatten(3, (block, block))
    x = x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
    return x[:, :, :height, :width]


def inside(size: tuple[int, int], block: int, halo: int, device: torch.device) -> Tensor:
    """Tell which positions of each widened block lie inside the map.

    Returns:
        Boolean ``(blocks, N)``, in the order of :func:`to_blocks`.
    """
    ones = torch.ones((1, 1, *size), device=device)
    return to_blocks(ones, block, halo)[..., 0] > 0
