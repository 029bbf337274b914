"""Clips from photographs: a camera that moves over a picture."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def camera_motion(
    photograph: Tensor,
    frames: int,
    size: tuple[int, int],
    *,
    zoom: tuple[float, float] = (1.0, 1.0),
    turn: float = 0.0,
    path: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (1.0, 1.0)),
) -> Tensor:
    """Move a camera over a photograph.

    Args:
        photograph: ``(3, H, W)``.
        frames: number of frames T.
        size: height and width of the frames, at most those of the photograph.
        zoom: magnification of the first and of the last frame.
        turn: degrees of rotation over the clip.
        path: corners ``(down, right)`` that the view moves between, from 0 (top, left) to
            1 (bottom, right).

    Returns:
        ``(T, 3, h, w)``, sampled bicubically at sub-pixel positions.

    Raises:
        ValueError: if the frames are larger than the photograph.
    """
    height, width = photograph.shape[1:]
    if size[0] > height or size[1] > width:
        raise ValueError(f"size={size} exceeds the photograph ({height}, {width})")
    clip = []
    for i in range(frames):
        part = i / max(1, frames - 1)
        ease = (1 - math.cos(math.pi * part)) / 2  # start and stop gently
        scale = zoom[0] + (zoom[1] - zoom[0]) * ease
        angle = math.radians(turn * (part - 0.5))
        extent = size[0] / height / scale, size[1] / width / scale
        down, right = (a + (b - a) * ease for a, b in zip(*path, strict=True))
        y, x = (2 * down - 1) * (1 - extent[0]), (2 * right - 1) * (1 - extent[1])
        # Rotation in pixels, expressed in the normalised coordinates of grid_sample.
        cos, sin = math.cos(angle), math.sin(angle)
        ratio = height / width
        matrix = torch.tensor(
            [
                [cos * extent[1], -sin * extent[0] * ratio, x],
                [sin * extent[1] / ratio, cos * extent[0], y],
            ]
        )
        grid = F.affine_grid(matrix[None], [1, 3, *size], align_corners=False)
        clip.append(
            F.grid_sample(
                photograph[None].float(),
                grid,
                mode="bicubic",
                padding_mode="reflection",
                align_corners=False,
            )
        )
    return torch.cat(clip).clamp(0, 1)
