"""nlden beside denoising filters of FFmpeg's on one and the same noisy 4:2:0 file."""

import time
from collections.abc import Generator as Frames
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from av.filter import Graph
from skimage import data as photographs
from torch import Generator, Tensor
from torch.nn import functional as F

from nlden.data.camera_motion import camera_motion
from nlden.evaluation.demo import encode, to_frames
from nlden.inference.planes import PlaneDenoiser
from nlden.jobs.denoise import Request, denoise_file
from nlden.jobs.levels import Noise
from nlden.media.frames import Frame, from_planes, to_planes
from nlden.media.reader import VideoReader
from nlden.media.writer import Encoding, VideoWriter
from nlden.metrics import PlanePSNR
from nlden.noise.synthesis import quantize, white_gaussian

# That codecs take next to no time leaves the denoisers to compare.
_LOSSLESS = Encoding(lossless=True, preset="ultrafast")


FILTERS = {
    "fftdnoiz": [f"sigma={s}:prev=1:next=1" for s in (30, 45, 60, 75, 90)],
    "nlmeans": [f"s={s}:p=7:r=15" for s in (4, 6, 8, 10, 12, 15)],
}
"""Filters of FFmpeg's to compare with, and options to try; non-local means is the last."""


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Args:
        method: what ran, with its setting.
        psnr: over the planes, in dB, against the clean file.
        rate: frames per second from file to file; None where only the quality was looked at.
    """

    method: str
    psnr: float
    rate: float | None = None


def montage() -> Tensor:
    """Lay six photographs of scikit-image side by side: RGB ``(3, 600, 1080)``."""
    names = ("astronaut", "coffee", "cat", "rocket", "immunohistochemistry", "hubble_deep_field")
    tiles = []
    for name in names:
        picture = torch.from_numpy(getattr(photographs, name)()).permute(2, 0, 1)[None] / 255
        scale = max(300 / picture.shape[2], 360 / picture.shape[3])
        if scale < 1:  # halving removes the noise and compression of the photograph itself
            picture = F.interpolate(picture, scale_factor=scale, mode="area")
        height, width = picture.shape[2:]
        top, left = (height - 300) // 2, (width - 360) // 2
        tiles.append(picture[0, :, top : top + 300, left : left + 360])
    rows = [torch.cat(tiles[i : i + 3], dim=2) for i in (0, 3)]
    return torch.cat(rows, dim=1)


def make_pair(
    folder: Path, frames: int, size: tuple[int, int], sigma: float, seed: int
) -> tuple[Path, Path]:
    """Write the clean and the noisy clip, both lossless 8-bit 4:2:0; return their paths."""
    clip = camera_motion(montage(), frames, size, path=((0.1, 0.1), (0.9, 0.9)))
    generator = Generator().manual_seed(seed)
    noisy = quantize(white_gaussian(clip, torch.tensor(sigma / 255), generator))
    clean_path, noisy_path = folder / "clean.mp4", folder / "noisy.mp4"
    encode(clean_path, to_frames(clip))
    encode(noisy_path, to_frames(noisy))
    return clean_path, noisy_path


def psnr(path: Path, clean: Path) -> float:
    """Return the PSNR over the planes of two files of equal length."""
    measure = PlanePSNR()
    with closing(_frames(path)) as a, closing(_frames(clean)) as b:
        for left, right in zip(a, b, strict=True):
            measure.update(left.planes, right.planes)
    return measure.compute()


def _frames(path: Path) -> Frames[Frame, None, None]:
    with VideoReader(path) as reader:
        yield from (item for item in reader if isinstance(item, Frame))


def ffmpeg_filter(source: Path, target: Path, name: str, options: str, frames: int) -> float:
    """Run a filter of FFmpeg's from file to file; return the seconds that it took.

    Args:
        source: the file.
        target: where to write, without loss.
        name: of the filter.
        options: its options, as FFmpeg's command line takes them.
        frames: how many to filter.
    """
    started = time.perf_counter()
    with VideoReader(source, frames=frames) as reader:
        info = reader.info
        graph = Graph()
        graph.threads = 0  # all cores
        shape = f"video_size={info.width}x{info.height}:pix_fmt={info.layout.pix_fmt}"
        first = graph.add("buffer", f"{shape}:time_base={info.time_base}:pixel_aspect=1/1")
        middle = graph.add(name, options)
        last = graph.add("buffersink")
        first.link_to(middle)
        middle.link_to(last)
        graph.configure()
        with VideoWriter(target, info, (), _LOSSLESS) as writer:
            for item in chain(reader, [None]):
                if item is None:
                    graph.push(None)  # filters that look ahead have frames left
                elif isinstance(item, Frame):
                    picture = from_planes(item.planes, item.layout)
                    picture.pts, picture.time_base = item.pts, info.time_base
                    graph.push(picture)
                with suppress(BlockingIOError, EOFError):
                    while True:
                        clean = graph.vpull()
                        assert clean.pts is not None  # it has that of the frame that came
                        writer.write(Frame(to_planes(clean, info.layout), info.layout, clean.pts))
    return time.perf_counter() - started


def compare(
    folder: Path,
    denoisers: Sequence[tuple[str, PlaneDenoiser]],
    *,
    sigma: float = 25,
    frames: int = 32,
    size: tuple[int, int] = (540, 960),
    seed: int = 0,
    told: Sequence[float] = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4),
    filters: Mapping[str, Sequence[str]] = FILTERS,
) -> list[Row]:
    """Compare on one noisy file, everything from file to file with a lossless encoder.

    Args:
        folder: where the files are written.
        denoisers: names and denoisers; the first one's fixed levels are searched too.
        sigma: noise added in RGB, 0 to 255.
        frames: length of the clip.
        size: height and width.
        seed: source of the noise.
        told: fixed ``--sigma`` to try, relative to ``sigma``.
        filters: FFmpeg's by name, each with the options to try.
    """
    clean, noisy = make_pair(folder, frames, size, sigma, seed)
    output = folder / "output.mp4"
    rows = [Row("noisy file", psnr(noisy, clean))]
    for name, denoiser in denoisers:
        result = denoise_file(noisy, output, denoiser, Request(encoding=_LOSSLESS))
        rate = result.frames / result.seconds
        rows.append(Row(f"nlden {name}, --sigma auto", psnr(output, clean), rate))
    fixed = {}
    for factor in told:
        request = Request(Noise(sigma=factor * sigma / 255), encoding=_LOSSLESS)
        denoise_file(noisy, output, denoisers[0][1], request)
        fixed[factor] = psnr(output, clean)
    best = max(fixed, key=lambda factor: fixed[factor])
    name = denoisers[0][0].split()[0]
    rows.append(Row(f"nlden {name}, best fixed --sigma {best * sigma:g}", fixed[best]))
    for name, tried in filters.items():
        peers = []
        for options in tried:
            seconds = ffmpeg_filter(noisy, output, name, options, frames)
            quality = psnr(output, clean)
            peers.append(Row(f"FFmpeg {name}={options}", quality, frames / seconds))
        rows.append(max(peers, key=lambda row: row.psnr))
    return rows
