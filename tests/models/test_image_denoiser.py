from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs
from torch.nn import functional as F

from nlden.attention import NonLocal2d, SqueezeExcitation
from nlden.encoders import UNet
from nlden.media.color import YCbCr
from nlden.models import ImageDenoiser, image_denoiser, image_denoiser_base
from nlden.models.image_denoiser import noise_map
from nlden.models.pretrained import load
from nlden.noise.synthesis import quantize, store_yuv420, white_gaussian

# Weights are published: a renamed or reshaped parameter needs a conversion of every file.
PROMISED = {
    "body.coarsest.0.0.attention.fc1.weight": (12, 192),
    "body.coarsest.0.0.attention.fc2.weight": (192, 12),
    "body.coarsest.0.0.conv1.weight": (192, 192, 3, 3),
    "body.coarsest.0.0.conv2.weight": (192, 192, 3, 3),
    "body.coarsest.1.g.weight": (96, 192, 1, 1),
    "body.coarsest.1.out.weight": (192, 96, 1, 1),
    "body.coarsest.1.phi.weight": (96, 192, 1, 1),
    "body.coarsest.1.theta.weight": (96, 192, 1, 1),
    "body.coarsest.2.0.attention.fc1.weight": (12, 192),
    "body.coarsest.2.0.attention.fc2.weight": (192, 12),
    "body.coarsest.2.0.conv1.weight": (192, 192, 3, 3),
    "body.coarsest.2.0.conv2.weight": (192, 192, 3, 3),
    "body.decoder.0.0.conv1.weight": (64, 64, 3, 3),
    "body.decoder.0.0.conv2.weight": (64, 64, 3, 3),
    "body.decoder.1.0.conv1.weight": (96, 96, 3, 3),
    "body.decoder.1.0.conv2.weight": (96, 96, 3, 3),
    "body.decoder.1.1.conv1.weight": (96, 96, 3, 3),
    "body.decoder.1.1.conv2.weight": (96, 96, 3, 3),
    "body.decoder.1.2.conv1.weight": (96, 96, 3, 3),
    "body.decoder.1.2.conv2.weight": (96, 96, 3, 3),
    "body.down.0.weight": (96, 64, 2, 2),
    "body.down.1.weight": (192, 96, 2, 2),
    "body.encoder.0.0.conv1.weight": (64, 64, 3, 3),
    "body.encoder.0.0.conv2.weight": (64, 64, 3, 3),
    "body.encoder.1.0.conv1.weight": (96, 96, 3, 3),
    "body.encoder.1.0.conv2.weight": (96, 96, 3, 3),
    "body.encoder.1.1.conv1.weight": (96, 96, 3, 3),
    "body.encoder.1.1.conv2.weight": (96, 96, 3, 3),
    "body.encoder.1.2.conv1.weight": (96, 96, 3, 3),
    "body.encoder.1.2.conv2.weight": (96, 96, 3, 3),
    "body.joins.1.g.weight": (32, 96, 1, 1),
    "body.joins.1.out.weight": (96, 32, 1, 1),
    "body.joins.1.phi.weight": (32, 96, 1, 1),
    "body.joins.1.theta.weight": (32, 96, 1, 1),
    "body.up.0.weight": (96, 64, 2, 2),
    "body.up.1.weight": (192, 96, 2, 2),
    "stems.rgb.weight": (64, 14, 3, 3),
    "stems.yuv420.weight": (64, 8, 3, 3),
    "tails.rgb.weight": (12, 64, 3, 3),
    "tails.yuv420.weight": (6, 64, 3, 3),
}


def test_names_and_shapes_of_the_published_weights():
    with torch.device("meta"):
        network = image_denoiser_base()
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == PROMISED


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    network = ImageDenoiser(
        UNet(
            (8, 8, 16),
            (1, 1, 1),
            gate=partial(SqueezeExcitation, reduction=4, window=3),
            bottleneck=partial(
                NonLocal2d, scale="inner", bias=False, norm=None, clip=True, window=8, block=4
            ),
        )
    )
    torch.nn.init.normal_(network.body.coarsest[1].out.weight)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def photograph():
    return torch.from_numpy(photographs.astronaut()[40:168, 180:308]).permute(2, 0, 1)[None] / 255


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def psnr(x, y):
    return -10 * torch.log10((x - y).square().mean()).item()


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 21), st.integers(1, 21))
def test_an_odd_border_is_computed_as_if_it_were_repeated(small, height, width):
    x = rand(2, 3, height, width)
    even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    assert torch.allclose(small(x, 0.1), small(even, 0.1)[:, :, :height, :width], atol=1e-6)


