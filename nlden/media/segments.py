"""Finished stretches of a coded video, kept on disk so that an interrupted run can go on.

A segment is a pair of files: the packets one after the other, and a table of their times and
sizes. The table appears, complete, after the packets have reached the disk: a segment with a table
is finished. No container is used because none takes every codec and keeps every time base.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import av

from nlden.media.encoder import VideoEncoder
from nlden.media.frames import Frame
from nlden.media.trim import Packet


@dataclass
class Table:
    """What a segment's packets are, in the order of decoding.

    Args:
        extradata: head of the coded video, hexadecimal.
        pts: times of presentation, in units of the video's time base.
        dts: times of decoding that the encoder gave, likewise.
        duration: durations, likewise; 0 is open.
        size: bytes.
        key: whether it is a key frame.
    """

    extradata: str = ""
    pts: list[int] = field(default_factory=list)
    dts: list[int] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)

    @property
    def delay(self) -> int:
        """Return by how many frames decoding runs ahead of presentation, to put B-frames right."""
        return sum(dts < min(self.pts) for dts in self.dts)


def table_path(folder: Path, number: int) -> Path:
    """Return the file whose presence tells that a segment is finished."""
    return folder / f"{number:06d}.json"


def read_table(folder: Path, number: int) -> Table:
    """Read the table of a finished segment."""
    return Table(**json.loads(table_path(folder, number).read_text()))


def finished_frames(folder: Path) -> list[int]:
    """Return the numbers of frames of the finished segments, up to the first that is not."""
    counts: list[int] = []
    while table_path(folder, len(counts)).exists():
        counts.append(len(read_table(folder, len(counts)).pts))
    return counts


def read_packets(folder: Path, number: int, table: Table) -> Iterator[Packet]:
    """Yield the packets of a finished segment, without a time base."""
    rows = zip(table.pts, table.dts, table.duration, table.size, table.key, strict=True)
    with _packets_path(folder, number).open("rb") as file:
        for pts, dts, duration, size, key in rows:
            packet: Packet = av.Packet(file.read(size))
            packet.pts, packet.dts, packet.duration = pts, dts, duration
            packet.is_keyframe = key
            yield packet


def _packets_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.packets"


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that it is there as a whole or as it was before, come what may."""
    part = path.with_suffix(".tmp")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class SegmentEncoder:
    """Encode frames into a segment.

    Args:
        folder: where segments lie.
        number: which of them this is, from 0.
        encoder: a fresh encoder.
    """

    def __init__(self, folder: Path, number: int, encoder: VideoEncoder) -> None:
        self._folder, self._number, self._encoder = folder, number, encoder
        self._table = Table()
        self._file = _packets_path(folder, number).open("wb")

    def write(self, frame: Frame, pts: int, duration: int) -> None:
        """Encode a frame (see :meth:`nlden.media.encoder.VideoEncoder.encode`)."""
        self._keep(self._encoder.encode(frame, pts, duration))

    def _keep(self, packets: list[Packet]) -> None:
        unit, table = self._encoder.time_base, self._table
        for packet in packets:
            # Not every encoder keeps to the unit that it was given.
            scale = Fraction(packet.time_base or unit) / unit
            for times, ticks in (
                (table.pts, packet.pts),
                (table.dts, packet.dts if packet.dts is not None else packet.pts),
                (table.duration, packet.duration),
            ):
                times.append(round((ticks or 0) * scale))
            table.size.append(packet.size)
            table.key.append(packet.is_keyframe)
            self._file.write(packet)

    def finish(self) -> None:
        """Finish the segment: from now on it survives."""
        self._keep(self._encoder.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._table.extradata = bytes(self._encoder.stream.codec_context.extradata or b"").hex()
        write_durably(table_path(self._folder, self._number), json.dumps(asdict(self._table)))

    @property
    def warnings(self) -> list[str]:
        """Return what the encoder has to tell the user."""
        return self._encoder.warnings

    def discard(self) -> None:
        """Give the segment up."""
        self._encoder.flush()
        self._file.close()
