"""Convolutional Block Attention Module.

S. Woo, J. Park, J.-Y. Lee, I. S. Kweon: "CBAM: Convolutional Block Attention Module", ECCV 2018
(arXiv 1807.06521).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nlden.attention.layers import (
    BATCH_NORMS,
    CONVOLUTIONS,
    batch_norm,
    check_dimensions,
    check_map,
    linear,
    pooled_maximum,
    pooled_mean,
    spread,
    squeezed_width,
)
from nlden.attention.precision import at_least_float32, full_precision, project


def _norm(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, 2, dim, keepdim=True, dtype=dtype)


def _log_sum_exp(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    return torch.logsumexp(at_least_float32(x), dim, keepdim=True)


_PLANES = {"avg": pooled_mean, "max": pooled_maximum}
_POOLS = _PLANES | {"lp": _norm, "lse": _log_sum_exp}


def _check_names(argument: str, names: Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple; a ValueError says what is wrong with them."""
    if isinstance(names, str) or not names or not set(names) <= set(allowed):
        raise ValueError(f"{argument}={names!r} must be one or more of {', '.join(allowed)}")
    return tuple(names)


class ChannelGate(nn.Module):
    """Re-weight channels by a gate computed from several pooled descriptions of each.

    ``sigmoid(sum_p fc2(relu(fc1(pool_p(x)))))``: all poolings share the two layers, and one
    sigmoid ends their sum (equation 2 of the paper, with mean and maximum). Poolings and gate
    are computed in float32 or more.

    Args:
        channels: number of channels C.
        reduction: the inner width is ``channels // reduction`` (paper: 16).
        inner: the inner width itself, whatever ``reduction`` says.
        divisor: round ``channels / reduction`` to the nearest multiple of this, at least once
            it (paper: ``channels // reduction``; timm: 1).
        bias: whether the two layers have biases (paper, timm: no; authors' code: yes).
        pools: what is pooled over all positions (paper: mean and maximum), each one of ``avg``;
            ``max``; ``lp``, the Euclidean norm, not divided by the number of positions; ``lse``,
            the logarithm of the sum of exponentials.
        merge: pass the mean of the poolings through the layers instead of each of them (timm's
            light variant).
        activation: builds what follows ``fc1``.
        gate: builds what ends the sum.

    Shape:
        ``(B, C, *size)`` to the same, for one, two or three dimensions of size.

    Raises:
        ValueError: if the inner width would be zero, a pooling is unknown, or the input is no
            map of C channels.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "official": {"bias": True},  # the authors' code, Jongchan's
        "timm": {"divisor": 1},
    }

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        inner: int | None = None,
        divisor: int | None = None,
        bias: bool = False,
        pools: Sequence[str] = ("avg", "max"),
        merge: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        inner = squeezed_width(channels, reduction, inner, divisor)
        self.channels = channels
        self.pools = _check_names("pools", pools, list(_POOLS))
        self.merge = merge
        self.fc1 = nn.Linear(channels, inner, bias=bias)
        self.activation = activation()
        self.fc2 = nn.Linear(inner, channels, bias=bias)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times its gate."""
        check_map(x, self.channels)
        size = tuple(range(2, x.ndim))
        with full_precision(x):
            pooled = torch.stack([_POOLS[name](x, size).flatten(1) for name in self.pools])
            if self.merge:
                pooled = pooled.mean(0, keepdim=True)
            logits = linear(self.fc2, self.activation(linear(self.fc1, pooled))).sum(0)
            return (x * spread(self.gate(logits), x)).to(x.dtype)


