"""Video denoiser: frames laid over each other, averaged where they agree, and then denoised.

That a recursive average of aligned frames comes first and a spatial network cleans what it leaves
follows EMVD (M. Maggioni et al.: "Efficient Multi-Stage Video Denoising With Recurrent
Spatio-Temporal Fusion", CVPR 2021); the weights of the average are those of a Kalman filter. Frames
are laid over each other by the block matching of non-local filters instead of optical flow: see
:mod:`nlden.attention.block_matching`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nlden.attention.block_matching import copy_blocks, match_blocks, smooth_displacement
from nlden.encoders import UNet
from nlden.media.phases import from_phases, halved, to_phases
from nlden.models.image_denoiser import (
    GATE,
    PACKED,
    ImageDenoiser,
    image_denoiser,
    image_denoiser_tiny,
    noise_map,
    packed_format,
    spread,
)
from nlden.models.mismatch import Mismatch

_LIMIT = 4.0  # levels of noise by which frames that show the same differ at the most
_FAINTEST = 0.25 / 255  # of a noiseless video, whose frames must differ by something
# The searches for blocks, one after the other: how often the pictures are halved, how many times as
# wide as those of the last search the blocks are, and how many pixels around them are compared.
_SEARCHES = ((3, 2, 1), (2, 1, 2), (0, 1, 2))
_CALM = 3  # power of the past's share in the average that is its share in the result


@dataclass(frozen=True)
class Shot:
    """A frame, and how well it is known.

    Args:
        noisy: as it came, packed, ``(B, 12 or 6, h, w)``, float32.
        clean: as well as it is known without noise: denoised alone, or with its neighbours.
        fused: the average with neighbours that were laid over it; ``noisy`` if there are none.
        variance: variance of the noise of ``fused`` in luma and chroma, as a part of that of
            ``noisy``, ``(B, 2, h, w)``.
    """

    noisy: Tensor
    clean: Tensor
    fused: Tensor
    variance: Tensor

    def detach(self) -> "Shot":
        """Return the shot as a constant."""
        return Shot(**{name: t.detach() for name, t in self.tensors().items()})

    def to(self, device: torch.device) -> "Shot":
        """Return the shot on a device."""
        return Shot(**{name: t.to(device) for name, t in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return all that is known, by name."""
        return {name: getattr(self, name) for name in ("noisy", "clean", "fused", "variance")}


