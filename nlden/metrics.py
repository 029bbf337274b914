"""Measures of quality."""

import math
from collections.abc import Sequence

from torch import Tensor


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
