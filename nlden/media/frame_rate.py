"""Timing of a video: its frame rate and whether that is constant."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from nlden.media.probe import promised_frames

_PACKETS = 5000  # that are looked at: three minutes of video
_REORDERED = 32  # packets at the end of these whose predecessors may be missing


@dataclass(frozen=True)
class Timing:
    """When the frames of a video are shown.

    Args:
        kind: ``constant``, ``variable``, or ``unknown`` for fewer than two timestamps.
        rate: mean frames per second, if known.
        slowest: frames per second of the longest step between two frames.
        fastest: frames per second of the shortest step.
    """

    kind: str
    rate: float | None
    slowest: float | None = None
    fastest: float | None = None


def measure_timing(
    path: Path, container: InputContainer, stream: VideoStream
) -> tuple[Timing, list[str]]:
    """Tell constant from variable frame rate by the packets' timestamps; nothing is decoded.

    The rate is constant if the timestamps lie on a straight line to within one unit of the
    stream's time base (containers round to milliseconds). The first 5000 packets are looked at.

    Args:
        path: the file, for messages.
        container: the opened file; read from where it stands.
        stream: its video stream.

    Returns:
        The timing, and lines for the user if the file ends before it should.
    """
    times: list[int] = []
    count, broken, whole = 0, False, True
    try:
        for packet in container.demux(stream):
            if count == _PACKETS:
                whole = False
                break
            if packet.is_discard:  # hidden by an edit list
                continue
            ticks = packet.pts if packet.pts is not None else packet.dts
            count += packet.size > 0 or ticks is not None  # a frame can be empty: "as before"
            if packet.size and ticks is not None:
                times.append(ticks)
    except (av.FFmpegError, OSError):
        broken = True
    promised = promised_frames(container, stream)
    warnings = []
    if broken or (whole and count + 1 < promised):  # AVI can promise one more than there are
        of = f" of {promised}" if promised else ""
        warnings.append(f"{path}: the file is damaged or cut off; {count}{of} frames are there")
    rate = stream.average_rate or stream.guessed_rate
    shown = sorted(set(times))[: None if whole else -_REORDERED]
    assert stream.time_base is not None
    return classify_timing(shown, stream.time_base, rate), warnings


def classify_timing(times: list[int], unit: Fraction, rate: Fraction | None = None) -> Timing:
    """Tell constant from variable frame rate.

    Args:
        times: timestamps in ascending order.
        unit: their unit, in seconds.
        rate: what the file says of its rate; used where the timestamps say nothing.
    """
    if len(times) < 2:
        return Timing("unknown", float(rate) if rate else None)
    first, last, steps = times[0], times[-1], len(times) - 1
    step = Fraction(last - first, steps)
    bent = max(abs(t - first - i * step) for i, t in enumerate(times))
    if bent <= 1:
        return Timing("constant", float(rate or 1 / (step * unit)))
    gaps = [b - a for a, b in pairwise(times)]
    return Timing(
        "variable",
        float(1 / (step * unit)),
        float(1 / (max(gaps) * unit)),
        float(1 / (min(gaps) * unit)),
    )
