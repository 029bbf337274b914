"""Frames as tensors: planes of codes, from and to FFmpeg's pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from torch import Tensor

from nlden.media.probe import Layout


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    Args:
        planes: uint8 (8 bits) or int32 (more) codes. ``yuv*``: luma ``(1, H, W)`` and chroma
            ``(2, h, w)``; ``gray``: ``(1, H, W)``; ``rgb``: ``(3, H, W)``.
        layout: what the planes are.
        pts: presentation time in units of the stream's time base.
        duration: how long it is shown, in the same units; 0 if the file does not say.
        alpha: codes of the opacity, ``(1, H, W)``, if the layout has it.
    """

    planes: tuple[Tensor, ...]
    layout: Layout
    pts: int
    duration: int = 0
    alpha: Tensor | None = None

    @property
    def luma(self) -> Tensor:
        """Return luma ``(1, H, W)`` in [0, 1]; of RGB the mean of the planes."""
        return (self.planes[0].float() / self.layout.white).mean(0, keepdim=True)

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width."""
        height, width = self.planes[0].shape[-2:]
        return height, width


def plane_codes(plane: VideoPlane, bits: int, width: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a view of the codes of a plane, ``(height, width)``, without its padding."""
    dtype = np.dtype(np.uint8 if bits == 8 else "<u2")
    return np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)[:, :width]


def planar(frame: VideoFrame, layout: Layout) -> VideoFrame:
    """Return a frame in the planar format of a layout; the same frame if it is that already."""
    if frame.format.name.replace("yuvj", "yuv") == layout.pix_fmt:
        return frame
    return frame.reformat(format=layout.pix_fmt)


def _components(frame: VideoFrame, layout: Layout) -> list[np.ndarray[Any, np.dtype[Any]]]:
    """Return views of the codes of each component of a planar frame."""
    if layout.kind == "gray" and layout.alpha:  # FFmpeg has these two interleaved only
        codes = plane_codes(frame.planes[0], layout.bits, 2 * frame.width)
        return [codes[:, ::2], codes[:, 1::2]]
    return [plane_codes(plane, layout.bits, plane.width) for plane in frame.planes]


def to_planes(frame: VideoFrame, layout: Layout) -> tuple[Tensor, ...]:
    """Copy the planes of an FFmpeg frame into tensors (see :class:`Frame`), but for alpha."""
    planes = [_copy(codes) for codes in _components(planar(frame, layout), layout)]
    if layout.kind == "rgb":
        green, blue, red = planes[:3]
        return (torch.stack([red, green, blue]),)
    if layout.kind == "gray":
        return (planes[0][None],)
    return planes[0][None], torch.stack(planes[1:3])


def to_alpha(frame: VideoFrame, layout: Layout) -> Tensor | None:
    """Copy the opacity of an FFmpeg frame, ``(1, H, W)``; None if the layout has none."""
    return _copy(_components(planar(frame, layout), layout)[-1])[None] if layout.alpha else None


def _copy(codes: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    # int32 rather than uint16: few of torch's operations know the latter.
    return torch.from_numpy(codes.copy() if codes.dtype == np.uint8 else codes.astype(np.int32))


def from_planes(
    planes: tuple[Tensor, ...], layout: Layout, alpha: Tensor | None = None
) -> VideoFrame:
    """Build an FFmpeg frame from planes and opacity: the inverse of :func:`to_planes`.

    A layout with alpha is opaque where none is given.
    """
    height, width = planes[0].shape[-2:]
    ordered = [plane for group in planes for plane in group]
    if layout.kind == "rgb":
        red, green, blue = ordered
        ordered = [green, blue, red]
    if layout.alpha:
        ordered.append(planes[0].new_full((height, width), layout.largest))
        if alpha is not None:
            ordered[-1] = alpha[0]
    frame = VideoFrame(width, height, layout.pix_fmt)
    for codes, plane in zip(_components(frame, layout), ordered, strict=True):
        codes[:] = plane.cpu().numpy()
    return frame
