"""Photographs for denoising: cropped where they are held, made noisy on the device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning import LightningDataModule, Trainer
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from nlden.data.augment import color_jitter, dihedral, noisy_rgb, noisy_yuv420, resize
from nlden.data.crops import CropBatches, ImageBank, ImageFiles, list_images, read_rgb, read_size
from nlden.data.drawings import EXTENT, draw_pictures, draw_unseen
from nlden.data.pairs import corner, list_pairs, real_pair
from nlden.media.color import YCbCr
from nlden.noise.synthesis import quantize, store_yuv420

Pairs = Callable[[Tensor, Generator], Mapping[str, Tensor]]
"""Makes a batch of clean RGB ``(B, 3, N, N)``, or of two shots ``(B, 6, N, N)``, to pairs."""

_HELD_OUT = 4  # drawings to validate on

Hold = Literal["device", "memory", "disk"]
"""Where training pictures are; see :class:`ImageDataModule`."""


class ImageDataModule(LightningDataModule):
    """Folders of clean photographs to noisy/clean pairs.

    Crops travel as uint8; turning, rescaling, colour jitter and noise run on the device of
    training. A batch depends on ``seed`` and on its number, counted over the whole training: not
    on workers, interruptions or where the pictures are held. Every 25th file of each folder is
    kept for validation, with fixed noise. Test batches follow the protocol of the literature:
    sorted files, the i-th picture's noise drawn with seed i, neither clipped nor rounded.

    Args:
        folders: folders of clean photographs.
        test_folders: folders to test on.
        partners: folders of second shots of the scenes of ``folders``, matched by the order of
            their names: then ``pairs`` must take two shots, as :func:`noise2noise` and
            :func:`supervised` do.
        drawings: pictures to draw besides, see :func:`nlden.data.drawings.draw_pictures`; then
            others are validated on, too, under names that begin with ``drawn/``.
        val_folders: folders of real noisy photographs to validate on, instead of those that are
            held out.
        val_partners: their clean counterparts, likewise.
        val_pairs: what makes the validation pairs of what is held out clean, each with a fixed
            seed; none is Gaussian noise of the ``test_sigmas``, RGB and 4:2:0.
        crop: extent of the training crops in pixels, a multiple of 8.
        batch_size: crops of a training batch.
        batches_per_epoch: batches between validations.
        pairs: what makes the training pairs; several take turns, so that naming one twice
            doubles its share.
        hold: where the training pictures are: on the ``"device"`` of training, decoded once and
            cropped there (the fastest, for sets that fit); in ``"memory"``, decoded once into a
            file that is mapped and shared by the workers; or on ``"disk"``, decoded for each crop
            (any size of set, many workers).
        workers: processes that crop, for ``"memory"`` and ``"disk"``; 0 crops in this one.
        cache: folder of the mapped file.
        rescale: largest factor by which crops are reduced, 1 for none; see :class:`CropBatches`.
        jitter: strength of the colour jitter, 0 for none; see :func:`color_jitter`.
        test_sigmas: noise levels of the tests, 0 to 255.
        seed: source of all randomness.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        test_folders: Sequence[Path] = (),
        partners: Sequence[Path] = (),
        drawings: int = 0,
        val_folders: Sequence[Path] = (),
        val_partners: Sequence[Path] = (),
        val_pairs: Sequence[Pairs] = (),
        crop: int = 128,
        batch_size: int = 16,
        batches_per_epoch: int = 250,
        pairs: Sequence[Pairs] = (noisy_rgb, noisy_yuv420),
        hold: Hold = "device",
        workers: int = 0,
        cache: Path = Path("~/.cache/nlden/images"),
        rescale: float = 1.0,
        jitter: float = 0.0,
        test_sigmas: Sequence[float] = (15, 25, 50),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if rescale < 1:
            raise ValueError(f"rescale={rescale} must be at least 1")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter={jitter} must lie in [0, 1)")
        if jitter and partners:
            raise ValueError(f"jitter={jitter} is for clean photographs, not for pairs of shots")
        if drawings < 0 or (drawings and partners):
            raise ValueError(f"drawings={drawings} must not be negative, and 0 for pairs of shots")
        if not pairs:
            raise ValueError("pairs must name at least one function")
        if min(crop, batch_size, batches_per_epoch) < 1:
            raise ValueError(
                f"crop={crop}, batch_size={batch_size} and "
                f"batches_per_epoch={batches_per_epoch} must be positive"
            )
        if workers and hold == "device":
            raise ValueError(f"workers={workers}: hold='device' crops on the device, without any")
        self.folders = [Path(f) for f in folders]
        self.test_folders = [Path(f) for f in test_folders]
        self.partners = [Path(f) for f in partners]
        self.drawings = drawings
        self.val_folders = [Path(f) for f in val_folders]
        self.val_partners = [Path(f) for f in val_partners]
        self.val_pairs = tuple(val_pairs)
        self.crop = crop
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.pairs = tuple(pairs)
        self.hold = hold
        self.workers = workers
        self.cache = Path(cache).expanduser()
        self.rescale = rescale
        self.jitter = jitter
        self.test_sigmas = tuple(test_sigmas)
        self.seed = seed
        self._crops: CropBatches | None = None

    def setup(self, stage: str) -> None:
        """Read the photographs that the stage needs."""
        if stage not in ("fit", "validate"):
            return
        shots: list[list[tuple[Path, ...]]]
        if self.partners:
            shots = [list(pairs) for pairs in list_pairs(self.folders, self.partners)]
        else:
            shots = [[(p,) for p in list_images(f)] for f in self.folders]
        self._held_out = [files for folder in shots for files in folder[12::25]]
        if stage == "fit" and self._crops is None:
            others = [files for folder in shots for i, files in enumerate(folder) if i % 25 != 12]
            large = [files for files in others if min(read_size(files[0])) >= self.crop]
            if not large:
                raise ValueError(f"no training image is as large as crop={self.crop}")
            shown: list[tuple[Path, ...] | Tensor] = [
                *large,
                *draw_pictures(self.drawings, EXTENT, self.seed),
            ]
            pictures: ImageBank | ImageFiles
            if self.hold == "device":
                pictures = ImageBank.read(shown)
            elif self.hold == "memory":
                pictures = ImageBank.mapped(shown, self.cache)
            else:
                pictures = ImageFiles(shown)
            self._crops = CropBatches(pictures, self.batch_size, self.crop, self.rescale, self.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of numbered batches of uint8 crops; of numbers alone for ``"device"``."""
        assert self._crops is not None, "setup('fit') comes first"
        dataset: Dataset[Any] = Numbers() if self.hold == "device" else self._crops
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=Counting(self),
            num_workers=self.workers,
            # Forked children of a process that runs threads may hang.
            multiprocessing_context="spawn" if self.workers else None,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available() and self.hold != "device",
        )

    def val_dataloader(self) -> DataLoader[Mapping[str, Any]]:
        """Return the held-out crops, RGB and packed 4:2:0, at each test level; or real pairs."""
        return DataLoader(list(self._validation_pairs()), batch_size=None)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Mapping[str, Any]]:
        """Return the pictures of the test folders at each test level."""
        pairs = (
            _gaussian_pair(read_rgb(path), sigma, i, f"{folder.name}/{sigma:g}")
            for folder in self.test_folders
            for sigma in self.test_sigmas
            for i, path in enumerate(list_images(folder))
        )
        return DataLoader(Stream(pairs), batch_size=None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the training batch on the device of the trainer."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.make(batch, self.trainer.strategy.root_device)

    def make(self, batch: Any, device: torch.device) -> Mapping[str, Tensor]:
        """Return what the task is given for a batch of :meth:`train_dataloader`."""
        assert self._crops is not None
        if self.hold == "device":
            number = int(batch)
            assert isinstance(self._crops.pictures, ImageBank)
            self._crops.pictures = bank = self._crops.pictures.to(device)
            crops = bank.crops(self._crops.places(number))
        else:
            number, crops = int(batch[0]), batch[1].to(device)
        generator = Generator(device).manual_seed(self.seed * 2_000_003 + 2 * number + 1)
        clean = dihedral(resize(crops.float() / 255, self.crop), generator)
        clean = color_jitter(clean, self.jitter, generator)
        return self.pairs[number % len(self.pairs)](clean, generator)

    def _validation_pairs(self) -> Iterator[Mapping[str, Any]]:
        if self.val_folders:
            given = list_pairs(self.val_folders, self.val_partners)
            yield from (real_pair(*files) for folder in given for files in folder)
        elif self.partners:
            yield from (real_pair(*files) for files in self._held_out)
        else:
            for i, (path,) in enumerate(self._held_out):
                yield from self._made(corner(read_rgb(path)), i, "")
        for i, image in enumerate(draw_unseen(_HELD_OUT) if self.drawings else ()):
            yield from self._made(corner(image), i, "drawn/")

    def _made(self, image: Tensor, seed: int, kind: str) -> Iterator[Mapping[str, Any]]:
        for pairs in self.val_pairs:
            made = pairs(image[None].float() / 255, Generator().manual_seed(seed))
            yield {**made, "name": kind + pairs.__name__}
        for sigma in () if self.val_pairs else self.test_sigmas:
            pair = _gaussian_pair(image, sigma, seed, f"{kind}rgb/{sigma:g}")
            yield pair
            yield stored_pair(pair, sigma) | {"name": f"{kind}yuv420/{sigma:g}"}


class Numbers(Dataset[int]):
    """The number of a batch is all that is loaded of it."""

    def __getitem__(self, number: int) -> int:
        return number


class Counting(Sampler[int]):
    """The numbers of an epoch's batches; on several devices Lightning deals them out."""

    def __init__(self, module: "Numbered") -> None:
        self.module = module

    def __len__(self) -> int:
        return self.module.batches_per_epoch

    def __iter__(self) -> Iterator[int]:
        start, trainer = 0, self.module.trainer
        if trainer is not None:
            # Counted over the whole training, interruptions included, not in optimiser steps.
            start = trainer.fit_loop.epoch_loop.batch_progress.total.ready * trainer.world_size
        yield from range(start, start + len(self))


class Numbered(Protocol):
    """A data module whose batches are numbered over the whole training."""

    batches_per_epoch: int
    trainer: Trainer | None


class Stream(IterableDataset[Mapping[str, Any]]):
    """Batches that are made when they are needed, once."""

    def __init__(self, pairs: Any) -> None:
        self.pairs = pairs

    def __iter__(self) -> Any:
        return iter(self.pairs)


def _gaussian_pair(image: Tensor, sigma: float, seed: int, name: str) -> dict[str, Any]:
    clean = image[None].float() / 255
    noise = torch.randn(clean.shape[1:], generator=Generator().manual_seed(seed))
    level = torch.full((1, 2), sigma / 255)
    return {"noisy": clean + noise * sigma / 255, "clean": clean, "sigma": level, "name": name}


def stored_pair(pair: Mapping[str, Any], sigma: float) -> dict[str, Any]:
    """Store a pair of pictures with white noise as 8-bit 4:2:0, limited-range BT.709.

    Args:
        pair: ``noisy`` and ``clean``, RGB ``(B, 3, H, W)``.
        sigma: level of the noise, 0 to 255.

    Returns:
        ``noisy`` and ``clean``, packed ``(B, 6, h, w)``, and ``sigma`` of the planes ``(1, 2)``.
    """
    color = YCbCr()
    return {
        "noisy": quantize(store_yuv420(quantize(pair["noisy"]), color)),
        "clean": quantize(store_yuv420(pair["clean"], color)),
        "sigma": torch.tensor([color.plane_levels(sigma / 255, averaged=4)]),
    }
