import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import fourier_gaussian, gaussian_filter, zoom

from nlden.noise import (
    blurred_gaussian,
    covariant_gaussian,
    upscaled_gaussian,
    white_gaussian,
)
from nlden.noise.gaussian import blur_response, filtered


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def correlation(field, rows, columns):
    """Correlation of a periodic field (..., H, W) with itself, moved."""
    moved = field.roll((rows, columns), (-2, -1))
    return ((field * moved).mean() / field.square().mean()).item()


def test_the_level_of_white_noise_may_differ_by_picture_channel_and_pixel():
    x = torch.full((2, 3, 256, 256), 0.3, dtype=torch.float64)
    picture = torch.tensor([0.02, 0.2], dtype=torch.float64).view(2, 1, 1, 1)
    channel = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64).view(1, 3, 1, 1)
    place = torch.linspace(0, 1, 256, dtype=torch.float64).expand(2, 1, 256, 256)
    n = 256 * 256
    for sigma in (picture, channel, picture * channel):
        noise = white_gaussian(x, sigma, generator()) - x
        expected = sigma.expand(2, 3, 1, 1).square()[..., 0, 0]
        assert torch.allclose(noise.var((2, 3)), expected, rtol=5 * (2 / n) ** 0.5)
        assert (noise.mean((2, 3)) <= 5 * expected.sqrt() / n**0.5).all()
    noise = white_gaussian(x, place, generator()) - x
    columns = noise.square().mean((0, 1, 2))  # of 2 * 3 * 256 values
    assert torch.allclose(columns, place[0, 0, 0].square(), rtol=5 * (2 / 1536) ** 0.5)


@settings(max_examples=15)
@given(seed=st.integers(0, 99), rank=st.integers(1, 3), scale=st.floats(0.01, 0.5))
def test_the_channels_have_the_covariance_that_is_told(seed, rank, scale):
    root = scale * torch.randn(2, 3, rank, generator=generator(seed), dtype=torch.float64)
    covariance = root @ root.mT
    x = torch.zeros(2, 3, 128, 128, dtype=torch.float64)
    noise = covariant_gaussian(x, covariance, generator(seed)).flatten(2)
    found = noise @ noise.mT / noise.shape[2]
    # Variance of an entry of a sample covariance: (C_ii C_jj + C_ij^2) / n.
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    products = diagonal[:, :, None] * diagonal[:, None]
    bound = 5 * ((products + covariance.square()) / noise.shape[2]).sqrt()
    assert ((found - covariance).abs() <= bound + 1e-12).all()
    # Without full rank the noise stays in its plane or on its line.
    assert (torch.linalg.eigvalsh(found)[:, : 3 - rank] < 1e-9 * scale**2).all()


def test_one_covariance_serves_all_pictures_and_all_ones_are_grey():
    x = torch.rand(2, 3, 16, 17, generator=generator())
    noise = covariant_gaussian(x, torch.full((3, 3), 0.04), generator()) - x
    assert noise.std().item() == pytest.approx(0.2, rel=0.2)
    assert torch.allclose(noise, noise.mean(1, keepdim=True).expand_as(noise), atol=1e-5)
    diagonal = torch.diag(torch.tensor([0.01, 0.04, 0.0]))
    levels = torch.tensor([0.1, 0.2, 0.0]).view(1, 3, 1, 1)
    white = white_gaussian(x, levels, generator())
    assert torch.allclose(covariant_gaussian(x, diagonal, generator()), white, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
@pytest.mark.parametrize("width", [0.6, 1.0, 2.5])
def test_the_blur_is_that_of_scipy(size, width):
    x = torch.randn(1, 1, *size, generator=generator(), dtype=torch.float64)
    theirs = np.fft.ifft2(fourier_gaussian(np.fft.fft2(x[0, 0].numpy()), width)).real
    ours = filtered(x, blur_response(x, width))[0, 0].numpy()
    assert np.allclose(ours, theirs, atol=1e-10)
    if width > 2:  # wide enough for the samples of a Gaussian to be one in frequency as well
        spatial = gaussian_filter(x[0, 0].numpy(), width, mode="wrap", truncate=8)
        assert np.allclose(ours, spatial, atol=1e-6)


@pytest.mark.parametrize("width", [0.0, 0.8, 1.5, 3.0])
def test_blurred_noise_has_its_level_and_the_correlation_of_the_theory(width):
    x = torch.full((4, 3, 255, 256), 0.5, dtype=torch.float64)
    noise = blurred_gaussian(x, 0.1, width, generator()) - x
    # A blurred field has about 8 pi width^2 fewer independent squares.
    n = x.numel() / max(1.0, 8 * np.pi * width**2)
    assert noise.square().mean().item() == pytest.approx(0.01, rel=5 * (2 / n) ** 0.5)
    assert abs(noise.mean().item()) < 5 * 0.1 / (x.numel() / max(1, 4 * np.pi * width**2)) ** 0.5
    for rows, columns in ((0, 1), (1, 0), (1, 1), (0, 3), (5, 0)):
        expected = np.exp(-(rows**2 + columns**2) / (4 * width**2)) if width else 0.0
        assert correlation(noise, rows, columns) == pytest.approx(expected, abs=5 / n**0.5 + 1e-3)
    mixed = (noise[:, 0] * noise[:, 1]).mean() / 0.01
    assert abs(mixed.item()) < 5 / (n / 3) ** 0.5


def test_pictures_of_a_batch_have_levels_and_widths_of_their_own():
    x = torch.zeros(2, 3, 64, 64)
    sigma, width = torch.tensor([0.1, 0.3]), torch.tensor([0.0, 1.5])
    both = blurred_gaussian(x, sigma, width, generator())
    for i in range(2):
        alone = blurred_gaussian(x, float(sigma[i]), float(width[i]), generator())
        assert torch.allclose(both[i], alone[i], atol=1e-6)
    white = white_gaussian(x, 0.1, generator())
    assert torch.allclose(both[0], white[0], atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_enlarged_noise_has_its_level_and_correlation(factor):
    x = torch.zeros(2, 3, 251, 246, dtype=torch.float64)
    noise = upscaled_gaussian(x, 0.1, factor, generator())
    n = x.numel() / factor**2
    assert noise.square().mean().item() == pytest.approx(0.01, rel=5 * (2 / n) ** 0.5)
    # The theory of one axis: pixel p is a blend of two samples of variance 1.
    weights = zoom_weights(factor)
    energy = (weights**2).sum(1).mean()
    for distance in range(1, 2 * factor + 2):
        moved = [
            np.dot(weights[p], shifted(weights[(p + distance) % factor], (p + distance) // factor))
            for p in range(factor)
        ]
        across = (noise[..., distance:] * noise[..., :-distance]).mean().item() / 0.01
        assert across == pytest.approx(np.mean(moved) / energy, abs=5 / n**0.5)


def zoom_weights(factor):
    """Weights of 7 samples in each pixel of the cell of the third, as scipy enlarges them."""
    samples = np.eye(7)
    large = zoom(samples, (1, factor), order=1, mode="grid-constant", grid_mode=True)
    return large[:, 2 * factor : 3 * factor].T


def shifted(weights, cells):
    return np.roll(weights, cells)


def test_enlarged_noise_has_no_border():
    x = torch.zeros(400, 1, 9, 10)
    noise = upscaled_gaussian(x, 1.0, 2, generator())
    variances = noise.square().mean((0, 1))  # the same 25/64 of a sample's in each pixel
    assert torch.allclose(variances, torch.ones(9, 10), rtol=5 * (2 / 400) ** 0.5)
