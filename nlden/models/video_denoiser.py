"""Video denoiser: frames laid over each other, averaged where they agree, and then denoised.

That a recursive average of aligned frames comes first and a spatial network cleans what it leaves
follows EMVD (M. Maggioni et al.: "Efficient Multi-Stage Video Denoising With Recurrent
Spatio-Temporal Fusion", CVPR 2021); the weights of the average are those of a Kalman filter. Frames
are laid over each other by similarity instead of optical flow: see
:mod:`nlden.attention.cross_non_local`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention.cross_non_local import cross_non_local_means, match_blocks
from nlden.models.image_denoiser import (
    PACKED,
    ImageDenoiser,
    image_denoiser_base,
    image_denoiser_fast,
    noise_map,
    packed_format,
    spread,
)

_LIMIT = 4.0  # levels of noise by which frames that show the same differ at the most
_FAINTEST = 0.25 / 255  # of a noiseless video, whose frames must differ by something
_COARSE = 4  # pixels that the first search averages along each axis


@dataclass(frozen=True)
class Shot:
    """A frame, and how well it is known.

    Args:
        noisy: as it came, packed, ``(B, 12 or 6, h, w)``, float32.
        clean: as well as it is known without noise: denoised alone, or with its neighbours.
        fused: the average with the frames before it; ``noisy`` if there are none.
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

    def tensors(self) -> dict[str, Tensor]:
        """Return all that is known, by name."""
        return {name: getattr(self, name) for name in ("noisy", "clean", "fused", "variance")}


class Mismatch(nn.Module):
    """Tell by how much a frame that was laid over another shows something else.

    The mean square of the difference of the two denoised frames around each position, times a
    factor, and what a few convolutions see in the differences.

    Args:
        formats: packed formats.
        width: of the convolutions.

    Shape:
        Differences of the clean and of the fused frames in levels of noise, both
        ``(B, 12 or 6, h, w)``, and the variance ``(B, 2, h, w)`` of the latter; returns the
        variance of the mismatch, likewise in parts of that of the noise, ``(B, 2, h, w)``.
    """

    def __init__(self, formats: Sequence[str], width: int = 32) -> None:
        super().__init__()
        self.stems = nn.ModuleDict(
            {n: nn.Conv2d(2 * PACKED[n] + 2, width, 3, padding=1) for n in formats}
        )
        self.hidden = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 2, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.constant_(self.tail.bias, -2.0)
        self.factor = nn.Parameter(torch.tensor(8.0))

    def forward(self, clean: Tensor, fused: Tensor, variance: Tensor) -> Tensor:
        """Return the variance of the mismatch."""
        name = packed_format(clean)
        x = torch.cat([clean, fused, variance], dim=1)
        x = x.to(self.hidden.weight.dtype, memory_format=torch.channels_last)
        x = self.tail(F.relu(self.hidden(F.relu(self.stems[name](x)))))
        groups = [clean, clean] if name == "rgb" else clean.split([4, 2], dim=1)
        square = torch.cat([g.square().mean(1, keepdim=True) for g in groups], dim=1)
        near = F.avg_pool2d(square, 5, stride=1, padding=2, count_include_pad=False)
        return F.softplus(x).float() + self.factor.abs() * near


