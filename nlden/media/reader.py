"""Streaming reader: frames as tensors, sound as packets, in the order of the file."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from torch import Tensor

from nlden.media.probe import Layout, MediaError, VideoInfo, describe, open_video, reading

AudioPacket: TypeAlias = "av.Packet[Any]"


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    Args:
        planes: uint8 (8 bits) or int32 (more) codes. ``yuv*``: luma ``(1, H, W)`` and chroma
            ``(2, h, w)``; ``gray``: ``(1, H, W)``; ``rgb``: ``(3, H, W)``.
        layout: what the planes are.
        pts: presentation time in units of the stream's time base.
    """

    planes: tuple[Tensor, ...]
    layout: Layout
    pts: int

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width."""
        height, width = self.planes[0].shape[-2:]
        return height, width


class VideoReader:
    """Read a video from its first to its last frame at constant memory.

    Iterating yields :class:`Frame` objects and, between them, the packets of the sound as they
    lie in the file. A damaged file is read as far as it goes; ``warnings`` then says so.

    Args:
        path: any file that FFmpeg decodes.
        start: first second to read.
        end: second before which to stop; None is the end of the file.

    Raises:
        MediaError: if the file cannot be opened or no frame can be decoded.
    """

    def __init__(self, path: Path, start: float = 0.0, end: float | None = None) -> None:
        self.container, self.stream = open_video(path)
        self.stream.thread_type = "AUTO"
        self.info: VideoInfo = replace(
            describe(path, self.container, self.stream), rotation=_rotation(path)
        )
        self.start, self.end = start, end
        self.audio = [s for s in self.container.streams.audio if s.codec_context is not None]
        self.warnings: list[str] = []
        self.frames_read = 0
        self.first_pts: int | None = None
        self._damaged = 0
        self._last_seconds = 0.0

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def __iter__(self) -> "Iterator[Frame | AudioPacket]":
        """Yield frames and packets of sound."""
        path = self.info.path
        if self.start > 0:
            with reading(path):
                self.container.seek(round(self.start * av.time_base))
        broken = ""
        packets = self.container.demux([self.stream, *self.audio])
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                broken = str(error)
                break
            if packet.stream.index != self.stream.index:
                if packet.size and self._wanted(packet.pts, packet.time_base):
                    yield packet
                continue
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self._damaged += 1
                continue
            for frame in frames:
                assert isinstance(frame, VideoFrame)
                if self.end is not None and self.seconds(frame) >= self.end:
                    return
                if self.seconds(frame) >= self.start:
                    yield self._convert(frame)
        self._judge(broken)

    def seconds(self, frame: VideoFrame) -> float:
        """Return the presentation time of a decoded frame; 0 if it has none."""
        return float(frame.pts * self.info.time_base) if frame.pts is not None else 0.0

    def _wanted(self, pts: int | None, time_base: object) -> bool:
        if pts is None:
            return True
        seconds = float(pts * time_base)  # type: ignore[operator]
        return (self.start <= 0 or seconds >= self.start) and (
            self.end is None or seconds < self.end
        )

    def _convert(self, frame: VideoFrame) -> Frame:
        if (frame.width, frame.height) != (self.info.width, self.info.height):
            raise MediaError(
                f"{self.info.path}: the picture changes its size at frame {self.frames_read} "
                f"({self.info.width}x{self.info.height} to {frame.width}x{frame.height}); "
                "split the file there"
            )
        pts = frame.pts if frame.pts is not None else self.frames_read
        if self.first_pts is None:
            self.first_pts = pts
        self.frames_read += 1
        self._last_seconds = float(pts * self.info.time_base)
        return Frame(to_planes(frame, self.info.layout), self.info.layout, pts)

    def _judge(self, broken: str) -> None:
        info = self.info
        if self.frames_read == 0:
            reason = f" ({broken})" if broken else ""
            raise MediaError(f"{info.path}: no frame could be decoded{reason}; is it damaged?")
        whole = self.start <= 0 and self.end is None
        missing = whole and 0 < self.frames_read < info.frames
        if whole and info.duration is not None and info.rate:
            first = float((self.first_pts or 0) * info.time_base)
            missing |= self._last_seconds - first + 1.0 < info.duration - 1.5 / float(info.rate)
        if broken or self._damaged or missing:
            promised = f" of {info.frames}" if info.frames else ""
            self.warnings.append(
                f"{info.path}: the file is damaged or cut off; "
                f"{self.frames_read}{promised} frames could be read and are kept"
            )


_NEAR = 1.0  # seconds that are decoded rather than sought
_FORWARD = 30  # frames that are decoded at the most on the way to a chosen one


def sample_frames(
    path: Path, count: int = 8, start: float = 0.0, end: float | None = None
) -> list[Frame]:
    """Decode a few frames spread over a file.

    Args:
        path: the file.
        count: how many at the most.
        start: first second to look at.
        end: last second to look at; None is the end of the file.

    Returns:
        At least one frame; fewer than ``count`` where the file is short or damaged.

    Raises:
        MediaError: if no frame can be decoded.
    """
    with VideoReader(path) as reader:
        info = reader.info
        length = (end if end is not None else info.duration or 0.0) - start
        seconds = [start + (i + 0.5) / count * length for i in range(count)]
        frames: dict[int, Frame] = {}
        for number, frame in enumerate(_frames_near(reader, seconds, search=length > 0)):
            pts = frame.pts if frame.pts is not None else number
            if (frame.width, frame.height) == (info.width, info.height):
                frames.setdefault(pts, Frame(to_planes(frame, info.layout), info.layout, pts))
    if frames:
        return list(frames.values())
    with VideoReader(path) as reader:  # a file in which nothing can be sought
        return [next(item for item in reader if isinstance(item, Frame))]


def _frames_near(
    reader: VideoReader, seconds: list[float], *, search: bool
) -> Iterator[VideoFrame]:
    """Decode the first frame at or after each time, or one up to ``_FORWARD`` frames before it.

    Every search comes down on a key frame, from which decoding goes on: a time that is near is
    sooner reached by decoding alone. No key frame is gone out from twice.
    """
    container, stream = reader.container, reader.stream
    decoded = container.decode(stream)
    at, key, missing = -math.inf, math.nan, 0

    def forward(second: float, frame: VideoFrame | None = None) -> VideoFrame | None:
        nonlocal at
        for _ in range(_FORWARD):
            if at >= second or (later := next(decoded, None)) is None:
                break
            frame, at = later, reader.seconds(later)
        return frame

    for second in seconds if search else ():
        frame = None
        if at >= second:
            continue
        try:
            if second - at > _NEAR:
                container.seek(round(second * av.time_base))
                decoded = container.decode(stream)
                frame = next(decoded, None)
                before, key = key, math.nan if frame is None else reader.seconds(frame)
                at = key
                if key == before:
                    missing += 1
                    continue
            frame = forward(second, frame)
        except av.FFmpegError:
            continue
        if frame is not None:
            yield frame
    # Without times to look for, or with fewer key frames than times: what follows.
    for _ in range(missing if search else len(seconds)):
        try:
            frame = forward(math.inf)
        except av.FFmpegError:
            return
        if frame is None:
            return
        yield frame


def _rotation(path: Path) -> int:
    """Return the rotation that the first frame carries (a stream does not tell it)."""
    container, stream = open_video(path)
    with container:
        try:
            return next(container.decode(stream)).rotation
        except (av.FFmpegError, StopIteration):
            return 0


def plane_codes(plane: VideoPlane, bits: int, width: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a view of the codes of a plane, ``(height, width)``, without its padding."""
    dtype = np.dtype(np.uint8 if bits == 8 else "<u2")
    return np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)[:, :width]


