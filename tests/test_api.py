import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs
from skimage.metrics import peak_signal_noise_ratio

import nlden
from nlden.data.drawings import draw_unseen

CLEAN = photographs.astronaut()[:96, 130:258]
RNG = np.random.default_rng(0)
NOISY = np.clip(CLEAN + RNG.normal(0, 25, CLEAN.shape), 0, 255).round().astype(np.uint8)


def gain(x):
    before = peak_signal_noise_ratio(CLEAN, NOISY)
    return peak_signal_noise_ratio(CLEAN, np.asarray(x).astype(np.uint8)) - before


@pytest.mark.parametrize("sigma", ["auto", 25])
def test_a_picture_is_cleaned_and_keeps_its_kind(sigma):
    clean = nlden.denoise(NOISY, sigma)
    assert (type(clean), clean.dtype, clean.shape) == (np.ndarray, np.uint8, NOISY.shape)
    assert gain(clean) > 7


def test_all_kinds_give_the_same_picture():
    expected = nlden.denoise(NOISY, 25, precision="fp32").astype(int)
    tensor = torch.from_numpy(NOISY).permute(2, 0, 1)
    got = {
        "pil": np.asarray(nlden.denoise(Image.fromarray(NOISY), 25, precision="fp32")),
        "tensor": nlden.denoise(tensor, 25, precision="fp32").permute(1, 2, 0).numpy(),
        "float": 255 * nlden.denoise(NOISY / 255, 25 / 255, precision="fp32"),
        "deep": nlden.denoise(NOISY.astype(np.uint16) * 257, 25 * 257, precision="fp32") / 257,
        "clip": nlden.denoise(NOISY[None], 25, precision="fp32")[0],
    }
    for name, picture in got.items():
        assert np.abs(np.clip(picture, 0, 255) - expected).max() <= 1, name


@pytest.mark.parametrize(
    "x",
    [
        NOISY[..., 0],
        NOISY[..., :1],
        NOISY[:, :, [0, 1, 2, 0]],
        np.stack([NOISY[..., 0]] * 5),
        np.stack([NOISY] * 2).astype(np.float32) / 255,
        NOISY[:1, :1],
        NOISY[:0],
        torch.from_numpy(NOISY[..., 0].copy()),
        torch.rand(2, 3, 17, 9, dtype=torch.float64),
        Image.fromarray(NOISY[..., 0]),
        Image.fromarray(NOISY).convert("RGBA"),
    ],
    ids=lambda x: f"{type(x).__name__}{getattr(x, 'shape', getattr(x, 'mode', ''))}",
)
def test_kind_shape_and_type_are_kept(x):
    y = nlden.denoise(x, 0.1 if getattr(x, "dtype", None) in (torch.float64, np.float32) else 25)
    assert type(y) is (Image.Image if isinstance(x, Image.Image) else type(x))
    for name in ("shape", "dtype", "mode", "size"):
        if not callable(getattr(x, name, None)):
            assert getattr(y, name, None) == getattr(x, name, None)


def test_alpha_and_the_input_are_left_alone():
    rgba = np.concatenate([NOISY, NOISY[..., :1]], axis=2)
    before = rgba.copy()
    after = nlden.denoise(rgba, 25)
    assert (rgba == before).all()
    assert (after[..., 3] == before[..., 3]).all()
    assert (nlden.denoise(rgba, 25, strength=0) == before).all()


