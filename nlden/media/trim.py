"""Cutting a part out of a file: which packets belong to it, and which chapters."""

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import av

if TYPE_CHECKING:
    from av.container.core import Chapter

Packet: TypeAlias = "av.Packet[Any]"


def exact(seconds: float) -> Fraction:
    """Return what a number of seconds was meant to be: 0.1 is a tenth."""
    return Fraction(seconds).limit_denominator(1_000_000)


def packet_seconds(packet: Packet) -> Fraction | None:
    """Return when a packet is shown, in seconds, if it says so."""
    ticks = packet.pts if packet.pts is not None else packet.dts
    return None if ticks is None else ticks * Fraction(packet.time_base)


class Trim:
    """The part ``[start, end)`` of a file, in seconds.

    A packet belongs to the part in which it begins. Two kinds need more: a copied video can only
    begin with a key frame, and a subtitle is shown for as long as it is inside.

    Args:
        start: first second.
        end: second before which to stop; None is the end of the file. It may be set later.
    """

    def __init__(self, start: Fraction, end: Fraction | None) -> None:
        self.start, self.end = start, end
        self._begun: set[int] = set()

    def keeps(self, packet: Packet) -> bool:
        """Tell whether a packet belongs to the part; shorten a subtitle that reaches over."""
        seconds = packet_seconds(packet)
        if seconds is None or (self.start <= 0 and self.end is None):
            return True
        if packet.stream.type == "subtitle" and packet.duration:
            seconds = self._shorten(packet, seconds)
        inside = self.start <= 0 or seconds >= self.start
        inside &= self.end is None or seconds < self.end
        if inside and self.start > 0 and packet.stream.type == "video":
            inside = packet.is_keyframe or packet.stream.index in self._begun
            if inside:
                self._begun.add(packet.stream.index)
        return inside

    def _shorten(self, packet: Packet, seconds: Fraction) -> Fraction:
        unit = Fraction(packet.time_base)
        last = seconds + (packet.duration or 0) * unit
        first = self.start if seconds < self.start < last else seconds
        if self.end is not None:
            last = min(last, self.end)
        if last > first:
            packet.pts = packet.dts = round(first / unit)
            packet.duration = round((last - first) / unit)
        return first


def trim_chapters(
    chapters: "Iterable[Chapter]", start: Fraction, end: Fraction | None
) -> "tuple[Chapter, ...]":
    """Return the chapters of a part, in milliseconds from its start."""
    unit = Fraction(1, 1000)
    kept: list[Chapter] = []
    for chapter in chapters:
        base = Fraction(chapter["time_base"] or unit)
        first = max(chapter["start"] * base - start, Fraction(0))
        last = chapter["end"] * base - start
        if end is not None:
            last = min(last, end - start)
        if last > first:
            times = {"start": round(first / unit), "end": round(last / unit), "time_base": unit}
            # The keys are those of a chapter, which the merged dict does not show.
            kept.append({**chapter, **times})  # type: ignore[typeddict-item]
    return tuple(kept)
