"""Inception-v3 with a slot for attention after every inception block.

C. Szegedy et al.: "Rethinking the Inception Architecture for Computer Vision", CVPR 2016
(arXiv 1512.00567). The place of the slot: J. Hu et al. (arXiv 1709.01507), section 3.3.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention.layers import check_map
from nlden.attention.squeeze_excitation import SqueezeExcitation
from nlden.encoders.resnet import Classifier
from nlden.encoders.unet import Slot


class Unit(nn.Module):
    """Bias-free convolution, batch normalisation (epsilon 0.001) and ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Branches(nn.Module):
    """Branches side by side, joined along the channels, then attention.

    Args:
        branches: what is applied to the same input.
        channels: channels of all branches together.
        attention: slot after the junction.
    """

    def __init__(self, *branches: nn.Module, channels: int, attention: Slot | None = None) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.attention = None if attention is None else attention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the joined features."""
        y = torch.cat([branch(x) for branch in self.branches], 1)
        return y if self.attention is None else self.attention(y)


class InceptionOutput(NamedTuple):
    """Logits of a network in training with an auxiliary classifier."""

    logits: Tensor
    auxiliary: Tensor


class InceptionV3(nn.Module):
    """Inception-v3 with a slot for attention after every inception block.

    Args:
        num_classes: number of classes; None leaves the classifier out.
        attention: slot after the junction of every inception block.
        auxiliary: whether a second classifier looks, in training, at the end of the 17x17 stage.
        dropout: dropout before the classifier.
        rescale_imagenet: the input is normalised by ImageNet's means and deviations and is
            brought to the range from -1 to 1 that the released weights were trained on.

    Shape:
        ``(B, 3, H, W)``, at least 75x75 (with ``auxiliary`` in training about 299x299), to
        ``(B, num_classes)``; in training with ``auxiliary`` to :class:`InceptionOutput`; without
        classifier to the maps of the three stages (35x35, 17x17 and 8x8 for 299x299).

    Raises:
        ValueError: for an auxiliary classifier without classes and, when called, for an input
            that is not ``(B, 3, H, W)``.
    """

    channels = (288, 768, 2048)

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        attention: Slot | None = None,
        auxiliary: bool = False,
        dropout: float = 0.5,
        rescale_imagenet: bool = False,
    ) -> None:
        super().__init__()
        if auxiliary and num_classes is None:
            raise ValueError(f"auxiliary={auxiliary} needs num_classes, which is None")
        self.rescale_imagenet = rescale_imagenet
        self.stem = nn.Sequential(
            Unit(3, 32, 3, stride=2),
            Unit(32, 32, 3),
            Unit(32, 64, 3, padding=1),
            nn.MaxPool2d(3, 2),
            Unit(64, 80, 1),
            Unit(80, 192, 3),
            nn.MaxPool2d(3, 2),
        )
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*(_inception_a(c, p, attention) for c, p in _POOLED.items())),
                nn.Sequential(
                    _reduction_b(attention), *(_inception_c(w, attention) for w in _SEVENS)
                ),
                nn.Sequential(
                    _reduction_d(attention), *(_inception_e(c, attention) for c in (1280, 2048))
                ),
            ]
        )
        self.head: nn.Module | None = None
        self.auxiliary: nn.Module | None = None
        if num_classes is not None:
            self.head = Classifier(2048, num_classes, dropout=dropout)
            if auxiliary:
                self.auxiliary = nn.Sequential(
                    nn.AvgPool2d(5, 3),
                    Unit(768, 128, 1),
                    Unit(128, 768, 5),
                    Classifier(768, num_classes),
                )

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Return the maps of the three stages, the finest first."""
        check_map(x, 3, 2)
        if self.rescale_imagenet:
            mean = x.new_tensor((0.485, 0.456, 0.406))[:, None, None]
            deviation = x.new_tensor((0.229, 0.224, 0.225))[:, None, None]
            x = (x * deviation + mean - 0.5) / 0.5
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor | InceptionOutput | list[Tensor]:
        """Return the logits, in training with the auxiliary ones, or the maps of the stages."""
        maps = self.forward_features(x)
        if self.head is None:
            return maps
        logits = self.head(maps[-1])
        if self.auxiliary is None or not self.training:
            return logits
        return InceptionOutput(logits, self.auxiliary(maps[1]))


