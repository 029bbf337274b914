"""Quality of denoisers on folders of pictures, by the protocol of the literature.

Files in sorted order; the noise of picture i is ``randn * sigma`` of a generator seeded with
``seed + i``, added to the picture in [0, 1] and neither clipped nor rounded. Every method gets
that same noisy picture; its output is clamped to [0, 1]. PSNR is taken for each picture and then
averaged. Or real pairs: a second folder holds the noisy pictures.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Generator, Tensor
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

from nlden.data.crops import list_images, read_rgb
from nlden.evaluation.peers import Method
from nlden.inference.planes import PlaneDenoiser
from nlden.media.color import YCbCr
from nlden.metrics import compare_pictures
from nlden.noise.estimation import Levels, estimate_levels
from nlden.noise.synthesis import quantize, white_gaussian

NOISY = "noisy input"
"""The method that does nothing."""

SMALLEST = 32
"""Least extent of a picture: the networks of LPIPS see nothing in a smaller one."""

_FAINTEST = 0.1 / 255  # an estimate of no noise at all would divide by zero
_RGB = YCbCr("bt709", full_range=True)
_GRAY = YCbCr("bt601", full_range=True)  # the luma by which the field makes its grey sets


@dataclass(frozen=True)
class Case:
    """One picture with one noise; its files are read when it is measured.

    Args:
        folder: the set that it belongs to.
        clean: file of the clean picture.
        sigma: noise level, 0 to 1; None to estimate it (real noise only).
        seed: source of synthetic noise.
        noisy: file of the noisy picture; None for synthetic noise.
    """

    folder: Path
    clean: Path
    sigma: float | None
    seed: int = 0
    noisy: Path | None = None

    @property
    def noise(self) -> str:
        """Return what the noise is called in tables: its level from 0 to 255, or ``real``."""
        return "real" if self.noisy or self.sigma is None else f"{255 * self.sigma:g}"

    def read(self, gray: bool) -> tuple[Tensor, Tensor, float]:
        """Return the clean and the noisy picture ``(C, H, W)`` and the level to tell.

        Args:
            gray: take the BT.601 luma, rounded to 8 bits, instead of RGB.

        Raises:
            MediaError: if a file cannot be read.
            ValueError: if a picture is too small or a pair does not match.
        """
        clean = _read(self.clean, gray)
        if min(clean.shape[1:]) < SMALLEST:
            size = "x".join(map(str, reversed(clean.shape[1:])))
            raise ValueError(f"{self.clean}: {size} pixels; {SMALLEST} a side are needed")
        if self.noisy is None:
            assert self.sigma is not None
            generator = Generator().manual_seed(self.seed)
            return clean, white_gaussian(clean, torch.tensor(self.sigma), generator), self.sigma
        noisy = _read(self.noisy, gray)
        if noisy.shape != clean.shape:
            raise ValueError(f"{self.noisy}: not of the size of {self.clean}")
        if noisy.equal(clean):
            raise ValueError(f"{self.noisy}: the same pixels as {self.clean}")
        sigma = estimate_levels([(noisy,)]).luma if self.sigma is None else self.sigma
        return clean, noisy, max(sigma, _FAINTEST)


def _read(path: Path, gray: bool) -> Tensor:
    rgb = read_rgb(path).float() / 255
    return quantize(_GRAY.from_rgb(rgb)[:1]) if gray else rgb


def synthetic(folder: Path, sigmas: Sequence[float], seed: int, limit: int | None) -> list[Case]:
    """Return the cases of a folder of clean pictures, noise level by noise level.

    Args:
        folder: the pictures.
        sigmas: noise levels, 0 to 1.
        seed: that of the first picture; the next one's is one more.
        limit: how many pictures to take; None takes all.

    Raises:
        FileNotFoundError: if there is no picture.
    """
    files = list_images(folder)[:limit]
    return [Case(folder, f, s, seed + i) for s in sigmas for i, f in enumerate(files)]


def pairs(folder: Path, noisy: Path, sigma: float | None, limit: int | None) -> list[Case]:
    """Return the cases of two folders, the i-th file of one with the i-th of the other.

    Args:
        folder: the clean pictures.
        noisy: the noisy ones.
        sigma: noise level, 0 to 1; None to estimate that of each picture.
        limit: how many pictures to take; None takes all.

    Raises:
        FileNotFoundError: if there is no picture.
        ValueError: if one folder holds more pictures than the other.
    """
    clean_files, noisy_files = list_images(folder), list_images(noisy)
    if len(clean_files) != len(noisy_files):
        raise ValueError(
            f"{noisy}: {len(noisy_files)} pictures for the {len(clean_files)} of {folder}"
        )
    files = list(zip(clean_files, noisy_files, strict=True))[:limit]
    return [Case(folder, c, sigma, noisy=n) for c, n in files]


def network(denoiser: PlaneDenoiser) -> Method:
    """Return a network as a method; it has run once, so that no start-up time is measured.

    Colour goes through the network's RGB way, grey through its plane of luma, as in
    :func:`nlden.api.denoise`.
    """

    def run(noisy: Tensor, sigma: float) -> Tensor:
        values = noisy.to(denoiser.device)
        kind = "rgb" if len(noisy) == 3 else "gray"
        (change,) = denoiser.change([values], kind, _RGB, Levels(sigma, sigma))
        return (values + change).float().cpu()

    channels = 3 if "rgb" in denoiser.network.formats else 1
    run(torch.zeros(channels, SMALLEST, SMALLEST), 0.1)
    return run


@dataclass(frozen=True)
class Row:
    """What one method made of one case.

    Args:
        folder: the set.
        image: name of the file.
        noise: what the noise is called.
        sigma: level that the method was told, 0 to 255.
        method: its name.
        psnr: in dB.
        ssim: Gaussian window of 11 with sigma 1.5; mean over R, G and B.
        lpips: lower is better; None where its weights are not there.
        seconds: wall time of the method; None for the noisy input.
        megapixels: size of the picture.
    """

    folder: str
    image: str
    noise: str
    sigma: float
    method: str
    psnr: float
    ssim: float
    lpips: float | None
    seconds: float | None
    megapixels: float


@dataclass(frozen=True)
class Summary:
    """Means over the pictures of a set; as in :class:`Row`."""

    folder: str
    noise: str
    method: str
    images: int
    psnr: float
    ssim: float
    lpips: float | None
    seconds_per_megapixel: float | None


@dataclass(frozen=True)
class Measured:
    """A case and what came of it.

    Args:
        case: the case.
        clean: its picture ``(C, H, W)``.
        outputs: what each method made of the noisy picture, that one first.
        rows: the figures, in the same order.
    """

    case: Case
    clean: Tensor
    outputs: dict[str, Tensor]
    rows: list[Row]


def evaluate(
    cases: Iterable[Case],
    methods: Mapping[str, Method],
    *,
    gray: bool = False,
    lpips: LearnedPerceptualImagePatchSimilarity | None = None,
) -> Iterator[Measured]:
    """Measure every method on every case, beside the noisy input itself.

    Args:
        cases: what :func:`synthetic` and :func:`pairs` return.
        methods: denoisers by name.
        gray: measure on luma.
        lpips: what :func:`nlden.metrics.open_lpips` returns.

    Raises:
        MediaError: if a file cannot be read.
        ValueError: if a picture is too small or a pair does not match.
    """
    for case in cases:
        clean, noisy, sigma = case.read(gray)
        outputs, seconds = {NOISY: noisy}, {}
        for name, method in methods.items():
            started = time.perf_counter()
            outputs[name] = method(noisy, sigma).clamp(0, 1)
            seconds[name] = time.perf_counter() - started
        rows = [
            Row(
                str(case.folder),
                case.clean.name,
                case.noise,
                255 * sigma,
                name,
                *compare_pictures(output, clean, lpips),
                seconds.get(name),
                clean[0].numel() / 1e6,
            )
            for name, output in outputs.items()
        ]
        yield Measured(case, clean, outputs, rows)


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Return the means over the pictures, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.folder, row.noise, row.method), []).append(row)
    summaries = []
    for names, group in groups.items():
        distances = [r.lpips for r in group if r.lpips is not None]
        seconds = [r.seconds for r in group if r.seconds is not None]
        summaries.append(
            Summary(
                *names,
                len(group),
                fmean(r.psnr for r in group),
                fmean(r.ssim for r in group),
                fmean(distances) if distances else None,
                sum(seconds) / sum(r.megapixels for r in group) if seconds else None,
            )
        )
    return summaries
