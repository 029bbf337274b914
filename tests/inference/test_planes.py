from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention import NonLocal2d, SqueezeExcitation
from nlden.encoders import UNet
from nlden.inference.planes import PlaneDenoiser
from nlden.media.color import NEUTRAL, YCbCr
from nlden.media.probe import Layout
from nlden.models import ImageDenoiser
from nlden.noise.estimation import Levels

CPU = torch.device("cpu")
COLOR = YCbCr("bt709")
CHROMA = {
    **{"yuv420": (2, 2), "yuv422": (1, 2), "yuv444": (1, 1)},
    **{"yuv440": (2, 1), "yuv411": (1, 4), "yuv410": (4, 4)},
}
KINDS = [*CHROMA, "gray", "rgb"]


class Listening(ImageDenoiser):
    """Remembers what it was given."""

    def change(self, pictures, sigma):
        self.heard = (pictures[0], sigma)
        return super().change(pictures, sigma)


@pytest.fixture(scope="module")
def network():
    """A small denoiser that changes pictures a lot, with attention in windows."""
    torch.manual_seed(0)
    body = UNet(
        (8, 8),
        (1, 1),
        gate=partial(SqueezeExcitation, reduction=2, window=3),
        bottleneck=partial(
            NonLocal2d, scale="inner", bias=False, norm=None, clip=True, window=8, block=4
        ),
    )
    torch.nn.init.normal_(body.coarsest[1].out.weight)
    return Listening(body).requires_grad_(False)


@pytest.fixture(scope="module")
def denoiser(network):
    return PlaneDenoiser(network, CPU, torch.float32)


