import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlden.attention import cross_non_local, cross_non_local_means, match_blocks


def errors_of_places(x, other, top, left, block, margin, reach, start):
    """The error of every place of one block by the definition; borders are repeated."""

    def piece(picture, down, right):
        rows = torch.arange(top - margin + down, top + block + margin + down)
        columns = torch.arange(left - margin + right, left + block + margin + right)
        height, width = picture.shape
        return picture[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)]

    template = piece(x, 0, 0)
    errors = {}
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            error = (template - piece(other, start[0] + down, start[1] + right)).square().sum()
            error += 1e-4 * (down**2 + right**2) * template.var(correction=0)
            errors[start[0] + down, start[1] + right] = float(error)
    return errors


@settings(max_examples=15)
@given(
    height=st.integers(3, 21),
    width=st.integers(3, 21),
    block=st.sampled_from([2, 4, 8]),
    margin=st.integers(0, 2),
    reach=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_blocks_are_found_where_the_squared_difference_is_least(
    height, width, block, margin, reach, seed
):
    generator = torch.Generator().manual_seed(seed)
    x, other = torch.randn((2, 2, 1, height, width), generator=generator, dtype=torch.float64)
    counts = (2, -(-height // block), -(-width // block), 2)
    start = torch.randint(-2, 3, counts, generator=generator)
    found = match_blocks(x, other, block=block, margin=margin, reach=reach, around=start)
    assert found.shape == counts
    for b, row, column in torch.cartesian_prod(*(torch.arange(n) for n in counts[:3])).tolist():
        errors = errors_of_places(
            x[b, 0],
            other[b, 0],
            row * block,
            column * block,
            block,
            margin,
            reach,
            start[b, row, column].tolist(),
        )
        # Repeated borders make equal places, which rounding tells apart.
        place = tuple(found[b, row, column].tolist())
        assert errors[place] == pytest.approx(min(errors.values()), rel=1e-9, abs=1e-9)


def test_a_moved_picture_is_found_and_a_flat_one_stays():
    scene = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    x, other = scene[..., 8:40, 8:40], scene[..., 5:37, 13:45]
    found = match_blocks(x, other, block=8, margin=0, reach=6)
    assert (found[0, 1:3, 1:3] == torch.tensor([3, -5])).all()
    flat = torch.full((1, 1, 16, 16), 0.3)
    assert not match_blocks(flat, flat, block=8, margin=2, reach=3).any()


def plain(query, key, value, displacement, block, reach, width):
    """The formula, position by position, in float64."""
    stride = key.shape[2] // query.shape[2]
    height, across = key.shape[2:]
    output = torch.zeros(len(query), value.shape[1], *query.shape[2:], dtype=torch.float64)
    for b, i, j in torch.cartesian_prod(
        torch.arange(len(query)), *(torch.arange(s) for s in query.shape[2:])
    ).tolist():
        row, column = i * stride // block, j * stride // block
        down, right = displacement[b, row, column].tolist()
        top, left = row * block + down - reach, column * block + right - reach
        rows = torch.arange(top, top + block + 2 * reach)
        columns = torch.arange(left, left + block + 2 * reach)
        away = (rows - i * stride - down)[:, None].square() + (
            columns - j * stride - right
        ).square()
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, across - 1)
        near, seen = (t[b][:, rows][:, :, columns].flatten(1) for t in (key, value))
        distance = (near - query[b, :, i, j, None]).square().sum(0)
        if width is not None:
            distance = distance + away.flatten() / width**2
        output[b, :, i, j] = seen @ torch.softmax(-distance / 2, dim=0)
    return output


@settings(max_examples=15)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    stride=st.sampled_from([1, 2]),
    block=st.sampled_from([2, 4]),
    reach=st.integers(0, 2),
    width=st.none() | st.floats(0.3, 3),
    seed=st.integers(0, 99),
)
def test_positions_gather_by_the_formula(rows, columns, stride, block, reach, width, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        return x.requires_grad_()

    query = normal(2, 3, rows, columns)
    key, value = (
        normal(2, 3, rows * stride, columns * stride),
        normal(2, 5, rows * stride, columns * stride),
    )
    counts = [math.ceil(s * stride / block) for s in (rows, columns)]
    moved = torch.randint(-9, 10, (2, *counts, 2), generator=generator)
    inputs = [query, key, value]
    if width is not None:
        width = torch.tensor(width, dtype=torch.float64, requires_grad=True)
        inputs.append(width)
    y = cross_non_local_means(query, key, value, moved, block=block, reach=reach, width=width)
    expected = plain(query, key, value, moved, block, reach, width)
    assert torch.allclose(y, expected, atol=1e-9)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(cross_non_local, "_PIECE", 1)  # inference in the smallest pieces
        pieces = cross_non_local_means(
            query, key, value, moved, block=block, reach=reach, width=width
        )
    assert torch.allclose(pieces, y, atol=1e-12)
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((y * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-8)


def test_likeness_finds_a_moved_pixel_between_others():
    scene = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    x, other = scene[..., 4:36, 4:36], scene[..., 3:35, 6:38]
    query, key = (F.unfold(p, 3, padding=1).unflatten(2, (32, 32)) / 0.01 for p in (x, other))
    none = torch.zeros(1, 4, 4, 2, dtype=torch.long)
    y = cross_non_local_means(query, key, other, none, block=8, reach=2)
    assert (y - x)[..., 4:-4, 4:-4].abs().max() < 1e-4


@pytest.mark.parametrize("batch", [1, 3])
def test_pictures_of_a_batch_know_nothing_of_each_other(batch):
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn((batch, n, 16, 24), generator=generator) for n in (4, 4, 6)]
    moved = torch.randint(-4, 5, (batch, 2, 3, 2), generator=generator)
    together = cross_non_local_means(*maps, moved, block=8, reach=1)
    for i in range(batch):
        alone = cross_non_local_means(
            *(m[i : i + 1] for m in maps), moved[i : i + 1], block=8, reach=1
        )
        assert torch.allclose(together[i : i + 1], alone, atol=1e-6)