class VideoDenoiser(nn.Module):
    """Remove noise of known level from videos.

    A first network denoises every frame alone. Around each block's best match in a neighbouring
    frame, every position then gathers what looks like it (non-local means on learned features of
    the denoised frames), so that the neighbour lies over the frame. Frames that lie over each
    other are averaged, each weighted by the inverse of its variance: that of its noise and that
    of the mismatch that a small network sees. A second network, told how much noise is left,
    denoises the average.

    Neighbours are the average of the frames before, so that the past is not limited, and the
    ``ahead`` frames that follow. One that is not there has no weight: the first frame, the last
    and a single one need no rule of their own.

    Args:
        spatial: the first network. It is not trained here.
        fusion: the second network.
        ahead: frames that are looked ahead, the latency.
        keys: width of the features that positions are compared by.
        patch: extent in pixels of what they see.
        block: extent in pixels of the blocks that are matched, an even number.
        search: how far blocks are sought, in pixels.
        around: how far around the match positions gather, in pixels.

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
        keys: int = 15,
        patch: int = 5,
        block: int = 16,
        search: int = 32,
        around: int = 2,
    ) -> None:
        super().__init__()
        self.spatial = spatial.requires_grad_(False)
        self.fusion = fusion
        self.ahead, self.block, self.search, self.around = ahead, block, search, around
        self.formats = tuple(n for n in fusion.formats if n in spatial.formats)
        self.keys = nn.Conv2d(3, keys, patch, padding=patch // 2, bias=False)
        # Orthonormal rows: the features are as far apart as the patches.
        nn.init.orthogonal_(self.keys.weight)
        self.bandwidth = nn.Parameter(torch.tensor([0.002, 0.3]))
        self.width = nn.Parameter(torch.tensor(0.1))
        self.mismatch = Mismatch(self.formats)
        width = fusion.body.widths[0]
        self.besides = nn.ModuleDict()
        for name in self.formats:
            convolution = nn.Conv2d(2 * PACKED[name], width, 3, padding=1, bias=False)
            nn.init.zeros_(convolution.weight)
            self.besides[name] = convolution

    @property
    def reach(self) -> int | None:
        """How far, on the packed grid, a neighbour changes a frame; None: any distance."""
        alone, together = self.spatial.reach, self.fusion.reach
        if alone is None or together is None:
            return None
        # From one end of a block over its margin to the farthest place that it is sought at.
        match = self.block + 2 * _COARSE + self.search + _COARSE
        near = self.block + self.search + _COARSE + self.around + self.keys.kernel_size[0] // 2 + 1
        seen = 3  # convolutions of the mismatch
        return max(alone, together + seen + -(-max(match, near) // 2))

    @property
    def grid(self) -> int:
        """Tiles whose corners are multiples of this, on the packed grid, are exact."""
        return math.lcm(self.spatial.grid, self.fusion.grid, self.block // 2)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the clean clip, in float32, not clamped."""
        if x.ndim != 5 or x.shape[1] not in (3, *PACKED.values()) or not x.shape[2]:
            raise ValueError(
                "expected (B, 3, T, H, W) RGB or packed (B, 12 or 6, T, h, w), "
                f"got {tuple(x.shape)}"
            )
        if x.shape[1] != 3:
            return self._denoise(x.float(), sigma)
        height, width = x.shape[3:]
        frames = x.float().transpose(1, 2).flatten(0, 1)
        frames = F.pad(frames, (0, width % 2, 0, height % 2), mode="replicate")
        packed = F.pixel_unshuffle(frames, 2).unflatten(0, (len(x), -1)).transpose(1, 2)
        clean = self._denoise(packed, sigma).transpose(1, 2).flatten(0, 1)
        clean = F.pixel_shuffle(clean, 2).unflatten(0, (len(x), -1)).transpose(1, 2)
        return clean[..., :height, :width]

    def _denoise(self, packed: Tensor, sigma: Tensor | float) -> Tensor:
        level = noise_map(sigma, packed[:, :, 0])
        shots = [self.look(noisy, level) for noisy in packed.unbind(2)]
        past: Shot | None = None
        clean = []
        for i, shot in enumerate(shots):
            done = self.denoise(shot, level, past, shots[i + 1 : i + 1 + self.ahead])
            clean.append(done.clean)
            # Each frame learns for itself what to make of the past, not what to leave.
            past = done.detach()
        return torch.stack(clean, dim=2)

    @torch.no_grad()
    def look(self, noisy: Tensor, level: Tensor) -> Shot:
        """Denoise a packed frame alone; ``level`` is the level of its noise, ``(B, 2, h, w)``."""
        return Shot(noisy, self.spatial(noisy, level), noisy, torch.ones_like(level))

    def denoise(
        self, shot: Shot, level: Tensor, past: Shot | None, following: Sequence[Shot]
    ) -> Shot:
        """Denoise a frame with its neighbours.

        Args:
            shot: what :meth:`look` returns of it.
            level: its noise, ``(B, 2, h, w)``.
            past: the frame before, as this method returned it; None if there is none.
            following: up to ``ahead`` frames that follow, as :meth:`look` returns them.
        """
        mean = shot if past is None else self._average(shot, level, shot, past)
        whole = mean
        for other in following[: self.ahead]:
            whole = self._average(whole, level, shot, other)
        fused = whole.fused
        stem = self.fusion.enter(fused, level * whole.variance.sqrt())
        besides = torch.cat([shot.noisy - fused, shot.clean - fused], dim=1)
        besides = besides.to(stem.dtype, memory_format=torch.channels_last)
        more = (0, stem.shape[3] - besides.shape[3], 0, stem.shape[2] - besides.shape[2])
        besides = F.pad(besides, more, mode="replicate")
        features = self.fusion.body(stem + self.besides[packed_format(fused)](besides))
        clean = self.fusion.subtract(features, fused, level)
        return Shot(shot.noisy, clean, mean.fused, mean.variance)

    def _average(self, mean: Shot, level: Tensor, shot: Shot, other: Shot) -> Shot:
        """Add a neighbour of ``shot`` to the average of those before."""
        channels = shot.noisy.shape[1]
        fused, clean, variance = self._lay_over(shot, level, other)
        unit = spread(level, channels) + _FAINTEST
        differences = [
            ((a - b) / unit).clamp(-_LIMIT, _LIMIT)
            for a, b in ((clean, shot.clean), (fused, shot.noisy))
        ]
        weight = 1 / (variance + self.mismatch(*differences, variance))
        if channels == PACKED["rgb"]:
            weight = weight.mean(1, keepdim=True).expand(-1, 2, -1, -1)
        total = 1 / mean.variance + weight
        # A difference that noise does not explain must not shine through.
        near = shot.noisy + differences[1] * unit
        share = spread(weight / total, channels)
        return Shot(shot.noisy, shot.clean, mean.fused + share * (near - mean.fused), 1 / total)

    def _lay_over(self, shot: Shot, level: Tensor, other: Shot) -> tuple[Tensor, Tensor, Tensor]:
        """Return average, clean picture and variance of a neighbour where they look alike."""
        channels = shot.noisy.shape[1]
        picture, theirs = _picture(shot.clean), _picture(other.clean)
        # Likeness ends at the level of the noise.
        scale = self.bandwidth[0].abs() + self.bandwidth[1].abs() * level[:, :1]
        query, key = (self.keys(p.to(self.keys.weight.dtype)).float() for p in (picture, theirs))
        value = [_phases(p, channels) for p in (_picture(other.fused), theirs)]
        value.append(F.interpolate(other.variance, scale_factor=2, mode="nearest"))
        gathered = cross_non_local_means(
            query[:, :, ::2, ::2] / scale,
            key / F.interpolate(scale, scale_factor=2, mode="nearest"),
            torch.cat(value, dim=1),
            self._match(picture, theirs),
            block=self.block,
            reach=self.around,
            width=self.width.abs() + 0.1,
        )
        fused, clean, variance = gathered.split([channels, channels, 2], dim=1)
        return fused, clean, variance

    @torch.no_grad()
    def _match(self, picture: Tensor, other: Tensor) -> Tensor:
        """Return the displacements of the blocks: first of an averaged picture, then exactly."""
        a, b = (p.mean(1, keepdim=True) for p in (picture, other))
        small = [F.avg_pool2d(p, _COARSE, ceil_mode=True, count_include_pad=False) for p in (a, b)]
        coarse = match_blocks(
            *small, block=self.block // _COARSE, margin=2, reach=self.search // _COARSE
        )
        return match_blocks(
            a, b, block=self.block, margin=4, reach=_COARSE - 1, around=coarse * _COARSE
        )