class SpatialGate(nn.Module):
    """Re-weight positions by a gate computed from mean and maximum over the channels.

    ``sigmoid(conv([mean; max]))`` (equation 3 of the paper). Planes and gate are computed in
    float32 or more.

    Args:
        kernel: odd extent of the convolution (paper: 7).
        planes: the planes in their order, of ``avg`` and ``max`` (paper, timm: mean first;
            authors' code: maximum first).
        merge: convolve the mean of the planes instead of each of them (timm's light variant).
        norm: whether a batch norm follows the convolution (paper: no; authors' code, timm: yes).
        eps: added to its variance.
        momentum: weight of a batch in its running statistics (authors' code: 0.01; timm: 0.1).
        gate: builds what ends the gate.
        dimensions: of the map's size: 1, 2 or 3.

    Shape:
        ``(B, C, *size)`` to the same, for any C.

    Raises:
        ValueError: if the kernel is not odd and positive, a plane unknown, ``dimensions`` not 1,
            2 or 3, or the input no map of so many dimensions.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "official": {"planes": ("max", "avg"), "norm": True, "momentum": 0.01},
        "timm": {"norm": True},
    }

    def __init__(
        self,
        *,
        kernel: int = 7,
        planes: Sequence[str] = ("avg", "max"),
        merge: bool = False,
        norm: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be a positive odd number")
        check_dimensions(dimensions)
        self.planes = _check_names("planes", planes, list(_PLANES))
        self.merge = merge
        self.dimensions = dimensions
        width = 1 if merge else len(self.planes)
        self.conv = CONVOLUTIONS[dimensions](width, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = BATCH_NORMS[dimensions](1, eps=eps, momentum=momentum) if norm else None
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times its gate."""
        check_map(x, dimensions=self.dimensions)
        with full_precision(x):
            planes = torch.cat([_PLANES[name](x, (1,)) for name in self.planes], dim=1)
            if self.merge:
                planes = planes.mean(1, keepdim=True)
            logits = project(self.conv, planes)
            if self.norm is not None:
                logits = batch_norm(self.norm, logits)
            return (x * self.gate(logits)).to(x.dtype)


class CBAM(nn.Module):
    """Channel gate, then spatial gate (equation 1 of the paper), or either alone.

    ``presets`` holds the arguments in which public implementations differ from the paper:
    ``CBAM(64, **CBAM.presets["official"])``. The gates have presets of their own.

    Args:
        channels: number of channels C.
        reduction: of the channel gate (paper: 16).
        inner: inner width of the channel gate, whatever ``reduction`` says.
        divisor: rounding of that width, as in :class:`ChannelGate`.
        bias: of the channel gate's layers (paper: no).
        pools: of the channel gate.
        kernel: of the spatial gate (paper: 7).
        planes: of the spatial gate, in their order.
        norm: whether the spatial gate has a batch norm (paper: no).
        eps: of this norm.
        momentum: of this norm.
        merge: both gates see the mean of their poolings (timm's light variant).
        activation: builds what follows ``fc1`` of the channel gate.
        gate: builds what ends both gates.
        dimensions: of the map's size: 1, 2 or 3.
        channel: whether there is a channel gate.
        spatial: whether there is a spatial gate.

    Shape:
        ``(B, C, *size)`` to the same.

    Raises:
        ValueError: if both gates are switched off, and wherever :class:`ChannelGate` and
            :class:`SpatialGate` raise it.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {**channel, **SpatialGate.presets[name]}
        for name, channel in ChannelGate.presets.items()
    }

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        inner: int | None = None,
        divisor: int | None = None,
        bias: bool = False,
        pools: Sequence[str] = ("avg", "max"),
        kernel: int = 7,
        planes: Sequence[str] = ("avg", "max"),
        norm: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
        merge: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
        dimensions: int = 2,
        channel: bool = True,
        spatial: bool = True,
    ) -> None:
        super().__init__()
        if not channel and not spatial:
            raise ValueError(f"channel={channel} and spatial={spatial}: one of them must be True")
        check_dimensions(dimensions)
        self.channels = channels
        self.dimensions = dimensions
        self.channel = self.spatial = None
        if channel:
            self.channel = ChannelGate(
                channels,
                reduction=reduction,
                inner=inner,
                divisor=divisor,
                bias=bias,
                pools=pools,
                merge=merge,
                activation=activation,
                gate=gate,
            )
        if spatial:
            self.spatial = SpatialGate(
                kernel=kernel,
                planes=planes,
                merge=merge,
                norm=norm,
                eps=eps,
                momentum=momentum,
                gate=gate,
                dimensions=dimensions,
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated map."""
        check_map(x, self.channels, self.dimensions)
        if self.channel is not None:
            x = self.channel(x)
        return x if self.spatial is None else self.spatial(x)
