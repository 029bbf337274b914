"""Noise models, on any device, seeded by a generator.

Levels are standard deviations in the units of the picture, whose values lie in [0, 1].
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from nlden.media.color import YCbCr, halve, pack_yuv420
from nlden.noise.sampling import normal


def white_gaussian(x: Tensor, sigma: Tensor | float, generator: Generator) -> Tensor:
    """Add independent Gaussian noise, ``x + sigma * n``; neither clipped nor rounded.

    Args:
        x: picture, any shape.
        sigma: level, broadcast against ``x``: for a batch ``(B, C, H, W)`` one a picture is
            ``(B, 1, 1, 1)``, one a channel ``(1, C, 1, 1)``, a map ``(B, 1, H, W)``.
        generator: source of randomness, on the device of ``x``.
    """
    return x + sigma * normal(x.shape, x, generator)


def ycbcr_gaussian(
    rgb: Tensor, luma: Tensor, chroma: Tensor, color: YCbCr, generator: Generator
) -> Tensor:
    """Add noise to RGB that is independent in luma and chroma, as in a decoded 4:2:2 file.

    The chroma noise lives on every second column and is interpolated between.

    Args:
        rgb: ``(B, 3, H, W)``.
        luma: ``(B,)``, the level of white RGB noise that has the same luma noise.
        chroma: ``(B,)``, the level of white RGB noise that has the same chroma noise.
        color: the YCbCr in which the noise arose.
        generator: source of randomness, on the device of ``rgb``.
    """
    batch, _, height, width = rgb.shape
    level_y, level_c = color.plane_levels(1.0)
    y = normal((batch, 1, height, width), rgb, generator) * level_y * luma.view(-1, 1, 1, 1)
    c = normal((batch, 2, height, (width + 1) // 2), rgb, generator)
    c = F.interpolate(c, size=(height, width), mode="bilinear", align_corners=False)
    # Interpolation to twice the width keeps 5/8 of the variance; the level tells what is left.
    c = c * (8 / 5) ** 0.5 * level_c * chroma.view(-1, 1, 1, 1)
    black = color.to_rgb(color.offsets().to(rgb)[None, :, None, None])
    noise = color.to_rgb(torch.cat([y, c], dim=1) + color.offsets().to(rgb)[:, None, None])
    return rgb + noise - black


def quantize(x: Tensor, bits: int = 8) -> Tensor:
    """Clip to [0, 1] and round to the codes of ``bits`` bits."""
    white = 2**bits - 1
    return (x.clamp(0, 1) * white).round() / white


def store_yuv420(rgb: Tensor, color: YCbCr) -> Tensor:
    """Convert RGB ``(B, 3, H, W)`` of even size to packed 4:2:0 planes ``(B, 6, H/2, W/2)``.

    Nothing is rounded: apply :func:`quantize` for 8-bit storage.
    """
    planes = color.from_rgb(rgb)
    return pack_yuv420(planes[:, :1], halve(planes[:, 1:]))
