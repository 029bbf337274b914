"""Squeeze-and-Excitation.

J. Hu, L. Shen, G. Sun: "Squeeze-and-Excitation Networks", CVPR 2018 (arXiv 1709.01507).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SqueezeExcitation(nn.Module):
    """Re-weight channels by a gate computed from their mean.

    The squeeze takes the mean of each channel; the excitation passes the means through two
    fully connected layers, ``sigmoid(fc2(relu(fc1(mean))))``, and the input is multiplied by
    the result (equations 2 to 4 of the paper).

    The paper's mean runs over the whole map, so the gate of a pixel depends on how much of the
    picture is looked at. With ``window`` the mean of each position runs over the ``window``
    positions centred on it (fewer at the border of the map): its extent is then the same
    whatever the size of the map, and a tile computes what the whole picture computes.

    Args:
        channels: number of channels C.
        reduction: the squeezed width is ``channels // reduction`` (paper: 16).
        bias: whether the two layers have biases (paper: no).
        window: odd extent, in positions, of the mean in every direction; None is the whole map.

    Shape:
        ``(B, C, *size)`` to the same, for one, two or three dimensions of size.

    Raises:
        ValueError: if the squeezed width would be zero or the window is not odd and positive.
    """

    def __init__(
        self, channels: int, *, reduction: int = 16, bias: bool = False, window: int | None = None
    ) -> None:
        super().__init__()
        if reduction < 1 or channels // reduction < 1:
            raise ValueError(
                f"reduction={reduction} leaves no channel of channels={channels}; "
                f"it must lie in 1..{channels}"
            )
        if window is not None and (window < 1 or window % 2 == 0):
            raise ValueError(f"window={window} must be a positive odd number or None")
        self.window = window
        self.fc1 = nn.Linear(channels, channels // reduction, bias=bias)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=bias)

    @property
    def reach(self) -> int | None:
        """How many positions away an input changes an output; None: any distance."""
        return None if self.window is None else self.window // 2

    def squeeze(self, x: Tensor) -> Tensor:
        """Return the channel means, ``(B, C, 1, ...)`` or, with a window, ``(B, C, *size)``."""
        if self.window is None:
            return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        # The mean over a box is the mean along one axis after the other.
        for axis in range(2, x.ndim):
            x = _mean_along(x, axis, self.window)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times its gate."""
        mean = self.squeeze(x).movedim(1, -1)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(mean))))
        return x * gate.movedim(-1, 1)


def _mean_along(x: Tensor, axis: int, window: int) -> Tensor:
    """Return the mean over the positions of a centred window that lie inside the map."""
    batch, channels, *_ = x.shape
    before, size, after = math.prod(x.shape[2:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    if axis == x.ndim - 1:
        flat, kernel = x.reshape(batch, channels, before, size), (1, window)
    else:
        flat, kernel = x.reshape(batch, channels * before, size, after), (window, 1)
    padding = (kernel[0] // 2, kernel[1] // 2)
    mean = F.avg_pool2d(flat, kernel, stride=1, padding=padding, count_include_pad=False)
    return mean.reshape(x.shape)
