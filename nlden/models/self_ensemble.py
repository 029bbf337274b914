"""Geometric self-ensemble: the mean of what a network makes of a picture in several orientations.

R. Timofte, R. Rothe, L. Van Gool: "Seven Ways to Improve Example-Based Single Image Super
Resolution", CVPR 2016.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nlden.media.color import pack_yuv420, unpack_yuv420
from nlden.models.image_denoiser import PACKED

TURNS = 8
"""Orientations of a picture: quarter turns, and these mirrored."""


def turned(x: Tensor, turn: int) -> Tensor:
    """Return a picture in another orientation.

    Args:
        x: RGB ``(B, 3, H, W)`` or packed 4:2:0 ``(B, 6, h, w)``.
        turn: quarter turns, 0 to 3; 4 to 7 are these, then mirrored.
    """
    if x.shape[1] == PACKED["yuv420"]:
        planes = unpack_yuv420(x, (2 * x.shape[2], 2 * x.shape[3]))
        return pack_yuv420(*(_turned(plane, turn) for plane in planes))
    return _turned(x, turn)


def _turned(x: Tensor, turn: int) -> Tensor:
    x = torch.rot90(x, turn % 4, (2, 3))
    return x.flip(3) if turn >= 4 else x


def self_ensemble(
    network: nn.Module, x: Tensor, sigma: Tensor | float, turns: Iterable[int] = range(TURNS)
) -> Tensor:
    """Return the mean of what a denoiser makes of a picture in several orientations.

    Args:
        network: the denoiser.
        x: RGB ``(B, 3, H, W)`` or packed 4:2:0 ``(B, 6, h, w)`` with chroma in the middle of its
            pixels.
        sigma: its noise, no map.
        turns: the orientations, see :func:`turned`.
    """
    results = []
    for turn in turns:
        back = turn if turn >= 4 else -turn % 4  # what mirrors is its own inverse
        results.append(turned(network(turned(x, turn), sigma), back))
    return torch.stack(results).mean(0)
