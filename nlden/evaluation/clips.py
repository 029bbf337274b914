"""Quality of denoisers on clips: PSNR, flicker and time on the same noisy frames.

White noise is drawn once for a clip. Every method gets the same clip; its output is clamped to
[0, 1]. How clips are made and measured: :mod:`nlden.evaluation.clip_pairs`.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from nlden.data.clips import read_clip
from nlden.evaluation.clip_pairs import (
    STILL_FRAMES,
    estimated_levels,
    finish,
    levels,
    make_pair,
    psnr,
    read_still,
)
from nlden.evaluation.clip_peers import ClipMethod
from nlden.inference.stream import VideoStream
from nlden.media.phases import from_phases, to_phases
from nlden.metrics import flicker
from nlden.models import ImageDenoiser, TemporalShiftDenoiser, VideoDenoiser
from nlden.models.pretrained import WeightsError, load

_STEP, _STEPS = 1.2, 6  # of the strengths that are tried: their ratio, how many up and down


@dataclass(frozen=True)
class ClipRow:
    """What one method made of one clip.

    Args:
        clip: name of the clip.
        sigma: noise level, 0 to 255.
        method: its name.
        strength: what it was told, relative to ``sigma``.
        psnr: in dB, see :func:`nlden.evaluation.clip_pairs.psnr`.
        flicker: see :func:`nlden.metrics.flicker`, on the scale of 0 to 255.
        seconds: wall time a frame; None for the noisy input.
    """

    clip: str
    sigma: float
    method: str
    strength: float
    psnr: float
    flicker: float
    seconds: float | None

    @property
    def label(self) -> str:
        """Return the method with its strength, where that is not 1."""
        return self.method if self.strength == 1 else f"{self.method} x{self.strength:.2f}"


def network(
    weights: str, device: torch.device, dtype: torch.dtype, *, estimate: bool = False
) -> ClipMethod:
    """Return a network as a method: a video denoiser as a stream, an image denoiser by frames.

    One with temporal shift takes whole clips.

    The method takes RGB clips and stored ones (see :mod:`nlden.evaluation.clip_pairs`).

    Args:
        weights: a shipped name or a safetensors file.
        device: where to run it.
        dtype: its precision.
        estimate: tell it the levels that are found in a stored clip, not the true ones.

    Raises:
        WeightsError: if the weights cannot be read or are of another kind of network.
    """
    denoiser = load(weights).to(device, dtype)

    def told(clip: Tensor, sigma: float) -> Tensor:
        return (estimated_levels(clip) if estimate else levels(clip, sigma)).to(device)

    if isinstance(denoiser, VideoDenoiser):
        return lambda clip, sigma: _stream(denoiser, clip.to(device), told(clip, sigma)).cpu()
    if not isinstance(denoiser, ImageDenoiser):
        raise WeightsError(f"{weights}: these weights are not of a denoiser")

    @torch.inference_mode()
    def run(clip: Tensor, sigma: float) -> Tensor:
        level = told(clip, sigma)
        if isinstance(denoiser, TemporalShiftDenoiser):
            return denoiser(clip[None].to(device), level)[0].cpu()
        clean = [denoiser(f[None].to(device), level)[0].cpu() for f in clip.unbind(1)]
        return torch.stack(clean, dim=1)

    return run


def _stream(denoiser: VideoDenoiser, clip: Tensor, level: Tensor) -> Tensor:
    frames = clip.transpose(0, 1)
    height, width = clip.shape[2:]
    rgb = len(clip) == 3
    if rgb:
        frames = to_phases(frames)
    stream = VideoStream(denoiser)
    shots = [s for f in frames for s in stream.push(f[None], level)]
    shots += stream.finish()
    clean = torch.cat([s.clean for s in shots])
    return (from_phases(clean) if rgb else clean).transpose(0, 1)[..., :height, :width]


def evaluate(
    clips: Iterable[Path],
    sigmas: Sequence[float],
    methods: Mapping[str, ClipMethod],
    *,
    searched: Collection[str] = (),
    halved: Collection[str] = (),
    stored: bool = False,
    noise: str = "gaussian",
    stills: bool = False,
    seed: int = 0,
    limit: int | None = None,
) -> Iterator[ClipRow]:
    """Measure every method on every clip, beside the noisy clip itself.

    Args:
        clips: video files and folders of frames; photographs with ``stills``.
        sigmas: noise levels, 0 to 255.
        methods: denoisers by name; of stored clips with ``stored``.
        searched: names of methods that are told the level that suits them best.
        halved: names of clips that are used at half their size.
        stored: measure on what 8-bit 4:2:0 files hold.
        noise: its kind, see :func:`nlden.evaluation.clip_pairs.make_pair`.
        stills: repeat the first frame of each clip.
        seed: of the noise.
        limit: frames to take of a clip at the most; how often to repeat a still.

    Raises:
        MediaError: if a clip cannot be read.
        ValueError: if a clip has one frame only.
    """
    for path in clips:
        reduce = 2 if path.stem in halved else 1
        if stills:
            pixels = read_still(path, reduce, limit or STILL_FRAMES)
        else:
            pixels = read_clip(path, reduce, limit)
        if len(pixels) < 2:
            raise ValueError(f"{path}: one frame is no clip; name a video, or film it: --stills")
        for sigma in sigmas:
            pair = make_pair(pixels, sigma, seed, stored=stored, noise=noise)
            case = _Case(path.stem, sigma, *pair)
            yield case.measure("noisy input", case.noisy)
            for name, method in methods.items():
                run = partial(case.run, name, method)
                yield best(run) if name in searched else run(1.0)


@dataclass(frozen=True)
class _Case:
    clip: str
    sigma: float
    noisy: Tensor
    clean: Tensor

    def run(self, name: str, method: ClipMethod, strength: float) -> ClipRow:
        started = time.perf_counter()
        output = method(self.noisy, strength * self.sigma / 255)
        seconds = (time.perf_counter() - started) / output.shape[1]
        return self.measure(name, finish(output), strength, seconds)

    def measure(
        self, name: str, output: Tensor, strength: float = 1.0, seconds: float | None = None
    ) -> ClipRow:
        quality, change = psnr(output, self.clean), 255 * flicker(output, self.clean)
        return ClipRow(self.clip, self.sigma, name, strength, quality, change, seconds)


def best(run: Callable[[float], ClipRow]) -> ClipRow:
    """Climb from strength 1 to that of the best PSNR, by steps of a fifth.

    Args:
        run: measures a method that is told so many times the level of the noise.
    """
    rows = {0: run(1.0)}
    top = 0
    while True:
        for step in (top - 1, top + 1):
            if step not in rows and abs(step) <= _STEPS:
                rows[step] = run(_STEP**step)
        highest = max(rows, key=lambda step: rows[step].psnr)
        if highest == top:
            return rows[top]
        top = highest


def mean_rows(rows: Sequence[ClipRow]) -> list[ClipRow]:
    """Return the means over the clips, for each level and method, under the name ``mean``."""
    groups: dict[tuple[float, str], list[ClipRow]] = {}
    for row in rows:
        groups.setdefault((row.sigma, row.method), []).append(row)
    means = []
    for (sigma, method), group in groups.items():
        times = [r.seconds for r in group if r.seconds is not None]
        strength, quality, change = (
            fmean(getattr(row, name) for row in group) for name in ("strength", "psnr", "flicker")
        )
        seconds = fmean(times) if times else None
        means.append(ClipRow("mean", sigma, method, strength, quality, change, seconds))
    return means
