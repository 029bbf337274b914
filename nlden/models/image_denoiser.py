"""Image denoiser: one U-Net over half-resolution features, entered by RGB or by 4:2:0 planes.

Pixel-unshuffle in, pixel-shuffle out and a noise-level map as input come from K. Zhang et al.
(FFDNet, TIP 2018); the bias-free residual U-Net from DRUNet (TPAMI 2021).
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention import NonLocal2d, SqueezeExcitation
from nlden.encoders import UNet
from nlden.encoders.unet import Slot
from nlden.media.phases import from_phases, to_phases

PACKED = {"rgb": 12, "yuv420": 6}
"""Channels of each packed format: 4 phases x (R, G, B), or 4 phases of luma, Cb, Cr."""


GATE = partial(SqueezeExcitation, window=9)
"""Gates the residual branches of the coarsest level."""


class ImageDenoiser(nn.Module):
    """Remove noise of known level from images.

    A picture enters *packed*, on the grid of every second row and column: ``rgb`` as the four
    phases of each colour (``pixel_unshuffle``: 12 channels), ``yuv420`` as the four phases of
    the luma plane and the two chroma planes, which lie on that very grid (6 channels; see
    :func:`nlden.media.color.pack_yuv420`). Each format has its own stem and tail; the body is
    shared. The network predicts the noise and subtracts it.

    The noise level enters as two more channels: the standard deviation of the noise in luma and
    in chroma, in the units of the picture. White noise of level s in R, G and B has luma level
    ``s`` and chroma level ``s`` for ``rgb`` (one number tells both), while the planes of
    ``yuv420`` are told their own levels.

    What is subtracted is bounded by ``limit`` times the told level (for ``rgb`` the larger of the
    two): Gaussian noise hardly ever exceeds four standard deviations, what does is detail. So a
    picture that is told to be clean comes back as it is.

    Args:
        body: network of ``(B, width, h, w)`` features, with attributes ``widths`` and ``stride``.
        limit: bound of the predicted noise in told levels; None for none, as networks need that
            are told less than there is.
        formats: packed formats that have a stem and a tail.

    Shape:
        ``forward``: ``(B, 3, H, W)`` RGB of any size, or packed ``(B, 12 or 6, h, w)``, values
        around [0, 1]; returns the same. ``sigma``: a number, ``(B,)``, ``(B, 2)`` or a map
        ``(B, 2, h, w)`` on the packed grid.
    """

    def __init__(
        self, body: UNet, limit: float | None = 4.0, formats: Sequence[str] = tuple(PACKED)
    ) -> None:
        super().__init__()
        if not formats or not set(formats) <= PACKED.keys():
            raise ValueError(f"formats={formats} must be one or more of {', '.join(PACKED)}")
        if limit is not None and not limit > 0:
            raise ValueError(f"limit={limit} must be above 0, or None")
        self.body = body
        self.limit = limit
        self.formats = tuple(formats)
        width = body.widths[0]
        self.stems = nn.ModuleDict(
            {
                name: nn.Conv2d(channels + 2, width, 3, padding=1, bias=False)
                for name, channels in PACKED.items()
                if name in self.formats
            }
        )
        self.tails = nn.ModuleDict(
            {
                name: nn.Conv2d(width, channels, 3, padding=1, bias=False)
                for name, channels in PACKED.items()
                if name in self.formats
            }
        )

    @property
    def reach(self) -> int | None:
        """How far, on the packed grid, an input changes an output; None: any distance."""
        return None if self.body.reach is None else self.body.reach + 2  # stem and tail

    @property
    def grid(self) -> int:
        """Tiles whose corners are multiples of this, on the packed grid, are exact."""
        return self.body.grid

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the clean picture, in float32, not clamped."""
        if x.ndim != 4 or x.shape[1] not in (3, *PACKED.values()):
            raise ValueError(
                f"expected (B, 3, H, W) RGB or packed (B, 12 or 6, h, w), got {tuple(x.shape)}"
            )
        if x.shape[1] != 3:
            return self._denoise(x, sigma)
        height, width = x.shape[2:]
        clean = self._denoise(to_phases(x), sigma)
        return from_phases(clean)[:, :, :height, :width]

    def _denoise(self, packed: Tensor, sigma: Tensor | float) -> Tensor:
        packed = packed.float()
        return packed + self.change([packed], sigma)

    def enter(
        self, packed: Tensor, level: Tensor, more: tuple[Sequence[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Return the features of a packed picture, before the body.

        Args:
            packed: ``(B, 12 or 6, h, w)``.
            level: ``(B, 2, h, w)``.
            more: other maps of that size, and a 3x3 kernel: their convolution is added.

        Returns:
            ``(B, width, H, W)``, with h and w filled up to multiples of the body's stride.
        """
        name = packed_format(packed)
        if name not in self.formats:
            known = ", ".join(self.formats)
            raise ValueError(f"this network takes {known} (or grey, as yuv420), not {name}")
        height, width = packed.shape[2:]
        stem = self.stems[name]
        assert isinstance(stem, nn.Conv2d)
        maps = [packed, level, *(more[0] if more is not None else ())]
        x = torch.cat([m.to(stem.weight.dtype) for m in maps], dim=1)
        down, right = -height % self.body.stride, -width % self.body.stride
        if down or right:
            x = F.pad(x, (0, right, 0, down), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        if more is None:
            return stem(x)
        # One convolution instead of two: a map less is made and read.
        return F.conv2d(x, torch.cat([stem.weight, more[1]], dim=1), padding=1)

    def change(self, pictures: list[Tensor], sigma: Tensor | float) -> Tensor:
        """Take a packed picture out of a list and return the clean one less it, in float32.

        Nothing holds the picture while the network runs: large ones have no room for more.
        """
        packed = pictures.pop()
        level, name = noise_map(sigma, packed), packed_format(packed)
        features = [self.enter(packed, level)]
        del packed
        return self._noise(self.body.refine(features), level, name).neg_()

    def subtract(self, features: Tensor, packed: Tensor, level: Tensor) -> Tensor:
        """Return the packed picture less the noise that the body's features tell, in float32."""
        return packed - self._noise(features, level, packed_format(packed))

    def _noise(self, features: Tensor, level: Tensor, name: str) -> Tensor:
        height, width = level.shape[2:]
        noise = self.tails[name](features)[:, :, :height, :width]
        noise = noise.to(torch.float32, memory_format=torch.contiguous_format)
        if self.limit is not None:
            bound = self.limit * spread(level, PACKED[name])
            noise = noise.clamp_(-bound, bound)
        return noise


def spread(level: Tensor, channels: int) -> Tensor:
    """Give each channel of a packed picture its level.

    Args:
        level: ``(B, 2, h, w)``, luma and chroma; for RGB the larger of the two counts.
        channels: 12 or 6.

    Returns:
        ``(B, channels, h, w)``, or one channel for RGB.
    """
    luma, chroma = level.split(1, dim=1)
    if channels == PACKED["rgb"]:
        return torch.maximum(luma, chroma)
    return torch.cat([luma.expand(-1, 4, -1, -1), chroma.expand(-1, 2, -1, -1)], dim=1)


def packed_format(packed: Tensor) -> str:
    """Return ``rgb`` or ``yuv420``, by the channels."""
    return "rgb" if packed.shape[1] == PACKED["rgb"] else "yuv420"


def noise_map(sigma: Tensor | float, packed: Tensor) -> Tensor:
    """Spread noise levels over a packed picture.

    Args:
        sigma: a number, ``(B,)``, ``(B, 2)`` (luma, chroma) or ``(B, 2, h, w)``.
        packed: ``(B, C, h, w)``.

    Returns:
        ``(B, 2, h, w)``.
    """
    batch, _, height, width = packed.shape
    level = torch.as_tensor(sigma, dtype=packed.dtype, device=packed.device)
    while level.ndim < 4:
        level = level.unsqueeze(-1)
    return level.expand(batch, 2, height, width)


def image_denoiser(
    widths: Sequence[int],
    blocks: Sequence[int],
    limit: float | None = 4.0,
    formats: Sequence[str] = tuple(PACKED),
    *,
    finer: int | None = None,
) -> ImageDenoiser:
    """Build a denoiser with squeeze-and-excitation and a non-local block at the coarsest level.

    Args:
        widths: channels of each level of its :class:`nlden.encoders.UNet`, finest first.
        blocks: residual blocks of each level on each side.
        limit: see :class:`ImageDenoiser`.
        formats: likewise.
        finer: inner width of a second non-local block, at the level above; None is without.
    """
    non_local = partial(
        NonLocal2d, scale="inner", bias=False, norm=None, window=16, block=8, clip=True
    )
    joins: list[Slot | None] = [None] * (len(widths) - 2)
    if finer is not None:
        joins.append(partial(non_local, inner=finer))
    body = UNet(widths, blocks, gate=GATE, bottleneck=non_local, joins=joins)
    return ImageDenoiser(body, limit, formats)


def image_denoiser_base(
    limit: float | None = 4.0, formats: Sequence[str] = tuple(PACKED)
) -> ImageDenoiser:
    """Build the denoiser of the shipped ``image-base`` weights (131 kMAC per pixel).

    Args:
        limit: see :class:`ImageDenoiser`.
        formats: likewise.
    """
    return image_denoiser((64, 96, 192), (1, 3, 1), limit, formats, finer=32)


def image_denoiser_fast(
    limit: float | None = 4.0, formats: Sequence[str] = tuple(PACKED)
) -> ImageDenoiser:
    """Build the denoiser of the shipped ``image-fast`` weights (41 kMAC per pixel).

    Args:
        limit: see :class:`ImageDenoiser`.
        formats: likewise.
    """
    return image_denoiser((32, 64, 128), (1, 2, 1), limit, formats)


def image_denoiser_tiny(
    limit: float | None = 4.0, formats: Sequence[str] = tuple(PACKED)
) -> ImageDenoiser:
    """Build the first stage of videos' networks: few convolutions (5 kMAC per pixel).

    Args:
        limit: see :class:`ImageDenoiser`.
        formats: likewise.
    """
    return ImageDenoiser(UNet((16, 32, 64), (1, 1, 1), down_blocks=(0, 0, 0)), limit, formats)