class VideoDenoiser(nn.Module):
    """Remove noise of known level from videos.

    A first network denoises every frame alone. Each block of it is sought in a denoised neighbour,
    to a part of a pixel, so that the neighbour can be laid over the frame. Frames that lie over
    each other are averaged, each weighted by the inverse of its variance: that of its noise and
    that of the mismatch that a small network sees. A second network, told how much noise is left,
    denoises the average; it sees besides what the average changed, and how the frame before was
    denoised. Where nearly all of the average is the past, the result keeps to the frame before:
    what stands still does not flicker.

    Neighbours are the average of the frames before, so that the past is not limited, and the
    ``ahead`` frames that follow. One that is not there has no weight: the first frame, the last
    and a single one need no rule of their own.

    Args:
        spatial: the first network.
        fusion: the second network.
        ahead: frames that are looked ahead, the latency.
        mismatch: width of the network that sees the mismatch.
        halve: whether it looks at a quarter of the positions.
        block: extent in pixels of the blocks that are matched, a multiple of 8.
        search: how far blocks are sought, in pixels.

    Shape:
        ``forward``: ``(B, 3, T, H, W)`` RGB or packed ``(B, 12 or 6, T, h, w)`` (see
        :class:`ImageDenoiser`), values around [0, 1]; returns the same. ``sigma``: a number,
        ``(B,)``, ``(B, 2)`` or a map ``(B, 2, h, w)``, the same for all frames of a clip.
    """

    def __init__(
        self,
        spatial: ImageDenoiser,
        fusion: ImageDenoiser,
        *,
        ahead: int = 2,
        mismatch: int = 32,
        halve: bool = False,
        block: int = 16,
        search: int = 64,
    ) -> None:
        super().__init__()
        self.spatial = spatial
        self.fusion = fusion
        self.ahead, self.block, self.search = ahead, block, search
        self.formats = tuple(n for n in fusion.formats if n in spatial.formats)
        self.mismatch = Mismatch(self.formats, mismatch, halve=halve)
        width = fusion.body.widths[0]
        self.besides = nn.ModuleDict()
        for name in self.formats:
            convolution = nn.Conv2d(3 * PACKED[name] + 3, width, 3, padding=1, bias=False)
            nn.init.zeros_(convolution.weight)
            self.besides[name] = convolution

    @property
    def reach(self) -> int | None:
        """How far, on the packed grid, a neighbour changes a frame; None: any distance."""
        alone, together = self.spatial.reach, self.fusion.reach
        if alone is None or together is None:
            return None
        # From one end of a block over its margin to the farthest place that it is sought at. Blocks
        # around vote, four times in a row, in each search.
        blocks = _SEARCHES[0][1] + 4 * sum(wide for _, wide, _ in _SEARCHES)
        match = blocks * self.block + self.search + 3 * 2 ** _SEARCHES[0][0]
        return max(alone, together + self.mismatch.reach + -(-match // 2))

    @property
    def grid(self) -> int:
        """Tiles whose corners are multiples of this, on the packed grid, are exact."""
        block = _SEARCHES[0][1] * self.block
        return math.lcm(self.spatial.grid, self.fusion.grid, block // 2)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the clean clip, in float32, not clamped."""
        return self.stages(x, sigma)[1]

    def stages(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the clip as the first network leaves it, frame by frame, and the clean clip."""
        if x.ndim != 5 or x.shape[1] not in (3, *PACKED.values()) or not x.numel():
            raise ValueError(
                "expected (B, 3, T, H, W) RGB or packed (B, 12 or 6, T, h, w), "
                f"got {tuple(x.shape)}"
            )
        frames = x.float().transpose(1, 2).flatten(0, 1)
        height, width = x.shape[3:]
        rgb = x.shape[1] == 3
        if rgb:
            frames = to_phases(frames)
        stages = self._denoise(frames.unflatten(0, (len(x), -1)).transpose(1, 2), sigma)
        if rgb:
            stages = [from_phases(y)[..., :height, :width] for y in stages]
        first, second = (y.unflatten(0, (len(x), -1)).transpose(1, 2) for y in stages)
        return first, second

    def _denoise(self, packed: Tensor, sigma: Tensor | float) -> list[Tensor]:
        """Return what :meth:`stages` does, packed, as ``(B * T, 12 or 6, h, w)``."""
        level = noise_map(sigma, packed[:, :, 0])
        shots = [self.look(noisy, level) for noisy in packed.unbind(2)]
        # Each network learns for itself; the second one also what to leave to the frames after.
        known = [shot.detach() for shot in shots]
        past: Shot | None = None
        clean = []
        for i, shot in enumerate(known):
            ahead = self.look_ahead(shot, level, known[i + 1 : i + 1 + self.ahead])
            past = self.denoise(ahead, level, past)
            clean.append(past.clean)
        return [torch.stack(y, dim=1).flatten(0, 1) for y in ([s.clean for s in shots], clean)]

    def look(self, noisy: Tensor, level: Tensor) -> Shot:
        """Denoise a packed frame alone; ``level`` is the level of its noise, ``(B, 2, h, w)``."""
        return Shot(noisy, self.spatial(noisy, level), noisy, torch.ones_like(level))

    def look_ahead(self, shot: Shot, level: Tensor, following: Sequence[Shot]) -> Shot:
        """Average a frame with those that follow; nothing of it depends on the past.

        Args:
            shot: what :meth:`look` returns of it.
            level: its noise, ``(B, 2, h, w)``.
            following: up to ``ahead`` frames, as :meth:`look` returns them.
        """
        here, mean = _luma(shot.clean), shot
        for other in following[: self.ahead]:
            mean, _ = _average(mean, self._weigh(shot, level, self._lay_over(here, other)))
        return mean

    def denoise(self, shot: Shot, level: Tensor, past: Shot | None) -> Shot:
        """Denoise a frame with its neighbours.

        Args:
            shot: what :meth:`look_ahead` returns of it.
            level: its noise, ``(B, 2, h, w)``.
            past: the frame before, as this method returned it; None if there is none.

        Returns:
            The frame, clean, and its average with those before it, without those that follow.
        """
        mean, fused, features, kept = self._gather(shot, level, past)
        clean = self.fusion.subtract(self.fusion.body.refine(features), fused, level)
        if kept is not None:
            clean = torch.lerp(clean, *kept)
        return Shot(shot.noisy, clean, mean.fused, mean.variance)

    def _gather(
        self, shot: Shot, level: Tensor, past: Shot | None
    ) -> tuple[Shot, Tensor, list[Tensor], tuple[Tensor, Tensor] | None]:
        """Return the average with the past, the fused frame and the second network's features.

        These are for :meth:`nlden.encoders.UNet.refine`. Where there is a past also what the result
        keeps of it: the clean frame before, and its share.

        On its own, so that what it lays over the frame is gone when the second network runs.
        """
        mean = replace(shot, fused=shot.noisy, variance=torch.ones_like(shot.variance))
        whole, before, kept = shot, torch.zeros_like(shot.noisy), None
        if past is not None:
            laid = self._weigh(shot, level, self._lay_over(_luma(shot.clean), past))
            mean, share = _average(mean, laid)
            whole, _ = _average(whole, laid)
            before = share * (laid.clean - mean.fused)
            kept = laid.clean, share**_CALM
        fused = whole.fused
        # How much noise there was, and white: files clip noise there, and averages are off by that.
        clipped = [level, torch.ones_like(level[:, :1])]
        besides = [shot.noisy - fused, shot.clean - fused, before, *clipped]
        beside = self.besides[packed_format(fused)]
        assert isinstance(beside, nn.Conv2d)
        left = level * whole.variance.sqrt()
        features = self.fusion.enter(fused, left, (besides, beside.weight))
        return mean, fused, [features], kept

    def _weigh(self, shot: Shot, level: Tensor, laid: Shot) -> Shot:
        """Return a neighbour that lies over ``shot``, its variance with that of the mismatch."""
        channels = shot.noisy.shape[1]
        unit = spread(level, channels) + _FAINTEST
        differences = [
            ((a - b) / unit).clamp(-_LIMIT, _LIMIT)
            for a, b in ((laid.clean, shot.clean), (laid.fused, shot.noisy))
        ]
        variance = laid.variance + self.mismatch(*differences, laid.variance)
        if channels == PACKED["rgb"]:
            variance = (1 / (1 / variance).mean(1, keepdim=True)).expand(-1, 2, -1, -1)
        # A difference that noise does not explain must not shine through.
        near = torch.addcmul(shot.noisy, differences[1], unit)
        return replace(laid, fused=near, variance=variance)

    def _lay_over(self, here: Tensor, other: Shot) -> Shot:
        """Return a neighbour, displaced so that it lies over the frame whose luma is given."""
        pictures = (other.fused, other.clean)
        full = _full(other.clean)
        planes = from_phases(torch.cat([p[:, :full] for p in pictures], dim=1))
        there = planes[:, planes.shape[1] // 2 :].mean(1, keepdim=True)
        block = self.block
        moved = self._displacement(here, there)
        laid = to_phases(copy_blocks(planes, moved, block)).chunk(2, dim=1)
        if full < other.clean.shape[1]:
            chroma = torch.cat([p[:, full:] for p in pictures], dim=1)
            rest = copy_blocks(chroma, moved / 2, block // 2).chunk(2, dim=1)
            laid = tuple(torch.cat(pair, dim=1) for pair in zip(laid, rest, strict=True))
        # Whole steps: no variance falls below the least.
        variance = copy_blocks(other.variance, (moved / 2).round().long(), block // 2)
        return Shot(other.noisy, laid[1], laid[0], variance)

    @torch.no_grad()
    def _displacement(self, here: Tensor, there: Tensor) -> Tensor:
        """Return how far each block of a luma has moved in another."""
        pyramid = [(here, there)]
        while len(pyramid) <= _SEARCHES[0][0]:
            first, second = pyramid[-1]
            pyramid.append((halved(first), halved(second)))
        # At first one block that stays where it is.
        moved, extent = here.new_zeros(len(here), 1, 1, 2), max(here.shape[2:])
        for level, wide, margin in _SEARCHES:
            scale, pair = 2**level, pyramid[level]
            block = wide * self.block // scale
            reach = self.search // scale if level == _SEARCHES[0][0] else 2
            # Each block is sought where the wider one that it lies in was found.
            rows, columns = (
                torch.arange(0, n, block, device=here.device) * scale // extent
                for n in pair[0].shape[2:]
            )
            around = moved[:, rows][:, :, columns] / scale
            found = match_blocks(*pair, block=block, margin=margin, reach=reach, around=around)
            # Blocks around outvote what noise has misled.
            moved, extent = scale * smooth_displacement(found), scale * block
        return moved


def _average(mean: Shot, other: Shot) -> tuple[Shot, Tensor]:
    """Add a neighbour to the average of a frame with those before.

    Returns the average, and the share of the neighbour in it, ``(B, 12 or 6, h, w)``.
    """
    total = 1 / mean.variance + 1 / other.variance
    share = spread(1 / (other.variance * total), mean.noisy.shape[1])
    fused = torch.lerp(mean.fused, other.fused, share)
    return replace(mean, fused=fused, variance=1 / total), share


def _full(packed: Tensor) -> int:
    """Return how many of the channels are phases; the others are chroma."""
    return 4 if packed_format(packed) == "yuv420" else PACKED["rgb"]


def _luma(packed: Tensor) -> Tensor:
    """Return the luma of a packed picture, or the mean of R, G and B: ``(B, 1, H, W)``."""
    return from_phases(packed[:, : _full(packed)]).mean(1, keepdim=True)


def video_denoiser_base(
    limit: float | None = 4.0, formats: Sequence[str] = tuple(PACKED)
) -> VideoDenoiser:
    """Build the denoiser of the shipped ``video-base`` weights.

    Args:
        limit: of both networks, see :class:`ImageDenoiser`.
        formats: packed formats that it takes.
    """
    fusion = image_denoiser((64, 96, 192), (1, 2, 1), limit, formats)
    return VideoDenoiser(image_denoiser_tiny(limit, formats), fusion, ahead=4, halve=True)


def video_denoiser_fast(
    limit: float | None = 4.0, formats: Sequence[str] = tuple(PACKED)
) -> VideoDenoiser:
    """Build the denoiser of the shipped ``video-fast`` weights.

    Args:
        limit: of both networks, see :class:`ImageDenoiser`.
        formats: packed formats that it takes.
    """
    body = UNet((32, 64, 128), (1, 1, 1), down_blocks=(0, 0, 0), gate=GATE)
    fusion = ImageDenoiser(body, limit, formats)
    alone = image_denoiser_tiny(limit, formats)
    return VideoDenoiser(alone, fusion, ahead=1, mismatch=16, halve=True, block=24)


def video_denoiser_real(
    limit: float | None = None, formats: Sequence[str] = tuple(PACKED)
) -> VideoDenoiser:
    """Build the denoiser of the shipped ``video-fast-real`` weights.

    Args:
        limit: of both networks, see :class:`ImageDenoiser`; the level that is estimated in coarse
            noise is less than there is.
        formats: packed formats that it takes.
    """
    alone = ImageDenoiser(UNet((16, 32, 64), (1, 1, 1)), limit, formats)
    fusion = image_denoiser((32, 64, 128), (1, 1, 1), limit, formats)
    return VideoDenoiser(alone, fusion, ahead=1, mismatch=16)
