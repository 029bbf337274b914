import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs
from skimage.metrics import peak_signal_noise_ratio

from nlden.metrics import PlanePSNR, flicker


def noisy(codes, largest, rng):
    noise = rng.normal(0, largest / 20, codes.shape)
    return np.clip(np.round(codes + noise), 0, largest).astype(codes.dtype)


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_one_plane_is_what_scikit_image_computes(bits):
    largest = 2**bits - 1
    clean = (photographs.camera().astype(np.int64) * largest // 255).astype(np.int32)
    other = noisy(clean, largest, np.random.default_rng(0))
    psnr = PlanePSNR(peak=largest)
    psnr.update([torch.from_numpy(other)], [torch.from_numpy(clean)])
    expected = peak_signal_noise_ratio(clean, other, data_range=largest)
    assert psnr.compute() == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), min_size=1),
    seed=st.integers(0, 99),
)
def test_all_samples_of_all_planes_count_the_same(shapes, seed):
    rng = np.random.default_rng(seed)
    clean = [rng.integers(0, 256, s, dtype=np.uint8) for s in shapes]
    other = [255 - c for c in clean]  # never equal, as 255 is odd
    psnr = PlanePSNR()
    half = len(shapes) // 2
    for part in (slice(half), slice(half, None)):  # two pictures of different shapes
        psnr.update([torch.from_numpy(p) for p in other[part]], map(torch.from_numpy, clean[part]))
    pooled = [np.concatenate([p.ravel() for p in planes]) for planes in (clean, other)]
    assert psnr.compute() == pytest.approx(
        peak_signal_noise_ratio(*pooled, data_range=255), abs=1e-9
    )


def test_equal_pictures_are_infinitely_good_and_no_picture_is_an_error():
    psnr = PlanePSNR()
    with pytest.raises(ValueError, match="no picture"):
        psnr.compute()
    plane = torch.from_numpy(photographs.camera())
    psnr.update([plane], [plane])
    assert psnr.compute() == math.inf


def test_planes_of_another_number_are_refused():
    plane = torch.zeros(1, 4, 4)
    with pytest.raises(ValueError, match="zip"):
        PlanePSNR().update([plane], [plane, plane])


def test_planes_of_another_size_are_refused():
    with pytest.raises((ValueError, RuntimeError)):
        PlanePSNR().update([torch.zeros(1, 4, 4)], [torch.zeros(1, 4, 1)])


def test_flicker_is_the_change_of_the_error():
    clean = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    still = clean + 0.1  # an error that stands still
    assert flicker(still, clean) == pytest.approx(0, abs=1e-7)
    steps = torch.tensor([0.0, 0.1, -0.1, 0.0]).view(1, 4, 1, 1)
    assert flicker(clean + steps, clean) == pytest.approx((0.1 + 0.2 + 0.1) / 3, rel=1e-5)
    with pytest.raises(ValueError, match="two frames"):
        flicker(clean[:, :1], clean[:, :1])
