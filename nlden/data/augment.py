"""Augmentation and noise for training, on the device of the batch."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from kornia.enhance import adjust_contrast, adjust_hue, adjust_saturation
from torch import Generator, Tensor
from torch.nn import functional as F

from nlden.media.color import NEUTRAL, YCbCr
from nlden.media.phases import from_phases
from nlden.noise import (
    compress_jpeg,
    compress_video,
    draw_developed_noise,
    draw_real_noise,
    draw_sigma,
)
from nlden.noise.estimation import estimate_levels
from nlden.noise.synthesis import quantize, store_yuv420, white_gaussian, ycbcr_gaussian

_MATRICES = ("bt601", "bt709", "bt709", "bt2020")  # BT.709 is the most frequent in files


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator, device=generator.device)


def dihedral(x: Tensor, generator: Generator) -> Tensor:
    """Turn and mirror each square picture of ``(B, C, N, N)`` in one of the eight ways."""
    pick = torch.rand((3, x.shape[0], 1, 1, 1), generator=generator, device=x.device) < 0.5
    x = torch.where(pick[0], x.flip(-1), x)
    x = torch.where(pick[1], x.flip(-2), x)
    return torch.where(pick[2], x.transpose(-1, -2), x)


def resize(x: Tensor, extent: int) -> Tensor:
    """Bring ``(B, C, N, N)`` in [0, 1] to ``(B, C, extent, extent)``, bicubic with antialiasing."""
    if x.shape[-1] == extent:
        return x
    return F.interpolate(x, size=(extent, extent), mode="bicubic", antialias=True).clamp(0, 1)


def color_jitter(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Vary contrast, saturation and hue of RGB ``(B, 3, H, W)`` in [0, 1], half of the pictures.

    Args:
        x: pictures.
        strength: contrast is multiplied by 1 - strength to 1 + strength, saturation by
            (1 + strength) ** -3 to (1 + strength) ** 3, and hue is turned by up to a quarter of a
            turn times strength; 0 gives back ``x``.
        generator: source of randomness, on the device of ``x``.
    """
    if strength == 0:
        return x
    contrast = _uniform(len(x), 1 - strength, 1 + strength, generator)
    saturation = (1 + strength) ** _uniform(len(x), -3, 3, generator)
    hue = _uniform(len(x), -strength, strength, generator) * (math.pi / 2)
    varied = adjust_saturation(adjust_hue(x, hue), saturation)
    varied = adjust_contrast(varied, contrast).clamp(0, 1)
    chosen = _uniform(len(x), 0, 1, generator) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), varied, x)


