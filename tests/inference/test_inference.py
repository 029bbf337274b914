import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs

from nlden.inference.engines import DTYPES, DeviceError, choose_device, choose_precision
from nlden.inference.planes import PlaneDenoiser
from nlden.inference.tiles import tiled
from nlden.media.color import YCbCr
from nlden.media.probe import Layout
from nlden.models.pretrained import load
from nlden.noise.estimation import Levels

CPU = torch.device("cpu")
COLOR = YCbCr("bt709")
SHAPES = {"yuv420": (2, 2), "yuv422": (1, 2), "yuv444": (1, 1)}


@pytest.fixture(scope="module")
def base():
    return load("image-base")


@pytest.fixture(scope="module")
def denoiser(base):
    return PlaneDenoiser(base, CPU, torch.float32)


def planes_of(layout, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.uint8 if layout.bits == 8 else torch.int32
    height, width = size

    def draw(*shape):
        return torch.randint(0, layout.largest + 1, shape, generator=generator).to(dtype)

    if layout.kind == "rgb":
        return (draw(3, height, width),)
    if layout.kind == "gray":
        return (draw(1, height, width),)
    down, right = SHAPES[layout.kind]
    return draw(1, height, width), draw(2, -(-height // down), -(-width // right))


LAYOUTS = [Layout(k, b) for k in (*SHAPES, "gray", "rgb") for b in (8, 10, 12, 16)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.pix_fmt)
def test_strength_zero_returns_the_codes_and_one_keeps_the_form(denoiser, layout):
    planes = planes_of(layout, (19, 27))
    same = denoiser(planes, layout, COLOR, Levels(0.1, 0.1), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(same, planes, strict=True))
    clean = denoiser(planes, layout, COLOR, Levels(0.1, 0.1))
    for a, b in zip(clean, planes, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert 0 <= int(a.min()) <= int(a.max()) <= layout.largest
        assert not torch.equal(a, b)


@pytest.mark.parametrize("kind", ["yuv420", "yuv422", "rgb", "gray"])
def test_strength_blends(denoiser, kind):
    layout = Layout(kind, 8)
    planes = planes_of(layout, (32, 32))
    half, full = (denoiser(planes, layout, COLOR, Levels(0.2, 0.2), s) for s in (0.5, 1.0))
    for x, h, f in zip(planes, half, full, strict=True):
        inside = (f > 0) & (f < 255)  # a blend of a clipped code differs
        assert ((x.float() + f.float()) / 2 - h.float())[inside].abs().max() <= 1


@settings(deadline=None, max_examples=8)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 140)),
    tile=st.sampled_from([1, 32, 64, 100, 128]),
    channels=st.sampled_from([6, 12]),
)
def test_tiles_give_what_the_whole_gives(base, size, tile, channels):
    x = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = base(x, 0.1)
        (pieces,) = tiled(lambda y: (base(y, 0.1),), [x], [x], tile, base.reach, base.grid)
    assert (whole - pieces).abs().max() < 1e-4


def test_tiles_are_really_used_and_reach_is_needed(base):
    x = torch.rand(1, 6, 200, 40, generator=torch.Generator().manual_seed(0))
    sizes = []

    def network(y):
        sizes.append(y.shape[2])
        return (base(y, 0.1),)

    with torch.inference_mode():
        (without_halo,) = tiled(network, [x], [x], 64, 0, base.grid)
        whole = base(x, 0.1)
    assert len(sizes) == 3
    assert (whole - without_halo).abs().max() > 1e-4


def test_planes_in_tiles_are_the_planes_of_the_whole(base):
    layout = Layout("yuv420", 8)
    planes = planes_of(layout, (231, 90))
    whole, pieces = (
        PlaneDenoiser(base, CPU, torch.float32, tile)(planes, layout, COLOR, Levels(0.1, 0.05))
        for tile in (None, 64)
    )
    for a, b in zip(whole, pieces, strict=True):
        assert (a.int() - b.int()).abs().max() <= 1  # a code may fall on either side of a half


@pytest.mark.parametrize("kind", ["yuv420", "yuv422", "yuv444"])
def test_every_way_cleans(denoiser, kind):
    layout = Layout(kind, 10)
    rgb = torch.from_numpy(photographs.cat()[100:196, 150:278]).permute(2, 0, 1) / 255
    planes = COLOR.from_rgb(rgb)
    chroma = torch.nn.functional.avg_pool2d(planes[1:], SHAPES[kind])
    generator = torch.Generator().manual_seed(0)
    clean = (planes[:1], chroma)
    noisy = tuple(
        p + s * torch.randn(p.shape, generator=generator)
        for p, s in zip(clean, (0.08, 0.04), strict=True)
    )
    codes = tuple((p * layout.white).round().clamp(0, layout.largest).int() for p in noisy)
    out = denoiser(codes, layout, COLOR, Levels(0.08, 0.04))
    for o, n, c in zip(out, codes, clean, strict=True):
        before = (n / layout.white - c).square().mean()
        after = (o / layout.white - c).square().mean()
        assert 10 * torch.log10(before / after) > 5


def test_the_precision_is_one_of_two(base):
    assert choose_precision(base, CPU) in ("fp32", "bf16")
    assert set(DTYPES) == {"fp32", "bf16", "fp16"}


def test_devices():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("abacus", "cuda:99"):
        with pytest.raises(DeviceError, match=name):
            choose_device(name)
