import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlden import noise
from nlden.noise.camera import Camera

MODELS = {
    "white_gaussian": lambda x, g: noise.white_gaussian(x, 0.1, g),
    "covariant_gaussian": lambda x, g: noise.covariant_gaussian(x, 0.01 * torch.eye(3), g),
    "blurred_gaussian": lambda x, g: noise.blurred_gaussian(x, 0.1, 0.8, g),
    "upscaled_gaussian": lambda x, g: noise.upscaled_gaussian(x, 0.1, 3, g),
    "row_column": lambda x, g: noise.row_column(x, 0.1, 0.05, g),
    "banding": lambda x, g: noise.banding(x, 0.1, 7.0, g),
    "salt_and_pepper": lambda x, g: noise.salt_and_pepper(x, 0.5, g),
    "speckle": lambda x, g: noise.speckle(x, 0.1, g),
    "film_grain": lambda x, g: noise.film_grain(x, 0.1, 0.8, g),
    "poisson_gaussian": lambda x, g: noise.poisson_gaussian(x, 0.01, 0.01, g),
    "through_camera": lambda x, g: noise.through_camera(x, camera(len(x)), g),
    "draw_real_noise": lambda x, g: noise.draw_real_noise(x, g)["noisy"],
}


def camera(n):
    return Camera(torch.full((n,), 0.01), torch.full((n,), 0.01), torch.full((n, 3), 1.5))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(16, 16), (7, 13), (1, 2)])
def test_every_model_is_seeded_and_keeps_shape_type_and_its_input(name, dtype, size):
    x = torch.rand((2, 3, *size), generator=generator(1), dtype=dtype)
    before = x.clone()
    noisy = MODELS[name](x, generator(3))
    assert noisy.shape == x.shape
    assert noisy.dtype == dtype
    assert noisy.isfinite().all()
    assert torch.equal(x, before)
    assert torch.equal(MODELS[name](x, generator(3)), noisy)
    # The pictures of a batch have noise of their own.
    twins = x[:1].expand(2, -1, -1, -1)
    if size == (16, 16):
        assert not torch.equal(MODELS[name](x, generator(4)), noisy)
        first, second = MODELS[name](twins, generator(3))
        assert not torch.equal(first, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_on_the_device_of_its_input(name):
    x = torch.rand((2, 3, 9, 8), device="cuda")
    noisy = [MODELS[name](x, torch.Generator("cuda").manual_seed(0)) for _ in range(2)]
    assert noisy[0].device == x.device
    assert torch.equal(*noisy)


@given(level=st.floats(0, 0.5), other=st.floats(0, 0.5))
def test_a_level_is_a_number_or_one_a_picture_a_channel_or_a_map(level, other):
    x = torch.full((2, 3, 4, 5), 0.5)
    levels = torch.tensor([level, other])
    both = noise.speckle(x, levels, generator())
    assert torch.equal(both[:1], noise.speckle(x, level, generator())[:1])
    assert torch.equal(both[1:], noise.speckle(x, other, generator())[1:])
    where = levels.view(2, 1, 1, 1).expand(2, 1, 4, 5)
    assert torch.equal(noise.speckle(x, where, generator()), both)
    channels = torch.tensor([level, other, 0.0]).view(1, 3, 1, 1)
    split = noise.speckle(x, channels, generator())
    assert torch.equal(split[:, 0], noise.speckle(x, level, generator())[:, 0])
    assert torch.equal(split[:, 2], x[:, 2])


X = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: noise.speckle(X, -0.1, g), r"sigma=-0.1 must be at least 0"),
        (lambda g: noise.speckle(X, float("nan"), g), r"sigma=nan must be"),
        (lambda g: noise.speckle(X, torch.tensor([0.1, -2.0]), g), r"sigma=-2 must be"),
        (lambda g: noise.speckle(X, torch.zeros(3), g), r"sigma has shape \(3, 1, 1, 1\)"),
        (lambda g: noise.speckle(X, torch.zeros(3, 8), g), r"sigma has shape \(3, 8\)"),
        (lambda g: noise.speckle(X[0], 0.1, g), r"x has shape \(3, 8, 8\), must be \(B, C, H, W\)"),
        (lambda g: noise.salt_and_pepper(X, 1.5, g), r"density=1.5 must be in \[0, 1\]"),
        (lambda g: noise.salt_and_pepper(X, 0.5, g, salt=-1), r"salt=-1 must be in \[0, 1\]"),
        (lambda g: noise.banding(X, 0.1, 1.0, g), r"period=1 must be at least 2"),
        (lambda g: noise.film_grain(X, 0.1, -1, g), r"size=-1 must be at least 0"),
        (lambda g: noise.blurred_gaussian(X, 0.1, -1, g), r"width=-1 must be at least 0"),
        (lambda g: noise.upscaled_gaussian(X, 0.1, 0, g), r"factor=0 must be at least 1"),
        (lambda g: noise.poisson_gaussian(X, -1, 0, g), r"shot=-1 must be at least 0"),
        (lambda g: noise.row_column(X, 0, -1, g), r"columns=-1 must be at least 0"),
        (lambda g: noise.covariant_gaussian(X, torch.eye(2), g), r"covariance has shape \(2, 2\)"),
        (
            lambda g: noise.covariant_gaussian(X, torch.ones(3, 3).triu(), g),
            r"covariance=.* must be symmetric",
        ),
        (
            lambda g: noise.covariant_gaussian(X, 1 - 2 * torch.eye(3), g),
            r"eigenvalue -2, must have none below 0",
        ),
        (lambda g: noise.through_camera(X, camera(3), g), r"gains \(3, 3\), must be"),
        (lambda g: noise.through_camera(X[:, :1], camera(2), g), r"rgb has shape \(2, 1, 8, 8\)"),
        (lambda g: noise.draw_real_noise(X, g, X[..., :4]), r"coded has shape \(2, 3, 8, 4\)"),
        (lambda g: noise.compress_jpeg(X, 0), r"quality=0 must be in \[1, 95\]"),
        (lambda g: noise.compress_jpeg(X[0], 50), r"x has shape \(3, 8, 8\)"),
        (lambda g: noise.compress_video(X, 52), r"crf=52 must be in \[0, 51\]"),
        (lambda g: noise.compress_video(X, 20, "av1"), r"codec='av1' must be one of h264, hevc"),
        (lambda g: noise.compress_video(X[:0], 20), r"clip has shape \(0, 3, 8, 8\)"),
    ],
)
def test_what_is_not_allowed_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(generator())
