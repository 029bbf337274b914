"""What a denoise run would do, in what time and memory: tried on a few frames, nothing is kept."""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nlden.inference.engines import synchronize
from nlden.inference.planes import PlaneDenoiser, Planes
from nlden.inference.stream import Seen
from nlden.jobs.cleaning import Stream
from nlden.jobs.denoise import Request, clean_still, denoise_video, expected_frames
from nlden.jobs.inspect import fates
from nlden.jobs.journal import Journal
from nlden.media.color import YCbCr
from nlden.media.probe import Layout
from nlden.media.reader import VideoReader
from nlden.media.remux import label
from nlden.media.sequences import is_sequence
from nlden.media.stills import is_still
from nlden.models.video_denoiser import Shot
from nlden.noise.estimation import Levels

_FRAMES = 72  # more than decoders and encoders hold back
# Frames that go through the network, the first to warm up and the late ones to find its memory
# where it must be when the buffers of all others are full.
_TRIED = (0, 1, 2, 24, 48, 70)
_ENDING = 150_000_000  # bytes that Python and torch touch when the process ends
_INDEXED = 300  # bytes that a muxer remembers of a frame and the sound beside it


@dataclass(frozen=True)
class DryRun:
    """What a run would do.

    Args:
        streams: for each stream of the source its name and what becomes of it.
        levels: noise levels that the network would be told, 0 to 1.
        size: width and height of the picture.
        pieces: how many tiles a picture is computed in.
        tile: they are no larger than a square of this extent in pixels.
        frames: how many there are; 0 if the file does not tell.
        seconds_per_frame: measured.
        memory: bytes of main memory that the process stays below; None if this system does not
            tell.
        device_memory: bytes of a CUDA device at the peak, likewise.
    """

    streams: list[tuple[str, str]]
    levels: Levels
    size: tuple[int, int]
    pieces: int
    tile: int
    frames: int
    seconds_per_frame: float
    memory: int | None
    device_memory: int | None

    @property
    def seconds(self) -> float | None:
        """Return how long the whole would take, if the number of frames is known."""
        return self.frames * self.seconds_per_frame if self.frames else None


def dry_run(source: Path, target: Path, denoiser: PlaneDenoiser, request: Request) -> DryRun:
    """Try a run on a few frames.

    The frames take every step of a real run, in a temporary folder. Main memory is the peak of
    this process meanwhile and what grows beyond it in a long run.

    Args:
        source: the file.
        target: where the run would write; nothing is written there.
        denoiser: the network.
        request: how.

    Raises:
        MediaError: if the source cannot be read or the target could not be written.
    """
    if is_still(source):
        begun = time.perf_counter()
        still, levels = clean_still(source, denoiser, request)
        seconds = time.perf_counter() - begun
        height, width = still.pixels.shape[1:]
        streams = [("picture", f"written as {target.suffix}")]
        return _report(streams, levels, (width, height), denoiser, 1, seconds, 0)
    part = (request.start, request.end, request.frames)
    with VideoReader(source, *part, request.deinterlace, request.hwaccel) as reader:
        info, total = reader.info, expected_frames(reader)
        told = fates(info, reader.container, target, request.encoding)
        streams = [(label(s), told.get(s.index, "written anew")) for s in reader.container.streams]
    trial = _Trial(denoiser)
    short = replace(request, frames=min(request.frames or _FRAMES, _FRAMES))
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder, target.name), {}, resume=False)
        begun = time.perf_counter()
        try:
            done, levels, _ = denoise_video(source, journal.target, trial, short, journal=journal)
        finally:
            journal.close(keep=False)
        rest = (time.perf_counter() - begun - sum(trial.seconds)) / done
    # A CPU does one after the other, whatever the threads.
    steps = (min(trial.seconds), rest)
    seconds = sum(steps) if denoiser.device.type == "cpu" else max(steps)
    length = info.duration or 1.0
    segment = min(1.0, request.segment / float(info.rate or 25) / length)
    size = 0 if is_sequence(source) else source.stat().st_size
    more = _INDEXED * total + round(segment * size)
    extent = info.width, info.height
    return _report(streams, levels, extent, denoiser, total, seconds, more)


class _Trial:
    """A denoiser that computes a few frames and gives back the others, so that all else runs.

    Args:
        denoiser: what computes.
    """

    def __init__(self, denoiser: PlaneDenoiser) -> None:
        self._denoiser = denoiser
        self.seconds: list[float] = []

    def stream(
        self,
        layout: Layout,
        color: YCbCr,
        levels: Levels,
        strength: tuple[float, float] = (1.0, 1.0),
        past: Shot | None = None,
    ) -> "_TrialStream":
        inner = self._denoiser.stream(layout, color, levels, strength, past)
        return _TrialStream(inner, self._denoiser.device, self.seconds)


class _TrialStream:
    """A stream that gives every frame back as it came."""

    def __init__(self, inner: Stream, device: torch.device, seconds: list[float]) -> None:
        self._inner, self._device, self._seconds = inner, device, seconds
        self._frames = 0

    @property
    def latency(self) -> int:
        return self._inner.latency

    def look(self, planes: Planes, *, cut: bool = False) -> list[Seen] | None:
        return None  # what is timed is all of it

    def push(
        self, planes: Planes, *, cut: bool = False, seen: Sequence[Seen] | None = None
    ) -> list[tuple[Planes, Shot | None]]:
        self._frames += 1
        # As many in a row as give a frame of a network that looks ahead, or one.
        if any(0 <= self._frames - 1 - at <= self.latency for at in _TRIED):
            begun = time.perf_counter()
            ready = self._inner.push(planes)
            synchronize(self._device)
            if ready:
                self._seconds.append(time.perf_counter() - begun)
        return [(tuple(p.clone() for p in planes), None)]

    def finish(self) -> list[tuple[Planes, Shot | None]]:
        if not self._seconds:  # fewer frames than it looks ahead
            begun = time.perf_counter()
            ready = len(self._inner.finish())
            synchronize(self._device)
            self._seconds.append((time.perf_counter() - begun) / max(1, ready))
        return []


def _report(
    streams: list[tuple[str, str]],
    levels: Levels,
    size: tuple[int, int],
    denoiser: PlaneDenoiser,
    frames: int,
    seconds: float,
    more: int,
) -> DryRun:
    tile = denoiser.extent
    width, height = size
    pieces = denoiser.pieces(height, width)
    peak = peak_memory()
    card = None
    if denoiser.device.type == "cuda":
        card = torch.cuda.max_memory_reserved(denoiser.device)
    # A tenth for what the allocator has not met with yet.
    memory = None if peak is None else round(1.1 * (peak + more) + _ENDING)
    return DryRun(streams, levels, size, pieces, tile, frames, seconds, memory, card)


def peak_memory() -> int | None:
    """Return the most main memory, in bytes, that this process has had so far."""
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
