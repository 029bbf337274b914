"""The frames of a video on their way through a denoiser."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from nlden.inference.planes import Planes
from nlden.inference.stream import Seen
from nlden.jobs.pipeline import read_ahead
from nlden.media.color import YCbCr
from nlden.media.cuts import CutDetector
from nlden.media.frames import Frame
from nlden.media.probe import Layout
from nlden.media.trim import Packet
from nlden.models.video_denoiser import Shot
from nlden.noise.estimation import Levels

CONTEXT = 5
"""Frames before a frame that are looked at to tell whether a cut lies before it."""

Item: TypeAlias = "Frame | Packet"


class Stream(Protocol):
    """Takes frames and gives them back clean; see :class:`nlden.inference.planes.PlaneStream`."""

    @property
    def latency(self) -> int:
        """Return how many frames come in before the first comes out, less one."""

    def look(self, planes: Planes, *, cut: bool = False) -> list[Seen] | None:
        """Take a frame and return what :meth:`push` needs besides the past."""

    def push(
        self, planes: Planes, *, cut: bool = False, seen: Sequence[Seen] | None = None
    ) -> list[tuple[Planes, Shot | None]]:
        """Take a frame; return those that are ready, and what the next depends on."""

    def finish(self) -> list[tuple[Planes, Shot | None]]:
        """Return the frames that no other follows."""


class Denoiser(Protocol):
    """Opens streams; see :class:`nlden.inference.planes.PlaneDenoiser`."""

    def stream(
        self,
        layout: Layout,
        color: YCbCr,
        levels: Levels,
        strength: tuple[float, float] = (1.0, 1.0),
        past: Shot | None = None,
    ) -> Stream:
        """Open a stream of frames."""


@dataclass(frozen=True)
class _Looked:
    """A frame that is to be denoised, whether it is the first of a shot, and what was seen."""

    frame: Frame
    cut: bool
    seen: list[Seen] | None


def clean_frames(
    items: Iterable[Item], stream: Stream, passed: int = 0
) -> Generator[tuple[Item, Shot | None], None, None]:
    """Denoise the frames among the items of a file.

    Frames come out in their order, packets as they come. A stream that looks at neighbours is
    told where cuts lie. Another thread reads the items, some ahead, and does what does not depend
    on frames that are denoised.

    Args:
        items: frames and packets.
        stream: the denoiser.
        passed: so many first frames are done already: they come out without planes, and those
            of them that have planes only help to tell whether the next is a cut.

    Yields:
        Each item, and for a denoised frame what the next one depends on.
    """
    waiting: deque[Frame] = deque()

    def ready(clean: Iterable[tuple[Planes, Shot | None]]) -> Iterator[tuple[Item, Shot | None]]:
        for planes, shot in clean:
            yield replace(waiting.popleft(), planes=planes), shot

    with closing(read_ahead(_looked(items, stream, passed))) as looked:
        for item in looked:
            if isinstance(item, _Looked):
                frame = item.frame
                waiting.append(frame)
                yield from ready(stream.push(frame.planes, cut=item.cut, seen=item.seen))
            else:
                yield item, None
    yield from ready(stream.finish())


def _looked(items: Iterable[Item], stream: Stream, passed: int) -> Iterator["Item | _Looked"]:
    """Look at the frames to denoise and tell where cuts lie; see :func:`clean_frames`."""
    detector = CutDetector() if stream.latency else None
    unflagged: deque[tuple[Frame, bool]] = deque()
    number = 0

    def flagged(flags: Sequence[bool]) -> Iterator[_Looked]:
        for flag in flags:
            frame, new = unflagged.popleft()
            if new:
                yield _Looked(frame, flag, stream.look(frame.planes, cut=flag))

    for item in items:
        if not isinstance(item, Frame):
            yield item
            continue
        new = number >= passed
        number += 1
        if not new:
            yield replace(item, planes=(), alpha=None)
        if detector is not None and item.planes:
            unflagged.append((item, new))
            yield from flagged(detector.push(item.luma))
        elif new:
            yield _Looked(item, False, stream.look(item.planes))
    if detector is not None:
        yield from flagged(detector.finish())
