import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter
from torch.nn import functional as F

from nlden.attention import copy_blocks, match_blocks, smooth_displacement


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
    least = min(errors.values())
    extent = block + 2 * margin
    for place in errors:  # half a standard deviation of a sum of squares for each pixel
        away = math.dist(place, start)
        errors[place] += 0.75 / math.sqrt(2) * away * least * math.sqrt(2) / extent
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
        # The part of a pixel is at most three quarters to either side of the least error.
        # Repeated borders make equal places, which rounding tells apart.
        y, x_ = found[b, row, column].tolist()
        near = [e for (i, j), e in errors.items() if abs(i - y) <= 0.75 and abs(j - x_) <= 0.75]
        assert min(near) == pytest.approx(min(errors.values()), rel=1e-9, abs=1e-9)


def waves(size: int, down: float = 0.0, right: float = 0.0) -> torch.Tensor:
    """A smooth picture, sampled anywhere: no interpolation makes it."""
    y = torch.arange(size, dtype=torch.float64)[:, None] + down
    x = torch.arange(size, dtype=torch.float64) + right
    picture = (0.21 * y).sin() + (0.17 * x).cos() + (0.1 * y + 0.13 * x).sin()
    return picture[None, None]


@settings(max_examples=20)
@given(down=st.floats(-3, 3), right=st.floats(-3, 3))
@example(down=1.6875, right=1.65625)  # the least error lies more than half a pixel away
def test_a_smooth_motion_is_found_and_copied_to_a_part_of_a_pixel(down, right):
    x, other = waves(64), waves(64, -down, -right)  # other(p + (down, right)) = x(p)
    found = match_blocks(x, other, block=16, margin=4, reach=4)
    inner = found[0, 1:3, 1:3]
    assert (inner - torch.tensor([down, right])).abs().max() < 0.05
    moved = torch.tensor([down, right])
    laid = copy_blocks(other, torch.full_like(found, 0.0) + moved, 16)
    expected = waves(64, *((32 * moved).round() / 32 - moved).tolist())
    inside = (..., slice(8, -8), slice(8, -8))
    assert (laid - expected)[inside].abs().max() < 0.013  # of -3 to 3


def test_a_moved_picture_is_found_and_a_flat_one_stays():
    scene = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    x, other = scene[..., 8:40, 8:40], scene[..., 5:37, 13:45]
    found = match_blocks(x, other, block=8, margin=0, reach=6)
    assert (found[0, 1:3, 1:3] - torch.tensor([3, -5])).abs().max() < 1 / 16
    flat = torch.full((1, 1, 16, 16), 0.3)
    assert not match_blocks(flat, flat, block=8, margin=2, reach=3).any()


def test_blocks_are_matched_in_full_precision_under_autocast():
    x = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)) + 100
    other = x.roll((2, -3), dims=(2, 3))
    plain = match_blocks(x, other, block=8, margin=2, reach=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(match_blocks(x, other, block=8, margin=2, reach=4), plain)


@settings(max_examples=20)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    block=st.sampled_from([2, 4, 8]),
    eighths=st.integers(-40, 40),
    seed=st.integers(0, 99),
)
def test_copies_are_a_lanczos_interpolation_of_the_padded_picture(
    height, width, block, eighths, seed
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    moved = torch.full((2, -(-height // block), -(-width // block), 2), eighths / 8.0)
    y = copy_blocks(x, moved, block)
    pad = 12
    wide = F.pad(x, (pad,) * 4, mode="replicate")
    whole, part = eighths // 8, eighths % 8 / 8
    taps = torch.tensor([1.0], dtype=torch.float64)
    if part:
        away = torch.pi * (torch.arange(-2, 4, dtype=torch.float64) - part)
        taps = 3 * away.sin() * (away / 3).sin() / away**2
        taps /= taps.sum()
    first = -2 if part else 0
    expected = torch.zeros_like(x)
    for i, a in enumerate(taps):
        for j, b in enumerate(taps):
            top, left = pad + whole + first + i, pad + whole + first + j
            expected += a * b * wide[..., top : top + height, left : left + width]
    assert torch.allclose(y, expected, atol=1e-12)


def test_whole_pixels_are_copied_as_they_are():
    x = torch.randn(2, 3, 21, 30, generator=torch.Generator().manual_seed(0))
    moved = torch.randint(-9, 10, (2, 3, 4, 2), generator=torch.Generator().manual_seed(1))
    assert torch.equal(copy_blocks(x, moved, 8), copy_blocks(x, moved.float(), 8))


def test_pictures_of_a_batch_know_nothing_of_each_other():
    x, other = torch.rand(2, 3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    together = match_blocks(x, other, block=8, margin=2, reach=2)
    laid = copy_blocks(other, together, 8)
    for i in range(3):
        alone = match_blocks(x[i : i + 1], other[i : i + 1], block=8, margin=2, reach=2)
        assert torch.equal(alone, together[i : i + 1])
        assert torch.equal(copy_blocks(other[i : i + 1], alone, 8), laid[i : i + 1])


@settings(max_examples=15)
@given(rows=st.integers(1, 7), columns=st.integers(1, 7), seed=st.integers(0, 99))
def test_the_blocks_around_outvote_a_displacement(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(2, rows, columns, 2, generator=generator) - 1
    expected = x.double().numpy()
    for _ in range(2):
        expected = median_filter(expected, size=(1, 3, 3, 1), mode="nearest")
    for _ in range(2):
        wide = np.pad(expected, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        for place in np.ndindex(expected.shape[:3]):
            picture, row, column = place
            near = wide[picture, row : row + 3, column : column + 3].reshape(9, 2)
            expected[place] = near[np.abs(near - near[4]).max(1) <= 0.5].mean(0)
    whole = expected.round()
    expected = np.where(np.abs(expected - whole) < 1 / 16, whole, expected)
    assert torch.allclose(smooth_displacement(x).double(), torch.from_numpy(expected), atol=1e-6)


def test_one_block_is_outvoted_and_the_border_of_what_moves_stays():
    x = torch.zeros(1, 6, 8, 2)
    x[:, :, 4:] = torch.tensor([3.0, -2.5])
    wrong = x.clone()
    wrong[:, 2, 1] = 7.0
    wrong[:, 4, 6] = -4.0
    assert torch.equal(smooth_displacement(wrong), x)
