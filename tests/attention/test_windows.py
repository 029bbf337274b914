"""Cutting into blocks and putting together, in one to three dimensions."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention.windows import cut, from_blocks, inside, pieces, rows


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@st.composite
def grids(draw, largest=12):
    """Size, block and halo of a map of one to three dimensions."""
    dims = draw(st.integers(1, 3))

    def numbers(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    return numbers(1, largest), numbers(1, 5), numbers(0, 3)


@settings(deadline=None, max_examples=40)
@given(grid=grids())
def test_blocks_go_back_together(grid):
    size, block, _ = grid
    x = randn(2, 3, *size)
    assert torch.equal(from_blocks(rows(cut(x, block, [0] * len(size))), block, size), x)


@settings(deadline=None, max_examples=25)
@given(grid=grids(7))
def test_each_block_holds_its_neighbourhood_and_knows_what_is_inside(grid):
    size, block, halo = grid
    x = randn(2, 3, *size)
    blocks = rows(cut(x, block, halo)).unflatten(0, (2, -1))
    mask = rows(inside(size, block, halo, x.device))[..., 0]
    assert (blocks[:, ~mask] == 0).all()
    corners = itertools.product(*(range(0, s, b) for s, b in zip(size, block, strict=True)))
    for number, corner in enumerate(corners):
        box = tuple(
            slice(max(0, c - h), c + b + h) for c, b, h in zip(corner, block, halo, strict=True)
        )
        expected = x[(0, slice(None), *box)].flatten(1).T
        assert torch.equal(blocks[0, number][mask[number]], expected)


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=3), limit=st.integers(1, 80))
def test_pieces_keep_the_order_and_the_limit(counts, limit):
    numbers = torch.arange(torch.tensor(counts).prod()).view(*counts)
    boxes = [numbers[box] for box in pieces(counts, limit)]
    assert all(box.numel() <= limit for box in boxes)
    assert torch.equal(torch.cat([box.flatten() for box in boxes]), numbers.flatten())


def test_cutting_copies_nothing_but_the_padding():
    x = randn(1, 2, 8, 8)
    assert cut(x, (4, 4), (2, 2)).untyped_storage().nbytes() == 2 * (8 + 2 * 2 + 3) ** 2 * 4
