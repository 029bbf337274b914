import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs

from nlden.data.augment import (
    color_jitter,
    dihedral,
    noisy_gray,
    noisy_real_clips,
    noisy_real_clips_yuv420,
    noisy_rgb,
    noisy_yuv420,
    resize,
)
from nlden.media.color import NEUTRAL, YCbCr
from nlden.noise.estimation import estimate_levels


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=15)
@given(channels=st.integers(1, 3), extent=st.integers(2, 6), seed=st.integers(0, 99))
def test_each_picture_is_turned_in_one_of_the_eight_ways(channels, extent, seed):
    x = torch.randn(60, channels, extent, extent, generator=generator(seed))
    turned = dihedral(x, generator(seed))
    ways = torch.stack(
        [torch.rot90(y, k, (-2, -1)) for y in (x, x.flip(-1)) for k in range(4)]
    )  # rot90 and mirror, where the code flips and transposes
    same = (ways == turned).flatten(2).all(2)
    assert (same.sum(0) == 1).all()
    share = torch.cat([same.float().mean(1)])
    assert (share > 0).sum() >= 7  # of 60 pictures, an eighth goes each way


def test_the_eight_ways_are_equally_frequent():
    x = torch.arange(4.0).view(1, 1, 2, 2).expand(8000, 1, 2, 2)
    _, counts = dihedral(x, generator()).flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 8
    assert (counts - 1000).abs().max() < 4 * (8000 / 8 * 7 / 8) ** 0.5


@pytest.mark.parametrize("seed", range(6))
def test_the_told_levels_of_rgb_are_those_of_the_noise(seed):
    clean = torch.full((48, 3, 96, 96), 0.5)
    pair = noisy_rgb(clean, generator(seed))
    luma, chroma = pair["sigma"].T
    noise = pair["noisy"] - pair["clean"]
    seen = ((luma > 0.02) & (luma < 0.12)) & (chroma < 0.12)  # unclipped, over the rounding
    white = (luma == chroma) & seen
    assert white.sum() >= 5
    assert torch.allclose(noise[white].std((1, 2, 3)), luma[white], rtol=0.04)
    # The others were made in one matrix for the batch; in that one their levels must appear.
    colored = (luma != chroma) & seen & (chroma > 0.01)
    errors = []
    for matrix in ("bt601", "bt709", "bt2020"):
        color = YCbCr(matrix)
        planes = color.from_rgb(noise[colored]) - color.offsets()[:, None, None]
        units = color.plane_levels(1.0)
        got = torch.stack([planes[:, 0].std((1, 2)), planes[:, 1:].std((2, 3)).mean(1)], 1)
        errors.append((got / torch.tensor(units) / pair["sigma"][colored] - 1).abs().max().item())
    assert min(errors) < 0.08
    assert torch.equal(pair["clean"], clean)


@pytest.mark.parametrize("seed", range(6))
def test_the_told_levels_of_planes_are_those_of_the_noise(seed):
    clean = torch.full((48, 3, 96, 96), 0.5)
    pair = noisy_yuv420(clean, generator(seed))
    luma, chroma = pair["sigma"].T
    noise = pair["noisy"] - pair["clean"]
    assert noise.shape == (48, 6, 48, 48)
    seen = (luma > 0.01) & (luma < 0.08)
    assert seen.sum() >= 10
    assert torch.allclose(noise[seen, :4].std((1, 2, 3)), luma[seen], rtol=0.05)
    fine = seen & (chroma > 0.006)
    root = noise[fine, 4:].square().mean((1, 2, 3)).sqrt()
    assert torch.allclose(root, chroma[fine], rtol=0.08)


def test_grey_pictures_have_neutral_chroma_without_noise():
    clean = torch.rand(200, 3, 8, 8, generator=generator())
    pair = noisy_yuv420(clean, generator())
    gray = pair["sigma"][:, 1] == 0
    assert 0.03 < gray.float().mean() < 0.15
    for planes in (pair["noisy"], pair["clean"]):
        assert torch.allclose(planes[gray, 4:], torch.tensor(NEUTRAL))
    assert ((pair["clean"][~gray, 4:] - NEUTRAL).abs().amax((1, 2, 3)) > 0.01).all()


def test_grey_pairs_are_luma_of_full_range_with_white_noise_of_the_told_level():
    shade = torch.linspace(0, 1, 40).view(-1, 1, 1, 1).expand(-1, 3, 64, 64)
    pair = noisy_gray(shade, generator())
    assert torch.allclose(pair["clean"][:, :4], shade[:, :1, :32, :32].expand(-1, 4, -1, -1))
    luma, chroma = pair["sigma"].T
    assert not chroma.any()
    for planes in (pair["noisy"], pair["clean"]):
        assert (planes[:, 4:] == NEUTRAL).all()
    noise = (pair["noisy"] - pair["clean"])[:, :4]
    middle = (shade[:, 0, 0, 0] - 0.5).abs()
    seen = (luma > 0.01) & (3 * luma < 0.5 - middle)  # nothing is clipped
    assert seen.sum() >= 10
    assert torch.allclose(noise[seen].std((1, 2, 3)), luma[seen], rtol=0.05)