def noisy_rgb(clean: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make RGB training pairs: white noise as it is, or stored in 8 bits, or made in YCbCr.

    Args:
        clean: ``(B, 3, H, W)``.
        generator: source of randomness, on the device of ``clean``.

    Returns:
        ``noisy`` and ``clean`` ``(B, 3, H, W)`` and ``sigma`` ``(B, 2)``.
    """
    n = clean.shape[0]
    sigma = draw_sigma(n, generator)
    way = _uniform(n, 0, 1, generator).view(-1, 1, 1, 1)
    white = white_gaussian(clean, sigma.view(-1, 1, 1, 1), generator)
    chroma = sigma * 2 ** _uniform(n, -2, 0.5, generator)
    colored = ycbcr_gaussian(clean, sigma, chroma, _draw_color(generator), generator)
    noisy = torch.where(way < 0.85, white, colored)
    noisy = torch.where(way < 0.7, noisy, quantize(noisy))
    told = torch.where(way.flatten() < 0.85, sigma, chroma)
    return {"noisy": noisy, "clean": clean, "sigma": torch.stack([sigma, told], dim=1)}


def noisy_yuv420(clean: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make packed 4:2:0 training pairs: noise born in RGB and stored, or white in each plane.

    Noise born in RGB is clipped and rounded to 8 bits before and after it is carried to the planes,
    as a camera or an editor does. Noise of the planes' own has any relation of chroma to luma; a
    part of the pictures is grey with noiseless chroma.

    Args:
        clean: RGB ``(B, 3, H, W)`` of even size.
        generator: source of randomness, on the device of ``clean``.

    Returns:
        ``noisy`` and ``clean`` ``(B, 6, H/2, W/2)`` and ``sigma`` ``(B, 2)`` of the planes.
    """
    n = clean.shape[0]
    color = _draw_color(generator)
    sigma = draw_sigma(n, generator)
    way = _uniform(n, 0, 1, generator)
    four = (-1, 1, 1, 1)
    target = store_yuv420(clean, color)

    rgb = white_gaussian(clean, sigma.view(four), generator)
    born = quantize(store_yuv420(quantize(rgb), color))
    born_levels = sigma[:, None] * torch.tensor(color.plane_levels(1.0, averaged=4)).to(sigma)

    gray = (way > 0.92).view(four)
    neutral = torch.cat([target[:, :4], torch.full_like(target[:, 4:], NEUTRAL)], dim=1)
    target = torch.where(gray, neutral, target)
    chroma = sigma * 2 ** _uniform(n, -3, 0, generator)
    own_levels = torch.stack([sigma, torch.where(gray.flatten(), 0.0, chroma)], dim=1)
    spread = own_levels.repeat_interleave(torch.tensor([4, 2], device=sigma.device), dim=1)
    own = white_gaussian(target, spread[:, :, None, None], generator)

    in_rgb = way < 0.6
    return {
        "noisy": torch.where(in_rgb.view(four), born, own),
        "clean": target,
        "sigma": torch.where(in_rgb[:, None], born_levels, own_levels),
    }


def noisy_gray(clean: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make pairs of grey pictures, packed as 4:2:0 with neutral, noiseless chroma.

    Luma is of full range, as grey photographs are stored; three in ten are clipped and rounded to
    8 bits.

    Args:
        clean: RGB ``(B, 3, H, W)`` of even size.
        generator: source of randomness, on the device of ``clean``.

    Returns:
        ``noisy`` and ``clean`` ``(B, 6, H/2, W/2)`` and ``sigma`` ``(B, 2)``, of chroma 0.
    """
    n = clean.shape[0]
    sigma = draw_sigma(n, generator)
    stored = _uniform(n, 0, 1, generator).view(-1, 1, 1, 1) < 0.3
    target = store_yuv420(clean, YCbCr(_draw_color(generator).matrix, full_range=True))
    target[:, 4:] = NEUTRAL
    luma = white_gaussian(target[:, :4], sigma.view(-1, 1, 1, 1), generator)
    noisy = torch.cat([torch.where(stored, quantize(luma), luma), target[:, 4:]], dim=1)
    return {"noisy": noisy, "clean": target, "sigma": torch.stack([sigma, 0 * sigma], dim=1)}


def noisy_real(clean: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make pairs with the noise of photographs: see :func:`nlden.noise.draw_real_noise`.

    Half of the batches are then compressed as JPEG files of quality 60 to 95. The told level is
    the one that :mod:`nlden.noise.estimation` finds in the noisy picture, as it does in use.

    Args:
        clean: ``(B, 3, H, W)``.
        generator: source of randomness, on the device of ``clean``.

    Returns:
        ``noisy`` and ``clean`` ``(B, 3, H, W)`` and ``sigma`` ``(B, 2)``.
    """
    noisy = draw_real_noise(clean, generator)["noisy"]
    compressed, quality = _uniform(2, 0, 1, generator).tolist()
    if compressed < 0.5:
        noisy = compress_jpeg(
            noisy, round(60 + 35 * quality), "4:2:0" if quality < 0.5 else "4:4:4"
        )
    return {"noisy": noisy, "clean": clean, "sigma": told_levels(noisy)}


def noisy_real_clips(clean: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make RGB pairs with the noise of video files.

    Half of the batches are filmed by cameras (:func:`nlden.noise.draw_real_noise`), the others
    have noise of tape, of film scans or of an effect (:func:`nlden.noise.draw_developed_noise`);
    three in four are compressed as H.264 or H.265 with rate factors 18 to 32.

    Args:
        clean: the square frames of each clip below each other, ``(B, 3, T * N, N)``.
        generator: source of randomness, on the device of ``clean``.

    Returns:
        ``noisy`` and ``clean``, shaped likewise, and ``sigma`` ``(B, 2)``, as it is estimated.
    """
    noisy = _noisy_clips(clean, generator)
    return {"noisy": noisy, "clean": clean, "sigma": told_levels(noisy)}


def noisy_real_clips_yuv420(clean: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make pairs as :func:`noisy_real_clips`, packed and stored as 8-bit 4:2:0.

    Returns:
        ``noisy`` and ``clean`` ``(B, 6, T * N / 2, N / 2)`` and ``sigma`` ``(B, 2)`` of the planes.
    """
    color = _draw_color(generator)
    noisy = quantize(store_yuv420(_noisy_clips(clean, generator), color))
    luma = from_phases(noisy[:, :4])
    found = [estimate_levels([(y, c)]) for y, c in zip(luma, noisy[:, 4:], strict=True)]
    sigma = noisy.new_tensor([[levels.luma, levels.chroma] for levels in found])
    return {"noisy": noisy, "clean": store_yuv420(clean, color), "sigma": sigma}


def _noisy_clips(clean: Tensor, generator: Generator) -> Tensor:
    camera, compressed, codec, crf = _uniform(4, 0, 1, generator).tolist()
    if camera < 0.5:
        noisy = draw_real_noise(clean, generator)["noisy"]
    else:
        noisy = draw_developed_noise(clean, generator)
    if compressed < 0.75:
        clips = noisy.unflatten(2, (-1, clean.shape[3])).transpose(1, 2)
        name: Literal["h264", "hevc"] = "h264" if codec < 0.5 else "hevc"
        clips = torch.stack([compress_video(clip, 18 + 14 * crf, name) for clip in clips])
        noisy = clips.transpose(1, 2).flatten(2, 3)
    return noisy


def told_levels(noisy: Tensor) -> Tensor:
    """Return the levels ``(B, 2)`` that are estimated in RGB pictures ``(B, 3, H, W)``."""
    found = [estimate_levels([(picture,)]) for picture in noisy]
    return noisy.new_tensor([[levels.luma, levels.chroma] for levels in found])


def _draw_color(generator: Generator) -> YCbCr:
    draw = torch.rand(2, generator=generator, device=generator.device).tolist()
    return YCbCr(_MATRICES[int(draw[0] * len(_MATRICES))], full_range=draw[1] < 0.25)
