import pytest
import torch
from skimage import data as photographs

from nlden.media.color import YCbCr
from nlden.noise.estimation import estimate_chroma, estimate_levels, estimate_sigma
from nlden.noise.synthesis import quantize, store_yuv420, white_gaussian, ycbcr_gaussian


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(name):
    x = torch.from_numpy(getattr(photographs, name)())
    return (x if x.ndim == 3 else x[..., None]).permute(2, 0, 1) / 255


def test_white_noise_has_its_mean_level_and_no_memory():
    x = torch.full((2, 3, 200, 200), 0.5)
    sigma = torch.tensor([0.05, 0.2]).view(2, 1, 1, 1)
    noise = white_gaussian(x, sigma, generator()) - x
    assert noise.mean().abs() < 1e-3
    assert torch.allclose(noise.std((1, 2, 3)), sigma.flatten(), rtol=0.02)
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean((1, 2, 3)) / sigma.flatten() ** 2
    assert neighbours.abs().max() < 0.02
    assert torch.equal(white_gaussian(x, sigma, generator()), noise + x)


@pytest.mark.parametrize("color", [YCbCr("bt709"), YCbCr("bt601", full_range=True)])
def test_noise_in_ycbcr_has_the_told_levels(color):
    x = torch.full((1, 3, 256, 256), 0.5)
    luma, chroma = torch.tensor([0.1]), torch.tensor([0.03])
    noise = ycbcr_gaussian(x, luma, chroma, color, generator()) - x
    planes = color.from_rgb(noise) - color.offsets()[:, None, None]
    unit = color.plane_levels(1.0)
    assert planes[:, 0].std() == pytest.approx(0.1 * unit[0], rel=0.03)
    assert planes[:, 1:].std() == pytest.approx(0.03 * unit[1], rel=0.05)
    assert abs(float((planes[:, 0] * planes[:, 1]).mean())) < 1e-4


def test_quantize_lies_on_the_codes_and_is_idempotent():
    x = torch.randn(1000, generator=generator())
    codes = quantize(x) * 255
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert torch.equal(quantize(quantize(x)), quantize(x))
    assert (quantize(x) - x.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def test_storage_carries_noise_as_the_theory_says():
    color = YCbCr("bt709")
    x = torch.full((1, 3, 512, 512), 0.5)
    noisy = white_gaussian(x, torch.tensor(25 / 255), generator())
    noise = store_yuv420(noisy, color) - store_yuv420(x, color)
    luma, chroma = color.plane_levels(25 / 255, averaged=4)
    assert noise[:, :4].std() == pytest.approx(luma, rel=0.01)
    assert noise[:, 4:].std() == pytest.approx(chroma, rel=0.02)
    assert 255 * luma == pytest.approx(16.1, abs=0.05)


def test_pure_noise_is_measured():
    x = 0.5 + 0.1 * torch.randn(512, 512, generator=generator())
    assert estimate_sigma([x]) == pytest.approx(0.1, rel=0.03)
    assert estimate_sigma([x, x]) == pytest.approx(estimate_sigma([x]))
    assert estimate_sigma([2 * x]) == pytest.approx(2 * estimate_sigma([x]), rel=1e-4)
    smooth = torch.nn.functional.avg_pool2d(x[None], 1)[0]
    assert estimate_chroma([smooth]) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat", "camera", "rocket"])
@pytest.mark.parametrize("sigma", [10, 25, 50])
def test_noise_on_photographs_is_measured(name, sigma):
    clean = picture(name)
    noisy = white_gaussian(clean, torch.tensor(sigma / 255), generator())
    levels = estimate_levels([(noisy,)])
    assert 255 * levels.luma == pytest.approx(sigma, rel=0.15)


def test_black_bars_and_titles_do_not_count():
    noisy = 0.5 + 0.1 * torch.randn(400, 400, generator=generator())
    noisy[:150] = noisy[-100:] = 0
    assert estimate_sigma([noisy]) == pytest.approx(0.1, rel=0.06)


@pytest.mark.parametrize("x", [torch.zeros(64, 64), torch.rand(3, 3), torch.rand(1, 50)])
def test_where_nothing_can_be_measured_the_level_is_zero(x):
    assert estimate_sigma([x]) == 0
    assert estimate_sigma([]) == 0
