import math

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlden.inference.tiles import tiled

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def network(x, reach, grid):
    """Sum a box of pixels, then the block of the grid: both are seen wrong by a wrong tile."""
    y = F.conv2d(x, torch.ones(1, 1, 2 * reach + 1, 2 * reach + 1).to(x), padding=reach)
    height, width = y.shape[2:]
    y = F.pad(y, (0, -width % grid, 0, -height % grid))
    blocks = F.avg_pool2d(y, grid)
    return F.interpolate(blocks, scale_factor=grid)[:, :, :height, :width]


@settings(deadline=None, max_examples=25)
@given(
    size=SIZES,
    tile=st.integers(1, 80),
    reach=st.integers(0, 5),
    grid=st.sampled_from([1, 2, 3, 8, 16]),
    blocks=st.booleans(),
)
def test_tiles_give_what_the_whole_gives(size, tile, reach, grid, blocks):
    x = torch.randint(0, 100, (2, 1, *size), generator=torch.Generator().manual_seed(0)).double()
    inner = grid if blocks else 1
    whole_reach = reach + inner - 1  # a position sees the boxes of all positions of its block

    def both(y, other):
        return network(y, reach, inner), other

    pieces, same = tiled(both, [x, -x], [x, x], tile, whole_reach, grid)
    # Sums of integers are exact, but the mean of a block is rounded.
    assert torch.allclose(pieces, network(x, reach, inner), rtol=1e-12)
    assert torch.equal(same, -x)


@settings(deadline=None, max_examples=25)
@given(
    size=SIZES,
    tile=st.integers(1, 80),
    reach=st.integers(0, 20),
    grid=st.sampled_from([1, 4, 16]),
)
@example(size=(1, 65), tile=1, reach=0, grid=16)  # a row that is cut five times
def test_pieces_are_as_small_as_asked_and_lie_on_the_grid(size, tile, reach, grid):
    height, width = size
    places = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ).float()[None]
    extents = []

    def watch(piece):
        top, left = piece[0, :, 0, 0].int().tolist()
        extents.append((top, left, *piece.shape[2:]))
        return (piece,)

    assert torch.equal(*tiled(watch, [places], [places], tile, reach, grid), places)
    if height * width <= tile**2:
        assert extents == [(0, 0, height, width)]
        return
    halo = math.ceil(reach / grid) * grid
    for top, left, rows, columns in extents:
        assert top % grid == left % grid == 0
        inner = [max(grid, extent - 2 * halo) for extent in (rows, columns)]
        assert math.prod(inner) <= max(tile, grid) ** 2
    if tile <= grid:  # none is smaller than a step
        assert len(extents) <= math.ceil(height / grid) * math.ceil(width / grid)
    else:  # with fewer they would be larger, or far from square
        assert len(extents) <= 4 * math.ceil(height * width / tile**2)
