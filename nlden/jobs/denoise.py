"""Denoise one file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from nlden.inference.engines import DTYPES, choose_precision
from nlden.inference.packing import KindError
from nlden.inference.planes import PlaneDenoiser
from nlden.jobs.cleaning import CONTEXT, Denoiser, clean_frames
from nlden.jobs.journal import Journal, ResumeError, fingerprint, kept_frames, source_identity
from nlden.jobs.levels import Noise, estimate_frames, estimate_video
from nlden.jobs.pipeline import WriteBehind
from nlden.media.color import YCbCr
from nlden.media.frames import Frame
from nlden.media.pipes import is_pipe
from nlden.media.probe import Layout, MediaError
from nlden.media.reader import VideoReader
from nlden.media.resumable import SEGMENT, ResumableWriter
from nlden.media.stills import Still, is_gray, is_still, read_still, write_still
from nlden.media.target import TargetError
from nlden.media.writer import Encoding, VideoWriter
from nlden.models import ImageDenoiser, VideoDenoiser
from nlden.models.pretrained import WeightsError, load
from nlden.noise.estimation import Levels, estimate_levels

STILLS = {"rgb": "image-base", "gray": "image-gray"}
"""Weights for pictures, by their kind."""

_RGB = YCbCr("bt709", full_range=True)


@dataclass(frozen=True)
class Request:
    """How to denoise a file.

    Args:
        noise: what is known of the noise.
        strength: 0 keeps the picture, 1 takes the denoised one.
        encoding: how to encode videos.
        start: first second of a video.
        end: second before which to stop; None is the end.
        frames: how many frames of a video to write at the most; None is all.
        resume: go on with an interrupted run into the same target, if there is one.
        segment: frames of a video that are finished together; see :mod:`nlden.media.resumable`.
        luma_strength: goes before ``strength`` for luma.
        chroma_strength: goes before ``strength`` for chroma.
        deinterlace: what to do with interlaced video, see :mod:`nlden.media.interlacing`.
        hwaccel: where to decode, see :class:`nlden.media.reader.VideoReader`.
    """

    noise: Noise = field(default_factory=Noise)
    strength: float = 1.0
    encoding: Encoding = field(default_factory=Encoding)
    start: float = 0.0
    end: float | None = None
    frames: int | None = None
    resume: bool = False
    segment: int = SEGMENT
    luma_strength: float | None = None
    chroma_strength: float | None = None
    deinterlace: str = "refuse"
    hwaccel: str = "none"

    @property
    def strengths(self) -> tuple[float, float]:
        """Strength of luma and of chroma."""
        luma, chroma = self.luma_strength, self.chroma_strength
        return (
            self.strength if luma is None else luma,
            self.strength if chroma is None else chroma,
        )

    def settings(self, source: Path, denoiser: PlaneDenoiser) -> dict[str, Any]:
        """Return all that decides on the result, for a run that goes on with another."""
        own = {k: v for k, v in asdict(self).items() if k != "resume"}
        return {
            **source_identity(source),
            **own,
            "device": denoiser.device.type,
            "precision": precision_name(denoiser),
            "tile": denoiser.tile,
            "weights": fingerprint(denoiser.network),
        }


def precision_name(denoiser: PlaneDenoiser) -> str:
    """Return what ``--precision`` calls the precision of a denoiser."""
    return next(name for name, dtype in DTYPES.items() if dtype == denoiser.dtype)


class Interrupted(Exception):
    """A run was asked to stop and did, at the end of a segment.

    Args:
        frames: how many are finished and kept.
    """

    def __init__(self, frames: int) -> None:
        super().__init__(f"interrupted after {frames} frames")
        self.frames = frames


@dataclass(frozen=True)
class Result:
    """What was done.

    Args:
        frames: pictures written.
        seconds: time that it took.
        levels: noise levels that the network was told.
        warnings: lines for the user.
        passed: how many of the frames an interrupted run had finished before.
    """

    frames: int
    seconds: float
    levels: Levels
    warnings: list[str] = field(default_factory=list)
    passed: int = 0


def denoise_file(
    source: Path,
    target: Path,
    denoiser: PlaneDenoiser,
    request: Request,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Denoise a video or a still picture into a new file.

    The other streams of a video are copied packet by packet; timestamps, pixel format, colour
    tags, metadata and chapters are kept, as far as the target's container allows. Decoding,
    network and encoding overlap. Memory does not grow with the length. Finished parts of a video
    lie in a hidden folder beside the target until it is complete; if the run ends before, they
    stay for a run with ``resume``.

    Args:
        source: the file.
        target: where to write; appears when it is complete.
        denoiser: the network.
        request: how.
        progress: called with the frames done and the frames expected (0: unknown).
        stop: asked at the end of each segment of a video whether to stop there.

    Raises:
        MediaError: if the source cannot be read or the target not be written.
        Interrupted: if ``stop`` said so.
    """
    started = time.perf_counter()
    if is_still(source):
        still, levels = clean_still(source, denoiser, request)
        write_still(target, still)
        progress(1, 1)
        return Result(1, time.perf_counter() - started, levels)
    if is_pipe(source) or is_pipe(target):  # neither can be gone back in
        done, levels, warnings = denoise_video(source, target, denoiser, request, progress)
        return Result(done, time.perf_counter() - started, levels, warnings)
    journal = Journal(target, request.settings(source, denoiser), resume=request.resume)
    keep, passed = True, kept_frames(target)
    try:
        done, levels, warnings = denoise_video(
            source, target, denoiser, request, progress, stop, journal
        )
        keep = False
    except MediaError as error:
        keep = isinstance(error, TargetError | ResumeError)  # a bad source does not get better
        raise
    finally:
        journal.close(keep=keep)
    return Result(done, time.perf_counter() - started, levels, warnings, passed)