def to_planes(frame: VideoFrame, layout: Layout) -> tuple[Tensor, ...]:
    """Copy the planes of an FFmpeg frame into tensors (see :class:`Frame`)."""
    name = frame.format.name.replace("yuvj", "yuv")
    if name != layout.pix_fmt:
        frame = frame.reformat(format=layout.pix_fmt)
    planes = []
    for plane in frame.planes:
        codes = plane_codes(plane, layout.bits, plane.width)
        # int32 rather than uint16: few of torch's operations know the latter.
        copy = codes.copy() if layout.bits == 8 else codes.astype(np.int32)
        planes.append(torch.from_numpy(copy))
    if layout.kind == "rgb":
        green, blue, red = planes
        return (torch.stack([red, green, blue]),)
    if layout.kind == "gray":
        return (planes[0][None],)
    return planes[0][None], torch.stack(planes[1:])


def from_planes(planes: tuple[Tensor, ...], layout: Layout) -> VideoFrame:
    """Build an FFmpeg frame from planes: the inverse of :func:`to_planes`."""
    height, width = planes[0].shape[-2:]
    if layout.kind == "rgb":
        red, green, blue = planes[0]
        ordered = [green, blue, red]
    else:
        ordered = [p for group in planes for p in group]
    frame = VideoFrame(width, height, layout.pix_fmt)
    for plane, codes in zip(frame.planes, ordered, strict=True):
        plane_codes(plane, layout.bits, plane.width)[:] = codes.cpu().numpy()
    return frame
