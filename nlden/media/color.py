"""Colour: YCbCr matrices, ranges, 4:2:0 packing and what they do to noise.

Planes are kept as they are stored, divided by the white of full-range 8 bits (255, or 1020 at
10 bits): limited-range luma runs from 16/255 to 235/255 and neutral chroma is 128/255.
The matrices are those of ITU-R BT.601, BT.709 and BT.2020 (non-constant luminance).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nlden.media.phases import from_phases, to_phases

_KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}

MATRIX_TAGS = {"bt601": 5, "bt709": 1, "bt2020": 9}
"""FFmpeg's numbers of the matrices."""

NEUTRAL = 128 / 255
"""Value of a chroma plane where there is no colour."""


@dataclass(frozen=True)
class YCbCr:
    """How RGB became YCbCr.

    Args:
        matrix: ``bt601``, ``bt709`` or ``bt2020``.
        full_range: whether luma uses all codes (JPEG) or 16 to 235 (video).
    """

    matrix: str = "bt709"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.matrix not in _KR_KB:
            raise ValueError(f"matrix={self.matrix!r} must be one of {', '.join(_KR_KB)}")

    def weights(self) -> Tensor:
        """Return the 3x3 matrix from RGB in [0, 1] to stored Y, Cb, Cr, without the offsets."""
        kr, kb = _KR_KB[self.matrix]
        luma = torch.tensor([kr, 1 - kr - kb, kb], dtype=torch.float64)
        red, _, blue = torch.eye(3, dtype=torch.float64)
        rows = torch.stack([luma, (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
        scale = [1.0, 1.0, 1.0] if self.full_range else [219 / 255, 224 / 255, 224 / 255]
        return rows * torch.tensor(scale, dtype=torch.float64)[:, None]

    def offsets(self) -> Tensor:
        """Return the stored Y, Cb, Cr of black."""
        return torch.tensor([0.0 if self.full_range else 16 / 255, NEUTRAL, NEUTRAL])

    def from_rgb(self, rgb: Tensor) -> Tensor:
        """Convert RGB ``(..., 3, H, W)`` to stored planes of the same shape."""
        return _mix(self.weights(), rgb) + self.offsets().to(rgb)[:, None, None]

    def to_rgb(self, planes: Tensor) -> Tensor:
        """Convert stored planes ``(..., 3, H, W)`` to RGB of the same shape."""
        return _mix(self.weights().inverse(), planes - self.offsets().to(planes)[:, None, None])

    def plane_levels(self, sigma: float, *, averaged: int = 1) -> tuple[float, float]:
        """Carry white RGB noise to the planes.

        Args:
            sigma: standard deviation of the noise in R, G and B.
            averaged: pixels that one chroma sample averages (4 for 4:2:0, 2 for 4:2:2).

        Returns:
            The standard deviations in luma and (root mean square of the two planes) in chroma.
        """
        luma, cb, cr = self.weights().square().sum(1).tolist()
        return sigma * luma**0.5, sigma * ((cb + cr) / 2 / averaged) ** 0.5


def _mix(weights: Tensor, planes: Tensor) -> Tensor:
    return torch.einsum("oi,...ihw->...ohw", weights.to(planes), planes)


def halve(chroma: Tensor) -> Tensor:
    """Average 2x2 pixels of ``(B, C, H, W)``, as 4:2:0 storage does."""
    return F.avg_pool2d(chroma, 2)


def pack_yuv420(luma: Tensor, chroma: Tensor) -> Tensor:
    """Lay the planes of a 4:2:0 picture on the chroma grid.

    Args:
        luma: ``(B, 1, H, W)``.
        chroma: ``(B, 2, h, w)`` with ``h = ceil(H / 2)`` and ``w = ceil(W / 2)``.

    Returns:
        ``(B, 6, h, w)``: the four phases of luma, then Cb and Cr. An odd last row or column of
        luma is repeated.
    """
    return torch.cat([to_phases(luma), chroma], dim=1)


def unpack_yuv420(packed: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return luma ``(B, 1, H, W)`` of the given size and chroma ``(B, 2, h, w)``."""
    luma = from_phases(packed[:, :4])
    return luma[:, :, : size[0], : size[1]], packed[:, 4:]
