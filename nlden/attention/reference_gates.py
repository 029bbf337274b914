"""How public implementations of gates are built from nlden's blocks.

Squeeze-and-Excitation, CBAM and global context of moskomule's, Jongchan's and timm's code and of
torchvision. Each function takes the arguments of a reference class and returns the nlden block
with the names that the reference gives its parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlden.attention.cbam import CBAM, ChannelGate, SpatialGate
from nlden.attention.global_context import GlobalContext
from nlden.attention.squeeze_excitation import SqueezeExcitation

T = TypeVar("T")
Layer = str | Callable[..., nn.Module]
"""An activation by timm's name, or what builds it."""
Built = tuple[nn.Module, Mapping[str, str]]
"""A block, and for its modules or parameters the reference's names where these differ."""


def choice(argument: str, given: object, allowed: Mapping[Any, T]) -> T:
    """Return what ``allowed`` has for a value; a ValueError names argument, value and choice."""
    if given not in allowed:
        raise ValueError(f"{argument}={given!r} must be one of {', '.join(map(str, allowed))}")
    return allowed[given]


def _moskomule_se(*, channel: int, reduction: int = 16) -> Built:
    return SqueezeExcitation(channel, reduction=reduction), {"fc1": "fc.0", "fc2": "fc.2"}


def _torchvision_se(
    *,
    input_channels: int,
    squeeze_channels: int,
    activation: Callable[..., nn.Module] = nn.ReLU,
    scale_activation: Callable[..., nn.Module] = nn.Sigmoid,
) -> Built:
    block = SqueezeExcitation(
        input_channels,
        inner=squeeze_channels,
        bias=True,
        activation=activation,
        gate=scale_activation,
    )
    return block, {"gate": "scale_activation"}


_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hard_sigmoid": nn.Hardsigmoid,
    "hardsigmoid": nn.Hardsigmoid,
    "hard_swish": nn.Hardswish,
    "hardswish": nn.Hardswish,
    "identity": nn.Identity,
}


def _layer(argument: str, given: Layer) -> Callable[..., nn.Module]:
    return given if callable(given) else choice(argument, given, _LAYERS)


def timm_width(
    channels: int, ratio: float, width: int | None, divisor: int, least: float = 0.0
) -> int:
    """Return timm's inner width: the nearest multiple of ``divisor``, at least a share of it."""
    if width:
        return width
    wanted = channels * ratio
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least * wanted else rounded


def _timm_se(
    *,
    channels: int,
    rd_ratio: float = 1 / 16,
    rd_channels: int | None = None,
    rd_divisor: int = 8,
    add_maxpool: bool = False,
    bias: bool = True,
    act_layer: Layer = nn.ReLU,
    norm_layer: Callable[[int], _BatchNorm] | None = None,
    gate_layer: Layer = "sigmoid",
    device: object = None,
    dtype: object = None,
) -> Built:
    block = SqueezeExcitation(
        channels,
        inner=timm_width(channels, rd_ratio, rd_channels, rd_divisor),
        bias=bias,
        maximum=add_maxpool,
        activation=_layer("act_layer", act_layer),
        norm=norm_layer,
        gate=_layer("gate_layer", gate_layer),
    )
    return block, {"norm": "bn", "activation": "act"}


def _timm_effective_se(
    *,
    channels: int,
    add_maxpool: bool = False,
    gate_layer: Layer = "hard_sigmoid",
    device: object = None,
    dtype: object = None,
) -> Built:
    gate = _layer("gate_layer", gate_layer)
    block = SqueezeExcitation(channels, reduction=None, bias=True, maximum=add_maxpool, gate=gate)
    return block, {"fc1": "fc"}


def _timm_cbam(
    light: bool,
    /,
    *,
    channels: int,
    rd_ratio: float = 1 / 16,
    rd_channels: int | None = None,
    rd_divisor: int = 1,
    spatial_kernel_size: int = 7,
    act_layer: Layer = nn.ReLU,
    gate_layer: Layer = "sigmoid",
    mlp_bias: bool = False,
    device: object = None,
    dtype: object = None,
) -> Built:
    """Gates of the light variant are sigmoids, whatever ``gate_layer`` says."""
    gate = _layer("gate_layer", gate_layer)
    block = CBAM(
        channels,
        inner=timm_width(channels, rd_ratio, rd_channels, rd_divisor),
        bias=mlp_bias,
        kernel=spatial_kernel_size,
        norm=True,
        merge=light,
        activation=_layer("act_layer", act_layer),
        gate=nn.Sigmoid if light else gate,
    )
    names = {"spatial.conv": "spatial.conv.conv", "spatial.norm": "spatial.conv.bn"}
    return block, {"channel.activation": "channel.act"} | names


def _timm_global_context(
    *,
    channels: int,
    use_attn: bool = True,
    fuse_add: bool = False,
    fuse_scale: bool = True,
    init_last_zero: bool = False,
    rd_ratio: float = 1 / 8,
    rd_channels: int | None = None,
    rd_divisor: int = 1,
    act_layer: Layer = nn.ReLU,
    gate_layer: Layer = "sigmoid",
    device: object = None,
    dtype: object = None,
) -> Built:
    block = GlobalContext(
        channels,
        inner=timm_width(channels, rd_ratio, rd_channels, rd_divisor),
        attention=use_attn,
        add=fuse_add,
        scale=fuse_scale,
        eps=1e-6,
        activation=_layer("act_layer", act_layer),
        gate=_layer("gate_layer", gate_layer),
    )
    names = {f"{way}.activation": f"mlp_{way}.act" for way in ("add", "scale")}
    return block, names | {"key": "conv_attn", "add": "mlp_add", "scale": "mlp_scale"}


_MLP = {"fc1": "mlp.1", "fc2": "mlp.3"}
_SPATIAL = {"conv": "spatial.conv", "norm": "spatial.bn"}
_AVG_MAX = ("avg", "max")


def _jongchan_channel(
    *, gate_channels: int, reduction_ratio: int = 16, pool_types: Sequence[str] = _AVG_MAX
) -> Built:
    official = ChannelGate.presets["official"]
    block = ChannelGate(gate_channels, reduction=reduction_ratio, pools=pool_types, **official)
    return block, _MLP


def _jongchan_spatial() -> Built:
    return SpatialGate(**SpatialGate.presets["official"]), _SPATIAL


def _jongchan_cbam(
    *,
    gate_channels: int,
    reduction_ratio: int = 16,
    pool_types: Sequence[str] = _AVG_MAX,
    no_spatial: bool = False,
) -> Built:
    block = CBAM(
        gate_channels,
        reduction=reduction_ratio,
        pools=pool_types,
        spatial=not no_spatial,
        **CBAM.presets["official"],
    )
    names = {f"channel.{new}": f"ChannelGate.{old}" for new, old in _MLP.items()}
    return block, names | {f"spatial.{new}": f"SpatialGate.{old}" for new, old in _SPATIAL.items()}


GATES: dict[str, Callable[..., Built]] = {
    "moskomule.SELayer": _moskomule_se,
    "torchvision.SqueezeExcitation": _torchvision_se,
    "timm.SEModule": _timm_se,
    "timm.EffectiveSEModule": _timm_effective_se,
    "timm.CbamModule": partial(_timm_cbam, False),
    "timm.LightCbamModule": partial(_timm_cbam, True),
    "timm.GlobalContext": _timm_global_context,
    "jongchan.ChannelGate": _jongchan_channel,
    "jongchan.SpatialGate": _jongchan_spatial,
    "jongchan.CBAM": _jongchan_cbam,
}
"""For each reference what builds its block."""
