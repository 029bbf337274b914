"""Gaussian noise with memory: between the channels, or between neighbouring pixels.

White noise of any level, per picture, channel or pixel, is
:func:`nlden.noise.white_gaussian` with a ``sigma`` that broadcasts.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from nlden.noise.sampling import normal, per_picture


def covariant_gaussian(x: Tensor, covariance: Tensor, generator: Generator) -> Tensor:
    """Add noise ``R n`` that is white in space and has a covariance ``R R^T`` between channels.

    ``R`` is the symmetric root, so that covariances without full rank are allowed: all ones
    give grey noise.

    Args:
        x: ``(B, C, H, W)``.
        covariance: ``(C, C)`` or, one a picture, ``(B, C, C)``; variances in squared units of
            the picture.
        generator: source of randomness, on the device of ``x``.

    Raises:
        ValueError: if the covariance has another shape, is not symmetric or has a negative
            eigenvalue.
    """
    batch, channels = x.shape[:2]
    if covariance.shape not in ((channels, channels), (batch, channels, channels)):
        raise ValueError(
            f"covariance has shape {tuple(covariance.shape)}, must be {(channels, channels)} or "
            f"{(batch, channels, channels)}"
        )
    # In double precision: the root of a rounding error of 1e-8 would be a visible 1e-4.
    covariance = covariance.detach().cpu().double()
    if not torch.allclose(covariance, covariance.mT, rtol=1e-4, atol=0):
        raise ValueError(f"covariance={covariance.tolist()} must be symmetric")
    values, vectors = torch.linalg.eigh(covariance)
    # Those of a singular matrix in single precision lie slightly off zero.
    if (values < -1e-5 * values.abs().amax(-1, keepdim=True)).any():
        raise ValueError(f"covariance has the eigenvalue {values.min():g}, must have none below 0")
    root = ((vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT).to(x)
    noise = normal(x.shape, x, generator)
    return x + (root @ noise.flatten(2)).view_as(x)


def blurred_gaussian(
    x: Tensor, sigma: Tensor | float, width: Tensor | float, generator: Generator
) -> Tensor:
    """Add noise that was blurred by a Gaussian: ``x + sigma * n_width``.

    ``n_width`` has variance 1 and, at a distance of d pixels, the correlation
    ``exp(-d^2 / (4 width^2))`` of a blurred white field (for widths over half a pixel; below,
    the pixel grid makes it whiter). The field is periodic: opposite borders are neighbours.

    Args:
        x: ``(B, C, H, W)``, float32 or float64.
        sigma: level that the noise has after the blur; one number, ``(B,)`` or broadcasting.
        width: standard deviation of the blur in pixels, one number or ``(B,)``; 0 is white.
        generator: source of randomness, on the device of ``x``.

    Raises:
        ValueError: if the level or the width is negative.
    """
    return x + per_picture("sigma", sigma, x) * blurred_normal(x, width, generator)


def upscaled_gaussian(
    x: Tensor, sigma: Tensor | float, factor: int, generator: Generator
) -> Tensor:
    """Add the noise of a smaller picture that was enlarged: ``x + sigma * U(n) / sqrt(e)``.

    ``U`` enlarges white noise bilinearly. A pixel that lies at a fraction t between two samples
    keeps ``(1 - t)^2 + t^2`` of their variance along each axis; ``e`` is the mean over the
    pixels of a cell (25/64 for a factor of 2), so that sigma is the root mean square level.

    Args:
        x: ``(B, C, H, W)``.
        sigma: level; one number, ``(B,)`` or broadcasting.
        factor: enlargement; 1 gives white noise.
        generator: source of randomness, on the device of ``x``.

    Raises:
        ValueError: if the level is negative or the factor under 1.
    """
    if factor < 1:
        raise ValueError(f"factor={factor} must be at least 1")
    level = per_picture("sigma", sigma, x)
    height, width = x.shape[2:]
    # One sample more on each side: at the border of an enlarged picture samples are repeated.
    rows, columns = (math.ceil(s / factor) + 2 for s in (height, width))
    small = normal((*x.shape[:2], rows, columns), x, generator)
    large = F.interpolate(small, scale_factor=factor, mode="bilinear", align_corners=False)
    noise = large[:, :, factor : factor + height, factor : factor + width]
    between = [((k + 0.5) / factor - 0.5) % 1 for k in range(factor)]
    energy = sum((1 - t) ** 2 + t**2 for t in between) / factor
    return x + level / energy * noise  # energy: the root of the product over two equal axes


def blurred_normal(x: Tensor, width: Tensor | float, generator: Generator) -> Tensor:
    """Return periodic Gaussian noise of variance 1, shaped as ``x``, blurred by ``width``."""
    response = blur_response(x, width)
    noise = filtered(normal(x.shape, x, generator), response)
    return noise / response.square().mean((-2, -1), keepdim=True).sqrt()


def blur_response(x: Tensor, width: Tensor | float) -> Tensor:
    """Return the frequency response ``exp(-2 pi^2 width^2 |f|^2)`` of a Gaussian blur.

    Args:
        x: the batch ``(B, C, H, W)`` to be filtered.
        width: standard deviation of the blur in pixels, one number or ``(B,)``.

    Returns:
        Factors for the discrete Fourier transform, ``(1, 1, H, W)`` or ``(B, 1, H, W)``.
    """
    spread = per_picture("width", width, x)
    rows, columns = (torch.fft.fftfreq(s, device=x.device, dtype=x.dtype) for s in x.shape[2:])
    return torch.exp(-2 * (math.pi * spread) ** 2 * (rows[:, None] ** 2 + columns**2))


def filtered(x: Tensor, response: Tensor) -> Tensor:
    """Multiply the discrete Fourier transform of ``x`` by a real, symmetric response."""
    return torch.fft.ifft2(torch.fft.fft2(x) * response).real
