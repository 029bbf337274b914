"""How public implementations of non-local and dual attention are built from nlden's blocks.

Those of timm, AlexHex7, mmcv, SlowFast, DANet's authors and mmseg. Each function takes the
arguments of a reference class and returns the nlden block with the names that the reference gives
its parameters.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, get_args

from torch import nn

from nlden.attention.dual_attention import ChannelAttention, DualAttentionHead, PositionAttention
from nlden.attention.layers import BATCH_NORMS
from nlden.attention.non_local import NonLocal1d, NonLocal2d, NonLocal3d, Pairwise
from nlden.attention.reference_gates import Built, choice, timm_width

Config = Mapping[str, Any]
"""The ``type`` of a layer and its arguments, as mmcv writes them."""


def _timm_non_local(
    *,
    in_channels: int,
    use_scale: bool = True,
    rd_ratio: float = 1 / 8,
    rd_channels: int | None = None,
    rd_divisor: int = 8,
    device: object = None,
    dtype: object = None,
) -> Built:
    inner = timm_width(in_channels, rd_ratio, rd_channels, rd_divisor, least=0.9)
    block = NonLocal2d(in_channels, inner=inner, scale="channels" if use_scale else None)
    return block, {"theta": "t", "phi": "p", "out": "z"}


_PAIRWISE = {name: name for name in get_args(Pairwise)}
_POOL: dict[int, int | tuple[int, ...]] = {1: 2, 2: 2, 3: (1, 2, 2)}  # never in time
_Block = type[NonLocal1d] | type[NonLocal2d] | type[NonLocal3d]


def _alexhex7(
    block: _Block,
    /,
    *,
    in_channels: int,
    inter_channels: int | None = None,
    mode: str = "embedded_gaussian",
    sub_sample: bool = True,
    bn_layer: bool = True,
) -> Built:
    """Each mode has a file of its own in the reference, with a class of the same name."""
    built = block(
        in_channels,
        inner=max(1, in_channels // 2) if inter_channels is None else inter_channels,
        pairwise=choice("mode", mode, _PAIRWISE),
        norm="batch" if bn_layer else None,
        subsample=_POOL[block.dims] if sub_sample else None,
        subsample_at="projections",
    )
    names = {"out": "W.0" if bn_layer else "W", "norm": "W.1", "concat": "concat_project.0"}
    return built, names | ({"g": "g.0", "phi": "phi.0"} if sub_sample else {})


def _mmcv(
    block: _Block,
    /,
    *,
    in_channels: int,
    reduction: int = 2,
    use_scale: bool = True,
    conv_cfg: Config | None = None,
    norm_cfg: Config | None = None,
    mode: str = "embedded_gaussian",
    sub_sample: bool = False,
    std: float = 0.01,
    zeros_init: bool = True,
) -> Built:
    """The scale is that of the embedded Gaussian alone; W_z has no bias before a norm."""
    if reduction < 1:
        raise ValueError(f"reduction={reduction} must be at least 1")
    _check_convolution(conv_cfg, block.dims)
    norm, norm_name = _norm(norm_cfg, block.dims)
    built = block(
        in_channels,
        inner=max(1, in_channels // reduction),
        pairwise=choice("mode", mode, _PAIRWISE),
        scale="inner" if use_scale and mode == "embedded_gaussian" else None,
        out_bias=norm is None,
        norm=norm,
        subsample=_POOL[block.dims] if sub_sample else None,
        subsample_at="projections",
    )
    pooled = ".0" if sub_sample else ""
    names = {"theta": "theta.conv", "phi": f"phi{pooled}.conv", "g": f"g{pooled}.conv"}
    names |= {"concat": "concat_project.conv", "out": "conv_out.conv"}
    return built, names | {"norm": f"conv_out.{norm_name}"}


def _check_convolution(cfg: Config | None, dims: int) -> None:
    names = {f"Conv{dims}d", *(["Conv"] if dims == 2 else [])}
    if cfg is not None and (set(cfg) != {"type"} or cfg["type"] not in names):
        raise ValueError(f"conv_cfg={cfg} must be None or {{'type': 'Conv{dims}d'}}")


def _norm(cfg: Config | None, dims: int) -> tuple[Callable[[int], nn.Module] | None, str]:
    """Return what builds mmcv's norm, and the name that mmcv gives it."""
    if cfg is None:
        return None, ""
    arguments = dict(cfg)
    kind, trainable = arguments.pop("type", None), arguments.pop("requires_grad", True)
    batch, group = (BATCH_NORMS[dims], "num_features", "bn"), (nn.GroupNorm, "num_channels", "gn")
    types = {"BN": batch, f"BN{dims}d": batch, "SyncBN": batch, "GN": group}
    layer, width, name = choice("type of norm_cfg", kind, types)
    allowed = set(inspect.signature(layer).parameters) - {width, "device", "dtype"}
    if not set(arguments) <= allowed or (layer is nn.GroupNorm and "num_groups" not in arguments):
        raise ValueError(
            f"norm_cfg={cfg} must have arguments of {kind}: {', '.join(sorted(allowed))}"
        )
    return lambda channels: layer(**{width: channels}, **arguments).requires_grad_(trainable), name