@pytest.mark.parametrize(
    ("x", "arguments", "error", "word"),
    [
        (NOISY, {"sigma": -1}, ValueError, "sigma"),
        (NOISY, {"sigma": "much"}, ValueError, "sigma"),
        (NOISY / 255, {"sigma": 25}, ValueError, "25/255"),
        (NOISY, {"strength": 2}, ValueError, "strength"),
        (NOISY, {"model": "nonsense"}, ValueError, "nonsense"),
        (NOISY, {"device": "abacus"}, ValueError, "abacus"),
        (NOISY, {"model": "image-gray"}, ValueError, "4:2:0 and grey pictures, not rgb"),
        (NOISY, {"precision": "fp8"}, ValueError, "fp8"),
        (Image.new("F", (8, 8)), {}, TypeError, "mode F"),
        (NOISY.astype(np.int64), {}, TypeError, "int64"),
        (NOISY[0, 0], {}, ValueError, "shape"),
        (np.zeros((2, 2, 2, 2, 3), np.uint8), {}, ValueError, "shape"),
        ("a picture", {}, TypeError, "str"),
        ([NOISY, NOISY[:20]], {}, TypeError, "list"),
        (np.array([NOISY, None], object), {}, TypeError, "frames of one size"),
        (np.full((8, 8, 3), np.nan), {}, ValueError, "NaN"),
        (np.full((8, 8), np.inf, np.float16), {}, ValueError, "64 of the values"),
        (torch.full((2, 3, 8, 8), torch.nan), {"model": "video-base"}, ValueError, "384 of"),
    ],
)
def test_wrong_input_is_told(x, arguments, error, word):
    with pytest.raises(error, match=word):
        nlden.denoise(x, **arguments)


def test_pictures_of_sixteen_bits_keep_them():
    codes = NOISY[..., 0].astype(np.uint16) * 257
    clean = nlden.denoise(Image.fromarray(codes), 25 * 257)
    assert clean.mode == "I;16"
    assert np.array_equal(np.asarray(clean), nlden.denoise(codes, 25 * 257))


def test_pictures_with_a_palette_become_rgb():
    palette = Image.fromarray(NOISY).convert("P", palette=Image.Palette.ADAPTIVE)
    assert nlden.denoise(palette, 25).mode == "RGB"
    palette.info["transparency"] = 3
    clean = nlden.denoise(palette, 25)
    alpha = np.asarray(palette.convert("RGBA"))[..., 3]
    assert np.array_equal(np.asarray(clean)[..., 3], alpha)


def test_tensors_with_gradients_are_taken():
    x = torch.from_numpy(NOISY / 255).movedim(-1, 0)
    clean = nlden.denoise(x.clone().requires_grad_(), 25 / 255)
    assert torch.equal(clean, nlden.denoise(x, 25 / 255))


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_a_clip_may_be_shorter_than_the_window(frames):
    noise = np.random.default_rng(1).normal(0, 25 / 255, (4, 40, 56, 3))
    clip = CLEAN[:40, :56] / 255 + noise
    clean = nlden.denoise(clip[:frames], 25 / 255, model="video-base", precision="fp32")
    assert clean.shape == (frames, 40, 56, 3)
    for frame in clean:
        assert np.square(frame - CLEAN[:40, :56] / 255).mean() < 0.4 * (25 / 255) ** 2


def test_load_returns_a_network_for_rgb():
    network = nlden.load("image-base")
    x = torch.rand(2, 3, 33, 47)
    assert not network.training
    assert network(x, 0.1).shape == x.shape


def test_an_unknown_attribute_is_told():
    with pytest.raises(AttributeError, match="nonsense"):
        nlden.nonsense  # noqa: B018


def test_flat_areas_of_grey_pictures_are_flat():
    """Weights that know photographs alone leave 33.5 dB here."""
    clean = photographs.horse()[36:292, 72:328].astype(np.float32)
    noisy = clean + RNG.normal(0, 0.1, clean.shape).astype(np.float32)
    ours = nlden.denoise(noisy, 0.1).clip(0, 1)
    assert peak_signal_noise_ratio(clean, ours, data_range=1) > 35.5


def test_print_keeps_its_edges_and_colors():
    """Weights that know photographs alone leave 29 dB of this drawing, which has no noise."""
    drawn = draw_unseen(3)[2][:, :256, :256].permute(1, 2, 0).numpy()
    assert peak_signal_noise_ratio(drawn, nlden.denoise(drawn, model="image-base-real")) > 45
