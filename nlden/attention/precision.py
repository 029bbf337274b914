"""Precision of attention: energies, sums and softmax run in float32 or more.

Unscaled energies of bfloat16 and float16 features lose the digits that softmax decides by, and
sums over more than 65,504 keys leave the range of float16.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is if it has that precision or more."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast does not lower the precision of operations on ``x``."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def project(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution of one, two or three dimensions in the precision of ``x``.

    A kernel of one position serves maps of any number of dimensions.
    """
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    weight = layer.weight.to(x.dtype)
    if weight[0, 0].numel() == 1 and (x.stride(1) == 1 or x.ndim != weight.ndim):
        # In channels_last a 1x1 convolution is one product of matrices, and stays channels_last.
        return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
    return layer._conv_forward(x, weight, bias)
