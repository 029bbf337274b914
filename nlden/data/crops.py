"""Where training crops come from: pictures in memory, on the device of training, or in files."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.utils.data import Dataset

from nlden.media.stills import read_still

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


def read_size(path: Path) -> tuple[int, int]:
    """Return height and width, from the header where Pillow knows the format."""
    with suppress(UnidentifiedImageError), Image.open(path) as image:
        return image.height, image.width
    height, width = read_still(path).pixels.shape[1:]
    return height, width


@dataclass(frozen=True)
class Places:
    """Where the crops of a batch lie.

    Args:
        index: ``(B,)`` the picture of each crop.
        top: ``(B,)`` its first row.
        left: ``(B,)`` its first column.
        extent: height and width of the crops.
    """

    index: Tensor
    top: Tensor
    left: Tensor
    extent: int


def draw_places(sizes: Tensor, count: int, extent: int, generator: Generator) -> Places:
    """Draw places of square crops, every pixel as likely as any: pictures go by their area.

    Pictures smaller than a crop are passed over.

    Args:
        sizes: ``(pictures, 2)``, heights and widths, on the CPU.
        count: number of crops B.
        extent: height and width of the crops; at least one picture is as large.
        generator: source of randomness, on the CPU.
    """
    draw = torch.rand((3, count), generator=generator)
    area = (sizes.prod(1) * (sizes.amin(1) >= extent)).double().cumsum(0)
    index = torch.searchsorted(area, draw[0].double() * area[-1], right=True)
    height, width = sizes[index].T
    top = (draw[1] * (height - extent + 1)).long()
    left = (draw[2] * (width - extent + 1)).long()
    return Places(index, top, left, extent)


class Pictures(Protocol):
    """Pictures that crops can be taken of."""

    sizes: Tensor
    """Heights and widths ``(pictures, 2)``, on the CPU."""

    def crops(self, places: Places) -> Tensor:
        """Return uint8 ``(B, 3, extent, extent)``."""


Shots = Sequence[tuple[Path, ...] | Tensor]
"""Pictures: image files, of which several of one scene and size are one picture with three channels
each, or what was drawn, uint8 ``(3, H, W)``."""


def read_shots(files: tuple[Path, ...] | Tensor) -> Tensor:
    """Read the files of one picture as uint8 ``(3 * files, H, W)``; what was drawn stays.

    Raises:
        ValueError: if their sizes differ.
    """
    if isinstance(files, Tensor):
        return files
    images = [read_rgb(p) for p in files]
    if any(i.shape != images[0].shape for i in images):
        sizes = ", ".join(
            f"{p} {i.shape[2]}x{i.shape[1]}" for p, i in zip(files, images, strict=True)
        )
        raise ValueError(f"shots of one scene must have one size: {sizes}")
    return torch.cat(images)


class ImageFiles:
    """Pictures that stay in their files: each crop decodes its picture.

    Args:
        shots: the files of each picture, or the picture itself.
    """

    def __init__(self, shots: Shots) -> None:
        self.shots = list(shots)
        self.sizes = torch.tensor(
            [s.shape[1:] if isinstance(s, Tensor) else read_size(s[0]) for s in self.shots]
        )

    def crops(self, places: Places) -> Tensor:
        """Return uint8 ``(B, C, extent, extent)``."""
        return torch.stack(
            [
                read_shots(self.shots[i])[:, top : top + places.extent, left : left + places.extent]
                for i, top, left in zip(
                    places.index.tolist(), places.top.tolist(), places.left.tolist(), strict=True
                )
            ]
        )


class ImageBank:
    """Pictures of any size as one flat uint8 tensor, from which crops are gathered at once.

    Args:
        pixels: uint8 ``(N, C)``, the pixels of all pictures, each in reading order.
        sizes: ``(pictures, 2)``, heights and widths, on the CPU.
        path: file that holds both and is mapped to memory; processes then share it.
    """

    def __init__(self, pixels: Tensor, sizes: Tensor, path: Path | None = None) -> None:
        self.pixels = pixels
        self.sizes = sizes
        self.path = path
        area = sizes.prod(1)
        self._starts = area.cumsum(0) - area

    @classmethod
    def read(cls, shots: Shots) -> "ImageBank":
        """Decode image files and put in what was drawn."""
        images = [read_shots(files) for files in shots]
        pixels = torch.cat([i.permute(1, 2, 0).flatten(0, 1) for i in images])
        return cls(pixels, torch.tensor([i.shape[1:] for i in images]))

    @classmethod
    def mapped(cls, shots: Shots, folder: Path) -> "ImageBank":
        """Decode image files into a file of ``folder``, once, and map it to memory.

        The file is named for the paths, lengths and times of the images, and for what was drawn:
        changed images make a new one.
        """
        key = hashlib.sha256()
        for files in shots:
            if isinstance(files, Tensor):
                key.update(files.numpy().tobytes())
                continue
            for path in files:
                state = path.stat()
                key.update(f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        target = Path(folder) / f"{key.hexdigest()[:16]}.safetensors"
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            bank = cls.read(shots)
            part = target.with_suffix(f".{os.getpid()}.part")
            save_file({"pixels": bank.pixels, "sizes": bank.sizes}, part)
            part.replace(target)
        return cls.open(target)

    @classmethod
    def open(cls, path: Path) -> "ImageBank":
        """Map a file that :meth:`mapped` has written."""
        held = load_file(path)
        return cls(held["pixels"], held["sizes"], path)

    def __reduce__(self) -> tuple[object, ...]:
        """Send the path of a mapped file to workers, not its contents."""
        if self.path is not None:
            return ImageBank.open, (self.path,)
        return ImageBank, (self.pixels, self.sizes)

    def to(self, device: torch.device) -> "ImageBank":
        """Return the bank with its pixels on a device."""
        return (
            self if self.pixels.device == device else ImageBank(self.pixels.to(device), self.sizes)
        )

    def crops(self, places: Places) -> Tensor:
        """Return uint8 ``(B, C, extent, extent)`` on the device of the pixels."""
        device = self.pixels.device
        corner = self._starts[places.index] + places.top * (width := self.sizes[places.index, 1])
        steps = torch.arange(places.extent, device=device)
        rows = steps[:, None] * width.to(device).view(-1, 1, 1)
        flat = (corner + places.left).to(device).view(-1, 1, 1) + rows + steps
        return self.pixels[flat].permute(0, 3, 1, 2)


class CropBatches(Dataset[tuple[int, Tensor]]):
    """Batches of crops by number: the same number gives the same crops, whoever asks.

    Args:
        pictures: where the crops are taken.
        batch_size: crops of a batch.
        crop: extent of the crops that the network sees.
        rescale: largest factor by which crops are reduced afterwards: every other batch draws its
            own from 1 to this, uniform in its logarithm, and is cropped that much larger.
        seed: source of the places.
    """

    def __init__(
        self, pictures: Pictures, batch_size: int, crop: int, rescale: float, seed: int
    ) -> None:
        self.pictures = pictures
        self.batch_size = batch_size
        self.crop = crop
        self.rescale = rescale
        self.seed = seed

    def places(self, number: int) -> Places:
        """Return where the crops of a batch lie."""
        generator = Generator().manual_seed(self.seed * 2_000_003 + 2 * number)
        drawn = 2 * torch.rand((), generator=generator).item() - 1
        factor = self.rescale ** max(0.0, drawn)
        extent = min(round(self.crop * factor), int(self.pictures.sizes.amin(1).max()))
        return draw_places(self.pictures.sizes, self.batch_size, extent, generator)

    def __getitem__(self, number: int) -> tuple[int, Tensor]:
        """Return the number and uint8 crops ``(B, C, extent, extent)``."""
        return number, self.pictures.crops(self.places(number))
