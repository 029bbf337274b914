"""Frames in, frames out: a video denoiser over a stream, at constant memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nlden.inference.tiles import tiled
from nlden.models.image_denoiser import noise_map
from nlden.models.video_denoiser import Shot, VideoDenoiser


@dataclass(frozen=True)
class Seen:
    """A frame, first as it waits for those that follow it, then with them.

    Args:
        shot: as :meth:`VideoDenoiser.look` returns it, then :meth:`VideoDenoiser.look_ahead`.
        level: its noise, ``(1, 2, h, w)``.
        first: whether it is the first of a shot.
    """

    shot: Shot
    level: Tensor
    first: bool


@dataclass(frozen=True)
class StreamState:
    """All that a stream remembers: what follows depends on it and on the frames to come.

    Args:
        past: the last frame that was returned; None at the beginning of a shot.
        pending: the frames that wait for those that follow them, at most the latency.
    """

    past: Shot | None = None
    pending: tuple[Seen, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return it by names, to be stored (with safetensors, for instance)."""
        entries = {} if self.past is None else {"past": self.past.tensors()}
        for i, seen in enumerate(self.pending):
            entries[f"pending.{i}"] = seen.shot.tensors() | {"level": seen.level}
        return {f"{e}.{k}": t.clone() for e, parts in entries.items() for k, t in parts.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "StreamState":
        """Return the state that :meth:`tensors` gave."""

        def parts(name: str) -> dict[str, Tensor]:
            head = f"{name}."
            return {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}

        past = Shot(**parts("past")) if "past.noisy" in tensors else None
        count = sum(k.startswith("pending.") and k.endswith(".level") for k in tensors)
        waiting = [parts(f"pending.{i}") for i in range(count)]
        pending = [
            Seen(level=w.pop("level"), shot=Shot(**w), first=past is None and i == 0)
            for i, w in enumerate(waiting)
        ]
        return cls(past, tuple(pending))


class VideoStream:
    """Denoise the frames of a video one after the other.

    A frame comes out when the ``ahead`` frames after it have come in. However the frames are
    dealt out, and however large the tiles are, the result is that of the whole clip. Nothing
    crosses a cut.

    Args:
        network: the denoiser, on its device.
        tile: what is computed in one piece is no larger than a square of this extent on the packed
            grid; None is no limit.
        state: where to go on.
    """

    def __init__(
        self, network: VideoDenoiser, tile: int | None = None, state: StreamState | None = None
    ) -> None:
        self.network = network
        self.tile = tile
        state = state or StreamState()
        device = next(network.parameters()).device  # a state that was stored lies on the CPU
        self._past = state.past and state.past.to(device)
        self._pending = tuple(
            replace(seen, shot=seen.shot.to(device), level=seen.level.to(device))
            for seen in state.pending
        )
        self._first = state.past is None and not state.pending  # is the next one, of a shot
        known = state.pending[-1].shot if state.pending else state.past
        # Kept apart: the past may change while another thread looks at frames.
        self._shape = None if known is None else known.noisy.shape

    @property
    def state(self) -> StreamState:
        """Return what it remembers; of use between calls of :meth:`push`."""
        first = self._pending[0].first if self._pending else self._first
        return StreamState(None if first else self._past, self._pending)

    @property
    def latency(self) -> int:
        """Return how many frames come in before the first comes out, less one."""
        return self.network.ahead

    @torch.inference_mode()
    def look(self, noisy: Tensor, sigma: Tensor | float, *, cut: bool = False) -> list[Seen]:
        """Take the next frame and return for :meth:`denoise` those whose followers are known.

        None of it depends on frames that are denoised: another thread may do it before.

        Args:
            noisy: packed, ``(1, 12 or 6, h, w)``.
            sigma: its noise, as :class:`VideoDenoiser` takes it; the same for all of a shot, whose
                frames are weighed against each other by it.
            cut: whether it is the first of a shot.

        Raises:
            ValueError: if the frame is of another format or size than those before, or holds
                what is no number, which every frame after it would inherit.
        """
        if not noisy.isfinite().all():
            raise ValueError("the frame holds NaN or infinite values; replace them before")
        if self._shape is not None and self._shape != noisy.shape:
            raise ValueError(
                f"the frame has the shape {tuple(noisy.shape)} after frames of "
                f"{tuple(self._shape)}; finish this stream and open another"
            )
        ready = self._rest() if cut else []
        noisy, self._shape = noisy.float(), noisy.shape
        level = noise_map(sigma, noisy)

        def look(noisy: Tensor, level: Tensor) -> tuple[Tensor]:
            return (self.network.look(noisy, level).clean,)

        (clean,) = self._tiled(look, [noisy, level], [noisy])
        shot = Shot(noisy, clean, noisy, torch.ones_like(level))
        self._pending = (*self._pending, Seen(shot, level, self._first))
        self._first = False
        if len(self._pending) > self.network.ahead:
            ready.append(self._look_ahead())
        return ready

    @torch.inference_mode()
    def denoise(self, seen: Sequence[Seen]) -> list[Shot]:
        """Return frames as they came and clean; what follows depends on the last one alone."""
        return [self._denoise(s) for s in seen]

    def push(self, noisy: Tensor, sigma: Tensor | float, *, cut: bool = False) -> list[Shot]:
        """Take the next frame, see :meth:`look`, and return those that are ready."""
        return self.denoise(self.look(noisy, sigma, cut=cut))

    @torch.inference_mode()
    def finish(self) -> list[Shot]:
        """Return the frames that no other follows; the next one begins a new shot."""
        ready = self.denoise(self._rest())
        self._shape = None
        return ready

    def _rest(self) -> list[Seen]:
        """Return the waiting frames, which no other follows; the next one begins a new shot."""
        ready = []
        while self._pending:
            ready.append(self._look_ahead())
        self._first = True
        return ready

    def _look_ahead(self) -> Seen:
        """Return the first of the waiting frames with the others."""
        seen, *following = self._pending
        if following:
            shot, names = seen.shot, list(seen.shot.tensors())

            def look_ahead(level: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
                here, *others = _shots(names, maps)
                mean = self.network.look_ahead(here, level, others)
                return mean.fused, mean.variance

            maps = [t for s in self._pending for t in s.shot.tensors().values()]
            like = [shot.noisy, seen.level]
            fused, variance = self._tiled(look_ahead, [seen.level, *maps], like)
            seen = replace(seen, shot=replace(shot, fused=fused, variance=variance))
        self._pending = tuple(following)
        return seen

    def _denoise(self, seen: Seen) -> Shot:
        """Denoise a frame and make it the past."""
        past = None if seen.first else self._past
        shots = [seen.shot] if past is None else [seen.shot, past]
        names = list(seen.shot.tensors())

        def denoise(level: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
            here, *before = _shots(names, maps)
            done = self.network.denoise(here, level, before[0] if before else None)
            return done.clean, done.fused, done.variance

        noisy, level = seen.shot.noisy, seen.level
        maps = [level, *(t for s in shots for t in s.tensors().values())]
        self._past = Shot(noisy, *self._tiled(denoise, maps, [noisy, noisy, level]))
        return self._past

    def _tiled(
        self,
        network: Callable[..., tuple[Tensor, ...]],
        maps: Sequence[Tensor],
        like: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        reach = self.network.reach
        if self.tile is None or reach is None:
            return network(*maps)
        return tiled(network, maps, like, self.tile, reach, self.network.grid)


def _shots(names: Sequence[str], maps: Sequence[Tensor]) -> list[Shot]:
    """Put shots together from their maps, one after the other."""
    parts = iter(maps)
    return [Shot(**{name: next(parts) for name in names}) for _ in range(len(maps) // len(names))]
