"""Residual U-Net.

The shape follows O. Ronneberger et al. (U-Net, MICCAI 2015) with the bias-free residual blocks
of K. Zhang et al. (DRUNet, TPAMI 2021): without biases a denoiser generalises beyond the noise
levels that it was trained on (S. Mohan et al., ICLR 2020).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention import NonLocal
from nlden.attention.affinity import tracing

_STRIP = 16 << 20  # bytes of the rows of a map that are refined at a time
_LARGE = 2 * _STRIP  # bytes of a map from which that is worth it

Slot = Callable[[int], nn.Module]
"""Builds an attention block for a number of channels."""


class ResidualBlock(nn.Module):
    """``x + attention(conv(relu(conv(x))))`` with bias-free 3x3 convolutions.

    Args:
        channels: width of the block.
        attention: slot on the residual branch, before the sum; None leaves it empty.

    Shape:
        ``(B, C, H, W)`` to the same.
    """

    def __init__(self, channels: int, attention: Slot | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.attention = attention(channels) if attention is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features."""
        y = self.branch(x)
        # Large pictures: one map less is alive, and nothing needs the branch's own result.
        return x + y if self.attention is not None and torch.is_grad_enabled() else y.add_(x)

    def branch(self, x: Tensor) -> Tensor:
        """Return what is added to the features."""
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        return y if self.attention is None else self.attention(y)

    def in_place(self, x: Tensor, step: int) -> Tensor:
        """Return the refined features in the place of ``x``, made some rows at a time.

        Of a large picture one map is alive instead of four, and no memory is fetched for others.
        Only for blocks without attention, and without gradients.

        Args:
            x: ``(B, C, H, W)``.
            step: how many rows at a time, at least three.
        """
        height = x.shape[2]
        # Zeros above the first row; later the last two rows that the second convolution has seen.
        size = (x.shape[0], x.shape[1], step + 8, x.shape[3])
        form = torch.channels_last
        middle = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=form)
        middle[:, :, 0] = 0
        held, top, bottom = 1, 0, 0
        while bottom < height:
            bottom = height if height - bottom < step + 4 else bottom + step
            # Each convolution lags a row behind what it sees, but at the end of the map.
            first = max(0, top - 2)
            seen = x[:, :, first:bottom]
            if top == 0 or bottom == height:
                seen = F.pad(seen, (0, 0, int(top == 0), int(bottom == height)))
            more = _valid_rows(self.conv1, seen)
            filled = held + more.shape[2]
            torch.clamp_min(more, 0, out=middle[:, :, held:filled])
            if bottom == height:
                middle[:, :, filled] = 0
                filled += 1
            y = _valid_rows(self.conv2, middle[:, :, :filled])
            x[:, :, first : first + y.shape[2]] += y
            middle[:, :, :2] = middle[:, :, filled - 2 : filled].clone()
            held, top = 2, bottom
        return x


