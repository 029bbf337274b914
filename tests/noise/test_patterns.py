import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs

from nlden.noise import banding, film_grain, row_column, salt_and_pepper, speckle


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(value, *shape):
    return torch.full(shape, value, dtype=torch.float64)


@settings(max_examples=10)
@given(rows=st.floats(0.01, 0.3), columns=st.floats(0.01, 0.3), seed=st.integers(0, 99))
def test_rows_and_columns_share_their_noise(rows, columns, seed):
    x = flat(0.5, 8, 3, 200, 100)
    noise = row_column(x, rows, columns, generator(seed)) - x
    # Exactly the sum of one number a row and one a column, the same in all channels.
    assert torch.equal(noise[:, 0], noise[:, 1])
    of_rows, of_columns = noise.mean(3, keepdim=True), noise.mean(2, keepdim=True)
    whole = noise.mean((2, 3), keepdim=True)
    assert torch.allclose(noise, of_rows + of_columns - whole, atol=1e-12)
    assert of_rows[:, 0].var(1).mean() == pytest.approx(rows**2, rel=5 * (2 / 1600) ** 0.5)
    assert of_columns[:, 0].var(2).mean() == pytest.approx(columns**2, rel=5 * (2 / 800) ** 0.5)


def test_rows_alone_leave_no_trace_across():
    x = torch.rand(2, 3, 20, 30, generator=generator())
    noise = row_column(x, torch.tensor([0.1, 0.0]), 0.0, generator()) - x
    assert noise[0].std() > 0.05
    assert torch.allclose(noise[0], noise[0, :, :, :1].expand(3, 20, 30), atol=1e-6)
    assert torch.equal(noise[1], torch.zeros(3, 20, 30))


@pytest.mark.parametrize("period", [2.5, 8.0, 31.7])
def test_bands_have_their_level_period_and_a_phase_of_their_own(period):
    x = flat(0.5, 2000, 1, 40, 2)
    noise = banding(x, 0.1, period, generator()) - x
    assert torch.equal(noise[..., 0], noise[..., 1])
    rows = noise[:, 0, :, 0]
    # Over the phases: mean 0, variance sigma^2, correlation cos(2 pi d / period).
    assert rows.mean(0).abs().max() < 5 * 0.1 / 2000**0.5
    assert torch.allclose(rows.square().mean(0), flat(0.01, 40), rtol=5 * (0.5 / 2000) ** 0.5)
    for distance in (1, 3, 10):
        across = (rows[:, distance:] * rows[:, :-distance]).mean().item() / 0.01
        assert across == pytest.approx(math.cos(2 * math.pi * distance / period), abs=0.12)
    assert rows.abs().max() <= 0.1 * 2**0.5 + 1e-12


@settings(max_examples=15)
@given(
    density=st.floats(0, 1), salt=st.floats(0, 1), value=st.floats(0.1, 0.9), seed=st.integers(0, 9)
)
def test_impulses_have_their_density_and_leave_the_rest(density, salt, value, seed):
    x = flat(value, 1, 3, 200, 200)
    noisy = salt_and_pepper(x, density, generator(seed), salt)
    n = x.numel()
    for code, share in ((1, density * salt), (0, density * (1 - salt)), (value, 1 - density)):
        found = (noisy == code).double().mean().item()
        assert found == pytest.approx(share, abs=5 * (share * (1 - share) / n) ** 0.5 + 5 / n)
    assert ((noisy == 0) | (noisy == 1) | (noisy == value)).all()


def test_impulses_are_independent():
    hit = (salt_and_pepper(flat(0.5, 1, 3, 300, 300), 0.2, generator()) != 0.5).double() - 0.2
    for moved in (hit.roll(1, 3), hit.roll(1, 2), hit.roll(1, 1)):
        assert abs((hit * moved).mean().item()) < 5 * 0.16 / hit.numel() ** 0.5


@settings(max_examples=10)
@given(sigma=st.floats(0.01, 0.5), seed=st.integers(0, 99))
def test_speckle_grows_with_the_signal(sigma, seed):
    x = torch.linspace(0, 1, 5, dtype=torch.float64).view(5, 1, 1, 1).expand(5, 3, 100, 100)
    noise = speckle(x, sigma, generator(seed)) - x
    expected = sigma * x[:, 0, 0, 0]
    assert torch.allclose(noise.std((1, 2, 3)), expected, rtol=5 * (0.5 / 30000) ** 0.5)
    assert (noise.mean((1, 2, 3)).abs() <= 5 * expected / 30000**0.5).all()
    assert torch.equal(noise[0], torch.zeros(3, 100, 100, dtype=torch.float64))


@pytest.mark.parametrize("size", [0.0, 0.7, 1.5])
def test_grain_is_strongest_in_mid_tones_and_has_its_spectrum(size):
    tones = torch.tensor([0.0, 0.1, 0.5, 0.8, 1.0], dtype=torch.float64)
    x = tones.view(5, 1, 1, 1).expand(5, 3, 200, 201)
    noise = film_grain(x, 0.05, size, generator()) - x
    n = 3 * 200 * 201 / max(1.0, 8 * math.pi * size**2)
    expected = (0.05**2) * 4 * tones * (1 - tones)
    assert torch.allclose(noise.square().mean((1, 2, 3)), expected, rtol=5 * (2 / n) ** 0.5)
    assert (noise[0] == 0).all()
    assert (noise[4] == 0).all()
    # The periodogram of white noise behind a filter is exponential around the filter's response:
    # means over rings of k frequencies scatter by 1 / sqrt(k).
    power = torch.fft.fft2(noise[2]).abs().square().mean(0) / (200 * 201)
    rows, columns = torch.fft.fftfreq(200).double(), torch.fft.fftfreq(201).double()
    squares = rows[:, None] ** 2 + columns**2
    response = torch.exp(-4 * (math.pi * size) ** 2 * squares)
    response = 0.05**2 * response / response.mean()
    for low, high in ((0.01, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.5)):
        ring = (squares.sqrt() >= low) & (squares.sqrt() < high)
        ratio = (power[ring] / response[ring]).mean().item()
        # A real field has each frequency twice.
        assert ratio == pytest.approx(1, abs=5 / (3 * ring.sum().item() / 2) ** 0.5)


def test_grain_on_a_photograph_follows_its_tones():
    x = torch.from_numpy(photographs.camera())[::2, ::2].double()[None, None] / 255
    x = x.expand(12, 1, -1, -1)
    variance = (film_grain(x, 0.08, 1.0, generator()) - x).square().mean((0, 1))
    told = 0.08**2 * 4 * x[0, 0] * (1 - x[0, 0])
    for low in range(0, 256, 32):
        tone = (x[0, 0] * 255 >= low) & (x[0, 0] * 255 < low + 32)
        independent = 12 * tone.sum().item() / (8 * math.pi)
        found = (variance[tone].sum() / told[tone].sum()).item()
        assert found == pytest.approx(1, rel=5 * (2 / independent) ** 0.5)
