"""Noise level of a picture, from the picture alone.

The finest diagonal wavelet coefficients hold little of a picture and all of white noise
(D. Donoho, I. Johnstone: "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994).
Their spread is measured block by block, and the calm blocks decide: detail only ever adds to the
spread, so that the lower part of the blocks is where the noise is seen alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nlden.media.color import NEUTRAL

_BLOCK = 16  # coefficients a side: 32 x 32 pixels
_CALM = 0.25  # the share of the blocks that is taken for calm
# What that quantile of the blocks' spread is, relative to the truth, when all is white noise.
_CALM_FACTOR = 0.969
_BLACK, _WHITE = 16.5 / 255, 234.5 / 255  # of limited range; full range goes beyond
# White noise leaves one cell in sixty within half its spread; of letters and lines on flat ground
# it is a quarter and more. Noise weaker than this is left alone: codes are as coarse as it is.
_STRONG, _FLAT, _WITHIN = 6 / 255, 0.25, 0.5
# The ground shows in the lower magnitudes of such a block: in this quantile of them, which for
# white noise of spread 1 has that value.
_GROUND, _GROUND_FACTOR = 0.25, 0.3186


@dataclass(frozen=True)
class Levels:
    """Noise levels of a picture's planes: standard deviations, where 1 is white.

    Args:
        luma: level of luma, or of R, G and B.
        chroma: level of Cb and Cr; that of luma for RGB, without meaning for grey.
    """

    luma: float
    chroma: float


def estimate_sigma(planes: Sequence[Tensor], white: float = 1.0) -> float:
    """Estimate the standard deviation of white noise.

    Args:
        planes: planes ``(H, W)`` with values or codes in [0, white] that share one level.
        white: what white is.

    Returns:
        The level, as a part of white; 0 for pictures that are too small (under 4 pixels) or flat.
    """
    if not planes:
        return 0.0
    spreads = torch.cat([_block_spreads(p, white) for p in planes])
    if spreads.numel() == 0:
        return 0.0
    return float(torch.quantile(spreads, _CALM)) / _CALM_FACTOR


def estimate_chroma(planes: Sequence[Tensor], white: float = 1.0) -> float:
    """Estimate the noise level of chroma planes that were made by averaging pixels.

    The filter that halves the chroma planes leaves their noise a little smooth, so that the
    finest scale alone shows too little of it and the next one too much of the picture: the
    geometric mean of both is taken.

    Args:
        planes: planes ``(H, W)`` with values or codes in [0, white].
        white: what white is.

    Returns:
        The standard deviation of the noise, as a part of white.
    """
    halves = [2 * F.avg_pool2d(p[None].float(), 2)[0] for p in planes if min(p.shape) >= 8]
    fine = estimate_sigma(planes, white)
    return (fine * estimate_sigma(halves, white)) ** 0.5 if halves else fine


def estimate_levels(pictures: Sequence[tuple[Tensor, ...]], white: float = 1.0) -> Levels:
    """Estimate the levels of pictures that share them, such as frames of one file.

    Args:
        pictures: for each picture its planes, values or codes in [0, white]: luma ``(1, H, W)``
            and chroma ``(2, h, w)``, or grey ``(1, H, W)`` or RGB ``(3, H, W)`` alone.
        white: what white is.
    """
    luma = estimate_sigma([plane for planes in pictures for plane in planes[0]], white)
    chroma = [plane for planes in pictures for group in planes[1:] for plane in group]
    return Levels(luma, estimate_chroma(chroma, white) if chroma else luma)


def _block_spreads(plane: Tensor, white: float) -> Tensor:
    """Return the standard deviation of the diagonal detail in each block, ``(N,)``.

    Of letters and lines on flat ground it is that of the ground.
    """
    height, width = (s // 2 * 2 for s in plane.shape)
    if min(height, width) < 4:
        return torch.zeros(0, device=plane.device)
    x = plane[:height, :width].float() / white
    detail = (x[::2, ::2] - x[1::2, ::2] - x[::2, 1::2] + x[1::2, 1::2]) / 2  # Haar, orthonormal
    block = min(_BLOCK, *detail.shape)
    spreads = F.avg_pool2d(detail.square()[None], block).sqrt()
    # Noise is not seen in bars, titles and clipped areas: blocks that touch one do not count.
    cells = torch.stack([x[::2, ::2], x[1::2, ::2], x[::2, 1::2], x[1::2, 1::2]])
    low, high = cells.amin(0), cells.amax(0)
    extreme = (low <= _BLACK) | (low >= _WHITE) | ((low - NEUTRAL).abs() < 1 / 512)
    hidden = F.avg_pool2d(((low == high) & extreme).float()[None], block)
    around = spreads.repeat_interleave(block, 1).repeat_interleave(block, 2)
    span = (high - low)[: around.shape[1], : around.shape[2]]
    flat = F.avg_pool2d((span < _WITHIN * around).float(), block)
    drawn = (spreads > _STRONG) & (flat > _FLAT)
    if drawn.any():
        blocks = detail.unfold(0, block, block).unfold(1, block, block)[drawn[0]].flatten(1).abs()
        least = blocks.kthvalue(1 + int(_GROUND * block**2), dim=1).values
        spreads[drawn] = torch.minimum(spreads[drawn], least / _GROUND_FACTOR)
    return spreads[hidden < 0.05]
