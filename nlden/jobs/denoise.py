"""Denoise one file."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import torch

from nlden.inference.engines import DTYPES, choose_precision
from nlden.inference.planes import PlaneDenoiser
from nlden.jobs.pipeline import WriteBehind, read_ahead
from nlden.media.color import YCbCr
from nlden.media.probe import Layout
from nlden.media.reader import Frame, VideoReader
from nlden.media.sampling import sample_frames
from nlden.media.sequences import is_sequence
from nlden.media.stills import Still, is_still, read_still, write_still
from nlden.media.trim import Packet
from nlden.media.writer import Encoding, VideoWriter
from nlden.models import ImageDenoiser
from nlden.models.pretrained import WeightsError, load
from nlden.noise.estimation import Levels, estimate_levels

_RGB = YCbCr("bt709", full_range=True)


def estimate_video(path: Path, white: int, start: float = 0.0, end: float | None = None) -> Levels:
    """Estimate the noise levels of a video's planes, from frames all over it.

    Args:
        path: the file.
        white: code of white.
        start: first second to look at.
        end: last second to look at; None is the end of the file.
    """
    frames = sample_frames(path, start=start, end=end)
    return estimate_levels([tuple(p.float() / white for p in f.planes) for f in frames])


@dataclass(frozen=True)
class Noise:
    """What the user says of the noise. What is None is estimated from the file.

    Args:
        sigma: level of white noise in R, G and B, 0 to 1; carried to the planes of a file.
        luma: level of the luma plane itself; goes before ``sigma``.
        chroma: level of the chroma planes themselves; goes before ``sigma``.
    """

    sigma: float | None = None
    luma: float | None = None
    chroma: float | None = None

    def levels(self, layout: Layout, color: YCbCr, estimate: Callable[[], Levels]) -> Levels:
        """Return the levels of the planes of a file.

        Args:
            layout: its layout.
            color: its matrix and range.
            estimate: called if something must be estimated.
        """
        if self.luma is not None and self.chroma is not None:
            return Levels(self.luma, self.chroma)
        if self.sigma is None:
            known = estimate()
        elif layout.kind in ("rgb", "gray"):
            known = Levels(self.sigma, self.sigma)
        else:
            known = Levels(*color.plane_levels(self.sigma, averaged=layout.averaged))
        return Levels(
            known.luma if self.luma is None else self.luma,
            known.chroma if self.chroma is None else self.chroma,
        )


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


@dataclass(frozen=True)
class Result:
    """What was done.

    Args:
        frames: pictures written.
        seconds: time that it took.
        levels: noise levels that the network was told.
        warnings: lines for the user.
    """

    frames: int
    seconds: float
    levels: Levels
    warnings: list[str] = field(default_factory=list)


def denoise_file(
    source: Path,
    target: Path,
    denoiser: PlaneDenoiser,
    request: Request,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Result:
    """Denoise a video or a still picture into a new file.

    The other streams of a video are copied packet by packet; timestamps, pixel format, colour
    tags, metadata and chapters are kept, as far as the target's container allows. Decoding,
    network and encoding overlap. Memory does not grow with the length.

    Args:
        source: the file.
        target: where to write; appears when it is complete.
        denoiser: the network.
        request: how.
        progress: called with the frames done and the frames expected (0: unknown).

    Raises:
        MediaError: if the source cannot be read or the target not be written.
    """
    started = time.perf_counter()
    if is_still(source) and not is_sequence(source):
        levels = _denoise_still(source, target, denoiser, request)
        progress(1, 1)
        return Result(1, time.perf_counter() - started, levels)
    return _denoise_video(source, target, denoiser, request, progress, started)


def _denoise_still(source: Path, target: Path, denoiser: PlaneDenoiser, request: Request) -> Levels:
    still = read_still(source)
    layout = Layout("rgb" if len(still.pixels) == 3 else "gray", still.bits)
    levels = request.noise.levels(
        layout, _RGB, lambda: estimate_levels([(still.pixels.float() / layout.white,)])
    )
    planes = denoiser((still.pixels,), layout, _RGB, levels, request.strengths)
    write_still(target, Still(planes[0].cpu(), still.bits, still.alpha, still.metadata))
    return levels


def _denoise_video(
    source: Path,
    target: Path,
    denoiser: PlaneDenoiser,
    request: Request,
    progress: Callable[[int, int], None],
    started: float,
) -> Result:
    part = (request.start, request.end, request.frames)
    with VideoReader(source, *part, request.deinterlace, request.hwaccel) as reader:
        info = reader.info

        def estimate() -> Levels:
            return estimate_video(source, info.layout.white, request.start, request.end)

        levels = request.noise.levels(info.layout, info.color, estimate)
        total = _expected(reader)
        shift = Fraction(request.start).limit_denominator(1_000_000)
        writer = VideoWriter(target, info, reader.streams, request.encoding, shift)

        def write(item: "Frame | Packet") -> None:
            if isinstance(item, Frame):
                writer.write(item)
            else:
                writer.write_packet(item)

        done = 0
        with writer, WriteBehind(write) as behind:
            for item in read_ahead(reader):
                if isinstance(item, Frame):
                    planes = denoiser(
                        item.planes, info.layout, info.color, levels, request.strengths
                    )
                    item = replace(item, planes=planes)
                    done += 1
                    progress(done, total)
                behind.put(item)
        warnings = [*reader.warnings, *writer.warnings]
        return Result(done, time.perf_counter() - started, levels, warnings)


def _expected(reader: VideoReader) -> int:
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
        For ``auto`` the fast network for videos on a CPU and the base network otherwise.
    """
    if model != "auto":
        return model
    video = not is_still(source) or is_sequence(source)
    return "image-fast" if device.type == "cpu" and video else "image-base"


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
    if not isinstance(network, ImageDenoiser):
        raise WeightsError(f"{model}: these weights are not of a denoiser")
    if precision == "auto":
        precision = choose_precision(network, device)
    return PlaneDenoiser(network, device, DTYPES[precision], tile)
