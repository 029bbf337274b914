"""What the blocks share: checks of arguments and inputs, widths, and layers in full precision."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nlden.attention.precision import at_least_float32

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
DROPOUTS = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}


def check_map(x: Tensor, channels: int | None = None, dimensions: int | None = None) -> None:
    """Refuse what is not a map.

    Args:
        x: what has been given for ``(B, C, *size)``.
        channels: the C that is wanted; None: any.
        dimensions: how many dimensions of size are wanted; None: one, two or three.

    Raises:
        ValueError: if rank or channels are others, or there are no positions.
    """
    allowed = (1, 2, 3) if dimensions is None else (dimensions,)
    if x.ndim - 2 not in allowed or channels not in (None, x.shape[1]):
        wanted = "C" if channels is None else channels
        count = " or ".join(map(str, allowed))
        raise ValueError(
            f"x of shape {tuple(x.shape)} must be (B, {wanted}, *size) "
            f"with {count} dimensions of size"
        )
    if 0 in x.shape[2:]:
        raise ValueError(f"x of shape {tuple(x.shape)} must have a position in every dimension")


def check_dimensions(dimensions: int) -> None:
    """Refuse other numbers of dimensions than 1, 2 and 3 with a ValueError."""
    if dimensions not in CONVOLUTIONS:
        raise ValueError(f"dimensions={dimensions} must be 1, 2 or 3")


def squeezed_width(
    channels: int, reduction: int, inner: int | None = None, divisor: int | None = None
) -> int:
    """Return the inner width of a gate.

    Args:
        channels: number of channels C.
        reduction: the width is ``channels // reduction``.
        inner: the width itself, which goes before ``reduction``.
        divisor: round ``channels / reduction`` to the nearest multiple of this, halves up, and
            not below it.

    Raises:
        ValueError: for arguments below one and a reduction that leaves no channel.
    """
    for name, value in (("channels", channels), ("inner", inner), ("divisor", divisor)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    if inner is not None:
        return inner
    if reduction < 1 or (divisor is None and reduction > channels):
        raise ValueError(
            f"reduction={reduction} leaves no channel of channels={channels}; "
            f"it must lie in 1..{channels}"
        )
    if divisor is None:
        return channels // reduction
    return max(divisor, int(channels / reduction + divisor / 2) // divisor * divisor)


def inner_width(channels: int, inner: int | None, reduction: int) -> int:
    """Return the width of projections: ``inner``, or ``channels // reduction`` without it.

    Raises:
        ValueError: if that is below one.
    """
    if inner is None:
        inner = channels // reduction if reduction > 0 else 0
    if inner < 1:
        raise ValueError(
            f"inner={inner} must be at least 1 (channels={channels}, reduction={reduction})"
        )
    return inner


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a fully connected layer in the precision of ``x``."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, layer.weight.to(x.dtype), bias)


def batch_norm(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Apply a batch norm in the precision of ``x``, in training and with fixed statistics.

    A single value per channel is its own mean, so that the shift is all that remains, and says
    nothing about the variance: then the running statistics stay (torch would refuse).
    """
    if layer.training and x.numel() == x.shape[1]:
        shift = 0.0 if layer.bias is None else spread(layer.bias.to(x.dtype), x[0])
        return torch.zeros_like(x) + shift
    if layer.weight is None or layer.weight.dtype == x.dtype:
        return layer(x)
    running_mean, running_var, momentum = layer.running_mean, layer.running_var, layer.momentum
    if running_mean is None or running_var is None or momentum is None:
        return layer(x.to(layer.weight.dtype)).to(x.dtype)
    kept = (running_mean, running_var)
    mean, var, weight, bias = (t.to(x.dtype) for t in (*kept, layer.weight, layer.bias))
    y = F.batch_norm(x, mean, var, weight, bias, layer.training, momentum, layer.eps)
    if layer.training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        for old, new in zip(kept, (mean, var), strict=True):
            old.copy_(new)
    return y


def spread(gate: Tensor, x: Tensor) -> Tensor:
    """Give ``(B, C)`` the trailing dimensions of size one that it needs beside ``x``."""
    return gate.reshape(*gate.shape, *[1] * (x.ndim - gate.ndim))


def pooled_mean(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Return the mean over ``dim``, kept as size one, summed in float32 or more."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.mean(dim, keepdim=True, dtype=dtype)


def pooled_maximum(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Return the maximum over neighbouring ``dim``, kept as size one, in float32 or more.

    The gradient goes to the place of the maximum. ``amax``, which is faster, would look for that
    place once more in the backward pass, and a compiler that rounds to half precision in one pass
    but not in the other makes it find none and divide by zero.
    """
    if not x.requires_grad:
        return at_least_float32(x.amax(dim, keepdim=True))
    largest = x.flatten(dim[0], dim[-1]).max(dim[0], keepdim=True).values
    size = [1 if axis in dim else extent for axis, extent in enumerate(x.shape)]
    return at_least_float32(largest).reshape(size)
