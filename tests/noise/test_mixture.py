import pytest
import torch
from kornia.color import rgb_to_grayscale
from skimage import data as photographs

from nlden.noise import (
    compress_jpeg,
    draw_developed_noise,
    draw_real_noise,
    draw_sigma,
    quantize,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def clean():
    names = ("astronaut", "coffee", "chelsea", "rocket")
    crops = [torch.from_numpy(getattr(photographs, n)()[50:177, 100:228]) for n in names]
    return torch.stack(crops * 4).permute(0, 3, 1, 2) / 255


def test_noisy_pictures_are_stored_in_eight_bits_and_their_level_is_told(clean):
    drawn = draw_real_noise(clean, generator())
    assert torch.equal(drawn["clean"], clean)
    assert torch.allclose(quantize(drawn["noisy"]), drawn["noisy"], atol=1e-6)
    found = (drawn["noisy"] - clean).square().flatten(1).mean(1).sqrt()
    assert drawn["sigma"].shape == (16,)
    assert torch.allclose(drawn["sigma"], found, rtol=1e-4)
    # Levels of photographs: from hardly visible to strong, different in each.
    assert drawn["sigma"].min() > 0.2 / 255
    assert drawn["sigma"].max() < 60 / 255
    assert drawn["sigma"].max() > 3 * drawn["sigma"].min()


def test_the_noise_has_no_bias_in_mid_tones_and_follows_the_signal():
    tones = torch.tensor([0.3, 0.6]).repeat_interleave(64).view(1, 1, 1, 128)
    x = tones.expand(64, 3, 64, 128)
    drawn = draw_real_noise(x, generator())
    noise = drawn["noisy"] - x
    # Rounding to 8 bits, that of the sensor and the bend of the curve stay below a code or so.
    assert noise.mean().abs() < 1 / 255
    darker, lighter = noise[..., 4:60].std((1, 2, 3)), noise[..., 68:124].std((1, 2, 3))
    # The curve that lifts the shadows lifts their noise as well, more than light adds of it.
    strong = drawn["sigma"] > 2 / 255
    assert strong.sum() > 20
    assert (darker[strong] > lighter[strong]).double().mean() > 0.9


def test_about_half_of_the_pictures_have_coarse_noise():
    x = torch.full((200, 3, 48, 48), 0.5)
    noise = draw_real_noise(x, generator())["noisy"] - x
    noise = noise - noise.mean((2, 3), keepdim=True)
    alike = (noise[..., 2:] * noise[..., :-2]).mean((1, 2, 3)) / noise.square().mean((1, 2, 3))
    # Two pixels apart demosaicked noise is little correlated; a blur of a pixel makes it so.
    coarse = (alike > 0.35).double().mean().item()
    assert 0.2 < coarse < 0.5


def test_color_differences_are_stronger_and_in_every_other_picture_coarser_than_luma():
    x = torch.full((200, 3, 64, 64), 0.5)
    noise = draw_real_noise(x, generator())["noisy"] - x
    noise = noise - noise.mean((2, 3), keepdim=True)
    luma = rgb_to_grayscale(noise)
    colors = noise - luma
    strong = luma.std((1, 2, 3)) > 1 / 255  # not rounded away

    def alike(n):
        return (n[..., 3:] * n[..., :-3]).mean((1, 2, 3)) / n.square().mean((1, 2, 3))

    coarser = (alike(colors) > alike(luma) + 0.2)[strong].double().mean().item()
    assert 0.3 < coarser < 0.5  # some of the widths are below a pixel
    sharp = strong & (alike(colors) < 0.1)
    # Bilinear demosaicking leaves red and blue so much, and the colour matrix up to twice that.
    ratio = (colors.std((1, 2, 3)) / luma.std((1, 2, 3)))[sharp]
    assert ratio.quantile(0.9) > 1.5 * ratio.quantile(0.1)


def test_what_a_codec_did_is_part_of_the_noise(clean):
    coded = compress_jpeg(clean, 20)
    plain, both = draw_real_noise(clean, generator()), draw_real_noise(clean, generator(), coded)
    inside = (plain["noisy"] > 0.1) & (plain["noisy"] < 0.9)
    inside &= (both["noisy"] > 0.1) & (both["noisy"] < 0.9)
    change = both["noisy"] - plain["noisy"] - (coded - clean)
    assert change[inside].abs().max() < 1.01 / 255  # two roundings
    assert torch.equal(both["clean"], clean)
    assert (both["sigma"] > plain["sigma"]).double().mean() > 0.8


def test_developed_noise_has_the_drawn_level_at_half_of_white_and_is_white_or_coarse():
    x = torch.full((200, 3, 64, 64), 0.5)
    noise = draw_developed_noise(x, generator()) - x
    sigma = draw_sigma(200, generator())  # the first that is drawn
    inside = (sigma > 3 / 255) & (sigma < 40 / 255)  # neither rounding nor clipping tells
    assert torch.allclose(noise.std((1, 2, 3))[inside], sigma[inside], rtol=0.05)
    alike = (noise[..., 1:] * noise[..., :-1]).mean((1, 2, 3)) / noise.square().mean((1, 2, 3))
    alike = alike[inside]
    assert 0.4 < (alike.abs() < 0.05).double().mean() < 0.65  # some blurs are under half a pixel
    assert alike.max() > 0.6


def test_developed_noise_grows_with_the_picture_in_part():
    tones = torch.tensor([0.25, 0.75]).repeat_interleave(64).view(1, 1, 1, 128)
    x = tones.expand(100, 3, 64, 128)
    noise = draw_developed_noise(x, generator()) - x
    sigma = draw_sigma(100, generator())
    inside = (sigma > 5 / 255) & (sigma < 20 / 255)
    ratio = (noise[..., 68:124].std((1, 2, 3)) / noise[..., 4:60].std((1, 2, 3)))[inside]
    # From none of the variance to all of it is proportional: from 1 to the root of 3.
    assert ratio.min() < 1.1
    assert ratio.max() == pytest.approx(3**0.5, rel=0.08)
    assert draw_developed_noise(x[:2], generator()).equal(draw_developed_noise(x[:2], generator()))


def test_levels_are_drawn_as_promised():
    levels = draw_sigma(60_000, generator()) * 255
    assert 0 <= levels.min() <= levels.max() < 80
    faint, coarse = ((levels < 5), (levels > 55))
    assert faint.double().mean().item() == pytest.approx(1 / 8, rel=0.05)
    assert coarse.double().mean().item() == pytest.approx((1 - (55 / 80) ** 0.5) / 2, rel=0.05)
    assert levels.mean().item() == pytest.approx((30 + 80 / 3) / 2, abs=0.3)
    # In the middle all are as frequent but for the part that falls off as 1 / sqrt(sigma).
    below, above = (((levels > low) & (levels < low + 10)).double().mean() for low in (15, 40))
    share = [(((low + 10) / 80) ** 0.5 - (low / 80) ** 0.5) / 2 + 0.1 for low in (15, 40)]
    assert (below / above).item() == pytest.approx(share[0] / share[1], rel=0.05)