def _slowfast(
    *,
    dim: int,
    dim_inner: int,
    pool_size: Sequence[int] | None = None,
    instantiation: str = "softmax",
    norm_type: str = "batchnorm",
    zero_init_final_conv: bool = False,
    zero_init_final_norm: bool = True,
    norm_eps: float = 1e-5,
    norm_momentum: float = 0.1,
) -> Built:
    """The reference's layer norm is one over all channels and positions, without weights."""
    norms: dict[str, Callable[[int], nn.Module] | None] = {
        "batchnorm": partial(nn.BatchNorm3d, eps=norm_eps, momentum=norm_momentum),
        "layernorm": partial(nn.GroupNorm, 1, eps=norm_eps, affine=False),
        "none": None,
    }
    forms: dict[str, Pairwise] = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
    block = NonLocal3d(
        dim,
        inner=dim_inner,
        pairwise=choice("instantiation", instantiation, forms),
        scale="inner",
        norm=choice("norm_type", norm_type, norms),
        subsample=pool_size,
    )
    return block, {layer: f"conv_{layer}" for layer in ("theta", "phi", "g", "out")}


_PAM = {layer: f"{layer}_conv" for layer in ("query", "key", "value")}


def _danet_position(*, in_dim: int) -> Built:
    return PositionAttention(in_dim, **PositionAttention.presets["official"]), _PAM


def _danet_channel(*, in_dim: int) -> Built:
    return ChannelAttention(inverted=True), {}


def _danet_head(
    *,
    in_channels: int,
    out_channels: int,
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> Built:
    official = DualAttentionHead.presets["official"]
    head = DualAttentionHead(in_channels, out_channels, norm=norm_layer, **official)
    names = {f"position.{new}": f"sa.{old}" for new, old in _PAM.items()}
    names |= {"position_in": "conv5a", "position": "sa", "position_out": "conv51"}
    names |= {"channel_in": "conv5c", "channel": "sc", "channel_out": "conv52"}
    names |= {"classify_position": "conv6", "classify_channel": "conv7", "classify_sum": "conv8"}
    return head, names


_MMSEG_PAM = {layer: f"{layer}_project" for layer in ("query", "key", "value")}
_MMSEG_PAM |= {"gamma": "gamma.scale"}


def _mmseg_position(*, in_channels: int, channels: int) -> Built:
    return PositionAttention(in_channels, inner=channels), _MMSEG_PAM


def _mmseg_channel() -> Built:
    return ChannelAttention(inverted=True), {"gamma": "gamma.scale"}


def _mmseg_head(
    *,
    in_channels: int,
    channels: int,
    pam_channels: int,
    num_classes: int,
    out_channels: int | None = None,
    threshold: float | None = None,
    dropout_ratio: float = 0.1,
    conv_cfg: Config | None = None,
    norm_cfg: Config | None = None,
    act_cfg: Config | None = MappingProxyType({"type": "ReLU"}),
    in_index: int = -1,
    input_transform: None = None,
    loss_decode: object = None,
    ignore_index: int | None = 255,
    sampler: object = None,
    align_corners: bool = False,
    init_cfg: object = None,
) -> Built:
    """The reference picks its input, number ``in_index``, from a list; nlden takes the input."""
    _check_convolution(conv_cfg, 2)
    if input_transform is not None:
        raise ValueError(f"input_transform={input_transform!r} must be None")
    if out_channels not in (None, num_classes):
        raise ValueError(f"out_channels={out_channels} must be None or num_classes={num_classes}")
    if act_cfg is None or act_cfg.get("type") != "ReLU" or not set(act_cfg) <= {"type", "inplace"}:
        raise ValueError(f"act_cfg={act_cfg} must be {{'type': 'ReLU'}}")
    norm, norm_name = _norm(norm_cfg, 2)
    head = DualAttentionHead(
        in_channels,
        num_classes,
        width=channels,
        inner=pam_channels,
        inverted=True,
        norm=norm or False,
        dropout=dropout_ratio,
    )
    names = {f"position.{new}": f"pam.{old}" for new, old in _MMSEG_PAM.items()}
    names |= {"channel.gamma": "cam.gamma.scale", "classify_sum.1": "conv_seg"}
    for new, old in (("position", "pam"), ("channel", "cam")):
        names[f"classify_{new}.1"] = f"{old}_conv_seg"
        for side in ("in", "out"):
            names[f"{new}_{side}.0"] = f"{old}_{side}_conv.conv"
            names[f"{new}_{side}.1"] = f"{old}_{side}_conv.{norm_name}"
    return head, names


_NON_LOCAL: dict[int, _Block] = {1: NonLocal1d, 2: NonLocal2d, 3: NonLocal3d}

AGGREGATIONS: dict[str, Callable[..., Built]] = {
    "timm.NonLocalAttn": _timm_non_local,
    **{f"alexhex7.NONLocalBlock{d}D": partial(_alexhex7, b) for d, b in _NON_LOCAL.items()},
    **{f"mmcv.NonLocal{d}d": partial(_mmcv, b) for d, b in _NON_LOCAL.items()},
    "slowfast.Nonlocal": _slowfast,
    "danet.PAM_Module": _danet_position,
    "danet.CAM_Module": _danet_channel,
    "danet.DANetHead": _danet_head,
    "mmseg.PAM": _mmseg_position,
    "mmseg.CAM": _mmseg_channel,
    "mmseg.DAHead": _mmseg_head,
}
"""For each reference what builds its block."""
