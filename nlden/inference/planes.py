"""Denoise the planes of a picture as a file stores them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nlden.inference.tiles import tiled
from nlden.media.color import NEUTRAL, YCbCr, pack_yuv420, unpack_yuv420
from nlden.media.probe import Layout
from nlden.models.image_denoiser import ImageDenoiser
from nlden.noise.estimation import Levels

# Interpolating chroma to the size of luma keeps this share of the variance of its noise.
_INTERPOLATED = {
    **{"yuv422": 5 / 8, "yuv440": 5 / 8, "yuv420": (5 / 8) ** 2},
    **{"yuv411": 21 / 32, "yuv410": (21 / 32) ** 2},
}

DEFAULT_TILE = 2048
"""Largest extent, in pixels, of a picture that is denoised in one piece."""


@dataclass
class PlaneDenoiser:
    """A network and how to run it over stored planes.

    4:2:0 and grey pictures go through the network's ``yuv420`` way, plane by plane as they are
    stored. Others go through RGB, and the *change* that the network makes is carried back to
    the planes: what is not changed is not converted either, and strength 0 returns the codes.
    Networks without a ``yuv420`` way take 4:2:0 through RGB too, and grey as three equal channels.

    Args:
        network: the denoiser.
        device: where to run it.
        dtype: its precision.
        tile: largest extent in pixels that is computed in one piece; None is 2048.
    """

    network: ImageDenoiser
    device: torch.device
    dtype: torch.dtype
    tile: int | None = None

    def __post_init__(self) -> None:
        self.network = self.network.to(self.device, self.dtype)

    def __call__(
        self,
        planes: tuple[Tensor, ...],
        layout: Layout,
        color: YCbCr,
        levels: Levels,
        strength: float | tuple[float, float] = 1.0,
    ) -> tuple[Tensor, ...]:
        """Return the denoised codes, of the same shapes and types.

        Args:
            planes: codes as in :class:`nlden.media.Frame`.
            layout: what they are.
            color: their matrix and range.
            levels: noise levels of the planes.
            strength: 0 keeps the picture, 1 takes the denoised one; a blend between. A pair is
                that of luma and that of chroma; of RGB, of the luma and chroma of the change.
        """
        luma, chroma = strength if isinstance(strength, tuple) else (strength, strength)
        if luma == chroma == 0 or (layout.kind == "gray" and luma == 0):
            return planes
        values = [p.to(self.device).float() / layout.white for p in planes]
        changes = self.change(values, layout.kind, color, levels)
        if layout.kind == "rgb":
            changes = [_weighted(changes[0], color, luma, chroma)]
        else:
            changes = [s * c for s, c in zip((luma, chroma), changes, strict=False)]
        return tuple(
            ((v + c) * layout.white).round().clamp(0, layout.largest).to(p)
            for v, c, p in zip(values, changes, planes, strict=True)
        )

    @torch.inference_mode()
    def change(
        self, values: Sequence[Tensor], kind: str, color: YCbCr, levels: Levels
    ) -> list[Tensor]:
        """Return what denoising adds to the planes.

        Args:
            values: float planes on the device, shaped as in :class:`nlden.media.Frame`.
            kind: their kind, as in :class:`nlden.media.Layout`.
            color: their matrix and range.
            levels: noise levels of the planes.
        """
        if kind in ("yuv420", "gray") and "yuv420" in self.network.formats:
            return self._yuv420(values, levels)
        if kind == "gray":
            change = self._rgb(values[0].expand(3, -1, -1), (levels.luma, levels.luma))
            return [change.mean(0, keepdim=True)]
        if kind == "rgb":
            return [self._rgb(values[0], (levels.luma, levels.chroma))]
        return self._through_rgb(values, kind, color, levels)

    def _yuv420(self, values: Sequence[Tensor], levels: Levels) -> list[Tensor]:
        luma = values[0][None]
        height, width = luma.shape[2:]
        if len(values) == 1:
            half = ((height + 1) // 2, (width + 1) // 2)
            chroma = luma.new_full((1, 2, *half), NEUTRAL)
            levels = Levels(levels.luma, 0.0)
        else:
            chroma = values[1][None]
        packed = pack_yuv420(luma, chroma)
        change = self._change(packed, (levels.luma, levels.chroma))
        parts = unpack_yuv420(change, (height, width))
        return [part[0] for part in parts[: len(values)]]

    def _rgb(self, rgb: Tensor, sigma: tuple[float, float]) -> Tensor:
        height, width = rgb.shape[1:]
        even = F.pad(rgb[None], (0, width % 2, 0, height % 2), mode="replicate")
        change = F.pixel_shuffle(self._change(F.pixel_unshuffle(even, 2), sigma), 2)
        return change[0, :, :height, :width]

    def _through_rgb(
        self, values: Sequence[Tensor], kind: str, color: YCbCr, levels: Levels
    ) -> list[Tensor]:
        luma, chroma = values
        size = luma.shape[1:]
        wide = F.interpolate(chroma[None], size=size, mode="bilinear", align_corners=False)[0]
        rgb = color.to_rgb(torch.cat([luma, wide]))
        luma_unit, chroma_unit = color.plane_levels(1.0)
        kept = _INTERPOLATED.get(kind, 1.0) ** 0.5
        change = self._rgb(rgb, (levels.luma / luma_unit, levels.chroma * kept / chroma_unit))
        change = color.from_rgb(change) - color.offsets().to(change)[:, None, None]
        return [change[:1], F.adaptive_avg_pool2d(change[1:], (chroma.shape[1], chroma.shape[2]))]

    def _change(self, packed: Tensor, sigma: tuple[float, float]) -> Tensor:
        level = packed.new_tensor([sigma])
        reach = self.network.reach
        tile = (self.tile or DEFAULT_TILE) // 2
        if reach is None:
            return self.network(packed, level) - packed
        clean = tiled(lambda x: self.network(x, level), packed, tile, reach, self.network.grid)
        return clean - packed


def _weighted(rgb: Tensor, color: YCbCr, luma: float, chroma: float) -> Tensor:
    """Scale the luma and the chroma of a change of RGB ``(3, H, W)``."""
    if luma == chroma:
        return luma * rgb
    weights = color.weights()
    scale = torch.tensor([luma, chroma, chroma], dtype=weights.dtype)
    mix = weights.inverse() @ (scale[:, None] * weights)
    return torch.einsum("oi,ihw->ohw", mix.to(rgb), rgb)
