"""How the planes of a picture enter a network and what it changes comes back to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nlden.media.color import NEUTRAL, YCbCr, pack_yuv420, unpack_yuv420
from nlden.media.phases import from_phases, to_phases
from nlden.media.probe import SUBSAMPLING
from nlden.noise.estimation import Levels

# Interpolating chroma to the size of luma keeps this share of the variance of its noise.
_INTERPOLATED = {
    **{"yuv422": 5 / 8, "yuv440": 5 / 8, "yuv420": (5 / 8) ** 2},
    **{"yuv411": 21 / 32, "yuv410": (21 / 32) ** 2},
}


class KindError(ValueError):
    """A network does not take pictures of a kind. The message is one line for the user."""


@dataclass(frozen=True)
class Packing:
    """The way of one kind of planes through a network.

    4:2:0 and grey pictures go through the network's ``yuv420`` way, plane by plane as they are
    stored. Others go through RGB, and the *change* that the network makes is carried back to
    the planes: what is not changed is not converted either. Networks without a ``yuv420`` way
    take 4:2:0 through RGB too, and grey as three equal channels.

    Args:
        kind: of the planes, as in :class:`nlden.media.Layout`.
        color: their matrix and range.
        levels: their noise levels.
        formats: packed formats that the network takes.

    Raises:
        KindError: if it takes none of those that such planes can be packed as.
    """

    kind: str
    color: YCbCr
    levels: Levels
    formats: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse what has no way through the network."""
        if not self._by_planes and "rgb" not in self.formats:
            raise KindError(f"these weights take 4:2:0 and grey pictures, not {self.kind}")

    @property
    def _by_planes(self) -> bool:
        return self.kind in ("yuv420", "gray") and "yuv420" in self.formats

    @property
    def scales(self) -> list[tuple[float, float]]:
        """Return how many samples of each plane, down and across, lie on a packed position."""
        across, down = SUBSAMPLING.get(self.kind, (1, 1))
        return [(2, 2), (2 / down, 2 / across)][: 1 if self.kind in ("gray", "rgb") else 2]

    @property
    def reach(self) -> int:
        """How far, on the packed grid, a sample of a plane reaches on its way in and out."""
        return 0 if self._by_planes or self.kind in ("gray", "rgb") else 4

    @property
    def sigma(self) -> tuple[float, float]:
        """Return the levels of luma and chroma to tell the network."""
        luma, chroma = self.levels.luma, self.levels.chroma
        if self.kind == "gray":
            return luma, 0.0 if self._by_planes else luma
        if self._by_planes or self.kind == "rgb":
            return luma, chroma
        luma_unit, chroma_unit = self.color.plane_levels(1.0)
        kept = _INTERPOLATED.get(self.kind, 1.0) ** 0.5
        return luma / luma_unit, chroma * kept / chroma_unit

    def enter(self, values: Sequence[Tensor]) -> Tensor:
        """Pack float planes, shaped as in :class:`nlden.media.Frame`, as the network takes them.

        Returns:
            ``(1, 12 or 6, h, w)``.
        """
        height, width = values[0].shape[1:]
        if self._by_planes:
            if self.kind == "gray":
                half = ((height + 1) // 2, (width + 1) // 2)
                chroma = values[0].new_full((1, 2, *half), NEUTRAL)
            else:
                chroma = values[1][None]
            return pack_yuv420(values[0][None], chroma)
        if self.kind == "gray":
            rgb = values[0].expand(3, -1, -1)
        elif self.kind == "rgb":
            rgb = values[0]
        else:
            across, down = SUBSAMPLING[self.kind]
            wide = F.interpolate(
                values[1][None], scale_factor=(down, across), mode="bilinear", align_corners=False
            )
            rgb = self.color.to_rgb(torch.cat([values[0], wide[0, :, :height, :width]]))
        return to_phases(rgb[None])

    def leave(self, change: Tensor, height: int, width: int) -> list[Tensor]:
        """Return what a change of the packed picture adds to its planes.

        Args:
            change: ``(1, 12 or 6, h, w)``.
            height: rows of the picture.
            width: its columns.
        """
        if self._by_planes:
            parts = unpack_yuv420(change, (height, width))
            return [part[0] for part in parts[: 1 if self.kind == "gray" else 2]]
        rgb = from_phases(change)[0, :, :height, :width]
        if self.kind == "gray":
            return [rgb.mean(0, keepdim=True)]
        if self.kind == "rgb":
            return [rgb]
        planes = self.color.from_rgb(rgb) - self.color.offsets().to(rgb)[:, None, None]
        across, down = SUBSAMPLING[self.kind]
        more = (0, -width % across, 0, -height % down)
        chroma = F.avg_pool2d(F.pad(planes[None, 1:], more, mode="replicate"), (down, across))
        return [planes[:1], chroma[0]]