@contextmanager
def naming(source: Path) -> Iterator[None]:
    """Say of which file it is that a network does not take its pictures."""
    try:
        yield
    except KindError as error:
        raise MediaError(f"{source}: {error}; give --model auto") from error


def clean_still(source: Path, denoiser: PlaneDenoiser, request: Request) -> tuple[Still, Levels]:
    """Return a still picture denoised, and the noise levels that the network was told.

    Raises:
        MediaError: if the source cannot be read.
    """
    still = read_still(source)
    layout = Layout("rgb" if len(still.pixels) == 3 else "gray", still.bits)
    levels = request.noise.levels(
        layout, _RGB, lambda: estimate_levels([(still.pixels,)], layout.white)
    )
    with naming(source):
        planes = denoiser((still.pixels,), layout, _RGB, levels, request.strengths)
    return replace(still, pixels=planes[0].cpu()), levels


def video_levels(reader: VideoReader, request: Request) -> Levels:
    """Return the noise levels of a video: as requested, or estimated from the part to denoise."""
    info = reader.info

    def estimate() -> Levels:
        if is_pipe(info.path):
            first = [item for item in reader.head if isinstance(item, Frame)]
            reader.warnings.append(
                f"{info.path}: a pipe is read once: noise measured in its first {len(first)} "
                "frames; --sigma tells it"
            )
            return estimate_frames(first, info.layout.white)
        return estimate_video(info.path, info.layout.white, request.start, request.end)

    return request.noise.levels(info.layout, info.color, estimate)


def denoise_video(
    source: Path,
    target: Path,
    denoiser: Denoiser,
    request: Request,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    journal: Journal | None = None,
) -> tuple[int, Levels, list[str]]:
    """Denoise a video; see :func:`denoise_file`.

    Args:
        source: the file, or standard input.
        target: where to write, or standard output.
        denoiser: opens the stream that the frames go through.
        request: how.
        progress: see :func:`denoise_file`.
        stop: likewise; asked only where there is a journal.
        journal: where finished segments are kept; None writes the video in one go.

    Returns:
        The number of frames written, the noise levels, and lines for the user.
    """
    part = (request.start, request.end, request.frames)
    with VideoReader(source, *part, request.deinterlace, request.hwaccel) as reader:
        info, total = reader.info, expected_frames(reader)
        writer: VideoWriter | ResumableWriter
        known = journal.levels if journal is not None else None
        levels = known or video_levels(reader, request)
        if journal is None:
            passed, past = 0, None
            writer = VideoWriter(target, info, reader.streams, request.encoding, reader.shift)
        else:
            if known is None:
                journal.begin(levels)
            writer = ResumableWriter(
                target,
                info,
                reader.streams,
                request.encoding,
                reader.shift,
                journal.folder,
                request.segment,
            )
            passed, past = writer.done, journal.past(writer.done)
        done, stopped = 0, False
        with writer:
            with naming(source):
                stream = denoiser.stream(info.layout, info.color, levels, request.strengths, past)
            reader.skip = max(0, passed - CONTEXT) if stream.latency else passed
            with (
                WriteBehind(writer.take) as behind,
                closing(clean_frames(reader, stream, passed)) as cleaned,
            ):
                for item, shot in cleaned:
                    if isinstance(item, Frame):
                        if journal is not None and done % request.segment == 0 and stop():
                            stopped = True
                            break
                        done += 1
                        progress(done, total)
                        if journal is not None and shot and done % request.segment == 0:
                            journal.keep_past(done, shot)
                    behind.put(item)
            if stopped:  # not before all that was handed over is written
                raise Interrupted(done)
        return done, levels, [*reader.warnings, *writer.warnings]


def expected_frames(reader: VideoReader) -> int:
    """Return how many frames will come, as far as the file tells; 0 if it does not."""
    most = reader.frames or sys.maxsize
    return min(most, _frames_between(reader) or (most if reader.frames else 0))


def _frames_between(reader: VideoReader) -> int:
    info = reader.info
    if reader.start <= 0 and reader.end is None and info.frames:
        return info.frames
    if info.rate is None or (reader.end is None and info.duration is None):
        return 0
    end = min(reader.end or float("inf"), info.duration or float("inf"))
    return max(0, round((end - reader.start) * float(info.rate)))


def choose_model(model: str, source: Path, device: torch.device) -> str:
    """Return the weights that a file is denoised with.

    Args:
        model: ``auto``, or what has been chosen already.
        source: the file.
        device: where the network will run.

    Returns:
        For ``auto`` the base network for pictures, grey ones have their own, and that for videos,
        on a CPU the fast one for videos.
    """
    if model != "auto":
        return model
    if is_still(source):
        return STILLS["gray" if is_gray(source) else "rgb"]
    return "video-fast" if device.type == "cpu" else "video-base"


def open_denoiser(
    model: str, device: torch.device, precision: str, tile: int | None
) -> PlaneDenoiser:
    """Load a denoiser by name or file, ready to run.

    Args:
        model: a shipped name or a safetensors file.
        device: where to run it.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for the faster of the first two.
        tile: see :class:`nlden.inference.planes.PlaneDenoiser`.

    Raises:
        WeightsError: if the weights cannot be read or are of another kind of network.
    """
    network = load(model)
    if not isinstance(network, ImageDenoiser | VideoDenoiser):
        raise WeightsError(f"{model}: these weights are not of a denoiser")
    if precision == "auto":
        precision = choose_precision(network, device)
    return PlaneDenoiser(network, device, DTYPES[precision], tile)