# Channels that enter the three blocks of the first stage and width of their pooling branch.
_POOLED = {192: 32, 256: 64, 288: 64}
# Width of the 7x7 branches of the four blocks of the second stage.
_SEVENS = (128, 160, 160, 192)

_row = partial(Unit, kernel=(1, 7), padding=(0, 3))
_column = partial(Unit, kernel=(7, 1), padding=(3, 0))


def _inception_a(inputs: int, pooled: int, attention: Slot | None) -> Branches:
    """Two 3x3 in place of a 5x5 (figure 5 of the paper)."""
    return Branches(
        Unit(inputs, 64, 1),
        nn.Sequential(Unit(inputs, 48, 1), Unit(48, 64, 5, padding=2)),
        nn.Sequential(Unit(inputs, 64, 1), Unit(64, 96, 3, padding=1), Unit(96, 96, 3, padding=1)),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), Unit(inputs, pooled, 1)),
        channels=224 + pooled,
        attention=attention,
    )


def _reduction_b(attention: Slot | None) -> Branches:
    """From 35x35 to 17x17 (figure 10)."""
    return Branches(
        Unit(288, 384, 3, stride=2),
        nn.Sequential(Unit(288, 64, 1), Unit(64, 96, 3, padding=1), Unit(96, 96, 3, stride=2)),
        nn.MaxPool2d(3, 2),
        channels=768,
        attention=attention,
    )


def _inception_c(width: int, attention: Slot | None) -> Branches:
    """Rows and columns of seven in place of 7x7 (figure 6)."""
    return Branches(
        Unit(768, 192, 1),
        nn.Sequential(Unit(768, width, 1), _row(width, width), _column(width, 192)),
        nn.Sequential(
            Unit(768, width, 1),
            _column(width, width),
            _row(width, width),
            _column(width, width),
            _row(width, 192),
        ),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), Unit(768, 192, 1)),
        channels=768,
        attention=attention,
    )


def _reduction_d(attention: Slot | None) -> Branches:
    """From 17x17 to 8x8."""
    return Branches(
        nn.Sequential(Unit(768, 192, 1), Unit(192, 320, 3, stride=2)),
        nn.Sequential(
            Unit(768, 192, 1), _row(192, 192), _column(192, 192), Unit(192, 192, 3, stride=2)
        ),
        nn.MaxPool2d(3, 2),
        channels=1280,
        attention=attention,
    )


def _inception_e(inputs: int, attention: Slot | None) -> Branches:
    """Branches that end in a row and a column side by side (figure 7)."""

    def fork() -> Branches:
        return Branches(
            Unit(384, 384, (1, 3), padding=(0, 1)),
            Unit(384, 384, (3, 1), padding=(1, 0)),
            channels=768,
        )

    return Branches(
        Unit(inputs, 320, 1),
        nn.Sequential(Unit(inputs, 384, 1), fork()),
        nn.Sequential(Unit(inputs, 448, 1), Unit(448, 384, 3, padding=1), fork()),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), Unit(inputs, 192, 1)),
        channels=2048,
        attention=attention,
    )


def se_inception_v3(
    num_classes: int | None = None, *, reduction: int = 16, auxiliary: bool = False
) -> InceptionV3:
    """Return Inception-v3 with Squeeze-and-Excitation after every inception block (Hu et al.)."""
    return InceptionV3(
        num_classes,
        attention=partial(SqueezeExcitation, reduction=reduction),
        auxiliary=auxiliary,
    )
