import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.media.color import YCbCr, halve, pack_yuv420
from nlden.noise.synthesis import quantize, store_yuv420, white_gaussian, ycbcr_gaussian

COLORS = [YCbCr(m, full_range=f) for m in ("bt601", "bt709", "bt2020") for f in (False, True)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_white_noise_is_gaussian_and_independent_between_channels():
    noise = white_gaussian(torch.zeros(3, 300, 300), torch.tensor(0.1), generator()) / 0.1
    flat = noise.flatten(1).double()
    assert torch.allclose(flat.cov(), torch.eye(3, dtype=torch.float64), atol=0.015)
    assert flat.mean().abs() < 0.01
    for share, bound in ((0.6827, 1), (0.9545, 2), (0.9973, 3)):
        assert (flat.abs() < bound).double().mean().item() == pytest.approx(share, abs=0.005)


def test_white_noise_is_neither_clipped_nor_rounded_and_zero_changes_nothing():
    x = torch.rand(3, 32, 32, generator=generator(1))
    noisy = white_gaussian(x, torch.tensor(0.5), generator())
    assert noisy.min() < 0
    assert noisy.max() > 1
    assert torch.equal(white_gaussian(x, torch.tensor(0.0), generator()), x)
    twice = white_gaussian(x, torch.tensor(1.0), generator())
    assert torch.allclose(twice - x, 2 * (noisy - x), atol=1e-6)


@pytest.mark.parametrize("make", ["white", "ycbcr"])
def test_a_seed_fixes_the_noise(make):
    x = torch.rand(2, 3, 8, 9, generator=generator(1))
    level = torch.tensor([0.1, 0.2])

    def noisy(seed):
        if make == "white":
            return white_gaussian(x, level.view(2, 1, 1, 1), generator(seed))
        return ycbcr_gaussian(x, level, level, COLORS[0], generator(seed))

    assert torch.equal(noisy(3), noisy(3))
    assert not torch.equal(noisy(3), noisy(4))


@pytest.mark.parametrize("color", COLORS, ids=str)
def test_noise_of_ycbcr_follows_the_theory_in_each_picture(color):
    x = torch.full((2, 3, 256, 256), 0.4)
    luma, chroma = torch.tensor([0.1, 0.02]), torch.tensor([0.05, 0.2])
    noisy = ycbcr_gaussian(x, luma, chroma, color, generator())
    noise = color.from_rgb(noisy) - color.from_rgb(x)
    unit_luma, unit_chroma = color.plane_levels(1.0)
    for picture in range(2):
        cov = noise[picture].flatten(1).double().cov()
        expected = torch.tensor(
            [luma[picture] * unit_luma, *[chroma[picture] * unit_chroma] * 2], dtype=torch.float64
        )
        assert torch.allclose(cov.diagonal().sqrt(), expected, rtol=0.03)
        correlation = cov / (expected[:, None] * expected)
        assert (correlation - correlation.diagonal().diag()).abs().max() < 0.03
    # Chroma is interpolated along rows: neighbours there are alike, not below one another.
    across = noise[0, 1, :, 1:] * noise[0, 1, :, :-1]
    down = noise[0, 1, 1:] * noise[0, 1, :-1]
    assert across.mean() > 0.4 * noise[0, 1].var()
    assert down.mean().abs() < 0.05 * noise[0, 1].var()


def test_noise_of_luma_alone_is_grey():
    x = torch.rand(1, 3, 16, 17, generator=generator())
    noise = ycbcr_gaussian(x, torch.tensor([0.1]), torch.zeros(1), YCbCr(), generator()) - x
    assert noise.std() > 0.05
    assert torch.allclose(noise, noise.mean(1, keepdim=True).expand_as(noise), atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(bits=st.integers(1, 16), seed=st.integers(0, 9))
def test_quantized_values_are_codes_and_stay_what_they_are(bits, seed):
    x = torch.randn(500, generator=generator(seed), dtype=torch.float64)
    stored = quantize(x, bits)
    codes = stored * (2**bits - 1)
    assert torch.allclose(codes, codes.round(), atol=1e-9)
    assert torch.equal(quantize(stored, bits), stored)
    assert (stored - x.clamp(0, 1)).abs().max() <= 0.5 / (2**bits - 1) + 1e-12
    assert 0 <= stored.min() <= stored.max() <= 1


@pytest.mark.parametrize("color", COLORS, ids=str)
def test_stored_planes_are_the_converted_ones_and_noise_arrives_at_its_levels(color):
    x = torch.rand(1, 3, 6, 10, generator=generator())
    planes = color.from_rgb(x)
    chroma = planes[:, 1:].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    assert torch.allclose(store_yuv420(x, color), pack_yuv420(planes[:, :1], chroma), atol=1e-6)
    assert torch.allclose(chroma, halve(planes[:, 1:]), atol=1e-6)

    clean = torch.full((1, 3, 512, 512), 0.5)
    noisy = white_gaussian(clean, torch.tensor(0.1), generator())
    noise = store_yuv420(noisy, color) - store_yuv420(clean, color)
    luma, chroma_level = color.plane_levels(0.1, averaged=4)
    for channel in range(4):
        assert noise[:, channel].std().item() == pytest.approx(luma, rel=0.015)
    assert noise[:, 4:].square().mean().sqrt().item() == pytest.approx(chroma_level, rel=0.015)
