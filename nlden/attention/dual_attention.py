"""Dual attention: over positions and over channels.

J. Fu, J. Liu, H. Tian, Y. Li, Y. Bao, Z. Fang, H. Lu: "Dual Attention Network for Scene
Segmentation", CVPR 2019 (arXiv 1809.02983).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention.affinity import attend
from nlden.attention.layers import (
    BATCH_NORMS,
    CONVOLUTIONS,
    DROPOUTS,
    check_dimensions,
    check_map,
    inner_width,
)
from nlden.attention.precision import at_least_float32, full_precision, project

_WIDTH: Mapping[str, Any] = {"reduction": 8}
_SIGN: Mapping[str, Any] = {"inverted": True}


def _presets(official: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {"paper": {}, "official": official}


class PositionAttention(nn.Module):
    """Position attention: every position gathers from those like it.

    ``E_j = alpha sum_i s_ji D_i + A_j`` with ``s_ji = softmax_i(B_i . C_j)`` (equations 1 and 2
    of the paper), where the projections B, C and D of the input A are ``key``, ``query`` and
    ``value`` here and alpha is ``gamma``, as in the authors' code. The N x N map is never held,
    and everything is computed in float32 or more.

    ``gamma`` starts at zero, so that a new block is the identity. ``presets["official"]`` holds
    the arguments of the authors' code, here and in the other blocks of this file.

    Args:
        channels: number of channels C.
        inner: width of query and key; None is ``channels // reduction``.
        reduction: see ``inner`` (paper: 1; authors' code: 8).

    Shape:
        ``(B, C, *size)`` to the same, for one, two or three dimensions of size.

    Raises:
        ValueError: for a width below one or an input that is no map of C channels.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets(_WIDTH)

    def __init__(self, channels: int, *, inner: int | None = None, reduction: int = 1) -> None:
        super().__init__()
        inner = inner_width(channels, inner, reduction)
        self.channels = channels
        self.query = nn.Conv1d(channels, inner, 1)
        self.key = nn.Conv1d(channels, inner, 1)
        self.value = nn.Conv1d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``gamma`` times what each position gathers, plus ``x``."""
        check_map(x, self.channels)
        with full_precision(x):
            flat = at_least_float32(x).flatten(2)
            query, key = project(self.query, flat).mT, project(self.key, flat).mT
            y = attend(query, key, project(self.value, flat).mT)
            return (self.gamma.to(y.dtype) * y.mT.reshape(x.shape) + x).to(x.dtype)


class ChannelAttention(nn.Module):
    """Channel attention: every channel gathers from those like it.

    ``E_j = beta sum_i x_ji A_i + A_j`` with ``x_ji = softmax_i(A_i . A_j)`` (equations 3 and 4 of
    the paper); beta is ``gamma`` here. Energies, which are sums over all
    positions, softmax and sums are computed in float32 or more.

    ``gamma`` starts at zero, so that a new block is the identity.

    Args:
        inverted: take the softmax of the largest energy minus the energy, as the authors' code
            does: channels then gather from those unlike them (paper: no).

    Shape:
        ``(B, C, *size)`` to the same, for any C and one, two or three dimensions of size.

    Raises:
        ValueError: if the input is no map.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets(_SIGN)

    def __init__(self, *, inverted: bool = False) -> None:
        super().__init__()
        self.inverted = inverted
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``gamma`` times what each channel gathers, plus ``x``."""
        check_map(x)
        with full_precision(x):
            flat = at_least_float32(x).flatten(2)
            energy = torch.bmm(flat, flat.mT)
            # Softmax subtracts the largest itself: that of the negative energy is the same.
            weights = (-energy if self.inverted else energy).softmax(dim=-1)
            y = torch.bmm(weights, flat).reshape(x.shape)
            return (self.gamma.to(y.dtype) * y + x).to(x.dtype)


class DualAttention(nn.Module):
    """Element-wise sum of position and channel attention.

    Args:
        channels: number of channels C.
        inner: width of query and key in the position attention; None is ``channels // reduction``.
        reduction: see ``inner`` (paper: 1; authors' code: 8).
        inverted: softmax of the channel attention as in the authors' code (paper: no).

    Shape:
        ``(B, C, *size)`` to the same, for one, two or three dimensions of size.

    Raises:
        ValueError: for a width below one or an input that is no map of C channels.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets({**_WIDTH, **_SIGN})

    def __init__(
        self,
        channels: int,
        *,
        inner: int | None = None,
        reduction: int = 1,
        inverted: bool = False,
    ) -> None:
        super().__init__()
        self.position = PositionAttention(channels, inner=inner, reduction=reduction)
        self.channel = ChannelAttention(inverted=inverted)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both; twice ``x`` from a new block."""
        return self.position(x) + self.channel(x)


class DualAttentionHead(nn.Module):
    """Segmentation head: two branches with attention, classified alone and as their sum.

    Each branch is a 3x3 convolution with norm and ReLU, its attention, and another such
    convolution; the sum of both branches and each of them have their own classifier, dropout and
    a 1x1 convolution (figure 2 of the paper). The three results are for
    :func:`dual_attention_loss`; the first is the segmentation.

    Args:
        channels: channels of the input.
        classes: how many classes there are.
        width: channels of the branches; None is ``channels // 4``.
        inner: width of query and key in the position attention; None is ``width // reduction``.
        reduction: see ``inner`` (paper: 1; authors' code: 8).
        inverted: softmax of the channel attention as in the authors' code (paper: no).
        norm: whether batch norms follow the 3x3 convolutions, which have biases otherwise; or a
            callable from channels to another norm.
        dropout: share of channels that the classifiers drop in training.
        dimensions: of the map's size: 1, 2 or 3.

    Shape:
        ``(B, channels, *size)`` to three times ``(B, classes, *size)``: of the sum, of the
        position branch, of the channel branch.

    Raises:
        ValueError: for widths or classes below one, a dropout outside 0..1, ``dimensions`` that
            are not 1, 2 or 3, or an input that is no such map.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets({**_WIDTH, **_SIGN})

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        width: int | None = None,
        inner: int | None = None,
        reduction: int = 1,
        inverted: bool = False,
        norm: bool | Callable[[int], nn.Module] = True,
        dropout: float = 0.1,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        width = channels // 4 if width is None else width
        if width < 1:
            raise ValueError(f"width={width} must be at least 1 (channels={channels})")
        if classes < 1:
            raise ValueError(f"classes={classes} must be at least 1")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout} must lie in 0..1")
        check_dimensions(dimensions)
        self.channels = channels
        self.dimensions = dimensions

        build = BATCH_NORMS[dimensions] if norm is True else norm

        def block(before: int) -> nn.Sequential:
            conv = CONVOLUTIONS[dimensions](before, width, 3, padding=1, bias=not build)
            norms = [build(width)] if build else []
            return nn.Sequential(conv, *norms, nn.ReLU())

        def classifier() -> nn.Sequential:
            conv = CONVOLUTIONS[dimensions](width, classes, 1)
            return nn.Sequential(DROPOUTS[dimensions](dropout), conv)

        self.position_in, self.channel_in = block(channels), block(channels)
        self.position = PositionAttention(width, inner=inner, reduction=reduction)
        self.channel = ChannelAttention(inverted=inverted)
        self.position_out, self.channel_out = block(width), block(width)
        self.classify_position, self.classify_channel = classifier(), classifier()
        self.classify_sum = classifier()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the class scores of the sum, of the position and of the channel branch."""
        check_map(x, self.channels, self.dimensions)
        position = self.position_out(self.position(self.position_in(x)))
        channel = self.channel_out(self.channel(self.channel_in(x)))
        # The order in which the references draw their dropout.
        scores = self.classify_position(position), self.classify_channel(channel)
        return self.classify_sum(position + channel), *scores


def dual_attention_loss(
    scores: Sequence[Tensor],
    target: Tensor,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    ignore: int = -1,
    align_corners: bool = True,
    count_ignored: bool = False,
) -> Tensor:
    """Return the weighted sum of the cross entropies of a head's three results.

    Scores that are smaller than the target are interpolated to its size, (bi-, tri-)linearly.
    Computed in float32 or more; a target without a labelled position gives zero.

    Args:
        scores: three times ``(B, classes, *size)``: what :class:`DualAttentionHead` returns.
        target: ``(B, *size)``, the class of every position.
        weights: of the three results (authors' code, mmseg: all one).
        ignore: class that marks positions without label (authors' code: -1; mmseg: 255).
        align_corners: whether the centres of the corner positions meet in the interpolation
            (authors' code: yes; mmseg: no).
        count_ignored: whether the mean counts positions without label (mmseg: yes).

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: if there are not three results and weights, or a rank does not fit.
    """
    if len(scores) != 3 or len(weights) != 3:
        raise ValueError(f"scores and weights must be three, not {len(scores)} and {len(weights)}")
    for score in scores:
        check_map(score, dimensions=target.ndim - 1)
    mode = ("linear", "bilinear", "trilinear")[target.ndim - 2]
    with full_precision(scores[0]):
        count = target.numel() if count_ignored else (target != ignore).sum()
        total = scores[0].new_zeros((), dtype=at_least_float32(scores[0]).dtype)
        for score, weight in zip(scores, weights, strict=True):
            score = at_least_float32(score)
            if score.shape[2:] != target.shape[1:]:
                score = F.interpolate(
                    score, size=target.shape[1:], mode=mode, align_corners=align_corners
                )
            loss = F.cross_entropy(score, target, ignore_index=ignore, reduction="sum")
            total = total + weight * loss
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)
