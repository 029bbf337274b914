"""Quality of denoisers on clips: PSNR, flicker and time on the same noisy frames.

White noise is drawn once for a clip, neither clipped nor rounded. Every method gets the same
clip; its output is clamped to [0, 1]. PSNR is taken for each frame and then averaged.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from nlden.data.clips import gaussian_clip, list_clips, read_clip
from nlden.evaluation.peers import Method
from nlden.inference.stream import VideoStream
from nlden.metrics import flicker
from nlden.models import ImageDenoiser, VideoDenoiser
from nlden.models.pretrained import WeightsError, load
from nlden.tasks.denoising import mean_psnr

ClipMethod = Callable[[Tensor, float], Tensor]
"""A denoiser: noisy clip ``(3, T, H, W)`` and sigma in [0, 1] to a clip of the same shape."""


@dataclass(frozen=True)
class ClipRow:
    """What one method made of one clip.

    Args:
        clip: name of the clip.
        sigma: noise level, 0 to 255.
        method: its name.
        psnr: mean over the frames, in dB.
        flicker: see :func:`nlden.metrics.flicker`, on the scale of 0 to 255.
        seconds: wall time a frame; None for the noisy input.
    """

    clip: str
    sigma: float
    method: str
    psnr: float
    flicker: float
    seconds: float | None


def frame_by_frame(method: Method) -> ClipMethod:
    """Return a method for pictures as one for clips."""
    return lambda clip, sigma: torch.stack([method(f, sigma) for f in clip.unbind(1)], dim=1)


def network(weights: str, device: torch.device, dtype: torch.dtype) -> ClipMethod:
    """Return a network as a method: a video denoiser as a stream, an image denoiser by frames.

    Args:
        weights: a shipped name or a safetensors file.
        device: where to run it.
        dtype: its precision.

    Raises:
        WeightsError: if the weights cannot be read or are of another kind of network.
    """
    denoiser = load(weights).to(device, dtype)
    if isinstance(denoiser, VideoDenoiser):
        return lambda clip, sigma: _stream(denoiser, clip.to(device), sigma).cpu()
    if not isinstance(denoiser, ImageDenoiser):
        raise WeightsError(f"{weights}: these weights are not of a denoiser")

    @torch.inference_mode()
    def run(frame: Tensor, sigma: float) -> Tensor:
        return denoiser(frame[None].to(device), sigma)[0].cpu()

    return frame_by_frame(run)


def _stream(denoiser: VideoDenoiser, clip: Tensor, sigma: float) -> Tensor:
    height, width = clip.shape[2:]
    even = F.pad(clip.transpose(0, 1), (0, width % 2, 0, height % 2), mode="replicate")
    stream = VideoStream(denoiser)
    shots = [s for f in F.pixel_unshuffle(even, 2) for s in stream.push(f[None], sigma)]
    shots += stream.finish(sigma)
    return F.pixel_shuffle(torch.cat([s.clean for s in shots]), 2).transpose(0, 1)[
        ..., :height, :width
    ]


def evaluate(
    clips: Iterable[Path],
    sigmas: Sequence[float],
    methods: Mapping[str, ClipMethod],
    *,
    halved: Sequence[str] = (),
    seed: int = 0,
    limit: int | None = None,
) -> Iterator[ClipRow]:
    """Measure every method on every clip, beside the noisy clip itself.

    Args:
        clips: video files and folders of frames.
        sigmas: noise levels, 0 to 255.
        methods: denoisers by name.
        halved: names of clips that are used at half their size.
        seed: of the noise.
        limit: frames to take of a clip at the most.

    Raises:
        MediaError: if a clip cannot be read.
        ValueError: if a clip has one frame only.
    """
    for path in clips:
        pixels = read_clip(path, 2 if path.stem in halved else 1, limit)
        if len(pixels) < 2:
            raise ValueError(f"{path}: one frame is no clip; name a video")
        for sigma in sigmas:
            pair = gaussian_clip(pixels, sigma, seed)
            noisy, clean = pair["noisy"][0], pair["clean"][0]
            yield _row(path, sigma, "noisy input", noisy, clean, None)
            for name, method in methods.items():
                started = time.perf_counter()
                output = method(noisy, sigma / 255).clamp(0, 1)
                seconds = (time.perf_counter() - started) / len(pixels)
                yield _row(path, sigma, name, output, clean, seconds)


def _row(
    path: Path, sigma: float, method: str, clip: Tensor, clean: Tensor, seconds: float | None
) -> ClipRow:
    psnr = float(mean_psnr(clip[None], clean[None]))
    return ClipRow(path.stem, sigma, method, psnr, 255 * flicker(clip, clean), seconds)


def mean_rows(rows: Sequence[ClipRow]) -> list[ClipRow]:
    """Return the means over the clips, for each level and method, under the name ``mean``."""
    groups: dict[tuple[float, str], list[ClipRow]] = {}
    for row in rows:
        groups.setdefault((row.sigma, row.method), []).append(row)
    means = []
    for (sigma, method), group in groups.items():
        times = [r.seconds for r in group if r.seconds is not None]
        psnr, change = fmean(r.psnr for r in group), fmean(r.flicker for r in group)
        means.append(ClipRow("mean", sigma, method, psnr, change, fmean(times) if times else None))
    return means


__all__ = ["ClipRow", "evaluate", "frame_by_frame", "list_clips", "mean_rows", "network"]