def test_rgb_and_its_packed_form_are_one(small):
    x, sigma = rand(2, 3, 16, 24), rand(2, 2, 8, 12, seed=1)
    packed = small(F.pixel_unshuffle(x, 2), sigma)
    assert torch.allclose(F.pixel_shuffle(packed, 2), small(x, sigma), atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(
    channels=st.sampled_from([3, 6, 12]),
    level=st.floats(0, 1, width=32),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_all_forms_of_a_level_agree_in_every_format(small, channels, level, size):
    x = rand(2, channels, *size)
    grid = tuple(-(-s // 2) for s in size) if channels == 3 else size
    expected = small(x, level)
    for shape in ((), (2,), (2, 2), (1, 2), (2, 2, *grid), (1, 2, *grid)):
        assert torch.allclose(small(x, torch.full(shape, level)), expected, atol=1e-6)


def test_the_noise_map_keeps_pictures_and_planes_apart():
    packed = torch.zeros(3, 6, 2, 4)
    pictures = torch.tensor([0.1, 0.2, 0.3])
    assert torch.equal(noise_map(pictures, packed), pictures.view(3, 1, 1, 1).expand(3, 2, 2, 4))
    planes = rand(3, 2)
    assert torch.equal(noise_map(planes, packed), planes[:, :, None, None].expand(3, 2, 2, 4))
    places = rand(3, 2, 2, 4)
    assert torch.equal(noise_map(places, packed), places)
    assert torch.equal(noise_map(0, packed), torch.zeros(3, 2, 2, 4))


@pytest.mark.parametrize("channels", [3, 6, 12])
def test_a_picture_does_not_see_the_others_of_its_batch(small, channels):
    x, sigma = rand(3, channels, 10, 14), rand(3, 2)
    y = x.clone()
    y[1:] = rand(2, channels, 10, 14, seed=1)
    other = sigma.clone()
    other[1:] += 0.5
    assert torch.allclose(small(x, sigma)[0], small(y, other)[0], atol=1e-6)
    assert not torch.allclose(small(x, sigma)[1], small(y, other)[1], atol=1e-3)


def test_a_scaled_picture_with_a_scaled_level_is_denoised_alike_without_attention():
    torch.manual_seed(0)
    plain = ImageDenoiser(UNet((8, 8), (1, 1))).double()
    x = rand(1, 6, 8, 8)
    # float() inside rounds to float32
    assert torch.allclose(plain(5 * x, 0.5), 5 * plain(x, 0.1), rtol=1e-5, atol=1e-5)


def test_half_precision_computes_inside_and_returns_float32(photograph):
    network = load("image-base")
    noisy = white_gaussian(photograph, torch.tensor(0.1), torch.Generator().manual_seed(0))
    expected = network(noisy, 0.1)
    clean = network.bfloat16()(noisy, 0.1)
    assert clean.dtype == torch.float32
    assert not torch.equal(clean, expected)
    assert psnr(clean, expected) > 45
    assert network(noisy.bfloat16(), 0.1).dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 8), (1, 1, 8, 8), (1, 2, 3, 8, 8)])
def test_the_shape_is_told_when_it_is_refused(small, shape):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\).*got \(" + f"{shape[0]}, {shape[1]}"):
        small(torch.zeros(shape), 0.1)


def test_reach_counts_stem_and_tail(small):
    assert small.reach == small.body.reach + 2
    assert small.grid == small.body.grid == 16
    whole = ImageDenoiser(UNet((8,), (1,), bottleneck=partial(NonLocal2d, norm=None)))
    assert whole.reach is None


def test_a_second_non_local_block_starts_as_none():
    """Weights of a network without it go on in one that has it, and lose nothing."""
    torch.manual_seed(0)
    plain, more = (image_denoiser((4, 6, 16), (1, 1, 1), finer=f) for f in (None, 3))
    own = more.load_state_dict(plain.state_dict(), strict=False)
    assert {k.removeprefix("body.joins.1.") for k in own.missing_keys} == {
        f"{name}.weight" for name in ("theta", "phi", "g", "out")
    }
    assert more.body.joins[1].theta.weight.shape == (3, 6, 1, 1)
    assert more.reach == plain.reach + 2 * more.body.joins[1].reach
    x = torch.rand(1, 3, 40, 56)
    assert torch.equal(more(x, 0.1), plain(x, 0.1))


@pytest.mark.parametrize("color", [YCbCr("bt709"), YCbCr("bt601", full_range=True)])
def test_the_shipped_weights_clean_stored_planes(photograph, color):
    network = load("image-base")
    generator = torch.Generator().manual_seed(0)
    noisy = white_gaussian(photograph, torch.tensor(25 / 255), generator)
    stored = quantize(store_yuv420(quantize(noisy), color))
    clean = store_yuv420(photograph, color)
    output = network(stored, torch.tensor([color.plane_levels(25 / 255, averaged=4)]))
    assert psnr(output, clean) > psnr(stored, clean) + 7
    assert psnr(output[:, 4:], clean[:, 4:]) > psnr(stored[:, 4:], clean[:, 4:]) + 7
    assert psnr(network(clean, 0.0), clean) > 40


def test_the_shipped_weights_believe_the_level_that_they_are_told(photograph):
    network = load("image-base")
    changes = [(network(photograph, s) - photograph).square().mean() for s in (0.0, 0.05, 0.2)]
    assert changes == sorted(changes)
    assert changes[2] > 10 * changes[0]


@settings(deadline=None, max_examples=20)
@given(
    sigma=st.tuples(st.floats(0, 0.3), st.floats(0, 0.3)),
    limit=st.floats(0.1, 5),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_no_more_is_subtracted_than_the_limit(sigma, limit, packed, seed):
    generator = torch.Generator().manual_seed(seed)
    network = ImageDenoiser(UNet((4, 4), (1, 1)), limit)
    free = ImageDenoiser(UNet((4, 4), (1, 1)), None)
    for tail in network.tails.values():
        torch.nn.init.normal_(tail.weight, generator=generator)
    free.load_state_dict(network.state_dict())
    shape = (1, 6, 8, 8) if packed else (1, 3, 9, 8)
    x = torch.rand(shape, generator=generator)
    told = torch.tensor([sigma])
    change, wanted = (n(x, told) - x for n in (network, free))
    levels = torch.tensor([sigma[0]] * 4 + [sigma[1]] * 2 if packed else [max(sigma)] * 3)
    bound = limit * levels.view(1, -1, 1, 1)
    torch.testing.assert_close(change, wanted.clamp(-bound, bound), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["image-base", "image-fast"])
def test_a_clean_picture_told_to_be_clean_stays_as_it_is(name):
    x = torch.from_numpy(photographs.coffee()[:64, :80].copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        assert torch.equal(load(name)(x, 0.0), x)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_an_impossible_limit_is_named(limit):
    with pytest.raises(ValueError, match="limit="):
        ImageDenoiser(UNet((4, 4), (1, 1)), limit)


def test_a_network_of_one_format_has_no_other():
    network = ImageDenoiser(UNet((4, 4), (1, 1)), formats=["rgb"])
    assert not [name for name in network.state_dict() if "yuv420" in name]
    assert network(torch.rand(1, 3, 8, 8), 0.1).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match="takes rgb"):
        network(torch.rand(1, 6, 8, 8), 0.1)
    for formats in ([], ["cmyk"]):
        with pytest.raises(ValueError, match="formats="):
            ImageDenoiser(UNet((4, 4), (1, 1)), formats=formats)


@pytest.mark.parametrize("channels", [12, 6])
def test_the_change_of_a_picture_holds_no_picture(channels):
    torch.manual_seed(0)
    network = ImageDenoiser(UNet((8, 12), (1, 1)))
    picture = torch.rand(2, channels, 9, 7)
    clean = network(picture, 0.1)
    pictures = [picture]
    assert torch.allclose(network.change(pictures, 0.1), clean - picture, atol=1e-6)
    assert not pictures
