"""Photographs for denoising: held on the device as uint8, cropped and made noisy there."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from nlden.data.augment import dihedral, noisy_rgb, noisy_yuv420
from nlden.media.color import YCbCr
from nlden.media.stills import read_still
from nlden.noise.synthesis import quantize, store_yuv420

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


def list_images(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no image.
    """
    files = sorted(p for p in Path(folder).glob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder}: no such folder, or no image in it")
    return files


def read_rgb(path: Path) -> Tensor:
    """Read an image file as uint8 ``(3, H, W)``; grey is repeated, alpha dropped."""
    still = read_still(path)
    pixels = still.pixels if still.bits == 8 else (still.pixels / 257).round().to(torch.uint8)
    return pixels.expand(3, -1, -1).contiguous()


class ImageBank:
    """Pictures of any size as one flat uint8 tensor, from which crops are gathered at once.

    Args:
        images: uint8 ``(3, H, W)`` each.
    """

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.pixels = torch.cat([i.permute(1, 2, 0).reshape(-1, 3) for i in images])
        self.sizes = torch.tensor([i.shape[1:] for i in images])
        area = self.sizes.prod(1)
        self.starts = area.cumsum(0) - area

    def to(self, device: torch.device) -> "ImageBank":
        """Move the pictures to a device, once."""
        if self.pixels.device != device:
            self.pixels, self.sizes, self.starts = (
                t.to(device) for t in (self.pixels, self.sizes, self.starts)
            )
        return self

    def crops(self, count: int, extent: int, generator: Generator) -> Tensor:
        """Return random crops ``(count, 3, extent, extent)`` in [0, 1].

        Pictures are drawn in proportion to their area, so that every pixel is as likely as any.
        """
        draw = torch.rand((3, count), generator=generator, device=self.pixels.device)
        area = self.sizes.prod(1).double().cumsum(0)
        index = torch.searchsorted(area, draw[0].double() * area[-1])
        height, width = self.sizes[index].T
        top = (draw[1] * (height - extent + 1)).long()
        left = (draw[2] * (width - extent + 1)).long()
        steps = torch.arange(extent, device=self.pixels.device)
        rows = (top[:, None] + steps)[:, :, None]
        columns = (left[:, None] + steps)[:, None, :]
        flat = self.starts[index].view(-1, 1, 1) + rows * width.view(-1, 1, 1) + columns
        return self.pixels[flat].permute(0, 3, 1, 2).float() / 255


class ImageDataModule(LightningDataModule):
    """Folders of clean photographs to noisy/clean pairs.

    The training pictures are decoded once and held as uint8 on the device; cropping, turning
    and noise run there. A batch is RGB or packed 4:2:0 planes. Every 25th file of each folder is
    kept for validation, with fixed noise. Test batches follow the protocol of
    the literature: sorted files, the i-th picture's noise drawn with seed i, neither clipped nor
    rounded.

    Args:
        folders: folders of clean photographs.
        test_folders: folders to test on.
        crop: extent of the training crops in pixels, a multiple of 8.
        batch_size: crops of a training batch.
        batches_per_epoch: batches between validations.
        rgb_share: share of RGB among the batches, 0 to 1.
        test_sigmas: noise levels of the tests, 0 to 255.
        seed: source of all randomness.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        test_folders: Sequence[Path] = (),
        crop: int = 128,
        batch_size: int = 16,
        batches_per_epoch: int = 250,
        rgb_share: float = 0.5,
        test_sigmas: Sequence[float] = (15, 25, 50),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folders = [Path(f) for f in folders]
        self.test_folders = [Path(f) for f in test_folders]
        self.crop = crop
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.rgb_share = rgb_share
        self.test_sigmas = tuple(test_sigmas)
        self.seed = seed
        self._bank: ImageBank | None = None

    def setup(self, stage: str) -> None:
        """Decode the photographs that the stage needs."""
        if stage in ("fit", "validate"):
            files = [list_images(f) for f in self.folders]
            self._held_out = [p for folder in files for p in folder[12::25]]
            if stage == "fit" and self._bank is None:
                images = [
                    read_rgb(p) for folder in files for i, p in enumerate(folder) if i % 25 != 12
                ]
                large = [i for i in images if min(i.shape[1:]) >= self.crop]
                if not large:
                    raise ValueError(f"no training image is as large as crop={self.crop}")
                self._bank = ImageBank(large)

    def train_dataloader(self) -> DataLoader[int]:
        """Return a loader of batch numbers: the batches themselves are made on the device."""
        return DataLoader(range(self.batches_per_epoch), batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Mapping[str, Any]]:
        """Return the held-out crops, RGB and packed 4:2:0, at each test level."""
        return DataLoader(list(self._validation_pairs()), batch_size=None)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Mapping[str, Any]]:
        """Return the pictures of the test folders at each test level."""
        pairs = (
            _gaussian_pair(read_rgb(path), sigma, i, f"{folder.name}/{sigma:g}")
            for folder in self.test_folders
            for sigma in self.test_sigmas
            for i, path in enumerate(list_images(folder))
        )
        return DataLoader(_Stream(pairs), batch_size=None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the training batch on the device of the trainer."""
        trainer = self.trainer
        if trainer is None or not trainer.training or self._bank is None:
            return batch
        device = trainer.strategy.root_device
        # Counted over the whole training, interruptions included, and not in optimiser steps.
        number = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        generator = Generator(device).manual_seed(self.seed * 1_000_003 + number)
        bank = self._bank.to(device)
        clean = dihedral(bank.crops(self.batch_size, self.crop, generator), generator)
        # Spread evenly: the count of RGB batches rises by one where this one is RGB.
        rgb = math.ceil((number + 1) * self.rgb_share) > math.ceil(number * self.rgb_share)
        return (noisy_rgb if rgb else noisy_yuv420)(clean, generator)

    def _validation_pairs(self) -> Sequence[Mapping[str, Any]]:
        pairs = []
        for i, path in enumerate(self._held_out):
            image = read_rgb(path)
            height, width = (min(256, s // 8 * 8) for s in image.shape[1:])
            image = image[:, :height, :width]
            for sigma in self.test_sigmas:
                pair = _gaussian_pair(image, sigma, i, f"rgb/{sigma:g}")
                pairs += [pair, _stored_pair(pair, sigma)]
        return pairs


class _Stream(torch.utils.data.IterableDataset[Mapping[str, Any]]):
    def __init__(self, pairs: Any) -> None:
        self.pairs = pairs

    def __iter__(self) -> Any:
        return iter(self.pairs)


def _gaussian_pair(image: Tensor, sigma: float, seed: int, name: str) -> dict[str, Any]:
    clean = image[None].float() / 255
    noise = torch.randn(clean.shape[1:], generator=Generator().manual_seed(seed))
    level = torch.full((1, 2), sigma / 255)
    return {"noisy": clean + noise * sigma / 255, "clean": clean, "sigma": level, "name": name}


def _stored_pair(pair: Mapping[str, Any], sigma: float) -> dict[str, Any]:
    """Store a pair as 8-bit 4:2:0, limited-range BT.709."""
    color = YCbCr()
    return {
        "noisy": quantize(store_yuv420(quantize(pair["noisy"]), color)),
        "clean": quantize(store_yuv420(pair["clean"], color)),
        "sigma": torch.tensor([color.plane_levels(sigma / 255, averaged=4)]),
        "name": f"yuv420/{sigma:g}",
    }