def values(kind, size, seed=0, middle=0.5, spread=0.1):
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    shapes = {"rgb": [(3, *size)], "gray": [(1, *size)]}.get(kind)
    if shapes is None:
        down, right = CHROMA[kind]
        shapes = [(1, *size), (2, -(-height // down), -(-width // right))]
    return [middle + spread * torch.randn(s, generator=generator) for s in shapes]


def codes(layout, size, seed=0):
    dtype = torch.uint8 if layout.bits == 8 else torch.int32
    planes = values(layout.kind, size, seed)
    return tuple((p * layout.white).round().clamp(0, layout.largest).to(dtype) for p in planes)


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    bits=st.sampled_from([8, 9, 10, 12, 14, 16]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    strength=st.floats(0, 1),
)
def test_strength_is_linear_but_for_rounding(denoiser, kind, bits, size, strength):
    layout = Layout(kind, bits)
    planes = codes(layout, size)
    kept = [p.clone() for p in planes]
    some, full = (denoiser(planes, layout, COLOR, Levels(0.1, 0.05), s) for s in (strength, 1.0))
    for before, copy, part, whole in zip(planes, kept, some, full, strict=True):
        assert torch.equal(before, copy)
        assert part.shape == before.shape
        assert part.dtype == before.dtype
        start, end = before.double(), whole.double()
        free = (end > 0) & (end < layout.largest)
        blend = start + strength * (end - start)
        # Both are rounded, and 16-bit codes near the limits of float32.
        error = (part.double() - blend)[free].abs()
        assert error.numel() == 0 or error.max() <= 1.1


@settings(deadline=None, max_examples=15)
@given(
    kind=st.sampled_from(KINDS),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    tile=st.integers(1, 160),
)
def test_tiles_change_nothing(network, kind, size, tile):
    planes = values(kind, size)
    whole, pieces = (
        PlaneDenoiser(network, CPU, torch.float32, t).change(planes, kind, COLOR, Levels(0.1, 0.05))
        for t in (None, tile)
    )
    for a, b in zip(whole, pieces, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_in_tiles_are_those_of_the_whole(network, kind):
    layout, levels = Layout(kind, 10), Levels(0.1, 0.05)
    planes = codes(layout, (157, 121))
    whole, pieces = (
        PlaneDenoiser(network, CPU, torch.float32, t)(planes, layout, COLOR, levels)
        for t in (None, 48)
    )
    for a, b in zip(whole, pieces, strict=True):
        assert a.dtype == b.dtype == torch.int32
        assert (a - b).abs().max() <= 1  # a code may fall on either side of a half


def test_grey_is_luma_beside_neutral_chroma_without_noise(denoiser):
    (luma,) = values("gray", (21, 34))
    neutral = torch.full((2, 11, 17), NEUTRAL)
    (gray,) = denoiser.change([luma], "gray", COLOR, Levels(0.1, 0.3))
    expected, _ = denoiser.change([luma, neutral], "yuv420", COLOR, Levels(0.1, 0.0))
    assert torch.allclose(gray, expected, atol=1e-6)


def test_rgb_goes_through_the_network_as_it_is(denoiser, network):
    (rgb,) = values("rgb", (17, 22))
    (change,) = denoiser.change([rgb], "rgb", COLOR, Levels(0.1, 0.2))
    expected = network(rgb[None], torch.tensor([[0.1, 0.2]]))[0] - rgb
    assert torch.allclose(change, expected, atol=1e-6)


@pytest.mark.parametrize("color", [COLOR, YCbCr("bt601", full_range=True)], ids=str)
def test_the_planes_of_444_change_as_their_rgb_does(denoiser, network, color):
    rgb = values("rgb", (18, 23))[0]
    planes = color.from_rgb(rgb)
    levels = Levels(*color.plane_levels(0.1))
    luma, chroma = denoiser.change([planes[:1], planes[1:]], "yuv444", color, levels)
    expected = color.from_rgb(network(rgb[None], 0.1)[0]) - planes
    assert torch.allclose(torch.cat([luma, chroma]), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["yuv444", "yuv422", "yuv440", "yuv411", "yuv410"])
@pytest.mark.parametrize("color", [COLOR, YCbCr("bt601", full_range=True)], ids=str)
def test_the_network_is_told_the_noise_that_it_sees(denoiser, network, kind, color):
    size, levels = (128, 256), Levels(0.05, 0.02)
    noisy = values(kind, size, spread=0.0)
    generator = torch.Generator().manual_seed(1)
    for plane, level in zip(noisy, (levels.luma, levels.chroma), strict=True):
        plane += level * torch.randn(plane.shape, generator=generator)
    denoiser.change(noisy, kind, color, levels)
    packed, told = network.heard
    planes = color.from_rgb(torch.nn.functional.pixel_shuffle(packed, 2))[0]
    units = color.plane_levels(1.0)
    seen = [planes[:1].std() / units[0], planes[1:].std((1, 2)).mean() / units[1]]
    assert told[0].tolist() == pytest.approx([float(s) for s in seen], rel=0.03)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.startswith("yuv")])
def test_luma_and_chroma_have_their_own_strengths(denoiser, kind):
    layout = Layout(kind, 10)
    planes, levels = codes(layout, (24, 32)), Levels(0.1, 0.05)

    def run(strength):
        return denoiser(planes, layout, COLOR, levels, strength)

    whole, luma, chroma = run(1.0), run((1.0, 0.0)), run((0.0, 1.0))
    assert not any(torch.equal(a, b) for a, b in zip(whole, planes, strict=True))
    assert torch.equal(luma[0], whole[0])
    assert torch.equal(luma[1], planes[1])
    assert torch.equal(chroma[0], planes[0])
    assert torch.equal(chroma[1], whole[1])
    assert all(a is b for a, b in zip(run((0.0, 0.0)), planes, strict=True))
    half = run((0.5, 1.0))
    assert torch.equal(half[1], whole[1])
    middle = (planes[0].double() + whole[0].double()) / 2
    free = (whole[0] > 0) & (whole[0] < layout.largest)  # the rest was clipped
    assert (half[0].double() - middle)[free].abs().max() <= 1


@pytest.mark.parametrize("color", [YCbCr("bt709", full_range=True), YCbCr("bt601")], ids=str)
def test_the_strengths_of_rgb_are_of_its_luma_and_chroma(denoiser, color):
    layout = Layout("rgb", 16)
    (rgb,) = codes(layout, (24, 32))

    def run(strength):
        return denoiser((rgb,), layout, color, Levels(0.1, 0.1), strength)[0]

    pictures = [rgb, run(1.0), run((1.0, 0.0)), run((0.0, 1.0))]
    free = torch.stack([(p > 0) & (p < layout.largest) for p in pictures]).all((0, 1))
    assert free.float().mean() > 0.9  # the rest was clipped
    before, whole, luma, chroma = (
        color.from_rgb(p.double() / layout.white)[:, free] for p in pictures
    )
    near = {"rtol": 0, "atol": 1e-4}  # codes are rounded
    assert (whole - before)[0].abs().max() > 0.01
    assert (whole - before)[1:].abs().max() > 0.01
    torch.testing.assert_close(luma[:1], whole[:1], **near)
    torch.testing.assert_close(luma[1:], before[1:], **near)
    torch.testing.assert_close(chroma[:1], before[:1], **near)
    torch.testing.assert_close(chroma[1:], whole[1:], **near)


def test_grey_has_the_strength_of_luma(denoiser):
    layout = Layout("gray", 8)
    gray = codes(layout, (20, 20))
    assert denoiser(gray, layout, COLOR, Levels(0.1, 0.1), (0.0, 1.0)) is gray
    run = [denoiser(gray, layout, COLOR, Levels(0.1, 0.1), s)[0] for s in (1.0, (1.0, 0.0))]
    assert torch.equal(*run)


def test_the_planes_of_420_are_told_their_own_levels(denoiser, network):
    denoiser.change(values("yuv420", (8, 8)), "yuv420", COLOR, Levels(0.05, 0.02))
    assert network.heard[1][0].tolist() == pytest.approx([0.05, 0.02])


def test_without_a_reach_the_picture_stays_whole():
    whole = Listening(UNet((8,), (1,), bottleneck=partial(NonLocal2d, norm=None))).requires_grad_(
        False
    )
    planes = values("yuv420", (90, 70))
    PlaneDenoiser(whole, CPU, torch.float32, 16).change(planes, "yuv420", COLOR, Levels(0.1, 0.1))
    assert whole.heard[0].shape == (1, 6, 45, 35)


# The chroma samples of yuv410 are as far apart as this mean reaches.
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "yuv410"])
def test_a_network_of_rgb_alone_cleans_every_kind(kind):
    torch.manual_seed(0)

    class Smoothing(ImageDenoiser):
        """Takes the mean of 5 x 5 pixels, of RGB."""

        def change(self, pictures, sigma):
            (packed,) = pictures
            assert packed.shape[1] == 12
            x = torch.nn.functional.pixel_shuffle(packed, 2)
            x = torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
            return torch.nn.functional.pixel_unshuffle(x, 2) - packed

    denoiser = PlaneDenoiser(Smoothing(UNet((4, 4), (1, 1)), formats=["rgb"]), CPU, torch.float32)
    planes = values(kind, (40, 48), spread=0.05)
    changes = denoiser.change(planes, kind, COLOR, Levels(0.05, 0.05))
    assert [c.shape for c in changes] == [p.shape for p in planes]
    for plane, change in zip(planes, changes, strict=True):
        # White noise around a constant: a fraction of it is left, and its mean stays.
        assert (plane + change).std() < 0.75 * plane.std()
        assert abs(change.mean()) < 0.005
