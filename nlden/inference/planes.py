"""Denoise the planes of pictures and videos as files store them."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nlden.inference.engines import to_device
from nlden.inference.packing import Packing
from nlden.inference.stream import Seen, StreamState, VideoStream
from nlden.inference.tiles import cut_tiles, tiled
from nlden.media.color import YCbCr
from nlden.media.probe import Layout
from nlden.models import ImageDenoiser, VideoDenoiser
from nlden.models.video_denoiser import Shot
from nlden.noise.estimation import Levels

Planes: TypeAlias = tuple[Tensor, ...]
"""Codes of a picture as in :class:`nlden.media.Frame`."""

# Halos cost time, large tiles memory: a photograph of 24 megapixels takes four tiles in float32 and
# one in 16 bits, and under 2.5 GiB. Networks of videos hold several maps of each of their frames.
_IMAGE_TILE, _IMAGE_TILE_16_BITS, _VIDEO_TILE = 3072, 4920, 2048
_AHEAD = 8 << 20  # bytes of a frame up to which another thread looks at it: not all cores are busy


@dataclass
class PlaneDenoiser:
    """A network and how to run it over stored planes; see :class:`Packing`.

    Args:
        network: the denoiser.
        device: where to run it.
        dtype: its precision.
        tile: what is computed in one piece is no larger than a square of this extent in pixels;
            None is 3072 in float32 and 4920 in 16 bits, of videos' networks 2048.
    """

    network: ImageDenoiser | VideoDenoiser
    device: torch.device
    dtype: torch.dtype
    tile: int | None = None

    def __post_init__(self) -> None:
        self.network = self.network.to(self.device, self.dtype)

    @property
    def extent(self) -> int:
        """Return the extent in pixels of the largest square that is computed in one piece."""
        if self.tile is not None:
            return self.tile
        if not isinstance(self.network, ImageDenoiser):
            return _VIDEO_TILE
        return _IMAGE_TILE if self.dtype.itemsize > 2 else _IMAGE_TILE_16_BITS

    def pieces(self, height: int, width: int) -> int:
        """Return in how many tiles a picture is computed."""
        if self.network.reach is None:
            return 1
        packed = (math.ceil(height / 2), math.ceil(width / 2))
        return len(cut_tiles(*packed, self.extent // 2, self.network.grid))

    def __call__(
        self,
        planes: Planes,
        layout: Layout,
        color: YCbCr,
        levels: Levels,
        strength: float | tuple[float, float] = 1.0,
    ) -> Planes:
        """Return the denoised codes of a picture, of the same shapes and types.

        Args:
            planes: codes as in :class:`nlden.media.Frame`.
            layout: what they are.
            color: their matrix and range.
            levels: noise levels of the planes.
            strength: 0 keeps the picture, 1 takes the denoised one; a blend between. A pair is
                that of luma and that of chroma; of RGB, of the luma and chroma of the change.
        """
        pair = strength if isinstance(strength, tuple) else (strength, strength)
        stream = self.stream(layout, color, levels, pair)
        ((clean, _),) = [*stream.push(planes), *stream.finish()]
        return clean

    def change(
        self, values: Sequence[Tensor], kind: str, color: YCbCr, levels: Levels
    ) -> list[Tensor]:
        """Return what denoising adds to the planes of a picture.

        Args:
            values: float planes on the device, shaped as in :class:`nlden.media.Frame`.
            kind: their kind, as in :class:`nlden.media.Layout`.
            color: their matrix and range.
            levels: noise levels of the planes.
        """
        stream = ChangeStream(self, Packing(kind, color, levels, self.network.formats))
        ((change, _),) = [*stream.push(values), *stream.finish()]
        return change

    def stream(
        self,
        layout: Layout,
        color: YCbCr,
        levels: Levels,
        strength: tuple[float, float] = (1.0, 1.0),
        past: Shot | None = None,
    ) -> "PlaneStream":
        """Return what denoises the frames of a video, one after the other.

        Args:
            layout: of the frames.
            color: their matrix and range.
            levels: their noise levels.
            strength: of luma and of chroma, see :meth:`__call__`.
            past: the frame before the first one, to go on where another stream ended.
        """
        return PlaneStream(self, layout, color, levels, strength, past)

    def by_tiles(
        self, run: Callable[..., Sequence[Tensor]], planes: Sequence[Tensor], packing: Packing
    ) -> Sequence[Tensor]:
        """Apply what takes and returns planes to those of a large picture, tile by tile.

        Of the whole picture nothing is held but what goes in and what comes out.

        Args:
            run: takes planes and returns planes, by this network of images.
            planes: those of the picture.
            packing: the way that ``run`` takes them through the network.
        """
        reach, grid = self.network.reach, self.network.grid
        if reach is None:
            return run(*planes)
        tile, reach = self.extent // 2, reach + packing.reach
        return tiled(lambda *p: tuple(run(*p)), planes, planes, tile, reach, grid, packing.scales)


class ChangeStream:
    """Frames in, what denoising adds to them out.

    Args:
        denoiser: the network.
        packing: the way of the frames through it.
        past: the frame before the first one.
    """

    def __init__(self, denoiser: PlaneDenoiser, packing: Packing, past: Shot | None = None) -> None:
        self._denoiser, self._packing = denoiser, packing
        self._video: VideoStream | None = None
        if isinstance(denoiser.network, VideoDenoiser):
            self._video = VideoStream(denoiser.network, denoiser.extent // 2, StreamState(past))
        self._waiting: deque[Sequence[Tensor]] = deque()

    @property
    def latency(self) -> int:
        """Return how many frames come in before the first comes out, less one."""
        return self._video.latency if self._video is not None else 0

    @property
    def _sigma(self) -> Tensor:
        return torch.tensor([self._packing.sigma], device=self._denoiser.device)

    @torch.inference_mode()
    def look(self, values: Sequence[Tensor], *, cut: bool = False) -> list[Seen] | None:
        """Return what :meth:`push` needs besides the past; another thread may do it before.

        Networks of images have nothing to do before, and large frames wait: None.
        """
        if self._video is None or sum(v.nbytes for v in values) > _AHEAD:
            return None
        return self._video.look(self._packing.enter(values), self._sigma, cut=cut)

    @torch.inference_mode()
    def push(
        self, values: Sequence[Tensor], *, cut: bool = False, seen: Sequence[Seen] | None = None
    ) -> list[tuple[list[Tensor], Shot | None]]:
        """Take the next frame.

        Args:
            values: float planes on the device, shaped as in :class:`nlden.media.Frame`.
            cut: whether it is the first of a shot.
            seen: what :meth:`look` returned of it; None looks now.

        Returns:
            For each frame that is ready the change of its planes, and what the next depends on.
        """
        if self._video is None:
            return [([*self._denoiser.by_tiles(self._change, values, self._packing)], None)]
        if seen is None:
            seen = self._video.look(self._packing.enter(values), self._sigma, cut=cut)
        self._waiting.append(values)
        return self._leave(self._video.denoise(seen))

    @torch.inference_mode()
    def finish(self) -> list[tuple[list[Tensor], Shot | None]]:
        """Return the frames that no other follows."""
        if self._video is None:
            return []
        return self._leave(self._video.finish())

    def _leave(self, shots: Sequence[Shot]) -> list[tuple[list[Tensor], Shot | None]]:
        return [
            (self._packing.leave(s.clean - s.noisy, *self._waiting.popleft()[0].shape[1:]), s)
            for s in shots
        ]

    @torch.inference_mode()
    def once(self, pictures: list[Tensor], height: int, width: int) -> list[Tensor]:
        """Return what a network of images adds to the planes of a picture, in one piece.

        Args:
            pictures: the packed picture, which is taken out of the list.
            height: rows of the picture.
            width: its columns.
        """
        assert isinstance(self._denoiser.network, ImageDenoiser)
        change = self._denoiser.network.change(pictures, self._sigma)
        return self._packing.leave(change, height, width)

    def _change(self, *values: Tensor) -> list[Tensor]:
        return self.once([self._packing.enter(values)], *values[0].shape[1:])


class PlaneStream:
    """Frames of codes in, denoised frames of codes out; see :meth:`PlaneDenoiser.stream`."""

    def __init__(
        self,
        denoiser: PlaneDenoiser,
        layout: Layout,
        color: YCbCr,
        levels: Levels,
        strength: tuple[float, float] = (1.0, 1.0),
        past: Shot | None = None,
    ) -> None:
        self._denoiser, self._layout, self._color = denoiser, layout, color
        self._luma, self._chroma = strength
        self._packing = Packing(layout.kind, color, levels, denoiser.network.formats)
        self._changes = ChangeStream(denoiser, self._packing, past)
        # At strength 0 the network is not asked.
        gray = layout.kind == "gray"
        self._keeps = self._luma == 0 and (gray or self._chroma == 0)
        self._waiting: deque[Planes] = deque()

    @property
    def latency(self) -> int:
        """Return how many frames come in before the first comes out, less one."""
        return 0 if self._keeps else self._changes.latency

    def look(self, planes: Planes, *, cut: bool = False) -> list[Seen] | None:
        """Return what :meth:`push` needs besides the past; another thread may do it before."""
        return None if self._keeps else self._changes.look(self._values(planes), cut=cut)

    def push(
        self, planes: Planes, *, cut: bool = False, seen: Sequence[Seen] | None = None
    ) -> list[tuple[Planes, Shot | None]]:
        """Take the next frame.

        Args:
            planes: its codes.
            cut: whether it is the first of a shot.
            seen: what :meth:`look` returned of it; None looks now.

        Returns:
            The denoised codes of each frame that is ready, of the same shapes and types, and what
            the next one depends on: nothing for networks that take frames one by one.
        """
        if self._keeps:
            return [(planes, None)]
        if isinstance(self._denoiser.network, ImageDenoiser):
            return [(tuple(self._denoiser.by_tiles(self._once, planes, self._packing)), None)]
        self._waiting.append(planes)
        return self._round(self._changes.push(self._values(planes), cut=cut, seen=seen))

    def _once(self, *planes: Tensor) -> Planes:
        # Nothing holds the values while the network runs: large pictures have no room for more.
        packed = [self._packing.enter(self._values(planes))]
        return self._changed(planes, self._changes.once(packed, *planes[0].shape[1:]))

    def _values(self, planes: Planes) -> list[Tensor]:
        device, white = self._denoiser.device, self._layout.white
        return [to_device(p, device).to(torch.float32, copy=True).div_(white) for p in planes]

    def finish(self) -> list[tuple[Planes, Shot | None]]:
        """Return the frames that no other follows; see :meth:`push`."""
        return self._round(self._changes.finish())

    def _round(
        self, ready: Sequence[tuple[list[Tensor], Shot | None]]
    ) -> list[tuple[Planes, Shot | None]]:
        return [(self._changed(self._waiting.popleft(), c), shot) for c, shot in ready]

    @torch.inference_mode()
    def _changed(self, planes: Planes, changes: list[Tensor]) -> Planes:
        scales = (self._luma, self._chroma)
        if self._layout.kind == "rgb":
            changes = [_weighted(changes[0], self._color, *scales)]
            scales = (1.0, 1.0)
        white, largest = self._layout.white, self._layout.largest
        # In their place: large pictures have no room for more.
        return tuple(
            c.mul_(scale * white).add_(to_device(p, c.device)).round_().clamp_(0, largest).to(p)
            for p, c, scale in zip(planes, changes, scales, strict=False)
        )


def _weighted(rgb: Tensor, color: YCbCr, luma: float, chroma: float) -> Tensor:
    """Scale the luma and the chroma of a change of RGB ``(3, H, W)``."""
    if luma == chroma:
        return luma * rgb
    weights = color.weights()
    scale = torch.tensor([luma, chroma, chroma], dtype=weights.dtype)
    mix = weights.inverse() @ (scale[:, None] * weights)
    return torch.einsum("oi,ihw->ohw", mix.to(rgb), rgb)
