"""Frames in, frames out: a video denoiser over a stream, at constant memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlden.inference.tiles import tiled
from nlden.models.image_denoiser import noise_map
from nlden.models.video_denoiser import Shot, VideoDenoiser


@dataclass(frozen=True)
class StreamState:
    """All that a stream remembers: what follows depends on it and on the frames to come.

    Args:
        past: the last frame that was returned; None at the beginning of a shot.
        pending: the frames that wait for those that follow them, at most the latency.
    """

    past: Shot | None = None
    pending: tuple[Shot, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return it by names, to be stored (with safetensors, for instance)."""
        shots = {"past": self.past} | {f"pending.{i}": s for i, s in enumerate(self.pending)}
        return {
            f"{name}.{part}": tensor.clone()
            for name, shot in shots.items()
            if shot is not None
            for part, tensor in shot.tensors().items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "StreamState":
        """Return the state that :meth:`tensors` gave."""

        def shot(name: str) -> Shot:
            head = f"{name}."
            return Shot(
                **{k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}
            )

        count = sum(k.startswith("pending.") and k.endswith(".noisy") for k in tensors)
        past = shot("past") if "past.noisy" in tensors else None
        return cls(past, tuple(shot(f"pending.{i}") for i in range(count)))


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
        self.state = state or StreamState()

    @property
    def latency(self) -> int:
        """Return how many frames come in before the first comes out, less one."""
        return self.network.ahead

    @torch.inference_mode()
    def look(self, noisy: Tensor, sigma: Tensor | float) -> Shot:
        """Return what the network makes of a frame alone, as :meth:`push` takes it.

        It does not depend on other frames, so that another thread may do it before.

        Args:
            noisy: packed, ``(1, 12 or 6, h, w)``.
            sigma: its noise, as :class:`VideoDenoiser` takes it.
        """
        noisy = noisy.float()
        level = noise_map(sigma, noisy)

        def look(noisy: Tensor, level: Tensor) -> tuple[Tensor]:
            return (self.network.look(noisy, level).clean,)

        (clean,) = self._tiled(look, [noisy, level], [noisy])
        return Shot(noisy, clean, noisy, torch.ones_like(level))

    @torch.inference_mode()
    def push(self, frame: Tensor | Shot, sigma: Tensor | float, *, cut: bool = False) -> list[Shot]:
        """Take the next frame.

        Args:
            frame: packed, ``(1, 12 or 6, h, w)``, or what :meth:`look` returned of it.
            sigma: its noise, as :class:`VideoDenoiser` takes it.
            cut: whether it is the first of a shot.

        Returns:
            The frames that are ready, each as it came and clean; what follows depends on the
            last one alone.

        Raises:
            ValueError: if the frame is of another format or size than those before, or holds
                what is no number, which every frame after it would inherit.
        """
        noisy = frame.noisy if isinstance(frame, Shot) else frame
        if not noisy.isfinite().all():
            raise ValueError("the frame holds NaN or infinite values; replace them before")
        last = self.state.pending[-1] if self.state.pending else self.state.past
        if last is not None and last.noisy.shape != noisy.shape:
            raise ValueError(
                f"the frame has the shape {tuple(noisy.shape)} after frames of "
                f"{tuple(last.noisy.shape)}; finish this stream and open another"
            )
        ready = self.finish(sigma) if cut else []
        shot = frame if isinstance(frame, Shot) else self.look(frame, sigma)
        pending = (*self.state.pending, shot)
        self.state = StreamState(self.state.past, pending)
        if len(pending) > self.network.ahead:
            ready.append(self._next(noise_map(sigma, shot.noisy)))
        return ready

    @torch.inference_mode()
    def finish(self, sigma: Tensor | float) -> list[Shot]:
        """Return the frames that no other follows; the next one begins a new shot."""
        ready = []
        while self.state.pending:
            ready.append(self._next(noise_map(sigma, self.state.pending[0].noisy)))
        self.state = StreamState()
        return ready

    def _next(self, level: Tensor) -> Shot:
        """Denoise the first of the waiting frames and make it the past."""
        shot, *following = self.state.pending
        past = self.state.past
        shots = [shot, *following] if past is None else [shot, *following, past]
        parts = [shot.tensors() for shot in shots]
        names = list(parts[0])

        def denoise(level: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
            tiles = iter(maps)
            here = [Shot(**{name: next(tiles) for name in names}) for _ in parts]
            before = None if past is None else here.pop()
            done = self.network.denoise(here[0], level, before, here[1:])
            return done.clean, done.fused, done.variance

        maps = [level, *(part[name] for part in parts for name in names)]
        like = [shot.noisy, shot.noisy, level]
        done = Shot(shot.noisy, *self._tiled(denoise, maps, like))
        self.state = StreamState(done, tuple(following))
        return done

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
