"""Real pairs: two photographs of one scene, the second clean or as noisy as the first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from nlden.data.augment import told_levels
from nlden.data.crops import list_images, read_rgb


def list_pairs(firsts: Sequence[Path], seconds: Sequence[Path]) -> list[list[tuple[Path, Path]]]:
    """Return the pairs of images of each pair of folders, matched by the order of their names.

    Args:
        firsts: folders of first pictures.
        seconds: the folders of their partners, in the same order.

    Raises:
        ValueError: if the folders or their images do not pair.
        FileNotFoundError: if a folder does not exist or holds no image.
    """
    if len(firsts) != len(seconds):
        raise ValueError(f"{len(firsts)} and {len(seconds)} folders do not pair")
    pairs = []
    for first, second in zip(firsts, seconds, strict=True):
        images, partners = list_images(first), list_images(second)
        if len(images) != len(partners):
            raise ValueError(
                f"{first} and {second}: {len(images)} and {len(partners)} images do not pair"
            )
        pairs.append(list(zip(images, partners, strict=True)))
    return pairs


def corner(image: Tensor, extent: int = 256) -> Tensor:
    """Return the first rows and columns of ``(C, H, W)``: ``extent``, or a multiple of eight."""
    height, width = (min(extent, s // 8 * 8) for s in image.shape[1:])
    return image[:, :height, :width]


def real_pair(noisy: Path, clean: Path) -> Mapping[str, Any]:
    """Return the corner of a real pair for validation; the told level is the estimated one."""
    x, y = (corner(read_rgb(p))[None].float() / 255 for p in (noisy, clean))
    return {"noisy": x, "clean": y, "sigma": told_levels(x), "name": "real"}


def supervised(shots: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make pairs of noisy photographs and their clean partners; the told level is estimated.

    Args:
        shots: the noisy and the clean picture, ``(B, 6, N, N)``.
        generator: not needed.

    Returns:
        ``noisy`` and ``clean`` ``(B, 3, N, N)`` and ``sigma`` ``(B, 2)``.
    """
    return {"noisy": shots[:, :3], "clean": shots[:, 3:], "sigma": told_levels(shots[:, :3])}


def noise2noise(shots: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make pairs of two noisy shots of a scene, either of them the input.

    The mean of the noise of the target is zero, so that what it teaches is the clean picture
    (J. Lehtinen et al.: "Noise2Noise: Learning Image Restoration without Clean Data", ICML 2018).

    Args:
        shots: aligned shots, ``(B, 6, N, N)``.
        generator: source of randomness, on the device of ``shots``.

    Returns:
        As :func:`supervised`.
    """
    swap = torch.rand(len(shots), generator=generator, device=shots.device) < 0.5
    swapped = torch.where(swap[:, None, None, None], shots.roll(3, dims=1), shots)
    return supervised(swapped, generator)
