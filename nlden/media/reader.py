"""Streaming reader: frames as tensors, all other streams as packets, in the order of the file."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import torch
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from torch import Tensor

from nlden.media.pipes import is_pipe
from nlden.media.probe import (
    Layout,
    MediaError,
    VideoInfo,
    describe,
    open_video,
    orientation,
    orientation_of,
    reading,
)
from nlden.media.trim import Packet, Trim, packet_seconds, trim_chapters


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    Args:
        planes: uint8 (8 bits) or int32 (more) codes. ``yuv*``: luma ``(1, H, W)`` and chroma
            ``(2, h, w)``; ``gray``: ``(1, H, W)``; ``rgb``: ``(3, H, W)``.
        layout: what the planes are.
        pts: presentation time in units of the stream's time base.
        duration: how long it is shown, in the same units; 0 if the file does not say.
    """

    planes: tuple[Tensor, ...]
    layout: Layout
    pts: int
    duration: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width."""
        height, width = self.planes[0].shape[-2:]
        return height, width


class VideoReader:
    """Read a video from its first to its last frame at constant memory.

    Iterating yields :class:`Frame` objects and, between them, the packets of all other streams
    as they lie in the file. A damaged file is read as far as it goes; frames without a time or
    with that of another get one; ``warnings`` then says so.

    Args:
        path: any file that FFmpeg decodes, a pattern of numbered pictures, or ``-`` for standard
            input. That can be read but once: its first frames and the packets among them wait in
            ``head`` to be looked at before iterating, which begins with them.
        start: first second to read.
        end: second before which to stop; None is the end of the file.
        frames: how many frames to read at the most. The other streams end with the last of them.

    Set ``skip`` before iterating to get so many first frames without their planes.

    Raises:
        MediaError: if the file cannot be opened or no frame can be decoded.
    """

    def __init__(
        self, path: Path, start: float = 0.0, end: float | None = None, frames: int | None = None
    ) -> None:
        self.container, self.stream = open_video(path)
        self.stream.thread_type = "AUTO"
        self.start, self.end, self.frames = start, end, frames
        rotation, matrix = (0, None) if is_pipe(path) else orientation(path)
        info = describe(path, self.container, self.stream)
        step = 1 / ((info.rate or 25) * info.time_base)
        self._step = max(1, round(step))
        if start > 0 or end is not None or frames is not None:
            last = None if frames is None else start + frames * step * info.time_base
            stops = [Fraction(t) for t in (end, last) if t is not None]
            chapters = trim_chapters(info.chapters, Fraction(start), min(stops, default=None))
            info = replace(info, chapters=chapters)
        self.info: VideoInfo = replace(info, rotation=rotation, matrix=matrix)
        self.streams = [s for s in self.container.streams if self._passes(s)]
        self.warnings: list[str] = []
        self.frames_read = self.skip = 0
        self.first_pts: int | None = None
        self._damaged = self._untimed = self._repeated = 0
        self._last_pts: int | None = None
        self._broken = ""
        self._items = self._read()
        self.head: deque[Frame | Packet] = deque()
        if is_pipe(path):
            self._look_ahead()

    def _look_ahead(self) -> None:
        """Decode the first frames of what can be read but once; iterating begins with them."""
        while not self.frames_read or (self.frames_read < _HEAD and len(self.head) < _HEAD_ITEMS):
            try:
                item = next(self._items, None)
            except MediaError:
                self.close()
                raise
            if item is None:
                break
            self.head.append(item)

    def _passes(self, stream: Stream) -> bool:
        """Tell whether a stream is to be copied: not the video, nor what is written anew."""
        if stream.index == self.stream.index or stream.discard == Discard.all:
            return False  # FFmpeg discards the track of chapters, which it gives as chapters
        rewritten = stream.type == "data" and "timecode" in stream.metadata
        return not (rewritten and "timecode" in self.info.metadata)

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
        """Close the file; a pipe, in which a read may still be waiting, is left to the process."""
        if not is_pipe(self.info.path):
            self.container.close()

    def __iter__(self) -> "Iterator[Frame | Packet]":
        """Yield frames and packets."""
        while self.head:
            yield self.head.popleft()
        yield from self._items

    def _read(self) -> "Iterator[Frame | Packet]":
        trim = Trim(_exact(self.start), None if self.end is None else _exact(self.end))
        # Where --frames ends is known when the frame after the last is: until then packets wait.
        held: deque[Packet] = deque()
        ended = False
        going_on = {s.index for s in self._demuxed() if s.type in ("audio", "video")}
        for packet in self._demux():
            if packet.stream.index != self.stream.index:
                if packet.size == 0:
                    continue
                if self.frames is not None and not ended:
                    held.append(packet)
                elif trim.keeps(packet):
                    yield packet
                if ended and _reaches(packet, trim.end):
                    going_on.discard(packet.stream.index)
            elif not ended:
                for frame in self._decode(packet):
                    pts = self._time(frame)
                    seconds = pts * self.info.time_base
                    ended = trim.end is not None and seconds >= trim.end
                    if self.frames_read == self.frames and not ended:
                        trim.end, ended = seconds, True
                    if ended:
                        break
                    while held and (packet_seconds(held[0]) or 0) < seconds:
                        if trim.keeps(waited := held.popleft()):
                            yield waited
                    if seconds >= trim.start:
                        yield self._convert(frame, pts)
                if ended:
                    yield from filter(trim.keeps, held)
                    held.clear()
            elif _reaches(packet, trim.end, _INTERLEAVING):
                break
            if ended and not going_on:
                break
        yield from filter(trim.keeps, held)
        self._judge()

    def _demuxed(self) -> list[Stream]:
        pictures = Disposition.attached_pic
        return [s for s in self.streams if s.type != "attachment" and not s.disposition & pictures]

    def _demux(self) -> Iterator[Packet]:
        # A stream without times cannot be sought: it is decoded from its beginning.
        seekable = not is_pipe(self.info.path) and self.stream.start_time is not None
        if self.start > 0 and seekable:
            with reading(self.info.path):
                self.container.seek(round(self.start * av.time_base))
        try:
            yield from self.container.demux([self.stream, *self._demuxed()])
        except (av.FFmpegError, OSError) as error:
            self._broken = str(error)

    def _decode(self, packet: Packet) -> Iterator[VideoFrame]:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self._damaged += 1
            return
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            yield frame

    def seconds(self, frame: VideoFrame) -> float:
        """Return the presentation time of a decoded frame; 0 if it has none."""
        return float(frame.pts * self.info.time_base) if frame.pts is not None else 0.0

    def _time(self, frame: VideoFrame) -> int:
        """Return the timestamp of a frame: its own, if that is there and after the last one."""
        last, pts, step = self._last_pts, frame.pts, frame.duration or self._step
        if pts is None:
            self._untimed += 1
            pts = last + step if last is not None else self.stream.start_time or 0
        elif last is not None and pts <= last:
            self._repeated += 1
            # What comes twice stays where it is as nearly as can be; a leap back goes on.
            pts = last + (1 if last - pts < step else step)
        self._last_pts = pts
        return pts

    def _convert(self, frame: VideoFrame, pts: int) -> Frame:
        if (frame.width, frame.height) != (self.info.width, self.info.height):
            raise MediaError(
                f"{self.info.path}: the picture changes its size at frame {self.frames_read} "
                f"({self.info.width}x{self.info.height} to {frame.width}x{frame.height}); "
                "split the file there"
            )
        if self.first_pts is None:
            self.first_pts = pts
            if is_pipe(self.info.path):
                rotation, matrix = orientation_of(frame)
                self.info = replace(self.info, rotation=rotation, matrix=matrix)
        self.frames_read += 1
        layout = self.info.layout
        planes = to_planes(frame, layout) if self.frames_read > self.skip else ()
        return Frame(planes, layout, pts, frame.duration or 0)

    def _judge(self) -> None:
        info = self.info
        if self.frames_read == 0:
            reason = f" ({self._broken})" if self._broken else ""
            raise MediaError(f"{info.path}: no frame could be decoded{reason}; is it damaged?")
        whole = self.start <= 0 and self.end is None and self.frames is None
        missing = whole and 0 < self.frames_read < info.frames
        if whole and info.duration is not None and info.rate:
            read = float(((self._last_pts or 0) - (self.first_pts or 0)) * info.time_base)
            missing |= read + 1.0 < info.duration - 1.5 / float(info.rate)
        if self._broken or self._damaged or missing:
            promised = f" of {info.frames}" if info.frames else ""
            self.warnings.append(
                f"{info.path}: the file is damaged or cut off; "
                f"{self.frames_read}{promised} frames could be read and are kept"
            )
        if self._untimed:
            self.warnings.append(
                f"{info.path}: {self._untimed} frames have no timestamp; "
                f"they follow one another at {float(info.rate or 25):g} frames per second"
            )
        if self._repeated:
            self.warnings.append(
                f"{info.path}: {self._repeated} frames have the timestamp of an earlier one "
                "or go back in time; they now follow it"
            )


def _exact(seconds: float) -> Fraction:
    return Fraction(seconds).limit_denominator(1_000_000)


def _reaches(packet: Packet, end: Fraction | None, more: int = 0) -> bool:
    """Tell whether everything that follows a packet in its stream lies behind the end."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    if ticks is None or end is None:
        return False
    return ticks * Fraction(packet.time_base) >= end + more


# Frames of a pipe that are decoded at once, and what may lie among them at the most.
_HEAD, _HEAD_ITEMS = 8, 4096
_INTERLEAVING = 10  # seconds by which the sound of a frame may lie behind it in the file


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