def _rows(x: Tensor) -> int:
    """Return how many rows of a map are refined at a time."""
    return max(3, _STRIP * x.shape[2] // x.nbytes)


def _valid_rows(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 3x3 convolution where it has all its rows."""
    return F.conv2d(x, convolution.weight, padding=(0, 1))


class UNet(nn.Module):
    """Features in, refined features of the same width and size out.

    Each level but the coarsest has residual blocks on the way down and on the way up, joined by
    a sum; the coarsest has its blocks before and after the slot ``bottleneck``. Levels are joined
    by 2x2 convolutions of stride two and their transposes. Bias-free throughout.

    Args:
        widths: channels of each level, finest first.
        blocks: residual blocks of each level on each side (way down, way up).
        down_blocks: those of the way down, if they are others.
        gate: slot on the residual branches of the coarsest level.
        bottleneck: slot in the middle of the coarsest level.
        joins: slots of the other levels, finest first, before their blocks on the way up; None
            leaves one empty, as do those that are not given.
        block: the residual blocks, built of a width and the slot on their branch.

    Shape:
        ``(B, widths[0], H, W)`` to the same; H and W must be multiples of ``stride``.

    Raises:
        ValueError: if ``widths`` and ``blocks`` differ in length, or there are more slots than
            levels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        *,
        down_blocks: Sequence[int] | None = None,
        gate: Slot | None = None,
        bottleneck: Slot | None = None,
        joins: Sequence[Slot | None] = (),
        block: Callable[[int, Slot | None], ResidualBlock] = ResidualBlock,
    ) -> None:
        super().__init__()
        before = blocks if down_blocks is None else down_blocks
        if not len(widths) == len(blocks) == len(before) > 0:
            raise ValueError(
                f"widths={widths}, blocks={blocks} and down_blocks={down_blocks} must name the "
                "same levels"
            )
        if len(joins) >= len(widths):
            raise ValueError(f"joins={joins} must be fewer than widths={widths}")
        self.widths = tuple(widths)
        self.stride = 2 ** (len(widths) - 1)

        def level(index: int, count: int, attention: Slot | None = None) -> nn.Sequential:
            return nn.Sequential(*(block(widths[index], attention) for _ in range(count)))

        def filled(width: int, slot: Slot | None) -> nn.Module:
            return nn.Identity() if slot is None else slot(width)

        last = len(widths) - 1
        pairs = list(pairwise(widths))
        self.encoder = nn.ModuleList(level(i, before[i]) for i in range(last))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairs)
        middle = filled(widths[last], bottleneck)
        first, second = (level(last, n[last], gate) for n in (before, blocks))
        self.coarsest = nn.Sequential(first, middle, second)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in pairs)
        slots = [*joins, *[None] * (last - len(joins))]
        self.joins = nn.ModuleList(filled(w, s) for w, s in zip(widths[:last], slots, strict=True))
        self.decoder = nn.ModuleList(level(i, blocks[i]) for i in range(last))

    @property
    def reach(self) -> int | None:
        """How many positions away an input changes an output; None: any distance.

        Every 3x3 convolution reaches one position of its level further and every change of level
        less than one; attention blocks tell their own ``reach``, any distance where they do not.
        """
        first, middle, second = self.coarsest.children()
        parts = zip(self.encoder, self.joins, self.decoder, strict=True)
        levels = [[*down.children(), join, *up.children()] for down, join, up in parts]
        total = 0
        for index, blocks in enumerate([*levels, [*first.children(), middle, *second.children()]]):
            total += 2 * 2**index
            for block in blocks:
                slot: nn.Module | None = block
                if isinstance(block, ResidualBlock):
                    total += 2 * 2**index  # two convolutions
                    slot = block.attention
                if slot is None or isinstance(slot, nn.Identity):
                    continue
                if (reach := getattr(slot, "reach", None)) is None:
                    return None
                total += reach * 2**index
        return total

    @property
    def grid(self) -> int:
        """Multiples of this are corners of blocks of every window, and of the coarsest level."""
        blocks = [m.block for m in self.modules() if isinstance(m, NonLocal) and m.window]
        return self.stride * math.lcm(1, *(extent for block in blocks for extent in block))

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features."""
        return self.refine([x.clone() if _by_strips(x) else x])

    def refine(self, features: list[Tensor]) -> Tensor:
        """Take the features out of a list and refine them; large ones in their place.

        The caller of :meth:`forward` holds its features until the end: one more map of the finest
        level that is alive.
        """
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            skips.append(_refined(blocks, features))
            features.append(down(skips[-1]))
        x = _refined(self.coarsest, features)
        for index in reversed(range(len(skips))):
            x = self.joins[index](_joined(self.up[index], x, skips.pop()))
            x = _refined(self.decoder[index], [x])
        return x


def _by_strips(x: Tensor) -> bool:
    on_cpu = x.device.type == "cpu" and not torch.is_grad_enabled() and not tracing()
    return on_cpu and x.nbytes > _LARGE


def _refined(level: nn.Module, features: list[Tensor]) -> Tensor:
    """Take a map out of a list and apply the blocks of a level, to large maps in their place."""
    x = features.pop()
    blocks: Iterable[nn.Module] = level.children() if _by_strips(x) else [level]
    for block in blocks:
        if type(block) is ResidualBlock and block.attention is None:
            x = block.in_place(x, _rows(x))
        else:
            x = block(x)
    return x


def _joined(up: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """Return the sum of a map of the finer level and of ``x``, brought to that level."""
    if not _by_strips(skip):
        return up(x).add_(skip)
    step = max(1, _rows(skip) // 2)
    for top in range(0, x.shape[2], step):
        skip[:, :, 2 * top : 2 * (top + step)] += up(x[:, :, top : top + step])
    return skip
