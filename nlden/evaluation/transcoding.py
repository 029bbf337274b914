"""What nlden's way from file to file costs without a network, beside FFmpeg's own."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import av
import torch
from av.container import InputContainer
from av.video.stream import VideoStream
from torch.nn import functional as F

from nlden.data.camera_motion import camera_motion
from nlden.evaluation.benchmark import montage
from nlden.inference.planes import PlaneDenoiser
from nlden.jobs.denoise import Request, denoise_file
from nlden.jobs.levels import Noise
from nlden.media.encoding import Encoding
from nlden.media.probe import probe
from nlden.models.image_denoiser import image_denoiser_fast

ENCODINGS = {
    "libx264 medium": Encoding("libx264"),
    "libx264 ultrafast": Encoding("libx264", preset="ultrafast"),
    "ffv1": Encoding("ffv1"),
}
"""Encoders by the name that the table shows; the fast ones do not hide the copying."""


@dataclass(frozen=True)
class Row:
    """One encoder at one depth.

    Args:
        encoder: name and preset.
        bits: depth of the 4:2:0 planes.
        plain: frames per second of decoding and encoding with PyAV alone (median).
        nlden: frames per second of reading, converting and writing with nlden (median).
    """

    encoder: str
    bits: int
    plain: float
    nlden: float


def make_source(path: Path, frames: int, bits: int, size: tuple[int, int]) -> Path:
    """Write a moving view of photographs as H.264 4:2:0 of a height and width; return its path."""
    scene = F.interpolate(montage()[None], scale_factor=1.5, mode="bilinear")[0]
    clip = camera_motion(scene, frames, size, path=((0.1, 0.1), (0.9, 0.9)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
        for picture in clip:
            codes = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            frame = av.VideoFrame.from_ndarray(codes, "rgb24").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def transcode(source: Path, target: Path, encoding: Encoding) -> None:
    """Decode and encode a file with PyAV, the settings and threads those of nlden."""
    info = probe(source)
    choice = encoding.choose(info, target.suffix, ())
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        assert isinstance(reader, InputContainer)
        decoded = reader.streams.video[0]
        decoded.thread_type = "AUTO"
        stream = writer.add_stream(choice.codec, rate=info.rate, options=choice.options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, choice.pix_fmt
        stream.time_base = stream.codec_context.time_base = info.time_base
        stream.codec_context.thread_type = "AUTO"
        for frame in reader.decode(decoded):
            frame.pict_type = 0  # the encoder chooses its own key frames
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))


def compare(
    folder: Path,
    *,
    frames: int = 100,
    size: tuple[int, int] = (720, 1280),
    repetitions: int = 3,
    report: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Time both ways in turn on one and the same file, for each depth and encoder.

    Args:
        folder: where the files are written.
        frames: length of the clip.
        size: its height and width.
        repetitions: of each; the medians count.
        report: called with what is being timed.
    """
    # At strength 0 the network is never called.
    denoiser = PlaneDenoiser(image_denoiser_fast(), torch.device("cpu"), torch.float32)
    rows = []
    for bits in (8, 10):
        source = make_source(folder / f"source{bits}.mkv", frames, bits, size)
        for name, encoding in ENCODINGS.items():
            report(f"{name}, {bits} bits")
            request = Request(Noise(luma=0.0, chroma=0.0), strength=0.0, encoding=encoding)
            seconds: dict[str, list[float]] = {"plain": [], "nlden": []}
            for _ in range(repetitions):
                started = time.perf_counter()
                transcode(source, folder / "plain.mkv", encoding)
                seconds["plain"].append(time.perf_counter() - started)
                result = denoise_file(source, folder / "nlden.mkv", denoiser, request)
                seconds["nlden"].append(result.seconds)
            rates = {way: frames / median(times) for way, times in seconds.items()}
            rows.append(Row(name, bits, **rates))
    return rows
