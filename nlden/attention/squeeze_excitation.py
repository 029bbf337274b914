"""Squeeze-and-Excitation.

J. Hu, L. Shen, G. Sun: "Squeeze-and-Excitation Networks", CVPR 2018 (arXiv 1709.01507).
With one layer instead of two: Y. Lee, J. Park: "CenterMask", CVPR 2020 (arXiv 1911.06667).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nlden.attention.affinity import tracing
from nlden.attention.layers import (
    batch_norm,
    check_map,
    linear,
    pooled_maximum,
    pooled_mean,
    squeezed_width,
)
from nlden.attention.precision import at_least_float32, full_precision

_PIECE = 1 << 22  # numbers of a large map that are gated at a time


class SqueezeExcitation(nn.Module):
    """Re-weight channels by a gate computed from their mean.

    The squeeze takes the mean of each channel; the excitation passes the means through two
    fully connected layers, ``sigmoid(fc2(relu(fc1(mean))))``, and the input is multiplied by
    the result (equations 2 to 4 of the paper). Means and gate are computed in float32 or more.

    ``presets`` holds the arguments in which public implementations differ from the paper:
    ``SqueezeExcitation(64, **SqueezeExcitation.presets["timm"])``.

    The paper's mean runs over the whole map, so the gate of a pixel depends on how much of the
    picture is looked at. With ``window`` the mean of each position runs over the ``window``
    positions centred on it (fewer at the border of the map): its extent is then the same
    whatever the size of the map, and a tile computes what the whole picture computes.

    Args:
        channels: number of channels C.
        reduction: the inner width is ``channels // reduction`` (paper: 16); None is the gate of
            CenterMask, a single layer ``fc1`` of C to C, without activation.
        inner: the inner width itself, whatever ``reduction`` says.
        divisor: round ``channels / reduction`` to the nearest multiple of this, at least once
            it (paper: ``channels // reduction``; timm: 8).
        bias: whether the layers have biases (paper: no; torchvision, timm, CenterMask: yes).
        activation: builds what follows ``fc1``.
        norm: builds, from the inner width, the batch norm between ``fc1`` and the activation;
            None is nothing (paper).
        gate: builds what ends the excitation (CenterMask: :class:`torch.nn.Hardsigmoid`).
        maximum: squeeze to the average of mean and maximum (paper: the mean alone).
        window: odd extent, in positions, of the squeeze in every direction; None is the whole
            map.

    Shape:
        ``(B, C, *size)`` to the same, for one, two or three dimensions of size.

    Raises:
        ValueError: if the inner width would be zero, the window is not odd and positive, a
            single layer is given an inner width or norm, or the input is no map of C channels.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "official": {"bias": True},  # the authors' Caffe models
        "moskomule": {},
        "timm": {"bias": True, "divisor": 8},
        "torchvision": {"bias": True},
    }

    def __init__(
        self,
        channels: int,
        *,
        reduction: int | None = 16,
        inner: int | None = None,
        divisor: int | None = None,
        bias: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
        norm: Callable[[int], _BatchNorm] | None = None,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
        maximum: bool = False,
        window: int | None = None,
    ) -> None:
        super().__init__()
        if window is not None and (window < 1 or window % 2 == 0):
            raise ValueError(f"window={window} must be a positive odd number or None")
        self.channels = channels
        self.maximum = maximum
        self.window = window
        self.fc2: nn.Linear | None = None
        self.norm: _BatchNorm | None = None
        if reduction is None:
            if inner is not None or divisor is not None or norm is not None:
                raise ValueError(
                    f"reduction=None is a single layer: inner={inner}, divisor={divisor} and "
                    f"norm={norm} must be None"
                )
            self.fc1 = nn.Linear(channels, channels, bias=bias)
        else:
            inner = squeezed_width(channels, reduction, inner, divisor)
            self.fc1 = nn.Linear(channels, inner, bias=bias)
            self.norm = None if norm is None else norm(inner)
            self.activation = activation()
            self.fc2 = nn.Linear(inner, channels, bias=bias)
        self.gate = gate()

    @property
    def reach(self) -> int | None:
        """How many positions away an input changes an output; None: any distance."""
        return None if self.window is None else self.window // 2

    def squeeze(self, x: Tensor) -> Tensor:
        """Return the squeezed map, ``(B, C, 1, ...)`` or, with a window, ``(B, C, *size)``."""
        if self.window is None:
            size = tuple(range(2, x.ndim))
            mean = pooled_mean(x, size)
            return (mean + pooled_maximum(x, size)) / 2 if self.maximum else mean
        largest = at_least_float32(x)
        mean = box_mean(largest, self.window)
        if not self.maximum:
            return mean
        for axis in range(2, x.ndim):
            largest = _maximum_along(largest, axis, self.window)
        return (mean + largest) / 2

    def excite(self, y: Tensor) -> Tensor:
        """Return the gates of what the first layer has made of the squeezed map."""
        if self.fc2 is not None:
            if self.norm is not None:
                y = batch_norm(self.norm, y)
            y = self._linear(self.fc2, self.activation(y))
        return self.gate(y)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times its gate."""
        check_map(x, self.channels)
        with full_precision(x):
            if self.window is not None and self.fc2 is not None and not self.maximum:
                return self._gate_windows(x, self.window)
            squeezed = self._linear(self.fc1, self.squeeze(x))
            return (x * self.excite(squeezed)).to(x.dtype)

    def _gate_windows(self, x: Tensor, window: int) -> Tensor:
        """Return ``x`` times its gate: the mean of the few projections projects the mean.

        Of large maps only these are made whole.
        """
        step = x.shape[2]
        if not (self.training or torch.is_grad_enabled() or tracing()):
            step = max(1, step * _PIECE // max(1, x.numel()))
        pieces = x.split(step, dim=2)
        narrow = [self._linear(self.fc1, at_least_float32(piece)) for piece in pieces]
        gates = box_mean(_joined(narrow), window).split(step, dim=2)
        if len(pieces) == 1:
            return (x * self.excite(gates[0])).to(x.dtype)
        result = torch.empty_like(x)
        for piece, gate, place in zip(pieces, gates, result.split(step, dim=2), strict=True):
            place.copy_(piece * self.excite(gate))
        return result

    @staticmethod
    def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
        return linear(layer, x.movedim(1, -1)).movedim(-1, 1)


def _joined(pieces: list[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def box_mean(x: Tensor, window: int) -> Tensor:
    """Return the mean over a centred window, of the positions that lie inside the map.

    Args:
        x: ``(B, C, *size)``.
        window: odd extent along every axis.

    Returns:
        The shape of ``x``.
    """
    reach = window // 2
    # The mean along one axis after the other; sums of whole maps take a tenth of pooling's time.
    for axis in range(2, x.ndim):
        size, after = x.shape[axis], x.ndim - 1 - axis
        padded = F.pad(x, (*[0] * 2 * after, reach, reach))
        total = padded.narrow(axis, 0, size).clone()
        for step in range(1, window):
            total += padded.narrow(axis, step, size)
        place = torch.arange(size, device=x.device)
        inside = 1 + place.clamp(max=reach) + place.flip(0).clamp(max=reach)
        x = total / inside.to(x.dtype).view(-1, *[1] * after)
    return x


def _maximum_along(x: Tensor, axis: int, window: int) -> Tensor:
    """Return the largest of a centred window along one axis."""
    batch, channels, *_ = x.shape
    before, size, after = math.prod(x.shape[2:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    flat = x.reshape(batch, channels * before, size, after)
    return F.max_pool2d(flat, (window, 1), stride=1, padding=(window // 2, 0)).reshape(x.shape)