def _picture(packed: Tensor) -> Tensor:
    """Return a packed picture as ``(B, 3, H, W)``; chroma of 4:2:0 is repeated."""
    if packed_format(packed) == "rgb":
        return F.pixel_shuffle(packed, 2)
    chroma = F.interpolate(packed[:, 4:], scale_factor=2, mode="nearest")
    return torch.cat([F.pixel_shuffle(packed[:, :4], 2), chroma], dim=1)


def _phases(picture: Tensor, channels: int) -> Tensor:
    """Pack a picture around each of its pixels: every second one gives the packed picture.

    Args:
        picture: ``(B, 3, H, W)``, as :func:`_picture` makes it.
        channels: 12 for RGB, 6 for 4:2:0, whose chroma is the mean of two by two pixels.

    Returns:
        ``(B, channels, H, W)``.
    """
    height, width = picture.shape[2:]
    wide = F.pad(picture, (0, 1, 0, 1), mode="replicate")
    corners = [wide[:, :, y : y + height, x : x + width] for y in (0, 1) for x in (0, 1)]
    phases = torch.stack(corners, dim=2)
    if channels == PACKED["rgb"]:
        return phases.flatten(1, 2)
    return torch.cat([phases[:, 0], phases[:, 1:].mean(2)], dim=1)


def video_denoiser_base(formats: Sequence[str] = tuple(PACKED)) -> VideoDenoiser:
    """Build the denoiser of the shipped ``video-base`` weights.

    Args:
        formats: packed formats that it takes.
    """
    return VideoDenoiser(image_denoiser_fast(formats=formats), image_denoiser_base(formats=formats))
