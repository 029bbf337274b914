"""What two frames that were laid over each other do not agree in: noise, or something else."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention.squeeze_excitation import box_mean
from nlden.media.phases import halved
from nlden.models.image_denoiser import PACKED, packed_format

_LARGEST = 20.0  # logarithm of the factor; beyond, it would have no gradient that is a number
_LEAST = 1e-6  # mean square, in levels of noise; the root of nothing has no gradient
_NEAR = 5  # places along each axis over which squared differences are averaged


class Mismatch(nn.Module):
    """Tell by how much a frame that was laid over another shows something else.

    Around each position the mean square of the difference of the two denoised frames, times a
    factor, plus a rest; both are what a few convolutions make of the differences and of their mean
    squares. Where nothing moves the factor may fall to nothing: what differs there is what the
    first network left of the noise.

    Args:
        formats: packed formats.
        width: of the convolutions.
        halve: look at a quarter of the positions, each the mean of four.

    Shape:
        Differences of the clean and of the fused frames in levels of noise, both
        ``(B, 12 or 6, h, w)``, and the variance ``(B, 2, h, w)`` of the latter; returns the
        variance of the mismatch, likewise in parts of that of the noise, ``(B, 2, h, w)``.
    """

    def __init__(self, formats: Sequence[str], width: int, *, halve: bool = False) -> None:
        super().__init__()
        self.halve = halve
        self.stems = nn.ModuleDict(
            {n: nn.Conv2d(2 * PACKED[n] + 6, width, 3, padding=1) for n in formats}
        )
        self.hidden = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        with torch.no_grad():
            assert self.tail.bias is not None
            self.tail.bias.copy_(torch.tensor([-2.0, -2.0, 1.0, 1.0]))

    @property
    def reach(self) -> int:
        """How many positions away an input changes an output."""
        seen = 3 + _NEAR // 2  # three convolutions, and the mean around
        return 2 * seen + 2 if self.halve else seen

    def forward(self, clean: Tensor, fused: Tensor, variance: Tensor) -> Tensor:
        """Return the variance of the mismatch."""
        height, width = variance.shape[2:]
        squares = [_mean_square(clean), _mean_square(fused)]
        seen = [clean, fused, variance, *squares]
        if self.halve:
            seen = [halved(t) for t in seen]
        near = box_mean(torch.cat(seen[3:], dim=1), _NEAR)
        x = torch.cat([*seen[:3], near.clamp_min(_LEAST).sqrt()], dim=1)
        x = x.to(self.hidden.weight.dtype, memory_format=torch.channels_last)
        stem = self.stems[packed_format(clean)]
        y = self.tail(F.relu(self.hidden(F.relu(stem(x)))))
        # Planes that lie apart: logarithms and powers of interleaved ones take many times as long.
        rest, factor = y.to(near.dtype, memory_format=torch.contiguous_format).split(2, dim=1)
        result = F.softplus(rest) + factor.clamp(max=_LARGEST).exp() * near[:, :2]
        if not self.halve:
            return result
        return F.interpolate(result, scale_factor=2.0, mode="bilinear")[..., :height, :width]


def _mean_square(difference: Tensor) -> Tensor:
    """Return the mean square in luma and in chroma, ``(B, 2, h, w)``; of RGB twice the same."""
    if packed_format(difference) == "rgb":
        return difference.square().mean(1, keepdim=True).expand(-1, 2, -1, -1)
    return torch.cat([g.square().mean(1, keepdim=True) for g in difference.split([4, 2], 1)], dim=1)
