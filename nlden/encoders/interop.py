"""Whole reference networks by their own names: timm, torchvision, moskomule's and Jongchan's code.

The table at the end names, for each reference, the function that builds the nlden network from
the reference's constructor arguments, and the rules that rename its parameters. Where a reference
has 1x1 convolutions on pooled values, nlden has fully connected layers of the same numbers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn

from nlden.attention.cbam import CBAM
from nlden.attention.interop import construct, load
from nlden.attention.squeeze_excitation import SqueezeExcitation
from nlden.encoders.inception import InceptionV3, Unit
from nlden.encoders.named import (
    BLOCKS,
    RESNEXT,
    SENET,
    classifier,
    mc3_18,
    r2plus1d_18,
    r3d_18,
    se_resnet20,
)
from nlden.encoders.residual import BasicBlock, Bottleneck
from nlden.encoders.resnet import BlockFactory, Classifier, ResNet, Stem

Rule = tuple[str, str | Callable[[re.Match[str]], str] | None]
"""A regular expression and what replaces it; None drops the parameter."""


def from_reference(name: str, state_dict: Mapping[str, Tensor], **arguments: object) -> nn.Module:
    """Return the nlden network that computes what a reference network computes.

    It does so in evaluation and in training, where dropout falls in the same place. Weights are
    copied and keep their precision.

    Args:
        name: one of :data:`REFERENCES`, such as ``timm.seresnet50``.
        state_dict: the reference's weights by the reference's own names.
        arguments: what the reference was built with, by the reference's own names; arguments that
            are left out have the reference's defaults.

    Raises:
        ValueError: for a name or an argument that is not known, a value that is not supported,
            and weights that are missing, unknown or of another shape.
    """
    if name not in REFERENCES:
        raise ValueError(f"name={name!r} must be one of {', '.join(sorted(REFERENCES))}")
    build, rules = REFERENCES[name]
    network = construct(name, build, arguments)
    names = {key: rename(key, rules) for key in state_dict}
    kept = {key: new for key, new in names.items() if new is not None}
    load(name, network, {key: state_dict[key] for key in kept}, kept)
    return network


def rename(key: str, rules: Sequence[Rule]) -> str | None:
    """Return the name after all rules, in their order; None: the parameter is dropped."""
    for pattern, new in rules:
        if new is not None:
            key = re.sub(pattern, new, key)
        elif re.search(pattern, key):
            return None
    return key


def _timm(
    depth: int,
    block: BlockFactory | None,
    /,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    output_stride: int = 32,
    drop_rate: float = 0.0,
) -> ResNet:
    """SE-ResNets of timm: biases, widths rounded to multiples of eight."""
    usual, blocks = BLOCKS[depth]
    return ResNet(
        block or usual,
        blocks,
        stem=Stem(in_chans),
        output_stride=output_stride,
        attention=partial(SqueezeExcitation, divisor=8, bias=True),
        head=classifier(num_classes, drop_rate),
    )


def _legacy(
    block: BlockFactory,
    blocks: Sequence[int],
    deep: bool,
    /,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float = 0.2,
) -> ResNet:
    """Legacy SE networks of timm, which follow the Caffe models; SENet-154 is deep."""
    widths, kernel = ((64, 64, 128), 3) if deep else ((64,), 7)
    return ResNet(
        block,
        blocks,
        stem=Stem(in_chans, widths, kernel=kernel, pool="ceiling"),
        shortcut_kernel=3 if deep else 1,
        attention=partial(SqueezeExcitation, bias=True),
        head=classifier(num_classes, drop_rate),
    )


def _torchvision(
    depth: int,
    block: BlockFactory | None,
    /,
    *,
    num_classes: int = 1000,
    zero_init_residual: bool = False,  # the weights are given
    replace_stride_with_dilation: Sequence[bool] | None = None,
) -> ResNet:
    usual, blocks = BLOCKS[depth]
    dilated = list(replace_stride_with_dilation or (False, False, False))
    if len(dilated) != 3 or dilated != sorted(dilated):
        raise ValueError(
            f"replace_stride_with_dilation={replace_stride_with_dilation} must be three values, "
            "and once True stay True"
        )
    return ResNet(
        block or usual,
        blocks,
        output_stride=32 // 2 ** sum(dilated),
        head=classifier(num_classes),
    )


def _torchvision_video(
    build: Callable[..., ResNet], /, *, num_classes: int = 400, zero_init_residual: bool = False
) -> ResNet:
    return build(num_classes)


def _moskomule_cifar(*, num_classes: int = 10, reduction: int = 16) -> ResNet:
    return se_resnet20(num_classes, reduction=reduction)


def _torchvision_inception(
    *,
    num_classes: int = 1000,
    aux_logits: bool = True,
    transform_input: bool = False,
    dropout: float = 0.5,
) -> InceptionV3:
    return InceptionV3(
        num_classes, auxiliary=aux_logits, rescale_imagenet=transform_input, dropout=dropout
    )


def _moskomule_inception(
    *, num_classes: int, aux_logits: bool = True, transform_input: bool = False
) -> InceptionV3:
    """The reference registers an SE layer in each inception block but never calls it."""
    return _torchvision_inception(
        num_classes=num_classes, aux_logits=aux_logits, transform_input=transform_input
    )


def _jongchan(*, network_type: str, depth: int, num_classes: int, att_type: str | None) -> ResNet:
    if network_type not in ("ImageNet", "CIFAR10", "CIFAR100"):
        raise ValueError(f"network_type={network_type!r} must be ImageNet, CIFAR10 or CIFAR100")
    if depth not in (18, 34, 50, 101):
        raise ValueError(f"depth={depth} must be 18, 34, 50 or 101")
    if att_type not in ("CBAM", None):
        raise ValueError(f"att_type={att_type!r} must be 'CBAM' or None")
    image_net = network_type == "ImageNet"
    cbam = partial(CBAM, **CBAM.presets["official"])
    return ResNet(
        *BLOCKS[depth],
        stem=Stem() if image_net else Stem(kernel=3, stride=1, pool=None),
        attention=cbam if att_type else None,
        head=partial(Classifier, classes=num_classes, extent=7 if image_net else 4),
    )


_STAGES: Rule = (r"^layer(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.")
_BLOCKS: tuple[Rule, ...] = (
    _STAGES,
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.downsample\.", ".shortcut."),
)
_RESNET: tuple[Rule, ...] = (
    (r"^conv1\.", "stem.convolutions.0."),
    (r"^bn1\.", "stem.norms.0."),
    (r"^fc\.", "head.fc."),
    *_BLOCKS,
)
_TIMM: tuple[Rule, ...] = (*_RESNET, (r"\.se\.", ".attention."))
_LEGACY: tuple[Rule, ...] = (
    (r"^layer0\.conv(\d)\.", lambda m: f"stem.convolutions.{int(m[1]) - 1}."),
    (r"^layer0\.bn(\d)\.", lambda m: f"stem.norms.{int(m[1]) - 1}."),
    (r"^last_linear\.", "head.fc."),
    *_BLOCKS,
    (r"\.se_module\.", ".attention."),
)
_SE_LAYER: tuple[Rule, ...] = (
    (r"\.se\.fc\.0\.", ".attention.fc1."),
    (r"\.se\.fc\.2\.", ".attention.fc2."),
)
_CBAM: tuple[Rule, ...] = (
    (r"\.cbam\.ChannelGate\.mlp\.1\.", ".attention.channel.fc1."),
    (r"\.cbam\.ChannelGate\.mlp\.3\.", ".attention.channel.fc2."),
    (r"\.cbam\.SpatialGate\.spatial\.conv\.", ".attention.spatial.conv."),
    (r"\.cbam\.SpatialGate\.spatial\.bn\.", ".attention.spatial.norm."),
)
_CLIPS: tuple[Rule, ...] = (
    (r"^fc\.", "head.fc."),
    _STAGES,
    (r"\.conv(\d)\.1\.", r".norm\1."),
    (r"\.conv(\d)\.0\.", r".conv\1."),
    (r"\.downsample\.", ".shortcut."),
)
_VIDEO: tuple[Rule, ...] = (
    (r"^stem\.0\.", "stem.convolutions.0."),
    (r"^stem\.1\.", "stem.norms.0."),
    *_CLIPS,
)
_R2PLUS1D: tuple[Rule, ...] = (
    (r"^stem\.([013])\.", r"stem.convolutions.0.\1."),
    (r"^stem\.4\.", "stem.norms.0."),
    *_CLIPS,
)

_A = "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool"
_B = "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3"
_C = "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool"
_D = "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4"
_E = "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool"
_MIXED = {"5": {"b": _A, "c": _A, "d": _A}, "6": {"a": _B, "b": _C, "c": _C, "d": _C, "e": _C}}
_MIXED |= {"7": {"a": _D, "b": _E, "c": _E}}


@cache
def _inception_units() -> dict[str, str]:
    """Pair torchvision's names of the convolutions of Inception-v3 with nlden's, in their order."""
    stem = [f"Conv2d_{unit}" for unit in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")]
    names = stem + [
        f"Mixed_{stage}{block}.branch{unit}"
        for stage, blocks in _MIXED.items()
        for block, units in blocks.items()
        for unit in units.split()
    ]
    names += ["AuxLogits.conv0", "AuxLogits.conv1"]
    with torch.device("meta"):
        network = InceptionV3(1, auxiliary=True)
    units = [name for name, module in network.named_modules() if isinstance(module, Unit)]
    return dict(zip(names, units, strict=True))


def _inception(name: str) -> str:
    return _inception_units().get(name, name)


_INCEPTION: tuple[Rule, ...] = (
    (r"^(.+)\.conv\.", lambda m: f"{_inception(m[1])}.conv."),
    (r"^(.+)\.bn\.", lambda m: f"{_inception(m[1])}.norm."),
    (r"^AuxLogits\.fc\.", "auxiliary.3.fc."),
    (r"^fc\.", "head.fc."),
)
_SE_INCEPTION: tuple[Rule, ...] = (
    (r"^model\.(Mixed_\w\w|AuxLogits)\.SELayer\.fc\.[02]\.weight$", None),
    (r"^model\.", ""),
    *_INCEPTION,
)

_CAFFE = partial(Bottleneck, stride_first=True)
_CAFFE_BASIC = partial(BasicBlock, relu_before_attention=True)

REFERENCES: dict[str, tuple[Callable[..., nn.Module], tuple[Rule, ...]]] = {
    **{f"timm.seresnet{depth}": (partial(_timm, depth, None), _TIMM) for depth in BLOCKS},
    "timm.seresnext50_32x4d": (partial(_timm, 50, RESNEXT), _TIMM),
    "timm.seresnext101_32x4d": (partial(_timm, 101, RESNEXT), _TIMM),
    **{
        f"timm.legacy_seresnet{depth}": (
            partial(_legacy, _CAFFE_BASIC if depth < 50 else _CAFFE, blocks, False),
            _LEGACY,
        )
        for depth, (_, blocks) in BLOCKS.items()
    },
    "timm.legacy_seresnext26_32x4d": (partial(_legacy, RESNEXT, (2, 2, 2, 2), False), _LEGACY),
    "timm.legacy_seresnext50_32x4d": (partial(_legacy, RESNEXT, (3, 4, 6, 3), False), _LEGACY),
    "timm.legacy_seresnext101_32x4d": (partial(_legacy, RESNEXT, (3, 4, 23, 3), False), _LEGACY),
    "timm.legacy_senet154": (partial(_legacy, SENET, (3, 8, 36, 3), True), _LEGACY),
    **{f"torchvision.resnet{d}": (partial(_torchvision, d, None), _RESNET) for d in BLOCKS},
    "torchvision.resnext50_32x4d": (partial(_torchvision, 50, RESNEXT), _RESNET),
    "torchvision.inception_v3": (_torchvision_inception, _INCEPTION),
    "torchvision.r3d_18": (partial(_torchvision_video, r3d_18), _VIDEO),
    "torchvision.mc3_18": (partial(_torchvision_video, mc3_18), _VIDEO),
    "torchvision.r2plus1d_18": (
        partial(_torchvision_video, partial(r2plus1d_18, middle="block")),
        _R2PLUS1D,
    ),
    "moskomule.se_resnet20": (_moskomule_cifar, (*_RESNET, *_SE_LAYER)),
    "moskomule.se_inception_v3": (_moskomule_inception, _SE_INCEPTION),
    "jongchan.ResidualNet": (_jongchan, (*_RESNET, *_CBAM)),
}
"""For each reference what builds its network and how its parameters are renamed."""