@pytest.mark.parametrize(
    ("make", "share"), [(noisy_rgb, 0.3), (noisy_yuv420, 0.6), (noisy_gray, 0.3)]
)
def test_a_part_of_the_pictures_is_stored_in_eight_bits(make, share):
    clean = torch.rand(200, 3, 8, 8, generator=generator())
    codes = make(clean, generator())["noisy"] * 255
    stored = (codes - codes.round()).abs().amax((1, 2, 3)) < 1e-3
    assert abs(stored.float().mean() - share) < 0.1
    assert codes[stored].min() >= 0
    assert codes[stored].max() <= 255.001
    assert codes[~stored].min() < 0


@pytest.mark.parametrize("make", [noisy_rgb, noisy_yuv420, noisy_gray])
def test_a_seed_fixes_the_pairs(make):
    clean = torch.rand(4, 3, 8, 8, generator=generator())
    first, again, other = (make(clean, generator(s)) for s in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in ("noisy", "clean", "sigma"))
    assert not torch.equal(first["noisy"], other["noisy"])


def test_pictures_are_reduced_without_aliasing():
    # Stripes finer than the result can hold become their mean.
    stripes = torch.tensor([0.2, 0.8]).repeat(32).expand(2, 3, 64, 64)
    small = resize(stripes, 16)
    assert small.shape == (2, 3, 16, 16)
    assert torch.allclose(small[..., 2:-2], torch.tensor(0.5), atol=0.02)
    assert resize(stripes, 64) is stripes


def test_jitter_varies_half_of_the_pictures_within_its_bounds():
    x = torch.rand(128, 3, 8, 8, generator=generator())
    assert color_jitter(x, 0, generator()) is x
    y = color_jitter(x, 0.3, generator())
    assert 0 <= y.min() <= y.max() <= 1
    assert torch.equal(y, color_jitter(x, 0.3, generator()))
    varied = (x != y).flatten(1).any(1)
    assert 44 < varied.sum() < 84  # four standard deviations
    # Of grey pictures contrast is all that changes.
    gray = x[:, :1].expand(-1, 3, -1, -1) * 0.7
    factor = color_jitter(gray, 0.3, generator()) / gray
    assert torch.allclose(factor, factor[:, :1, :1, :1].expand_as(factor), atol=1e-3)
    factor = factor[:, 0, 0, 0]
    assert 0.7 <= factor.min() < 0.75
    assert 1.25 < factor.max() <= 1.301
    # Saturation and hue leave the largest channel of HSV to contrast.
    x = 0.1 + 0.6 * x  # so that contrast clips nothing
    y = color_jitter(x, 0.3, generator())
    ratio = (y / x.amax(1, keepdim=True)).amax(1).flatten(1)
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), atol=1e-3)
    assert not torch.allclose(y, ratio.view(-1, 1, 8, 8) * x, atol=0.1)  # but change the others


def test_jitter_multiplies_pale_colours_by_up_to_the_third_power():
    x = 0.5 + 0.1 * torch.rand(128, 3, 8, 8, generator=generator())  # whose saturation never clips
    saturation = [1 - t.amin(1) / t.amax(1) for t in (x, color_jitter(x, 0.3, generator()))]
    factor = (saturation[1] / saturation[0]).flatten(1)
    assert torch.allclose(factor, factor[:, :1].expand_as(factor), rtol=1e-2)
    assert 1.3**-3 - 1e-3 < factor.min() < 0.6
    assert 1.8 < factor.max() < 1.3**3 + 1e-3


def test_real_noise_of_clips_is_made_frame_by_frame_and_told_as_it_would_be_found():
    scene = torch.from_numpy(photographs.astronaut()[:64, 100:164].copy()).permute(2, 0, 1) / 255
    clean = scene.repeat(1, 4, 1)[None].expand(2, -1, -1, -1)  # 4 equal frames below each other
    changes = []
    for seed in range(6):
        pair = noisy_real_clips(clean, generator(seed))
        again = noisy_real_clips(clean, generator(seed))
        assert torch.equal(pair["clean"], clean)
        assert torch.equal(pair["noisy"], again["noisy"])
        found = [estimate_levels([(x,)]).luma for x in pair["noisy"]]
        assert pair["sigma"][:, 0].tolist() == pytest.approx(found)
        error = (pair["noisy"] - clean).unflatten(2, (4, 64))
        changes.append(float(error.diff(dim=2).std() / error.std()))
    # Noise that changes from frame to frame, but for codecs, which repeat what they wrote.
    assert max(changes) == pytest.approx(2**0.5, rel=0.1)
    assert min(changes) < 1.2


def test_real_noise_of_stored_clips_fits_its_planes():
    clean = torch.rand(2, 3, 256, 64, generator=generator(0))
    pair = noisy_real_clips_yuv420(clean, generator(1))
    assert pair["noisy"].shape == pair["clean"].shape == (2, 6, 128, 32)
    assert pair["sigma"].shape == (2, 2)
    codes = pair["noisy"] * 255
    assert (codes - codes.round()).abs().max() < 1e-3
