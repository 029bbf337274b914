"""Streaming reader: frames as tensors, all other streams as packets, in the order of the file."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame

from nlden.media.chroma_location import chroma_location
from nlden.media.frames import Frame, planar, to_alpha, to_planes
from nlden.media.hardware import device_for
from nlden.media.hdr import Hdr
from nlden.media.interlacing import Deinterlacer, refusal
from nlden.media.pipes import is_pipe
from nlden.media.probe import (
    MediaError,
    VideoInfo,
    describe,
    first_frame,
    open_video,
    reading,
)
from nlden.media.seeking import seek_before
from nlden.media.side_data import display_matrix, not_kept
from nlden.media.trim import Packet, Trim, exact, packet_seconds, trim_chapters

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class VideoReader:
    """Read a video from its first to its last frame at constant memory.

    Iterating yields :class:`Frame` objects and, between them, the packets of all other streams
    as they lie in the file. A damaged file is read as far as it goes; frames without a time or
    with that of another get one; ``warnings`` then says so.

    Args:
        path: any file that FFmpeg decodes, a pattern of numbered pictures, or ``-`` for standard
            input. That can be read but once: its first frames and the packets among them wait in
            ``head`` to be looked at before iterating, which begins with them.
        start: first second to read, from the beginning of the file, whatever its first timestamp.
        end: second before which to stop, likewise; None is the end of the file.
        frames: how many frames to read at the most. The other streams end with the last of them.
        deinterlace: what to do with interlaced frames, see :data:`nlden.media.interlacing.MODES`.
        hwaccel: ``none``, or where to decode, see :func:`nlden.media.hardware.device_for`;
            without such a device the CPU decodes and ``warnings`` says so.

    Set ``skip`` before iterating to get so many first frames without their planes. ``shift`` is
    what to take off the timestamps so that a part begins at zero.

    Raises:
        MediaError: if the file cannot be opened, no frame can be decoded, or one is interlaced
            and that is to be refused.
    """

    def __init__(
        self,
        path: Path,
        start: float = 0.0,
        end: float | None = None,
        frames: int | None = None,
        deinterlace: str = "none",
        hwaccel: str = "none",
    ) -> None:
        self.container, self.stream = open_video(path)
        self.start, self.end, self.frames = start, end, frames
        self.warnings: list[str] = []
        info = describe(path, self.container, self.stream)
        # A pipe cannot be looked into beforehand: its first frame tells when it comes.
        first = None if is_pipe(path) else first_frame(path)
        # FFmpeg's own decoders of VP8 and VP9 pass over alpha.
        self._decoder: av.VideoCodecContext | None = None
        alpha_decoder = _ALPHA_DECODERS.get(info.codec)
        if alpha_decoder and info.metadata.get("alpha_mode") == "1":
            info = replace(info, layout=replace(info.layout, alpha=True))
            self._decoder = av.Codec(alpha_decoder).create("video")
        elif hwaccel != "none":
            self._accelerate(path, hwaccel)
        self.stream.thread_type = "AUTO"
        self._deinterlace, self._deinterlacer = deinterlace, None
        if deinterlace in ("auto", "all"):
            self._deinterlacer = Deinterlacer(self.stream, every=deinterlace == "all")
        step = 1 / ((info.rate or 25) * info.time_base)
        self._step = max(1, round(step))
        begin = exact(start) + info.origin
        self.shift = begin if start > 0 else Fraction(0)
        self._stop = None if end is None else exact(end) + info.origin
        if start > 0 or end is not None or frames is not None:
            last = None if frames is None else begin + frames * step * info.time_base
            stops = [t for t in (self._stop, last) if t is not None]
            chapters = trim_chapters(info.chapters, self.shift, min(stops, default=None))
            info = replace(info, chapters=chapters)
        if first is not None:
            info = replace(_told_by(first, info), chroma_location=chroma_location(path))
        self.info: VideoInfo = info
        self.streams = [s for s in self.container.streams if self._passes(s)]
        self.frames_read = self.skip = 0
        self.first_pts: int | None = None
        self._damaged = self._untimed = self._repeated = 0
        self._last_pts: int | None = None
        self._last_duration = 0
        # Where only the file says how long it lasts, its sound may be what lasts so long.
        self._file_lasts = None if self.stream.duration else self.container.duration
        self._others_end = Fraction(0)
        self._broken = ""
        self._lost: dict[str, None] = {}
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

    def _accelerate(self, path: Path, hwaccel: str) -> None:
        """Open the file anew to decode on hardware, or say that this cannot be."""
        device = None if is_pipe(path) else device_for(path, hwaccel)
        if device is None:
            self.warnings.append(
                f"{path}: --hwaccel {hwaccel}: no such device decodes this here; the CPU does"
            )
            return
        self.container.close()
        self.container, self.stream = open_video(path, device)

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
        if self._lost:
            names = ", ".join(self._lost)
            self.warnings.append(f"{self.info.path}: the frames carry {names}: not kept")

    def _read(self) -> "Iterator[Frame | Packet]":
        trim = Trim(self.shift, self._stop)
        # Where --frames ends is known when the frame after the last is: until then packets wait.
        held: deque[Packet] = deque()
        ended = False
        going_on = {s.index for s in self._demuxed() if s.type in ("audio", "video")}
        for packet in self._demux():
            if packet.stream.index != self.stream.index:
                if packet.size == 0:
                    continue
                if (begun := packet_seconds(packet)) is not None:
                    lasts = (packet.duration or 0) * packet.time_base
                    self._others_end = max(self._others_end, begun + lasts)
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
                seek_before(self.container, self.stream, self.shift)
        try:
            yield from self.container.demux([self.stream, *self._demuxed()])
        except (av.FFmpegError, OSError) as error:
            self._broken = str(error)

    def _decode(self, packet: Packet) -> Iterator[VideoFrame]:
        try:
            if self._decoder is None:
                frames = packet.decode()
            else:
                frames = self._decoder.decode(packet if packet.size else None)
        except av.FFmpegError:
            self._damaged += 1
            return
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            if frame.interlaced_frame and self._deinterlace == "refuse":
                raise refusal(self.info.path)
            if self._deinterlacer is None or not self._fits(frame):
                yield frame
            else:
                yield from self._deinterlacer.push(frame)
        if self._deinterlacer is not None and packet.size == 0 and packet.dts is None:
            yield from self._deinterlacer.flush()

    def _fits(self, frame: VideoFrame) -> bool:
        return (frame.width, frame.height) == (self.info.width, self.info.height)

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
        if not self._fits(frame):
            raise MediaError(
                f"{self.info.path}: the picture changes its size at frame {self.frames_read} "
                f"({self.info.width}x{self.info.height} to {frame.width}x{frame.height}); "
                "split the file there"
            )
        if self.first_pts is None:
            self.first_pts = pts
            if is_pipe(self.info.path):
                self.info = _told_by(frame, self.info)
        self.frames_read += 1
        self._lost.update(dict.fromkeys(not_kept(frame)))
        layout, duration = self.info.layout, frame.duration or 0
        self._last_duration = duration
        if self.frames_read <= self.skip:
            return Frame((), layout, pts, duration)
        frame = planar(frame, layout)
        return Frame(to_planes(frame, layout), layout, pts, duration, to_alpha(frame, layout))

    def _judge(self) -> None:
        info = self.info
        if self.frames_read == 0:
            reason = f" ({self._broken})" if self._broken else ""
            raise MediaError(f"{info.path}: no frame could be decoded{reason}; is it damaged?")
        whole = self.start <= 0 and self.end is None and self.frames is None
        missing = whole and 0 < self.frames_read < info.frames
        if whole and info.duration is not None and info.rate:
            begin, lasts = (self.first_pts or 0) * info.time_base, info.duration
            end = ((self._last_pts or 0) + self._last_duration) * info.time_base
            if self._file_lasts:
                begin, lasts = info.start, self._file_lasts / av.time_base
                end = max(end, self._others_end)
            missing |= float(end - begin) + 1.0 < lasts - 1.5 / float(info.rate)
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


def _told_by(frame: VideoFrame, info: VideoInfo) -> VideoInfo:
    """Add what the first frame of a video tells."""
    matrix = display_matrix(frame)
    return replace(info, rotation=frame.rotation, matrix=matrix, hdr=Hdr.of(frame))


def _reaches(packet: Packet, end: Fraction | None, more: int = 0) -> bool:
    """Tell whether everything that follows a packet in its stream lies behind the end."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    if ticks is None or end is None:
        return False
    return ticks * Fraction(packet.time_base) >= end + more


# Frames of a pipe that are decoded at once, and what may lie among them at the most.
_HEAD, _HEAD_ITEMS = 8, 4096
_INTERLEAVING = 10  # seconds by which the sound of a frame may lie behind it in the file
