import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve
from scipy.stats import kstest
from skimage import data as photographs

from nlden.noise import Camera, draw_camera, poisson_gaussian, quantize, through_camera


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def camera(shot=0.0, read=0.0, gains=(2.0, 1.0, 1.6), n=1):
    double = {"dtype": torch.float64}
    return Camera(
        torch.full((n,), shot, **double),
        torch.full((n,), read, **double),
        torch.tensor([gains] * n, **double),
    )


def to_srgb(linear):
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def to_linear(srgb):
    return np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)


@settings(max_examples=10)
@given(shot=st.floats(1e-4, 0.05), read=st.floats(1e-4, 0.05), seed=st.integers(0, 99))
def test_shot_and_read_noise_have_the_moments_of_the_theory(shot, read, seed):
    light = torch.tensor([0.0, 0.05, 0.3, 1.0], dtype=torch.float64)
    x = light.view(4, 1, 1, 1).expand(4, 3, 60, 60)
    noisy = poisson_gaussian(x, shot, read, generator(seed)).flatten(1)
    n = noisy.shape[1]
    variance = shot * light + read**2
    # The fourth central moment: 3 v^2 + shot^3 light.
    scatter = ((2 * variance**2 + shot**3 * light) / n).sqrt()
    assert ((noisy.mean(1) - light).abs() <= 5 * (variance / n).sqrt()).all()
    assert ((noisy.var(1) - variance).abs() <= 5 * scatter).all()
    skewness = ((noisy - light[:, None]) ** 3).mean(1)  # shot^2 light, what a Gaussian has not
    bound = 5 * ((15 * variance**3 + 25 * variance * shot**3 * light + shot**5 * light) / n).sqrt()
    assert ((skewness - shot**2 * light).abs() <= bound + 1e-15).all()


def test_electrons_are_counted():
    x = torch.rand(1, 1, 50, 50, generator=generator())
    counts = poisson_gaussian(x, 0.01, 0.0, generator()) / 0.01
    assert torch.allclose(counts, counts.round(), atol=1e-4)
    assert torch.equal(poisson_gaussian(x, 0.0, 0.0, generator()), x)
    assert torch.equal(poisson_gaussian(-x, 0.01, 0.0, generator()), torch.zeros_like(x))


def test_each_picture_has_its_own_sensor():
    x = torch.full((3, 3, 100, 100), 0.5, dtype=torch.float64)
    shot, read = torch.tensor([0.0, 0.01, 0.01]), torch.tensor([0.02, 0.0, 0.1])
    noise = poisson_gaussian(x, shot, read, generator()) - x
    expected = (shot * 0.5 + read**2).double()
    assert torch.allclose(noise.var((1, 2, 3)), expected, rtol=5 * (2 / 30000) ** 0.5)


@pytest.mark.parametrize("size", [(64, 66), (63, 65)])
def test_without_a_generator_the_picture_is_only_demosaicked(size):
    srgb = photographs.astronaut()[100 : 100 + size[0], 180 : 180 + size[1]] / 255
    ours = through_camera(torch.from_numpy(srgb).permute(2, 0, 1)[None], camera(0.1, 0.1))
    assert ours.shape == (1, 3, *size)
    # Classical bilinear demosaicking of the linear picture by convolution of masked planes.
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    square = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    linear, theirs = to_linear(srgb), np.zeros_like(srgb)
    mask = np.zeros_like(srgb)
    mask[::2, ::2, 0] = mask[1::2, 1::2, 2] = mask[::2, 1::2, 1] = mask[1::2, ::2, 1] = 1
    for channel, kernel in enumerate((square, cross, square)):
        theirs[..., channel] = convolve((linear * mask)[..., channel], kernel)
    inner = np.s_[2:-2, 2:-2]
    found = ours[0].permute(1, 2, 0).numpy()
    assert np.allclose(found[inner], to_srgb(theirs)[inner], atol=1e-6)


@pytest.mark.parametrize("gains", [(1.0, 1.0, 1.0), (2.4, 1.3, 1.7)])
def test_a_flat_picture_comes_back_as_it_was(gains):
    x = torch.tensor([0.9, 0.4, 0.02], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 7, 10)
    assert torch.allclose(through_camera(x, camera(gains=gains)), x, atol=1e-6)
    sensor = camera(1e-9, 1e-9, gains)
    # A bright sensor loses nothing but the rounding of its converter.
    assert torch.allclose(through_camera(x, sensor, generator(), bits=16), x, atol=1e-3)


