"""Video denoiser: each frame alone, then together with its neighbours laid over it.

The two stages follow M. Tassano et al. (DVDnet, ICIP 2019), the recurrence over the past EMVD
(M. Maggioni et al., CVPR 2021). Frames are laid over each other by similarity instead of optical
flow: see :mod:`nlden.attention.cross_non_local`.
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
    clamp_to_noise,
    image_denoiser_base,
    image_denoiser_fast,
    noise_map,
    packed_format,
)

_LIMIT = 4.0  # levels of noise that frames which show the same differ by at the most
_COARSE = 4  # pixels that the first search averages along each axis


@dataclass(frozen=True)
class Shot:
    """A frame as it came, and as well as it is known without noise.

    Args:
        noisy: packed, ``(B, 12 or 6, h, w)``, float32.
        clean: likewise: what the first stage made of it, or for a frame of the past the second.
    """

    noisy: Tensor
    clean: Tensor


class VideoDenoiser(nn.Module):
    """Remove noise of known level from videos.

    The first stage denoises every frame alone. Around each block's best match in a neighbouring
    frame, every position then gathers what looks like it (non-local means on learned features of
    the denoised frames): the neighbour's noisy and denoised pixels, laid over the frame. The
    second stage denoises the frame from all of this. Neighbours are the frame before, as the
    second stage made it, so that the past is not limited, and the ``ahead`` frames that follow.
    One that is not there adds nothing: the first frame, the last and a single one need no rule of
    their own.

    Args:
        spatial: the first stage. It is not trained here.
        fusion: the second stage.
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
        self.bandwidth = nn.Parameter(torch.tensor([0.01, 0.4]))
        width = fusion.body.widths[0]
        pictures = 1 + 2 * (1 + ahead)
        self.neighbours = nn.ModuleDict()
        for name in self.formats:
            convolution = nn.Conv2d(pictures * PACKED[name], width, 3, padding=1, bias=False)
            nn.init.zeros_(convolution.weight)  # at first each frame is denoised alone
            self.neighbours[name] = convolution

    @property
    def reach(self) -> int | None:
        """How far, on the packed grid, a neighbour changes a frame; None: any distance."""
        alone, together = self.spatial.reach, self.fusion.reach
        if alone is None or together is None:
            return None
        # From one end of a block over its margin to the farthest place that it is sought at.
        match = self.block + 2 * _COARSE + self.search + _COARSE
        near = self.block + self.search + _COARSE + self.around + self.keys.kernel_size[0] // 2 + 1
        return max(alone, together + -(-max(match, near) // 2))

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
            picture = self.denoise(shot, level, past, shots[i + 1 : i + 1 + self.ahead])
            clean.append(picture)
            # Each frame learns for itself what to make of the past, not what to leave.
            past = Shot(shot.noisy, picture.detach())
        return torch.stack(clean, dim=2)

    @torch.no_grad()
    def look(self, noisy: Tensor, level: Tensor) -> Shot:
        """Denoise a packed frame alone; see :meth:`denoise` for the shapes."""
        return Shot(noisy, self.spatial(noisy, level))

    def denoise(
        self, shot: Shot, level: Tensor, past: Shot | None, following: Sequence[Shot]
    ) -> Tensor:
        """Denoise a frame with its neighbours.

        Args:
            shot: what :meth:`look` returns of it.
            level: its noise, ``(B, 2, h, w)``.
            past: the frame before, as this method made it; None if there is none.
            following: up to ``ahead`` frames that follow, as :meth:`look` returns them.

        Returns:
            The clean frame, packed, in float32.
        """
        others = [past, *following, *(None,) * (self.ahead - len(following))]
        # What is added of others is their difference, as small as the noise: none if there is none,
        # and where it is larger they do not show the same.
        laid = [shot.clean - shot.noisy]
        for other in others:
            if other is None:
                laid += [torch.zeros_like(shot.noisy)] * 2
                continue
            theirs = self._lay_over(shot, level, other).chunk(2, dim=1)
            for a, b in zip(theirs, (shot.noisy, shot.clean), strict=True):
                laid.append(clamp_to_noise(a - b, level, _LIMIT))
        stem = self.fusion.enter(shot.noisy, level)
        more = torch.cat(laid, dim=1).to(stem.dtype, memory_format=torch.channels_last)
        height, width = stem.shape[2:]
        more = F.pad(more, (0, width - more.shape[3], 0, height - more.shape[2]), mode="replicate")
        features = self.fusion.body(stem + self.neighbours[packed_format(shot.noisy)](more))
        return self.fusion.subtract(features, shot.noisy, level)

    def _lay_over(self, shot: Shot, level: Tensor, other: Shot) -> Tensor:
        """Return noisy and clean pixels of a neighbour where they look like the frame."""
        picture, theirs = _picture(shot.clean), _picture(other.clean)
        # Likeness ends at the level of the noise.
        scale = self.bandwidth[0].abs() + self.bandwidth[1].abs() * level[:, :1]
        query, key = (self.keys(p.to(self.keys.weight.dtype)).float() for p in (picture, theirs))
        value = [_phases(p, shot.noisy.shape[1]) for p in (_picture(other.noisy), theirs)]
        return cross_non_local_means(
            query[:, :, ::2, ::2] / scale,
            key / F.interpolate(scale, scale_factor=2, mode="nearest"),
            torch.cat(value, dim=1),
            self._match(picture, theirs),
            block=self.block,
            reach=self.around,
        )

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
