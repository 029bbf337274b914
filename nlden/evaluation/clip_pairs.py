"""Noisy clips and their clean counterparts, as RGB or as video files store them.

A stored clip is 8-bit limited-range BT.709 4:2:0, packed (see
:func:`nlden.media.color.pack_yuv420`) as ``(6, T, H/2, W/2)``; an RGB clip is ``(3, T, H, W)``.
"""

from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from nlden.data.clips import gaussian_clip, list_clips, read_clip
from nlden.data.crops import list_images
from nlden.evaluation.clip_peers import ClipMethod
from nlden.media.color import YCbCr, unpack_yuv420
from nlden.metrics import PlanePSNR
from nlden.noise import blurred_gaussian, compress_video, poisson_gaussian
from nlden.noise.estimation import estimate_levels
from nlden.noise.synthesis import quantize, store_yuv420, white_gaussian
from nlden.tasks.denoising import mean_psnr

STILL_FRAMES = 8
"""Frames of a filmed photograph, if nothing else is said."""

_COLOR = YCbCr()
_PLANES = 6


def list_stills(folder: Path) -> list[Path]:
    """Return the photographs in a folder, or else the clips, whose first frames are taken.

    Raises:
        FileNotFoundError: if there are neither.
    """
    try:
        return list_images(folder)
    except FileNotFoundError:
        return list_clips(folder)


def read_still(path: Path, reduce: int, frames: int) -> Tensor:
    """Film a photograph or the first frame of a clip, as :func:`read_clip` returns clips."""
    return read_clip(path, reduce, 1).expand(frames, -1, -1, -1)


def _correlated(clean: Tensor, sigma: float, generator: Generator) -> Tensor:
    return blurred_gaussian(clean, sigma, 0.6, generator)


def _poisson(clean: Tensor, sigma: float, generator: Generator) -> Tensor:
    return poisson_gaussian(clean, 1.5 * sigma**2, 0.5 * sigma, generator)


def _compressed(clean: Tensor, sigma: float, generator: Generator) -> Tensor:
    white = white_gaussian(clean, torch.tensor(sigma), generator)
    return compress_video(quantize(white), crf=28)


NOISES = {"correlated": _correlated, "poisson": _poisson, "compressed": _compressed}
"""Noise as files have it, beside white noise.

``correlated`` over about a pixel (a Gaussian of 0.6); ``poisson``, of variance sigma squared where
the picture is half of white, a quarter of it everywhere; ``compressed``: white, through H.264 of
rate factor 28.
"""


def make_pair(
    pixels: Tensor, sigma: float, seed: int, *, stored: bool, noise: str = "gaussian"
) -> tuple[Tensor, Tensor]:
    """Return a noisy clip and the clean one.

    Args:
        pixels: uint8 ``(T, 3, H, W)``.
        sigma: level of the noise, 0 to 255.
        seed: of the noise.
        stored: give both as stored; an odd last row or column is left out. Else RGB, the noise
            neither clipped nor rounded.
        noise: ``gaussian``, or of stored clips one of :data:`NOISES`.
    """
    if noise != "gaussian":
        clean = pixels.float() / 255
        noisy = NOISES[noise](clean, sigma / 255, Generator().manual_seed(seed))
        return store(quantize(noisy).transpose(0, 1)), store(clean.transpose(0, 1))
    pair = gaussian_clip(pixels, sigma, seed)
    noisy, clean = pair["noisy"][0], pair["clean"][0]
    return (store(quantize(noisy)), store(clean)) if stored else (noisy, clean)


def store(rgb: Tensor) -> Tensor:
    """Return an RGB clip as stored."""
    height, width = (s // 2 * 2 for s in rgb.shape[2:])
    frames = rgb[..., :height, :width].transpose(0, 1)
    return quantize(store_yuv420(frames, _COLOR)).transpose(0, 1)


def restore(packed: Tensor) -> Tensor:
    """Return a stored clip as RGB, its chroma interpolated."""
    height, width = (2 * s for s in packed.shape[2:])
    luma, chroma = unpack_yuv420(packed.transpose(0, 1), (height, width))
    wide = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    return _COLOR.to_rgb(torch.cat([luma, wide], dim=1)).transpose(0, 1)


def through_rgb(method: ClipMethod) -> ClipMethod:
    """Return a method for RGB clips as one for stored clips; it is told the level of RGB."""
    return lambda packed, sigma: store(method(restore(packed), sigma).clamp(0, 1))


def levels(clip: Tensor, sigma: float) -> Tensor:
    """Return the levels of luma and chroma, ``(1, 2)``, of white RGB noise in a clip."""
    told = _COLOR.plane_levels(sigma, averaged=4) if len(clip) == _PLANES else (sigma, sigma)
    return torch.tensor([told], device=clip.device)


def estimated_levels(packed: Tensor) -> Tensor:
    """Return the levels ``(1, 2)`` that are found in a stored clip, as a denoise run finds them."""
    size = (2 * packed.shape[2], 2 * packed.shape[3])
    planes = unpack_yuv420(packed.transpose(0, 1), size)
    found = estimate_levels(list(zip(*planes, strict=True)))
    return torch.tensor([[found.luma, found.chroma]], device=packed.device)


def finish(clip: Tensor) -> Tensor:
    """Return the output of a method in [0, 1], that of a stored clip rounded to 8 bits."""
    return quantize(clip) if len(clip) == _PLANES else clip.clamp(0, 1)


def psnr(clip: Tensor, clean: Tensor) -> float:
    """Return the quality of a clip, in dB.

    Of RGB the mean over the frames; of a stored clip that over all samples of all planes.
    """
    if len(clip) != _PLANES:
        return float(mean_psnr(clip[None], clean[None]))
    measure = PlanePSNR()
    measure.update([255 * clip], [255 * clean])
    return measure.compute()
