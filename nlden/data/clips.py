"""Clips for video denoising: cropped from videos and filmed from photographs, made noisy."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import torch
from lightning import LightningDataModule
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from nlden.data.augment import dihedral, noisy_rgb, noisy_yuv420
from nlden.data.crops import SUFFIXES, list_images, read_rgb
from nlden.data.drawings import EXTENT, draw_pictures, draw_unseen
from nlden.data.images import Counting, Numbers, Pairs, Stream, stored_pair
from nlden.data.synthetic_motion import moving_photographs
from nlden.media.probe import open_video, reading

_HELD_OUT = 10  # one clip in so many is kept for validation
_SEEN, _FRAMES = 160, 8  # extent in pixels and frames of the clips of validation
_CUTS = 0.05  # share of training clips with a cut


def list_clips(folder: Path) -> list[Path]:
    """Return the clips in a folder, sorted: video files, and folders of frames.

    A folder of videos counts as such, so that sets may be sorted into folders.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no clip.
    """
    clips: list[Path] = []
    for path in sorted(Path(folder).glob("*")):
        if path.is_dir():
            inside = [p for p in path.iterdir() if p.is_file()]
            pictures = any(p.suffix.lower() in SUFFIXES for p in inside)
            clips += [path] if pictures else list_clips(path)
        elif path.suffix.lower() not in SUFFIXES and _is_video(path):
            clips.append(path)
    if not clips:
        raise FileNotFoundError(f"{folder}: no such folder, or no clip in it")
    return clips


def _is_video(path: Path) -> bool:
    try:
        with av.open(str(path)) as container:
            return bool(container.streams.video)
    except (av.FFmpegError, OSError):
        return False


def read_clip(path: Path, reduce: int = 1, most: int | None = None) -> Tensor:
    """Read a video file or a folder of frames as uint8 ``(T, 3, H, W)``.

    Args:
        path: the clip.
        reduce: pixels that are averaged along each axis: it takes away the noise and compression
            of the clip itself.
        most: frames to read at the most; None is all.

    Raises:
        ValueError: if the frames differ in size.
        MediaError: if a video cannot be read.
    """
    frames = []
    for frame in _frames(path):
        small = F.avg_pool2d(frame[None].float(), reduce)[0] if reduce > 1 else frame
        frames.append(small.round().to(torch.uint8))
        if frames[0].shape != frames[-1].shape:
            raise ValueError(f"{path}: frame {len(frames) - 1} differs from the first in size")
        if len(frames) == most:
            break
    return torch.stack(frames)


def _frames(path: Path) -> Iterator[Tensor]:
    if path.is_dir():
        yield from (read_rgb(p) for p in list_images(path))
        return
    container, stream = open_video(path)
    stream.thread_type = "AUTO"
    with container, reading(path):
        for frame in container.decode(stream):
            yield torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)


class ClipDataModule(LightningDataModule):
    """Videos and photographs to noisy/clean clips.

    Clips are read once, reduced, and held as uint8 on the device of training, which crops, turns
    and makes noise there. Frames keep their order or turn it round, and some are passed over. A
    share of the clips is filmed from photographs; see
    :func:`nlden.data.synthetic_motion.moving_photographs`. A few have a cut. A batch depends on
    ``seed`` and on its number alone. Every tenth clip of a folder is kept for validation, with
    fixed noise. Test clips are used whole, with noise drawn once per clip, neither clipped nor
    rounded.

    Args:
        folders: folders of clips: video files and folders of frames.
        photographs: folders of clean photographs, for clips with synthetic motion.
        drawings: pictures to draw besides, see :func:`nlden.data.drawings.draw_pictures`; then
            three clips of others are validated on, too, under names that begin with ``drawn/``.
        test_folders: folders of clips to test on.
        reduce: pixels of the training clips that are averaged along each axis.
        frames: frames of a training clip.
        crop: extent of the training clips in pixels, a multiple of 8.
        batch_size: clips of a training batch.
        batches_per_epoch: batches between validations.
        synthetic: share of the training clips that are filmed from photographs.
        longest: frames that are held of a clip at the most.
        pairs: what makes noisy/clean pairs of RGB ``(B, 3, H, W)``; several take turns. The
            frames of a clip are handed over below each other, as one picture, so that they have
            one level.
        val_pairs: likewise for validation, each with a fixed seed; none is Gaussian noise of the
            ``test_sigmas``, RGB and 4:2:0.
        test_sigmas: noise levels of validation and tests, 0 to 255.
        seed: source of all randomness.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        photographs: Sequence[Path] = (),
        drawings: int = 0,
        test_folders: Sequence[Path] = (),
        reduce: int = 2,
        frames: int = 6,
        crop: int = 96,
        batch_size: int = 4,
        batches_per_epoch: int = 100,
        synthetic: float = 0.5,
        longest: int = 60,
        pairs: Sequence[Pairs] = (noisy_rgb, noisy_yuv420),
        val_pairs: Sequence[Pairs] = (),
        test_sigmas: Sequence[float] = (30, 50),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not pairs:
            raise ValueError("pairs must name at least one function")
        if min(frames, crop, batch_size, batches_per_epoch, reduce) < 1:
            raise ValueError(
                f"frames={frames}, crop={crop}, batch_size={batch_size}, "
                f"batches_per_epoch={batches_per_epoch} and reduce={reduce} must be positive"
            )
        if not 0 <= synthetic <= 1:
            raise ValueError(f"synthetic={synthetic} must lie in [0, 1]")
        if drawings < 0:
            raise ValueError(f"drawings={drawings} must not be negative")
        self.folders = [Path(f) for f in folders]
        self.photographs = [Path(f) for f in photographs]
        self.test_folders = [Path(f) for f in test_folders]
        self.reduce, self.frames, self.crop = reduce, frames, crop
        self.batch_size, self.batches_per_epoch = batch_size, batches_per_epoch
        self.drawings = drawings
        self.synthetic = synthetic if photographs or drawings else 0.0
        self.longest = longest
        self.pairs, self.val_pairs = tuple(pairs), tuple(val_pairs)
        self.test_sigmas = tuple(test_sigmas)
        self.seed = seed
        self._clips: list[Tensor] = []
        self._pictures: list[Tensor] = []
        self._held_out: list[tuple[str, Tensor]] = []  # beginnings of names, and clips

    def setup(self, stage: str) -> None:
        """Read the clips that the stage needs."""
        if stage not in ("fit", "validate"):
            return
        listed = [list_clips(folder) for folder in self.folders]
        held_out = [p for clips in listed for p in clips[_HELD_OUT // 2 - 1 :: _HELD_OUT]]
        if not self._held_out:
            self._held_out = [("", read_clip(p, self.reduce, _FRAMES)) for p in held_out]
            if self.drawings:
                self._held_out += [("drawn/", clip) for clip in _film_unseen_drawings()]
        if stage == "validate" or self._clips or self._pictures:
            return
        for path in (p for clips in listed for p in clips if p not in held_out):
            clip = read_clip(path, self.reduce, self.longest)
            if len(clip) >= self.frames and min(clip.shape[2:]) >= self.crop:
                self._clips.append(clip)
        if not self._clips and self.synthetic < 1:
            raise ValueError(
                f"no training clip has frames={self.frames} of crop={self.crop} pixels "
                f"(after reduce={self.reduce})"
            )
        self._pictures = [read_rgb(p) for f in self.photographs for p in list_images(f)]
        self._pictures += draw_pictures(self.drawings, EXTENT, self.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of batch numbers."""
        return DataLoader(Numbers(), batch_size=None, sampler=Counting(self))

    def val_dataloader(self) -> DataLoader[Mapping[str, Any]]:
        """Return crops of the held-out clips, noisy by ``val_pairs`` or at the ``test_sigmas``."""
        batches = list(self._validation_batches())  # a list serves, though it is no Dataset
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def _validation_batches(self) -> Iterator[Mapping[str, Any]]:
        for i, (kind, clip) in enumerate(self._held_out):
            crop = _centre(clip, _SEEN)
            for pairs in self.val_pairs:
                side = min(crop.shape[2:])
                square = crop[..., :side, :side].float() / 255
                made = pair_frames(pairs, square[None], Generator().manual_seed(i))
                yield {**made, "name": kind + pairs.__name__}
            for sigma in () if self.val_pairs else self.test_sigmas:
                yield from _validation(crop, sigma, i, kind)

    def test_dataloader(self) -> DataLoader[Mapping[str, Any]]:
        """Return the test clips at each test level."""
        pairs = (
            gaussian_clip(read_clip(path), sigma, 0) | {"name": f"{path.stem}/{sigma:g}"}
            for folder in self.test_folders
            for path in list_clips(folder)
            for sigma in self.test_sigmas
        )
        return DataLoader(Stream(pairs), batch_size=None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the training batch on the device of the trainer."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.make(int(batch), self.trainer.strategy.root_device)

    def make(self, number: int, device: torch.device) -> Mapping[str, Tensor]:
        """Return a training batch.

        Args:
            number: its number in the training.
            device: where to make it.

        Returns:
            ``noisy`` and ``clean``, ``(B, 3, T, N, N)`` or packed ``(B, 6, T, N/2, N/2)``, and
            ``sigma`` ``(B, 2)``.
        """
        places = Generator().manual_seed(self.seed * 2_000_003 + 2 * number)
        clips = torch.stack([self._draw(places, device) for _ in range(self.batch_size)])
        generator = Generator(device).manual_seed(self.seed * 2_000_003 + 2 * number + 1)
        turned = dihedral(clips.flatten(1, 2), generator).view_as(clips)
        return pair_frames(self.pairs[number % len(self.pairs)], turned, generator)

    def _draw(self, generator: Generator, device: torch.device) -> Tensor:
        """Return a clip ``(T, 3, N, N)``, at times two that meet in a cut."""
        clip = self._clip(generator, device)
        draw = torch.rand(2, generator=generator)
        if draw[0] < _CUTS:
            cut = 1 + int(draw[1] * (self.frames - 1))
            clip = torch.cat([clip[:cut], self._clip(generator, device)[cut:]])
        return clip

    def _clip(self, generator: Generator, device: torch.device) -> Tensor:
        def below(n: int) -> int:
            return int(torch.randint(n, (), generator=generator))

        if float(torch.rand((), generator=generator)) < self.synthetic:
            ground, figure = (self._held(self._pictures, below, device).float() / 255 for _ in "ab")
            return moving_photographs(ground, figure, self.frames, self.crop, generator)
        clip = self._held(self._clips, below, device)
        stride = 1 + below(2) if len(clip) >= 2 * self.frames else 1
        first = below(len(clip) - stride * (self.frames - 1))
        part = clip[first : first + stride * self.frames : stride]
        top, left = (below(s - self.crop + 1) for s in clip.shape[2:])
        part = part[:, :, top : top + self.crop, left : left + self.crop].float() / 255
        return part.flip(0) if below(2) else part

    @staticmethod
    def _held(held: list[Tensor], below: Any, device: torch.device) -> Tensor:
        """Draw one of what is held; it stays on the device from then on."""
        index = below(len(held))
        held[index] = held[index].to(device)
        return held[index]


def pair_frames(pairs: Pairs, clips: Tensor, generator: Generator) -> Mapping[str, Tensor]:
    """Make clips noisy by a function for pictures: a clip is one picture of stacked frames.

    Args:
        pairs: the function.
        clips: ``(B, T, 3, H, W)`` of even height.
        generator: source of randomness, on the device of ``clips``.

    Returns:
        What ``pairs`` returns, with ``noisy`` and ``clean`` as ``(B, C, T, h, w)``.
    """
    frames = clips.shape[1]
    made = dict(pairs(clips.transpose(1, 2).flatten(2, 3), generator))
    for name in ("noisy", "clean"):
        made[name] = made[name].unflatten(2, (frames, -1))
    return made


def gaussian_clip(clip: Tensor, sigma: float, seed: int) -> dict[str, Any]:
    """Return a clip with white noise, drawn once for all frames, neither clipped nor rounded.

    Args:
        clip: uint8 ``(T, 3, H, W)``.
        sigma: 0 to 255.
        seed: of the noise.

    Returns:
        ``noisy`` and ``clean`` ``(1, 3, T, H, W)`` in [0, 1] and ``sigma`` ``(1, 2)``.
    """
    clean = clip.transpose(0, 1)[None].float() / 255
    noise = torch.randn(clean.shape, generator=Generator().manual_seed(seed))
    level = torch.full((1, 2), sigma / 255)
    return {"noisy": clean + noise * sigma / 255, "clean": clean, "sigma": level}


def _film_unseen_drawings() -> Iterator[Tensor]:
    """Film drawings to validate on, three times: the same whatever a training draws."""
    generator = Generator().manual_seed(0)
    pictures = draw_unseen(6)
    for ground, figure in zip(pictures[::2], pictures[1::2], strict=True):
        pair = ground.float() / 255, figure.float() / 255
        yield (moving_photographs(*pair, _FRAMES, _SEEN, generator) * 255).round().to(torch.uint8)


def _validation(clip: Tensor, sigma: float, seed: int, kind: str) -> Iterator[Mapping[str, Any]]:
    pair = gaussian_clip(clip, sigma, seed)
    yield pair | {"name": f"{kind}rgb/{sigma:g}"}
    frames = {name: pair[name][0].transpose(0, 1) for name in ("noisy", "clean")}
    stored = stored_pair(frames, sigma)
    stored |= {name: stored[name].transpose(0, 1)[None] for name in frames}
    yield stored | {"name": f"{kind}yuv420/{sigma:g}"}


def _centre(clip: Tensor, extent: int) -> Tensor:
    height, width = (min(extent, s // 8 * 8) for s in clip.shape[2:])
    top, left = (clip.shape[2] - height) // 2, (clip.shape[3] - width) // 2
    return clip[:, :, top : top + height, left : left + width]
