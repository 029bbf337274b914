"""The networks of the papers by name: nothing but their numbers.

Every function takes the number of classes and returns a :class:`~nlden.encoders.ResNet` with a
classifier, or, without a number, one that returns the maps of its stages. What the functions leave
open is open to ``ResNet`` itself.

ResNet: K. He et al. (arXiv 1512.03385). ResNeXt: S. Xie et al. (arXiv 1611.05431). SE networks and
SENet-154: J. Hu et al. (arXiv 1709.01507). CBAM: S. Woo et al. (arXiv 1807.06521). Non-local:
X. Wang et al. (arXiv 1711.07971). DANet: J. Fu et al. (arXiv 1809.02983). R3D, MC3 and R(2+1)D:
D. Tran et al. (arXiv 1711.11248).
"""

from functools import partial
from typing import Literal

from nlden.attention.cbam import CBAM
from nlden.attention.non_local import NonLocal3d
from nlden.attention.squeeze_excitation import SqueezeExcitation
from nlden.encoders.convolutions import Time
from nlden.encoders.residual import BasicBlock, Bottleneck
from nlden.encoders.resnet import BlockFactory, Classifier, ResNet, Stem
from nlden.encoders.unet import Slot

BLOCKS: dict[int, tuple[BlockFactory, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
"""Kind and number of the residual blocks of each depth (He et al., table 1)."""

RESNEXT = partial(Bottleneck, groups=32, group_width=4)
"""The block of ResNeXt 32x4d (Xie et al., table 1)."""

SENET = partial(Bottleneck, groups=64, group_width=4, first_reduction=2)
"""The block of SENet-154 (Hu et al., appendix)."""


def classifier(num_classes: int | None, dropout: float = 0.0) -> Slot | None:
    """Return the slot of a classifier, or None without a number of classes."""
    if num_classes is None:
        return None
    return partial(Classifier, classes=num_classes, dropout=dropout)


def _resnet(
    depth: int,
    num_classes: int | None,
    in_channels: int,
    output_stride: int | None,
    attention: Slot | None,
    block: BlockFactory | None = None,
) -> ResNet:
    usual, blocks = BLOCKS[depth]
    return ResNet(
        usual if block is None else block,
        blocks,
        stem=Stem(in_channels),
        output_stride=output_stride,
        attention=attention,
        head=classifier(num_classes),
    )


def resnet18(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    output_stride: int | None = None,
    attention: Slot | None = None,
) -> ResNet:
    """Return ResNet-18."""
    return _resnet(18, num_classes, in_channels, output_stride, attention)


def resnet34(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    output_stride: int | None = None,
    attention: Slot | None = None,
) -> ResNet:
    """Return ResNet-34."""
    return _resnet(34, num_classes, in_channels, output_stride, attention)


def resnet50(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    output_stride: int | None = None,
    attention: Slot | None = None,
) -> ResNet:
    """Return ResNet-50."""
    return _resnet(50, num_classes, in_channels, output_stride, attention)


def resnet101(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    output_stride: int | None = None,
    attention: Slot | None = None,
) -> ResNet:
    """Return ResNet-101."""
    return _resnet(101, num_classes, in_channels, output_stride, attention)


def resnet152(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    output_stride: int | None = None,
    attention: Slot | None = None,
) -> ResNet:
    """Return ResNet-152."""
    return _resnet(152, num_classes, in_channels, output_stride, attention)


def resnext50_32x4d(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    output_stride: int | None = None,
    attention: Slot | None = None,
) -> ResNet:
    """Return ResNeXt-50 with 32 groups of width four."""
    return _resnet(50, num_classes, in_channels, output_stride, attention, RESNEXT)


def se_resnet18(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNet-18 with Squeeze-and-Excitation in every block."""
    return resnet18(num_classes, attention=partial(SqueezeExcitation, reduction=reduction))


def se_resnet34(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNet-34 with Squeeze-and-Excitation in every block."""
    return resnet34(num_classes, attention=partial(SqueezeExcitation, reduction=reduction))


def se_resnet50(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNet-50 with Squeeze-and-Excitation in every block."""
    return resnet50(num_classes, attention=partial(SqueezeExcitation, reduction=reduction))


def se_resnet101(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNet-101 with Squeeze-and-Excitation in every block."""
    return resnet101(num_classes, attention=partial(SqueezeExcitation, reduction=reduction))


def se_resnext50_32x4d(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNeXt-50 32x4d with Squeeze-and-Excitation in every block."""
    return resnext50_32x4d(num_classes, attention=partial(SqueezeExcitation, reduction=reduction))


def senet154(
    num_classes: int | None = None, *, reduction: int = 16, dropout: float = 0.2
) -> ResNet:
    """Return SENet-154: three 3x3 in the stem, 64 groups, halved first 1x1, 3x3 shortcuts."""
    return ResNet(
        SENET,
        (3, 8, 36, 3),
        stem=Stem(widths=(64, 64, 128), kernel=3),
        shortcut_kernel=3,
        attention=partial(SqueezeExcitation, reduction=reduction),
        head=classifier(num_classes, dropout),
    )


def se_resnet20(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return the ResNet-20 of CIFAR with Squeeze-and-Excitation in every block.

    Three stages of three basic blocks, 16 to 64 channels, a 3x3 stem without stride (He et al.,
    section 4.2). Where a stage starts the shortcut is a 1x1 convolution with a norm.
    """
    return ResNet(
        BasicBlock,
        (3, 3, 3),
        stem=Stem(widths=(16,), kernel=3, stride=1, pool=None),
        widths=(16, 32, 64),
        attention=partial(SqueezeExcitation, reduction=reduction),
        head=classifier(num_classes),
    )


def cbam_resnet18(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNet-18 with CBAM in every block."""
    return resnet18(num_classes, attention=partial(CBAM, reduction=reduction))


def cbam_resnet34(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNet-34 with CBAM in every block."""
    return resnet34(num_classes, attention=partial(CBAM, reduction=reduction))


def cbam_resnet50(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNet-50 with CBAM in every block."""
    return resnet50(num_classes, attention=partial(CBAM, reduction=reduction))


def cbam_resnet101(num_classes: int | None = None, *, reduction: int = 16) -> ResNet:
    """Return ResNet-101 with CBAM in every block."""
    return resnet101(num_classes, attention=partial(CBAM, reduction=reduction))


def danet_resnet50(head: Slot | None = None, *, in_channels: int = 3) -> ResNet:
    """Return DANet's encoder, ResNet-50 with output stride eight, and the head that is given.

    Args:
        head: builds the segmentation head for the 2,048 channels of the last stage, such as
            ``partial(DualAttentionHead, classes=19)``; None returns the maps of the stages.
        in_channels: channels of the picture.
    """
    return ResNet(*BLOCKS[50], stem=Stem(in_channels), output_stride=8, head=head)


NON_LOCAL_PLACES: dict[int, tuple[tuple[int, ...], ...]] = {
    0: ((), (), (), ()),
    1: ((), (), (4,), ()),
    5: ((), (1, 3), (1, 3, 5), ()),
    10: ((), tuple(range(4)), tuple(range(6)), ()),
}
"""After which blocks of ResNet-50 Wang et al. put so many non-local blocks (section 5.1)."""


def nonlocal_resnet50_3d(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    blocks: int = 5,
    inflate: Literal["1x1", "3x3"] | None = "1x1",
    non_local: Slot | None = None,
    dropout: float = 0.5,
) -> ResNet:
    """Return ResNet-50 for clips with non-local blocks (Wang et al., table 1 and section 5).

    Time is halved by the stem's convolution, by its pooling and before the second stage. Clips of
    32 frames of 224x224 come down to 4x7x7.

    Args:
        num_classes: number of classes; None returns the maps of the stages.
        in_channels: channels of the clip.
        blocks: number of non-local blocks: 0, 1, 5 or 10.
        inflate: which convolution of every second block looks along time, the first 1x1 (I3D
            3x1x1) or the 3x3 (I3D 3x3x3); None inflates nothing (C2D).
        non_local: slot of the blocks; None is ``NonLocal3d`` with a maximum over 2x2 positions
            before phi and g, the sub-sampling of all blocks of the paper.
        dropout: dropout before the classifier.

    Raises:
        ValueError: for another number of blocks.
    """
    if blocks not in NON_LOCAL_PLACES:
        raise ValueError(f"blocks={blocks} must be one of {sorted(NON_LOCAL_PLACES)}")
    extents, first = ((1,), 1) if inflate is None else ((3, 1), 5)
    stage = Time(extents, inflate=inflate or "1x1")
    pooled = Time(extents, inflate=inflate or "1x1", pool=3)
    return ResNet(
        *BLOCKS[50],
        stem=Stem(in_channels, time=Time((first,), stride=2, pool=3)),
        after=non_local or partial(NonLocal3d, subsample=(1, 2, 2)),
        after_blocks=NON_LOCAL_PLACES[blocks],
        time=(stage, pooled, stage, stage),
        head=classifier(num_classes, dropout),
    )


def r3d_18(num_classes: int | None = None, *, in_channels: int = 3) -> ResNet:
    """Return R3D-18: every 3x3 is 3x3x3; strides in time from the second stage on."""
    return _video(18, num_classes, in_channels, (Time(), *[Time(stride=2)] * 3), Time())


def mc3_18(num_classes: int | None = None, *, in_channels: int = 3) -> ResNet:
    """Return MC3-18: 3x3x3 in stem and first stage, 1x3x3 without stride in time elsewhere."""
    return _video(18, num_classes, in_channels, (Time(), *[Time((1,))] * 3), Time())


def r2plus1d_18(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    middle: Literal["convolution", "block"] = "convolution",
) -> ResNet:
    """Return R(2+1)D-18; ``middle`` as in :class:`~nlden.encoders.Time` (torchvision: block)."""
    return _r2plus1d(18, num_classes, in_channels, middle)


def r2plus1d_34(
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    middle: Literal["convolution", "block"] = "convolution",
) -> ResNet:
    """Return R(2+1)D-34; ``middle`` as in :class:`~nlden.encoders.Time`."""
    return _r2plus1d(34, num_classes, in_channels, middle)


def _r2plus1d(
    depth: int,
    num_classes: int | None,
    in_channels: int,
    middle: Literal["convolution", "block"],
) -> ResNet:
    stage = Time(factored=True, middle=middle)
    strided = Time(factored=True, middle=middle, stride=2)
    first = Time(factored=True, middle=45)  # narrower than the rule of the other convolutions
    return _video(depth, num_classes, in_channels, (stage, strided, strided, strided), first)


def _video(
    depth: int, num_classes: int | None, in_channels: int, time: tuple[Time, ...], first: Time
) -> ResNet:
    """Return a network of Tran et al.: no pooling in the stem."""
    return ResNet(
        *BLOCKS[depth],
        stem=Stem(in_channels, pool=None, time=first),
        time=time,
        head=classifier(num_classes),
    )
