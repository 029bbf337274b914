"""Measures of quality."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

_ALEXNET = "alexnet-owt-7be5be79.pth"  # as torchvision names its weights


class PlanePSNR:
    """PSNR over the planes of stored pictures, as FFmpeg's ``psnr`` filter counts it.

    The squared error is averaged over all samples of all planes and all pictures.

    Args:
        peak: the code that counts as the largest signal (255 at 8 bits).
    """

    def __init__(self, peak: int = 255) -> None:
        self.peak = peak
        self._squares = 0.0
        self._samples = 0

    def update(self, planes: Sequence[Tensor], reference: Sequence[Tensor]) -> None:
        """Add a picture: its planes of codes and those of its reference.

        Raises:
            ValueError: if their sizes differ.
        """
        for plane, clean in zip(planes, reference, strict=True):
            if plane.shape != clean.shape:
                raise ValueError(f"planes of {plane.shape} and {clean.shape} cannot be compared")
            self._squares += float((plane.double() - clean.double()).square().sum())
            self._samples += plane.numel()

    def compute(self) -> float:
        """Return the PSNR in dB; infinity for equal pictures.

        Raises:
            ValueError: if there was no picture.
        """
        if not self._samples:
            raise ValueError("PSNR of no picture")
        if not self._squares:
            return math.inf
        return 10 * math.log10(self.peak**2 * self._samples / self._squares)


def open_lpips() -> LearnedPerceptualImagePatchSimilarity | None:
    """Return LPIPS (AlexNet) where torchvision's weights lie in torch's cache, else None.

    R. Zhang et al.: "The unreasonable effectiveness of deep features as a perceptual metric",
    CVPR 2018. Nothing is downloaded.
    """
    if not Path(torch.hub.get_dir(), "checkpoints", _ALEXNET).is_file():
        return None
    return LearnedPerceptualImagePatchSimilarity("alex", normalize=True)


@torch.inference_mode()
def compare_pictures(
    picture: Tensor, clean: Tensor, lpips: LearnedPerceptualImagePatchSimilarity | None = None
) -> tuple[float, float, float | None]:
    """Return PSNR, SSIM and LPIPS of a picture.

    PSNR is ``-10 log10`` of the mean squared error over all channels. SSIM (Z. Wang et al.:
    "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004)
    has a Gaussian window of 11 pixels with sigma 1.5, which stays inside the picture, and is
    averaged over the channels.

    Args:
        picture: ``(C, H, W)``, where 1 is white; only LPIPS clips it.
        clean: the truth, of the same shape; at least 32 pixels a side, for LPIPS sees nothing
            in less.
        lpips: what :func:`open_lpips` returns; None leaves LPIPS out.
    """
    pair = (picture[None], clean[None])
    psnr = peak_signal_noise_ratio(*pair, data_range=1.0)
    _, places = structural_similarity_index_measure(
        *pair, sigma=1.5, data_range=1.0, return_full_image=True
    )
    # torchmetrics mirrors the picture at its border; the definition knows whole windows only.
    ssim = places[..., 5:-5, 5:-5].mean()
    if lpips is None:
        return float(psnr), float(ssim), None
    distance = lpips(*(p.clamp(0, 1).expand(-1, 3, -1, -1) for p in pair))
    return float(psnr), float(ssim), float(distance)


def flicker(clip: Tensor, clean: Tensor) -> float:
    """Return how much the error of a clip changes from one frame to the next.

    The mean over pixels and frames of ``|e_t - e_(t-1)|`` with ``e = clip - clean``: 0 if the
    error stands still, however large it is. Nothing is warped.

    Args:
        clip: ``(C, T, H, W)``.
        clean: the truth, of the same shape.

    Raises:
        ValueError: for fewer than two frames.
    """
    if clip.shape[1] < 2:
        raise ValueError("flicker needs two frames or more")
    return float((clip - clean).diff(dim=1).abs().mean())
