"""Pairs to train denoisers of real photographs and videos with, made from clean pictures."""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from nlden.noise.camera import draw_camera, poisson_gaussian, through_camera
from nlden.noise.gaussian import blur_response, filtered
from nlden.noise.synthesis import quantize


def draw_real_noise(
    clean: Tensor, generator: Generator, coded: Tensor | None = None
) -> Mapping[str, Tensor]:
    """Draw noise as photographs have it: signal-dependent, correlated, clipped, stored.

    Each picture goes through a camera of its own (:func:`nlden.noise.draw_camera`), with and
    without noise; the difference is the noise. That of every other picture, by chance, is
    smoothed by a Gaussian of 0.3 to 1.2 pixels, as scaling and the camera's own denoising leave
    it: coarser and weaker. Its colour differences (what it has besides luma) are up to twice as
    strong, as the camera's colour matrix makes them, and, in every other picture, smoothed again
    by up to 3 pixels, because cameras clean them harder. It is added to the clean picture, which
    thus keeps the sharpness that bilinear demosaicking would take, and the sum is clipped and
    rounded to 8 bits.

    Args:
        clean: sRGB ``(B, 3, H, W)`` in [0, 1].
        generator: source of randomness, on the device of ``clean``.
        coded: the clean pictures after a codec, ``(B, 3, H, W)``, prepared in the workers
            (:func:`nlden.noise.compress_jpeg`, :func:`nlden.noise.compress_video`); the noise
            is added to them instead, so that what the codec did has to be undone as well.

    Returns:
        ``noisy`` and ``clean`` ``(B, 3, H, W)``, and ``sigma`` ``(B,)``, the root mean square
        of their difference.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if coded is not None and coded.shape != clean.shape:
        raise ValueError(
            f"coded has shape {tuple(coded.shape)}, must be that of clean, {tuple(clean.shape)}"
        )
    # Imported here: kornia takes its time, and who measures noise has no need of it.
    from kornia.color import rgb_to_grayscale

    n = clean.shape[0]
    camera = draw_camera(n, generator)
    noise = through_camera(clean, camera, generator) - through_camera(clean, camera)
    noise = filtered(noise, blur_response(noise, _draw_widths(n, generator)))
    luma = rgb_to_grayscale(noise)
    strength = 1 + torch.rand((n, 1, 1, 1), generator=generator, device=clean.device)
    colors = strength * (noise - luma)
    widths = _draw_widths(n, generator, 0.0, 3.0)
    noise = luma + filtered(colors, blur_response(colors, widths))
    noisy = quantize((clean if coded is None else coded) + noise)
    sigma = (noisy - clean).square().mean((1, 2, 3)).sqrt()
    return {"noisy": noisy, "clean": clean, "sigma": sigma}


def draw_developed_noise(clean: Tensor, generator: Generator) -> Tensor:
    """Draw noise that arose in the finished picture: of tape, film scans, added grain.

    Any part of its variance, sigma squared where the picture is half of white, is proportional to
    the picture. That of every other picture, by chance, is smoothed as in :func:`draw_real_noise`,
    but not weakened by it. No mosaic correlates the rest: it is white. The sum is clipped and
    rounded to 8 bits.

    Args:
        clean: ``(B, 3, H, W)`` in [0, 1].
        generator: source of randomness, on the device of ``clean``.

    Returns:
        The noisy pictures, of levels as :func:`draw_sigma` draws them.
    """
    n = clean.shape[0]
    sigma, light = draw_sigma(n, generator), torch.rand(n, generator=generator, device=clean.device)
    noise = poisson_gaussian(clean, 2 * light * sigma**2, (1 - light).sqrt() * sigma, generator)
    response = blur_response(clean, _draw_widths(n, generator))
    response = response / response.square().mean((-2, -1), keepdim=True).sqrt()
    return quantize(clean + filtered(noise - clean, response))


def draw_sigma(n: int, generator: Generator) -> Tensor:
    """Draw noise levels ``(n,)`` from 0 to 80/255.

    Half of them lie anywhere from 5/255 to 55/255; of the others a quarter falls below 5/255,
    half below 20/255: what little noise leaves of detail is the hardest to learn.
    """
    coin, middle, wide = torch.rand((3, n), generator=generator, device=generator.device)
    return torch.where(coin < 1 / 2, 80 * wide**2, 5 + 50 * middle) / 255


def _draw_widths(n: int, generator: Generator, least: float = 0.3, most: float = 1.2) -> Tensor:
    smooth, width = torch.rand((2, n), generator=generator, device=generator.device)
    return torch.where(smooth < 0.5, least + (most - least) * width, 0.0)