def test_the_noise_of_a_flat_picture_is_what_the_pipeline_makes_of_it():
    shot, read, gains = 2e-4, 1e-3, (2.0, 1.25, 1.6)
    n = 400
    x = torch.tensor([0.5, 0.6, 0.4], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, n, n)
    noise = (through_camera(x, camera(shot, read, gains), generator(), bits=16) - x)[0]
    for channel, share in enumerate((9 / 16, 5 / 8, 9 / 16)):
        level = x[0, channel, 0, 0].item()
        signal = float(to_linear(level)) / gains[channel]
        slope = gains[channel] * 1.055 / 2.4 * (signal * gains[channel]) ** (1 / 2.4 - 1)
        variance = slope**2 * (shot * signal + read**2)
        # Interpolated pixels depend on each other: about 4 times fewer are independent.
        found = noise[channel].var().item()
        assert found == pytest.approx(share * variance, rel=5 * (2 * 4 / n**2) ** 0.5 + 0.005)
        # Pixels that the mosaic has are noisy, those between are averages.
        known = {0: noise[0, ::2, ::2], 1: noise[1, ::2, 1::2], 2: noise[2, 1::2, 1::2]}[channel]
        assert known.var().item() == pytest.approx(variance, rel=5 * (8 / n**2) ** 0.5 + 0.005)
        between = {0: noise[0, 1::2, 1::2], 1: noise[1, ::2, ::2], 2: noise[2, ::2, ::2]}[channel]
        assert between.var().item() == pytest.approx(variance / 4, rel=5 * (16 / n**2) ** 0.5)
        # Neighbours of green: a known pixel and the average that holds a quarter of it; 1/4 v.
        if channel == 1:
            across = (noise[1, :, 1:] * noise[1, :, :-1]).mean().item()
            assert across == pytest.approx(variance / 4, rel=0.03)
    colors = noise.flatten(1).corrcoef()
    assert (colors - colors.diag().diag()).abs().max() < 5 * (4 / n**2) ** 0.5


def test_a_coarse_converter_leaves_few_codes_and_saturates():
    x = torch.linspace(0, 1, 64, dtype=torch.float64).expand(1, 3, 64, 64)
    sensor = camera(0.01, 0.01, (1.0, 1.0, 1.0))
    green = through_camera(x, sensor, generator(), bits=3)[0, 1, ::2, 1::2]
    codes = torch.from_numpy(to_linear(green.numpy()))
    assert torch.allclose(codes, quantize(codes, 3), atol=1e-6)
    assert green.min() == 0
    assert green.max() == pytest.approx(1)


def test_a_picture_alone_is_what_it_is_in_a_batch():
    x = torch.rand(2, 3, 9, 12, generator=generator(), dtype=torch.float64)
    cameras = Camera(torch.zeros(2), torch.zeros(2), torch.tensor([[2.0, 1, 1.5], [1.0, 1, 1]]))
    both = through_camera(x, cameras)
    one = through_camera(x[1:], replace(cameras, shot=cameras.shot[1:], gains=cameras.gains[1:]))
    assert torch.allclose(both[1:], one)


def test_drawn_cameras_are_those_of_the_paper():
    n = 20000
    drawn = draw_camera(n, generator())
    shot, read = drawn.shot.double().log(), drawn.read.double().log()
    low, high = math.log(1e-4), math.log(0.012)
    assert kstest(shot.numpy(), "uniform", (low, high - low)).pvalue > 1e-3
    scatter = 2 * read - (2.18 * shot + 1.20)
    assert kstest(scatter.numpy(), "norm", (0, 0.26)).pvalue > 1e-3
    green = drawn.gains[:, 1].double()
    red, blue = (drawn.gains[:, c].double() / green for c in (0, 2))
    assert kstest(red.numpy(), "uniform", (1.9, 0.5)).pvalue > 1e-3
    assert kstest(blue.numpy(), "uniform", (1.5, 0.4)).pvalue > 1e-3
    # The exposure is 0.8 + 0.1 n within [0.5, 1]: beyond 1 lie 2.3 % of a normal number.
    exposure = 1 / green
    assert exposure.min() >= 0.5
    assert exposure.max() <= 1 + 1e-6
    assert (exposure > 1 - 1e-6).double().mean().item() == pytest.approx(0.02275, abs=0.005)
    assert exposure.median().item() == pytest.approx(0.8, abs=5 * 0.125 / n**0.5)
    pairs = torch.stack([shot, scatter, red, blue, exposure]).corrcoef()
    assert (pairs - pairs.diag().diag()).abs().max() < 5 / n**0.5
    again = draw_camera(n, generator())
    assert all(torch.equal(getattr(drawn, k), getattr(again, k)) for k in ("shot", "read", "gains"))
