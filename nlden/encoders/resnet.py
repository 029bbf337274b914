"""Residual networks for images and clips, with slots for attention.

K. He, X. Zhang, S. Ren, J. Sun: "Deep Residual Learning for Image Recognition", CVPR 2016
(arXiv 1512.03385). Attention on the residual branch: J. Hu et al. (arXiv 1709.01507) and S. Woo
et al. (arXiv 1807.06521); blocks after chosen residual blocks: X. Wang et al. (arXiv 1711.07971);
dilation in place of strides: F. Yu, V. Koltun (arXiv 1511.07122), as J. Fu et al. use it
(arXiv 1809.02983).
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention.layers import check_map, pooled_mean
from nlden.encoders.convolutions import Time, convolution, norm
from nlden.encoders.residual import Residual
from nlden.encoders.unet import Slot


class BlockFactory(Protocol):
    """Builds a residual block: ``BasicBlock``, ``Bottleneck`` or a ``partial`` of them."""

    def __call__(
        self,
        inputs: int,
        planes: int,
        *,
        stride: int,
        dilations: tuple[int, int],
        shortcut_kernel: int,
        attention: Slot | None,
        after: Slot | None,
        time: Time | None,
    ) -> Residual:
        """Return the block."""


class Stem(nn.Module):
    """Convolutions with norms and ReLUs, the first with a stride, and a maximum over 3x3.

    Args:
        in_channels: channels of the picture.
        widths: channels of each convolution: one of 7x7 (He et al.) or three of 3x3 (SENet-154).
        kernel: extent of the convolutions.
        stride: stride of the first.
        pool: ``"padded"`` takes the maximum with stride two and a border of one, ``"ceiling"``
            without border, the last window reaching over the edge (Caffe; a picture must then have
            three pixels in every direction), None takes none.
        time: what happens along time; None for images.

    Shape:
        ``(B, in_channels, H, W)`` or ``(B, in_channels, T, H, W)`` to ``channels`` maps, smaller
        by ``total_stride``.

    Raises:
        ValueError: for an empty ``widths`` or an unknown ``pool`` and, when called, for an input
            of another rank or number of channels.
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = (64,),
        *,
        kernel: int = 7,
        stride: int = 2,
        pool: str | None = "padded",
        time: Time | None = None,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError(f"widths={widths} must name at least one convolution")
        if pool not in ("padded", "ceiling", None):
            raise ValueError(f"pool={pool!r} must be 'padded', 'ceiling' or None")
        self.in_channels, self.channels = in_channels, widths[-1]
        self.total_stride = stride if pool is None else 2 * stride
        self.dimensions = 2 if time is None else 3
        inputs = [in_channels, *widths[:-1]]
        strides = [stride] + [1] * (len(widths) - 1)
        times = [None if time is None else time.of_block(i) for i in range(len(widths))]
        self.convolutions = nn.ModuleList(
            convolution(a, b, kernel, stride=s, time=t)
            for a, b, s, t in zip(inputs, widths, strides, times, strict=True)
        )
        self.norms = nn.ModuleList(norm(width, time) for width in widths)
        self.pool: nn.Module | None = None
        if pool is not None:
            border, ceiling = int(pool == "padded"), pool == "ceiling"
            if time is None:
                self.pool = nn.MaxPool2d(3, 2, border, ceil_mode=ceiling)
            else:
                self.pool = nn.MaxPool3d(
                    (time.pool, 3, 3),
                    (2 if time.pool > 1 else 1, 2, 2),
                    (time.pool // 2, border, border),
                    ceil_mode=ceiling,
                )

    def forward(self, x: Tensor) -> Tensor:
        """Return the first features."""
        check_map(x, self.in_channels, self.dimensions)
        for conv, normalise in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(normalise(conv(x)), inplace=True)
        return x if self.pool is None else self.pool(x)


class Classifier(nn.Module):
    """Mean over the map, dropout and a fully connected layer.

    Args:
        channels: channels of the map.
        classes: number of classes; 0 leaves the layer out and returns the means.
        dropout: probability with which a mean is dropped in training.
        extent: take the mean over the first so many positions in every direction, as networks
            with a pooling of fixed size do; None is the whole map.

    Shape:
        ``(B, channels, *size)`` to ``(B, classes)``.

    Raises:
        ValueError: for a negative number of classes or an extent below one.
    """

    def __init__(
        self, channels: int, classes: int, *, dropout: float = 0.0, extent: int | None = None
    ) -> None:
        super().__init__()
        if classes < 0:
            raise ValueError(f"classes={classes} must be at least 0")
        if extent is not None and extent < 1:
            raise ValueError(f"extent={extent} must be at least 1 or None")
        self.extent = extent
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        if self.extent is not None:
            for axis in range(2, x.ndim):
                x = x.narrow(axis, 0, min(self.extent, x.shape[axis]))
        mean = pooled_mean(x, tuple(range(2, x.ndim))).flatten(1).to(x.dtype)
        return self.fc(self.dropout(mean))


class ResNet(nn.Module):
    """Residual network for images or clips with slots for attention; ResNeXt by its blocks.

    Stage ``i`` has ``blocks[i]`` residual blocks of ``widths[i]`` planes; every stage but the
    first starts with a stride of two. The named functions of :mod:`nlden.encoders.named` hold the
    numbers of the papers.

    Args:
        block: builds a residual block; variants are a ``partial`` of ``BasicBlock`` or
            ``Bottleneck``, such as ``partial(Bottleneck, groups=32, group_width=4)``.
        blocks: residual blocks of each stage.
        stem: first layers; None is the 7x7 stem of He et al. for three channels.
        widths: planes of each stage; None is 64, twice as many in every further stage.
        output_stride: stages that would exceed this stride keep their size and dilate their 3x3
            convolutions instead; None never.
        shortcut_kernel: extent of the convolution on the shortcut of every stage but the first
            (SENet-154: 3, else 1).
        attention: slot on the residual branches, before the sum.
        after: slot after the residual blocks that ``after_blocks`` names.
        after_blocks: for each stage the indices of its blocks that ``after`` follows.
        time: what each stage does along time; None for images. The stem has its own.
        head: slot for what is made of the last stage's map, such as a classifier.

    Shape:
        ``(B, C, H, W)`` or, with ``time``, ``(B, C, T, H, W)`` to what the head returns; without
        a head to the list of the stages' maps, whose numbers of channels ``channels`` tells.

    Raises:
        ValueError: for sequences of different length, an ``output_stride`` that cannot be
            reached, blocks that do not exist and ``after`` without ``after_blocks`` or the
            reverse; when called for an input of another rank or number of channels.
    """

    def __init__(
        self,
        block: BlockFactory,
        blocks: Sequence[int],
        *,
        stem: Stem | None = None,
        widths: Sequence[int] | None = None,
        output_stride: int | None = None,
        shortcut_kernel: int = 1,
        attention: Slot | None = None,
        after: Slot | None = None,
        after_blocks: Sequence[Collection[int]] | None = None,
        time: Sequence[Time] | None = None,
        head: Slot | None = None,
    ) -> None:
        super().__init__()
        stages = range(len(blocks))
        widths = [64 * 2**i for i in stages] if widths is None else widths
        places = [() for _ in stages] if after_blocks is None else after_blocks
        times = [None for _ in stages] if time is None else time
        if not len(blocks) == len(widths) == len(places) == len(times) > 0 or min(blocks) < 1:
            raise ValueError(
                f"blocks={blocks}, widths={widths}, after_blocks={after_blocks} and time={time} "
                "must name the same stages, each of at least one block"
            )
        if (after is None) != (after_blocks is None):
            raise ValueError(f"after={after} and after_blocks={after_blocks} must come together")
        for count, chosen in zip(blocks, places, strict=True):
            if not set(chosen) <= set(range(count)):
                raise ValueError(
                    f"after_blocks={after_blocks} names blocks that blocks={blocks} has not"
                )
        self.stem = Stem() if stem is None else stem
        if (self.stem.dimensions == 3) != (time is not None):
            raise ValueError(f"time={time} must be given if and only if the stem has a time")
        strides, dilations = _strides(self.stem.total_stride, len(blocks), output_stride)
        self.stages = nn.ModuleList()
        self.channels: list[int] = []
        inputs = self.stem.channels
        for i in stages:
            stage = nn.Sequential()
            period = times[i]
            if period is not None and period.pool > 1:
                stage.add_module(
                    "pool", nn.MaxPool3d((period.pool, 1, 1), (2, 1, 1), (period.pool // 2, 0, 0))
                )
            for j in range(blocks[i]):
                first = j == 0
                unit = block(
                    inputs,
                    widths[i],
                    stride=strides[i] if first else 1,
                    dilations=(dilations[max(i - 1, 0)] if first else dilations[i], dilations[i]),
                    shortcut_kernel=shortcut_kernel if i > 0 else 1,
                    attention=attention,
                    after=after if j in places[i] else None,
                    time=None if period is None else period.of_block(j),
                )
                stage.add_module(str(j), unit)
                inputs = unit.channels
            self.stages.append(stage)
            self.channels.append(inputs)
        self.head = None if head is None else head(inputs)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Return the maps of all stages, the finest first."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return what the head makes of the last map, without a head the maps of all stages."""
        maps = self.forward_features(x)
        return maps if self.head is None else self.head(maps[-1])


def _strides(stem: int, stages: int, limit: int | None) -> tuple[list[int], list[int]]:
    """Return stride and dilation of every stage."""
    reachable = [stem * 2**i for i in range(stages)]
    if limit is not None and limit not in reachable:
        raise ValueError(f"output_stride={limit} must be one of {reachable} or None")
    strides, dilations, total = [1], [1], stem
    for _ in range(stages - 1):
        grows = limit is None or total < limit
        strides.append(2 if grows else 1)
        dilations.append(dilations[-1] * (1 if grows else 2))
        total *= strides[-1]
    return strides, dilations
