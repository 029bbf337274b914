"""Global context block.

Y. Cao, J. Xu, S. Lin, F. Wei, H. Hu: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks
and Beyond", ICCV Workshops 2019 (arXiv 1904.11492).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention.layers import check_map, linear, pooled_mean, spread, squeezed_width
from nlden.attention.precision import at_least_float32, full_precision, project


class Bottleneck(nn.Module):
    """``fc2(relu(norm(fc1(context))))``, the transform of the global context block.

    Args:
        channels: number of channels C.
        inner: width between the two layers.
        eps: added to the variance of the layer norm.
        activation: builds what follows the norm.

    Shape:
        ``(B, C)`` in float32 or more, to the same.
    """

    def __init__(
        self, channels: int, inner: int, eps: float, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, inner)
        self.norm = nn.LayerNorm(inner, eps=eps)
        self.activation = activation()
        self.fc2 = nn.Linear(inner, channels)

    def forward(self, context: Tensor) -> Tensor:
        """Return the transformed context."""
        norm = self.norm
        weight, bias = (p.to(context.dtype) for p in (norm.weight, norm.bias))
        y = linear(self.fc1, context)
        y = F.layer_norm(y, norm.normalized_shape, weight, bias, norm.eps)
        return linear(self.fc2, self.activation(y))


class GlobalContext(nn.Module):
    """Give every position one context, gathered by an attention that all positions share.

    ``z_i = x_i + W_v2 relu(LN(W_v1 c))`` with ``c = sum_j softmax_j(W_k x_j) x_j``: the
    simplified non-local block with a bottleneck (equation 4 and figure 4d of the paper). The
    context can also scale the channels, ``x_i * sigmoid(...)``, before it is added, each through
    its own bottleneck. Softmax, sums and bottlenecks are computed in float32 or more.

    The last layer of the added context starts at zero, so that a new block that only adds is
    the identity.

    Args:
        channels: number of channels C.
        reduction: the inner width is ``channels // reduction`` (paper: 16; timm: 8).
        inner: the inner width itself, whatever ``reduction`` says.
        divisor: round ``channels / reduction`` to the nearest multiple of this, at least once
            it (paper: ``channels // reduction``; timm: 1).
        attention: gather by attention (paper); otherwise the context is the mean.
        add: add the transformed context (paper; not in timm's default).
        scale: multiply by the gate of the transformed context (timm's default).
        zero_bias: whether the bias of the last layer starts at zero like its weight (authors'
            code: yes; timm: no).
        eps: of the layer norms (authors' code: 1e-5; timm: 1e-6).
        activation: builds what follows the layer norms.
        gate: builds what ends the scaling.

    Shape:
        ``(B, C, *size)`` to the same, for one, two or three dimensions of size.

    Raises:
        ValueError: if the inner width would be zero, the context is neither added nor scales,
            or the input is no map of C channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        inner: int | None = None,
        divisor: int | None = None,
        attention: bool = True,
        add: bool = True,
        scale: bool = False,
        zero_bias: bool = True,
        eps: float = 1e-5,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        if not add and not scale:
            raise ValueError(f"add={add} and scale={scale}: one of them must be True")
        inner = squeezed_width(channels, reduction, inner, divisor)
        self.channels = channels
        self.key = nn.Conv1d(channels, 1, 1) if attention else None
        self.add = Bottleneck(channels, inner, eps, activation) if add else None
        self.scale = Bottleneck(channels, inner, eps, activation) if scale else None
        self.gate = gate()
        if self.add is not None:
            nn.init.zeros_(self.add.fc2.weight)
            if zero_bias:
                nn.init.zeros_(self.add.fc2.bias)

    def context(self, x: Tensor) -> Tensor:
        """Return what is gathered, ``(B, C)``, in float32 or more."""
        if self.key is None:
            return pooled_mean(x, tuple(range(2, x.ndim))).flatten(1)
        value = at_least_float32(x).flatten(2)
        weights = project(self.key, value).softmax(dim=2)
        return torch.bmm(value, weights.mT).squeeze(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map with its context."""
        check_map(x, self.channels)
        with full_precision(x):
            context = self.context(x)
            y = x
            if self.scale is not None:
                y = y * spread(self.gate(self.scale(context)), x)
            if self.add is not None:
                y = y + spread(self.add(context), x)
            return y.to(x.dtype)
