"""Writing a video in segments, so that hours of work survive an interruption."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Stream

from nlden.media.encoding import Encoding
from nlden.media.frames import Frame
from nlden.media.probe import MediaError, VideoInfo
from nlden.media.segments import SegmentEncoder, finished_frames, read_packets, read_table
from nlden.media.target import TargetError, Unfinished
from nlden.media.trim import Packet, packet_seconds
from nlden.media.writer import VideoWriter, reason

SEGMENT = 240
"""Frames of a segment. Each begins with a key frame, as an encoder would set one anyway."""


class ResumableWriter(Unfinished):
    """Write a video as :class:`nlden.media.writer.VideoWriter` does, in segments that are kept.

    Each stretch of frames goes through an encoder of its own into a folder; when it is finished
    its packets are copied into the file. A later run with the same folder copies what is
    finished and encodes the rest: the file comes out the same, whether it was interrupted or not.

    Args:
        path: target.
        info: the source's video stream.
        streams: the source's other streams.
        encoding: how to encode.
        shift: seconds that are taken off every timestamp.
        folder: where segments and the growing file lie; on the target's file system.
        length: frames of a segment.

    Raises:
        MediaError: if the target cannot be written.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        streams: Sequence[Stream],
        encoding: Encoding,
        shift: Fraction,
        folder: Path,
        length: int = SEGMENT,
    ) -> None:
        self._writer = VideoWriter(path, info, streams, encoding, shift, folder)
        self.path, self.length = path, length
        self._folder, self._shift = folder, shift
        self._finished = finished_frames(folder)
        self._encoder: SegmentEncoder | None = None
        self._waiting: deque[Packet] = deque()
        self._times: list[int] = []
        self._number = self._delay = 0
        self._tail: list[int] = []
        self._lost: list[str] = []

    @property
    def done(self) -> int:
        """Return how many first frames need no planes: finished segments hold them."""
        return sum(self._finished)

    @property
    def warnings(self) -> list[str]:
        """Return lines for the user; complete after closing."""
        return [*dict.fromkeys(self._lost), *self._writer.warnings]

    def write(self, frame: Frame) -> None:
        """Encode a frame, or pass over it if it is done."""
        pts, duration = self._writer.timing(frame)
        self._times.append(pts)
        try:
            if self._number >= len(self._finished):
                if self._encoder is None:
                    encoder = self._writer.new_encoder()
                    self._encoder = SegmentEncoder(self._folder, self._number, encoder)
                self._encoder.write(frame, pts, duration)
            if len(self._times) == self.length:
                self._finish_segment()
        except OSError as error:  # of FFmpeg, too, where it is one of the system's
            raise self._failed(error) from error

    def write_packet(self, packet: Packet) -> None:
        """Take a packet of another stream."""
        self._waiting.append(packet)

    def _finish_segment(self) -> None:
        if self._encoder is not None:
            self._encoder.finish()
            self._lost += self._encoder.warnings
            self._encoder = None
        table = read_table(self._folder, self._number)
        if sorted(table.pts) != self._times:
            raise MediaError(
                f"{self.path}: the frames {self._number * self.length} to "
                f"{self._number * self.length + len(self._times) - 1} are not those that were "
                "written; -y starts anew"
            )
        if bytes.fromhex(table.extradata) != self._writer.extradata:
            raise MediaError(
                f"{self.path}: the encoder is not the one that wrote the first part; -y starts anew"
            )
        if self._number == 0:
            self._delay = table.delay
        else:
            # Of one encoder after the other the first times of decoding would overlap.
            table.dts = (self._tail + self._times)[: len(self._times)]
        for packet in read_packets(self._folder, self._number, table):
            assert packet.dts is not None
            self._write_waiting(packet.dts * self._writer.time_base)
            self._writer.write_encoded(packet)
        self._write_waiting(None)
        self._tail = self._times[len(self._times) - self._delay :]
        self._times = []
        self._number += 1

    def _write_waiting(self, until: Fraction | None) -> None:
        """Write what the source holds up to a time, or all, so that the file is interleaved."""
        while self._waiting:
            seconds = packet_seconds(self._waiting[0])
            if until is not None and seconds is not None and seconds - self._shift > until:
                return
            self._writer.write_packet(self._waiting.popleft())

    def _failed(self, error: Exception) -> TargetError:
        return TargetError(f"{self.path}: writing failed ({reason(error)})")

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            if self._times:
                self._finish_segment()
            self._write_waiting(None)
        except OSError as error:
            self.discard()
            raise self._failed(error) from error
        except MediaError:
            self.discard()
            raise
        self._writer.close()

    def discard(self) -> None:
        """Give the file up; finished segments stay in the folder."""
        if self._encoder is not None:
            with suppress(av.FFmpegError, OSError):
                self._encoder.discard()
        self._writer.discard()
