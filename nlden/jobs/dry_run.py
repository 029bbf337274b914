"""What a denoise run would do, in what time and memory: tried on a few frames, nothing is kept."""

import math
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from nlden.inference.engines import synchronize
from nlden.inference.planes import DEFAULT_TILE, PlaneDenoiser
from nlden.jobs.denoise import Request, clean_still, expected_frames, video_levels
from nlden.jobs.inspect import fates
from nlden.media.probe import VideoInfo
from nlden.media.reader import Frame, VideoReader
from nlden.media.remux import label
from nlden.media.sequences import is_sequence
from nlden.media.stills import is_still
from nlden.media.writer import VideoWriter
from nlden.noise.estimation import Levels

_DECODED = 24  # frames, for a decoder to fill its buffers
_TRIED = 3  # frames through the network, the first to warm up
_ENCODED = 64  # frames, more than encoders look ahead
_IN_FLIGHT = 12  # frames between reader, network and writer
_INDEXED = 300  # bytes that a muxer remembers of a frame and the sound beside it


@dataclass(frozen=True)
class DryRun:
    """What a run would do.

    Args:
        streams: for each stream of the source its name and what becomes of it.
        levels: noise levels that the network would be told, 0 to 1.
        size: width and height of the picture.
        pieces: how many tiles a picture is computed in.
        tile: their largest extent in pixels.
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

    Main memory is the peak of this process, in which the few frames took every step (decoders
    and encoders with filled buffers), and what grows beyond it in a long run.

    Args:
        source: the file.
        target: where the run would write; nothing is written there.
        denoiser: the network.
        request: how.

    Raises:
        MediaError: if the source cannot be read or the target could not be written.
    """
    if is_still(source) and not is_sequence(source):
        begun = time.perf_counter()
        still, levels = clean_still(source, denoiser, request)
        seconds = time.perf_counter() - begun
        height, width = still.pixels.shape[1:]
        streams = [("picture", f"written as {target.suffix}")]
        return _report(streams, levels, (width, height), denoiser, 1, seconds, 0)
    with VideoReader(source, request.start, request.end, request.frames) as reader:
        info = reader.info
        levels = video_levels(info, request)
        told = fates(info, reader.container, target, request.encoding)
        streams = [(label(s), told.get(s.index, "written anew")) for s in reader.container.streams]
        total = expected_frames(reader)
        reader.skip = max(0, min(_DECODED, total) - _TRIED)
        begun = time.perf_counter()
        items = (item for item in reader if isinstance(item, Frame))
        frames = list(islice(items, reader.skip + _TRIED))
        decoding = (time.perf_counter() - begun) / len(frames)
        tried = [frame for frame in frames if frame.planes]
        clean, network = _denoise(tried, info, denoiser, levels, request.strength)
        encoding = _encode(target, reader, request, tried, clean)
    steps = (network, decoding + encoding)
    # A CPU does one after the other, whatever the threads.
    seconds = sum(steps) if denoiser.device.type == "cpu" else max(steps)
    frame_bytes = sum(p.numel() * p.element_size() for p in clean[0])
    length = info.duration or 1.0
    segment = min(1.0, request.segment / float(info.rate or 25) / length)
    size = 0 if is_sequence(source) else source.stat().st_size
    more = _IN_FLIGHT * frame_bytes + _INDEXED * total + round(segment * size)
    return _report(streams, levels, (info.width, info.height), denoiser, total, seconds, more)


def _denoise(
    frames: list[Frame], info: VideoInfo, denoiser: PlaneDenoiser, levels: Levels, strength: float
) -> tuple[list[tuple[Tensor, ...]], float]:
    """Return the clean planes, and the seconds a frame after the first."""
    clean, times = [], []
    for frame in frames:
        begun = time.perf_counter()
        clean.append(denoiser(frame.planes, info.layout, info.color, levels, strength))
        synchronize(denoiser.device)
        times.append(time.perf_counter() - begun)
    return clean, min(times)


def _encode(
    target: Path,
    reader: VideoReader,
    request: Request,
    frames: list[Frame],
    clean: list[tuple[Tensor, ...]],
) -> float:
    """Fill an encoder; return the seconds a frame."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, target.name)
        writer = VideoWriter(path, reader.info, reader.streams, request.encoding)
        try:
            encoder = writer.new_encoder()
            step = max(1, round(1 / ((reader.info.rate or 25) * encoder.time_base)))
            begun = time.perf_counter()
            for number in range(_ENCODED):
                i = number % len(frames)
                frame = Frame(clean[i], frames[i].layout, number * step)
                encoder.encode(frame, frame.pts)
            encoder.flush()
            return (time.perf_counter() - begun) / _ENCODED
        finally:
            writer.discard()


def _report(
    streams: list[tuple[str, str]],
    levels: Levels,
    size: tuple[int, int],
    denoiser: PlaneDenoiser,
    frames: int,
    seconds: float,
    more: int,
) -> DryRun:
    tile = denoiser.tile or DEFAULT_TILE
    pieces = math.prod(math.ceil(extent / tile) for extent in size)
    peak = peak_memory()
    card = None
    if denoiser.device.type == "cuda":
        card = torch.cuda.max_memory_reserved(denoiser.device)
    # A tenth for what the allocator has not met with yet.
    memory = None if peak is None else round(1.1 * (peak + more))
    return DryRun(streams, levels, size, pieces, tile, frames, seconds, memory, card)


def peak_memory() -> int | None:
    """Return the most main memory, in bytes, that this process has had so far."""
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
