"""Convolutions of image and clip networks: what happens along time, in one place.

X. Wang et al.: "Non-local Neural Networks", CVPR 2018 (arXiv 1711.07971): inflation to 3x1x1 and
3x3x3.
D. Tran et al.: "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018
(arXiv 1711.11248): factored convolutions, R(2+1)D.
"""

from dataclasses import dataclass, replace
from typing import Literal

from torch import nn


@dataclass(frozen=True)
class Time:
    """What a stage of a network for clips does along time; images have none.

    Args:
        extents: odd temporal extents of the inflated convolutions of the stage's blocks, repeated
            until every block has one: ``(3, 1)`` inflates every second block.
        inflate: which convolutions get the extent: the 3x3 ones (both of a basic block) or the
            first 1x1 of a bottleneck.
        stride: temporal stride of the first block.
        pool: odd extent of a maximum over time with stride two, before the stage (after a stem's
            convolutions, joined with its spatial pooling); 1 is none.
        factored: follow a 1xkxk convolution, a norm and a ReLU by one of tx1x1 in place of a
            txkxk one.
        middle: channels between the two factors; ``"convolution"`` keeps the number of parameters
            of the convolution that is factored (Tran et al.), ``"block"`` that of the block's
            first convolution in all of its convolutions (torchvision).

    Raises:
        ValueError: for an extent or a pool that is not odd and positive, a stride below one and an
            unknown ``inflate`` or ``middle``.
    """

    extents: tuple[int, ...] = (3,)
    inflate: Literal["3x3", "1x1"] = "3x3"
    stride: int = 1
    pool: int = 1
    factored: bool = False
    middle: int | Literal["convolution", "block"] = "convolution"

    def __post_init__(self) -> None:
        if not self.extents or any(extent < 1 or extent % 2 == 0 for extent in self.extents):
            raise ValueError(f"extents={self.extents} must be odd and positive")
        if self.stride < 1:
            raise ValueError(f"stride={self.stride} must be at least 1")
        if self.pool < 1 or self.pool % 2 == 0:
            raise ValueError(f"pool={self.pool} must be odd and positive")
        if self.inflate not in ("3x3", "1x1"):
            raise ValueError(f"inflate={self.inflate!r} must be '3x3' or '1x1'")
        number = isinstance(self.middle, int) and self.middle > 0
        if not number and self.middle not in ("convolution", "block"):
            raise ValueError(f"middle={self.middle!r} must be 'convolution', 'block' or positive")

    def of_block(self, index: int) -> "Time":
        """Return what the block of this index does: one extent, a stride in the first alone."""
        extent = self.extents[index % len(self.extents)]
        return replace(self, extents=(extent,), stride=1 if index else self.stride)

    def without_extent(self, *, stride: int = 1) -> "Time":
        """Return what a convolution does that looks at single frames."""
        return Time((1,), stride=stride)


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    time: Time | None = None,
) -> nn.Module:
    """Return a bias-free convolution that keeps the size but for its stride, as He et al. start it.

    Args:
        inputs: channels that enter.
        outputs: channels that leave.
        kernel: odd extent in height and width.
        stride: stride in height and width.
        dilation: dilation in height and width.
        groups: groups of channels.
        time: None for images; else the first of its extents, its stride and its factors are used.

    Raises:
        ValueError: if groups and factors in time meet.
    """
    padding = dilation * (kernel - 1) // 2
    conv: nn.Conv2d | nn.Conv3d
    if time is None:
        conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding, dilation, groups=groups, bias=False
        )
    elif time.factored and time.extents[0] > 1:
        if groups > 1:
            raise ValueError(f"groups={groups} must be 1 where time is factored")
        middle = time.middle
        if not isinstance(middle, int):
            middle = factored_width(inputs, outputs, kernel, time.extents[0])
        along = replace(time, factored=False)
        return nn.Sequential(
            convolution(
                inputs,
                middle,
                kernel,
                stride=stride,
                dilation=dilation,
                time=time.without_extent(),
            ),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            convolution(middle, outputs, 1, time=along),
        )
    else:
        extent = time.extents[0]
        conv = nn.Conv3d(
            inputs,
            outputs,
            (extent, kernel, kernel),
            (time.stride, stride, stride),
            (extent // 2, padding, padding),
            (1, dilation, dilation),
            groups=groups,
            bias=False,
        )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def factored_width(inputs: int, outputs: int, kernel: int, extent: int) -> int:
    """Return the width with which two factors have as many parameters as the whole (Tran et al.).

    ``M = floor(t d^2 N_in N_out / (d^2 N_in + t N_out))``.
    """
    area = kernel * kernel
    return extent * area * inputs * outputs // (area * inputs + extent * outputs)


def norm(channels: int, time: Time | None) -> nn.Module:
    """Return batch normalisation for images or, with ``time``, for clips."""
    return nn.BatchNorm2d(channels) if time is None else nn.BatchNorm3d(channels)
