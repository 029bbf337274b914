"""Feature extractors with slots for attention blocks."""

from nlden.encoders.convolutions import Time
from nlden.encoders.inception import InceptionOutput, InceptionV3, se_inception_v3
from nlden.encoders.interop import from_reference
from nlden.encoders.named import (
    cbam_resnet18,
    cbam_resnet34,
    cbam_resnet50,
    cbam_resnet101,
    danet_resnet50,
    mc3_18,
    nonlocal_resnet50_3d,
    r2plus1d_18,
    r2plus1d_34,
    r3d_18,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    se_resnet18,
    se_resnet20,
    se_resnet34,
    se_resnet50,
    se_resnet101,
    se_resnext50_32x4d,
    senet154,
)
from nlden.encoders.residual import BasicBlock, Bottleneck
from nlden.encoders.resnet import Classifier, ResNet, Stem
from nlden.encoders.slots import insert_attention
from nlden.encoders.unet import ResidualBlock, UNet

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "Classifier",
    "InceptionOutput",
    "InceptionV3",
    "ResNet",
    "ResidualBlock",
    "Stem",
    "Time",
    "UNet",
    "cbam_resnet18",
    "cbam_resnet34",
    "cbam_resnet50",
    "cbam_resnet101",
    "danet_resnet50",
    "from_reference",
    "insert_attention",
    "mc3_18",
    "nonlocal_resnet50_3d",
    "r2plus1d_18",
    "r2plus1d_34",
    "r3d_18",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "se_inception_v3",
    "se_resnet18",
    "se_resnet20",
    "se_resnet34",
    "se_resnet50",
    "se_resnet101",
    "se_resnext50_32x4d",
    "senet154",
]
