import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from skimage import data as photographs
from torch.nn import functional as F

from nlden.media.color import YCbCr, halve
from nlden.noise.compression import compress_jpeg, compress_video
from nlden.noise.estimation import Levels, estimate_chroma, estimate_levels, estimate_sigma
from nlden.noise.synthesis import quantize, white_gaussian


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(name):
    x = torch.from_numpy(getattr(photographs, name)())
    x = (x if x.ndim == 3 else x[..., None]).permute(2, 0, 1) / 255
    return x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]


NAMES = ["astronaut", "coffee", "cat", "rocket", "camera"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma", [10, 25, 50])
def test_white_noise_on_photographs(name, sigma):
    noisy = white_gaussian(picture(name), torch.tensor(sigma / 255), generator())
    assert 255 * estimate_sigma(list(noisy)) == pytest.approx(sigma, rel=0.12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma", [10, 25])  # at 50, clipping takes a part of the noise
def test_white_noise_that_was_stored_in_eight_bits(name, sigma):
    noisy = quantize(white_gaussian(picture(name), torch.tensor(sigma / 255), generator()))
    assert 255 * estimate_sigma(list(noisy)) == pytest.approx(sigma, rel=0.12)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "camera"])
@pytest.mark.parametrize("color", [YCbCr("bt709"), YCbCr("bt601", full_range=True)], ids=str)
def test_the_levels_of_stored_planes(name, color):
    noisy = quantize(white_gaussian(picture(name), torch.tensor(25 / 255), generator()))
    planes = color.from_rgb(noisy)
    found = estimate_levels([(quantize(planes[:1]), quantize(halve(planes[None, 1:])[0]))])
    luma, chroma = color.plane_levels(25 / 255, averaged=4)
    assert found.luma == pytest.approx(luma, rel=0.12)
    assert found.chroma == pytest.approx(chroma, rel=0.15)


@settings(deadline=None, max_examples=12)
@given(sigma=st.floats(0.005, 0.3), seed=st.integers(0, 99), count=st.integers(1, 3))
def test_pure_noise_in_any_number_of_planes(sigma, seed, count):
    planes = 0.5 + sigma * torch.randn(count, 512, 512, generator=generator(seed))
    assert estimate_sigma(list(planes)) == pytest.approx(sigma, rel=0.03)


@settings(deadline=None, max_examples=10)
@given(factor=st.floats(0.1, 2))
def test_the_estimate_scales_with_the_picture(factor):
    # Around mid-grey, so that no block lies in black or white.
    x = 0.2 * (picture("astronaut")[0] - 0.5)
    one = estimate_sigma([0.5 + x])
    assert estimate_sigma([0.5 + factor * x]) == pytest.approx(factor * one, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 16 / 255, 0.37, 128 / 255, 1.0])
def test_a_flat_picture_has_no_noise(value):
    assert estimate_sigma([torch.full((100, 120), value)]) == pytest.approx(0, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_every_size_is_measured_or_zero(height, width):
    plane = 0.5 + 0.1 * torch.randn(height, width, generator=generator())
    sigma = estimate_sigma([plane])
    if min(height, width) < 4:
        assert sigma == 0
    else:
        assert 0 < sigma < 0.3
    assert estimate_chroma([plane, plane]) >= 0


@pytest.mark.parametrize("bar", [0.0, 16 / 255, 1.0])
@pytest.mark.parametrize("rows", [40, 64, 101])
@pytest.mark.parametrize("sideways", [False, True], ids=["letterbox", "pillarbox"])
def test_bars_are_ignored(bar, rows, sideways):
    noisy = white_gaussian(picture("astronaut")[:1, :256], torch.tensor(0.1), generator())
    boxed = F.pad(noisy, (0, 0, rows, rows), value=bar)
    if sideways:
        noisy, boxed = noisy.mT, boxed.mT
    assert estimate_sigma(list(boxed)) == pytest.approx(estimate_sigma(list(noisy)), rel=0.05)


def page(size):
    """Letters on a dark ground, from edge to edge: no block is without them."""
    image = Image.new("L", (400, 304), 40)
    letters = "the quick brown fox jumps over the lazy dog " * 4
    for y in range(2, 304, size * 4 // 3):
        ImageDraw.Draw(image).text((2 - y, y), letters, 200, font=ImageFont.load_default(size))
    return torch.from_numpy(np.array(image))[None].float() / 255


@pytest.mark.parametrize("size", [10, 14, 24])
def test_letters_are_no_noise(size):
    assert estimate_sigma(list(page(size))) == 0


@pytest.mark.parametrize("sigma", [3, 10, 25])
def test_noise_on_letters_is_seen(sigma):
    noisy = quantize(white_gaussian(page(14), torch.tensor(sigma / 255), generator()))
    assert 255 * estimate_sigma(list(noisy)) > sigma


def test_filmed_letters_are_no_noise():
    frames = compress_video(page(14).expand(6, 3, -1, -1), crf=23)
    assert estimate_sigma(list(frames[:, 1])) == 0


@pytest.mark.parametrize("size", [10, 14, 24])
def test_of_letters_in_a_jpeg_the_artefacts_alone_are_seen(size):
    clean = page(size).expand(1, 3, -1, -1)
    stored = compress_jpeg(clean, 90)
    artefacts = float((stored - clean).square().mean().sqrt())
    assert estimate_sigma(list(stored[0])) < 2.5 * artefacts


def test_chroma_without_colour_or_noise_is_zero():
    assert estimate_chroma([torch.full((64, 64), 128 / 255)] * 2) == 0


def test_levels_of_all_kinds_of_pictures():
    noise = torch.randn(3, 256, 256, generator=generator())
    rgb = 0.5 + 0.1 * noise
    levels = estimate_levels([(rgb,)])
    assert levels.luma == levels.chroma == estimate_sigma(list(rgb))
    gray = estimate_levels([(rgb[:1],)])
    assert gray.luma == pytest.approx(0.1, rel=0.04)
    planes = (0.5 + 0.1 * noise[:1], 0.5 + 0.03 * noise[1:, ::2, ::2])
    levels = estimate_levels([planes, planes])
    assert (levels.luma, levels.chroma) == pytest.approx((0.1, 0.03), rel=0.06)
    assert estimate_levels([]) == Levels(0, 0)


def test_several_frames_are_measured_together():
    calm = 0.5 + 0.05 * torch.randn(1, 256, 256, generator=generator())
    rough = 0.5 + 0.2 * torch.randn(1, 256, 256, generator=generator(1))
    assert estimate_levels([(calm,), (rough,)]).luma == pytest.approx(0.05, rel=0.06)
