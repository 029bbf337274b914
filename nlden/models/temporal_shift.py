"""Image denoiser whose features see neighbouring frames: the other temporal paths of the field.

Temporal shift is that of J. Lin et al. (TSM: "Temporal Shift Module for Efficient Video
Understanding", ICCV 2019), which C. Qi et al. (BSVD: "Real-Time Streaming Video Denoising with
Bidirectional Buffers", ACM MM 2022) made a denoiser of; the non-local block over space and time is
that of X. Wang et al. (CVPR 2018). Both are here to be compared with
:class:`nlden.models.VideoDenoiser`, by the recipe ``video_temporal_shift``.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention import NonLocal3d
from nlden.encoders import ResidualBlock, UNet
from nlden.models.image_denoiser import GATE, ImageDenoiser

_SHARE = 8  # one in so many channels comes from each neighbour


def temporal_shift(x: Tensor, frames: int) -> Tensor:
    """Take an eighth of the channels from the frame before, another from the one after.

    Args:
        x: the frames of clips, one clip after the other, ``(B * T, C, H, W)``.
        frames: T. Beyond the ends of a clip there are zeros.
    """
    clips = x.unflatten(0, (-1, frames))
    count = x.shape[1] // _SHARE
    before, after, here = clips.split([count, count, x.shape[1] - 2 * count], dim=2)
    room = (0, 0) * 3
    before = F.pad(before[:, :-1], (*room, 1, 0))
    after = F.pad(after[:, 1:], (*room, 0, 1))
    shifted = torch.cat([before, after, here], dim=2).flatten(0, 1)
    return shifted.contiguous(memory_format=torch.channels_last)


class ShiftedBlock(ResidualBlock):
    """Residual block whose branch starts from shifted features.

    Shape:
        ``(B * T, C, H, W)`` to the same; the attribute ``frames`` is T.
    """

    frames = 1

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features."""
        return x + self.branch(temporal_shift(x, self.frames))


class ClipNonLocal(NonLocal3d):
    """Non-local block over space and time for frames that lie in the batch.

    Args:
        channels: number of channels C.
        window: extent of the neighbourhood in frames, rows and columns.
        block: likewise of a block of queries.

    Shape:
        ``(B * T, C, H, W)`` to the same; the attribute ``frames`` is T.
    """

    frames = 1

    def __init__(
        self, channels: int, *, window: tuple[int, int, int], block: tuple[int, int, int]
    ) -> None:
        super().__init__(
            channels, scale="inner", bias=False, norm=None, window=window, block=block, clip=True
        )
        # Kernels of two dimensions, so that those of the image denoiser's own block fit.
        for name in ("theta", "phi", "g", "out"):
            whole = getattr(self, name)
            flat = nn.Conv2d(whole.in_channels, whole.out_channels, 1, bias=False)
            flat.weight.data = whole.weight.detach().flatten(3)
            setattr(self, name, flat)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + W_z y``."""
        x = x.contiguous(memory_format=torch.channels_last)
        clips = x.unflatten(0, (-1, self.frames)).transpose(1, 2)
        y = super().forward(clips).transpose(1, 2).flatten(0, 1)
        return y.contiguous(memory_format=torch.channels_last)


class TemporalShiftDenoiser(ImageDenoiser):
    """Image denoiser that takes clips; the blocks of its body see neighbouring frames.

    Shape:
        ``forward``: ``(B, 3, T, H, W)`` or packed ``(B, 12 or 6, T, h, w)``, or pictures as of
        :class:`ImageDenoiser`; returns the same.
    """

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the clean clip, in float32, not clamped."""
        frames = x.shape[2] if x.ndim == 5 else 1
        for block in self.body.modules():
            if isinstance(block, ShiftedBlock | ClipNonLocal):
                block.frames = frames
        if x.ndim != 5:
            return super().forward(x, sigma)
        if isinstance(sigma, Tensor) and sigma.ndim:
            sigma = sigma.repeat_interleave(frames, dim=0)
        clean = super().forward(x.transpose(1, 2).flatten(0, 1), sigma)
        return clean.unflatten(0, (-1, frames)).transpose(1, 2)


def temporal_shift_denoiser_fast(
    shift: bool = True, non_local: bool = True
) -> TemporalShiftDenoiser:
    """Build ``image_denoiser_fast`` with temporal paths.

    Args:
        shift: whether its residual blocks are shifted.
        non_local: whether its non-local block sees seven frames instead of one.
    """
    extent = 7 if non_local else 1
    body = UNet(
        (32, 64, 128),
        (1, 2, 1),
        gate=GATE,
        bottleneck=partial(ClipNonLocal, window=(extent, 16, 16), block=(1, 8, 8)),
        block=ShiftedBlock if shift else ResidualBlock,
    )
    return TemporalShiftDenoiser(body)
