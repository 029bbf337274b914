"""Clips from photographs for training: a moving camera, and something that moves before it."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

# Standard deviations, in pixels of the clip and per frame.
_PAN, _ACCELERATION, _SHAKE = 2.0, 0.3, 0.4
_ZOOM, _TURN = 0.01, 0.01  # parts and radians per frame
_STILL, _TRIPOD = 0.3, 0.15  # share of cameras that do not travel, and of those that stand
_OBJECTS = 0.5  # share of clips with something in front


def moving_photographs(
    ground: Tensor, figure: Tensor, frames: int, extent: int, generator: Generator
) -> Tensor:
    """Film a photograph with a moving camera, often with a piece of another that moves before it.

    Both are sampled at half their size from twice as many pixels, so that places between pixels
    are as sharp as others. Beyond its borders a photograph is mirrored.

    Args:
        ground: photograph, float ``(3, H, W)`` in [0, 1].
        figure: photograph that an ellipse is cut from, likewise.
        frames: number of frames T.
        extent: height and width N of the frames.
        generator: source of randomness, on the CPU.

    Returns:
        ``(T, 3, N, N)``.
    """
    clip = _film(ground, _path(ground, frames, extent, generator), extent)
    if float(torch.rand((), generator=generator)) >= _OBJECTS:
        return clip
    path = _path(figure, frames, extent, generator)
    draw = torch.rand(4, generator=generator)
    # The ellipse lies on the figure where its camera looks in the middle of the clip.
    middle = path[frames // 2, :, 2]
    height, width = figure.shape[1:]
    y = torch.linspace(-1, 1, height, device=figure.device)[:, None] - middle[1]
    x = torch.linspace(-1, 1, width, device=figure.device) - middle[0]
    x, y = x - (draw[2] - 0.5) * extent / width * 2, y - (draw[3] - 0.5) * extent / height * 2
    radii = (0.2 + 0.5 * draw[:2]) * 2 * extent
    distance = (x * width / radii[0]).square() + (y * height / radii[1]).square()
    mask = (1 + (1 - distance) * 8).clamp(0, 1)
    film = _film(torch.cat([figure, mask[None]]), path, extent)
    return torch.lerp(clip, film[:, :3], film[:, 3:])


def _path(photograph: Tensor, frames: int, extent: int, generator: Generator) -> Tensor:
    """Return what ``affine_grid`` takes for each frame, ``(T, 2, 3)``."""
    height, width = photograph.shape[1:]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    time = torch.arange(frames) - (frames - 1) / 2
    draw = torch.rand(3, generator=generator)
    moving, shaking = float(draw[0] >= _STILL), float(draw[0] >= _TRIPOD)
    place = normal(2, 1) * _PAN * time + normal(2, 1) * _ACCELERATION * time.square() / 2
    place = place * moving + normal(2, frames) * _SHAKE * shaking
    zoom = torch.exp(normal(1) * _ZOOM * time * moving)
    angle = normal(1) * _TURN * time * moving
    size = torch.tensor([width, height])
    half = 2 * extent / size  # a pixel of the clip is two of the photograph
    room = (1 - half).clamp(min=0)[:, None]
    place = (2 * draw[1:, None] - 1) * room + 4 * place / size[:, None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    ratio = height / width
    rows = [
        torch.stack([cos * half[0], -sin * half[1] * ratio], dim=1),
        torch.stack([sin * half[0] / ratio, cos * half[1]], dim=1),
    ]
    matrix = torch.stack(rows, dim=1) * zoom.view(-1, 1, 1)
    return torch.cat([matrix, place.T[:, :, None]], dim=2).to(photograph.device)


def _film(photograph: Tensor, path: Tensor, extent: int) -> Tensor:
    grid = F.affine_grid(path, [len(path), 1, 2 * extent, 2 * extent], align_corners=False)
    frames = F.grid_sample(
        photograph.expand(len(path), -1, -1, -1),
        grid,
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    return F.avg_pool2d(frames, 2).clamp(0, 1)
