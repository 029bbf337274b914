"""Noise with a pattern of its own, or that depends on the picture: stripes, impulses, grain."""

import math

import torch
from torch import Generator, Tensor

from nlden.noise.gaussian import blurred_normal
from nlden.noise.sampling import normal, per_picture


def row_column(
    x: Tensor, rows: Tensor | float, columns: Tensor | float, generator: Generator
) -> Tensor:
    """Add what a sensor adds as it reads lines: ``x + rows * n_y + columns * n_x``.

    ``n_y`` is one standard normal number for each row, ``n_x`` for each column, shared by the
    channels: pixels of a row are correlated by ``rows^2 / (rows^2 + columns^2)``.

    Args:
        x: ``(B, C, H, W)``.
        rows: level of the rows; one number, ``(B,)`` or broadcasting.
        columns: level of the columns, likewise.
        generator: source of randomness, on the device of ``x``.

    Raises:
        ValueError: if a level is negative.
    """
    batch, _, height, width = x.shape
    row_level, column_level = per_picture("rows", rows, x), per_picture("columns", columns, x)
    lines = row_level * normal((batch, 1, height, 1), x, generator)
    return x + lines + column_level * normal((batch, 1, 1, width), x, generator)


def banding(
    x: Tensor, sigma: Tensor | float, period: Tensor | float, generator: Generator
) -> Tensor:
    """Add horizontal bands: ``x + sqrt(2) sigma sin(2 pi (y / period + phase))``.

    The phase is uniform, one a picture. Rows that are d apart are correlated by
    ``cos(2 pi d / period)``.

    Args:
        x: ``(B, C, H, W)``.
        sigma: root mean square of the bands; one number, ``(B,)`` or broadcasting.
        period: distance of the bands in pixels, at least 2; one number or ``(B,)``.
        generator: source of randomness, on the device of ``x``.

    Raises:
        ValueError: if the level is negative or the period too short for the pixel grid.
    """
    level, length = per_picture("sigma", sigma, x), per_picture("period", period, x, low=2.0)
    phase = torch.rand((x.shape[0], 1, 1, 1), generator=generator, device=x.device, dtype=x.dtype)
    y = torch.arange(x.shape[2], device=x.device, dtype=x.dtype)[:, None]
    return x + level * math.sqrt(2) * torch.sin(2 * math.pi * (y / length + phase))


def salt_and_pepper(
    x: Tensor, density: Tensor | float, generator: Generator, salt: Tensor | float = 0.5
) -> Tensor:
    """Replace values by 1 (salt) or 0 (pepper), each independently.

    The mean becomes ``(1 - density) x + density * salt``.

    Args:
        x: ``(B, C, H, W)``.
        density: share of the values that are replaced; one number, ``(B,)`` or broadcasting.
        generator: source of randomness, on the device of ``x``.
        salt: share of the replaced that become 1, likewise.

    Raises:
        ValueError: if a share lies outside [0, 1].
    """
    share = per_picture("density", density, x, high=1.0)
    white = per_picture("salt", salt, x, high=1.0)
    draw = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return torch.where(draw < share, (draw < share * white).to(x), x)


def speckle(x: Tensor, sigma: Tensor | float, generator: Generator) -> Tensor:
    """Multiply by Gaussian noise around 1: ``x (1 + sigma n)``, of standard deviation ``sigma x``.

    Args:
        x: ``(B, C, H, W)``.
        sigma: level relative to the signal; one number, ``(B,)`` or broadcasting.
        generator: source of randomness, on the device of ``x``.

    Raises:
        ValueError: if the level is negative.
    """
    return x * (1 + per_picture("sigma", sigma, x) * normal(x.shape, x, generator))


def film_grain(
    x: Tensor, sigma: Tensor | float, size: Tensor | float, generator: Generator
) -> Tensor:
    """Add film grain: ``x + 2 sigma sqrt(x (1 - x)) n_size``.

    Grains that cover a share x of the film leave a variance in proportion to ``x (1 - x)``
    (the Boolean model of A. Newson et al.: "Realistic Film Grain Rendering", IPOL 2017). Here
    the coverage is replaced by its Gaussian limit, and the shapes of the grains by a Gaussian:
    ``n_size`` is that of :func:`nlden.noise.blurred_gaussian`, with a power spectrum
    ``exp(-4 pi^2 size^2 |f|^2)``. Each channel is a layer of film with grains of its own; black
    and white have none.

    Args:
        x: ``(B, C, H, W)``, float32 or float64; clipped to [0, 1] where it sets the strength.
        sigma: level in mid-tones (x = 1/2); one number, ``(B,)`` or broadcasting.
        size: standard deviation of the grain's profile in pixels, one number or ``(B,)``.
        generator: source of randomness, on the device of ``x``.

    Raises:
        ValueError: if the level or the size is negative.
    """
    coverage = x.clamp(0, 1)
    strength = 2 * per_picture("sigma", sigma, x) * (coverage * (1 - coverage)).sqrt()
    return x + strength * blurred_normal(x, per_picture("size", size, x), generator)
