"""Still pictures: PNG, JPEG, WebP and TIFF, 8 and 16 bits, with their metadata.

Pillow reads and writes 8 bits; FFmpeg, through PyAV, the 16 bits of PNG, and tifffile those of TIFF
colour pictures, which Pillow would cut down to 8.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from PIL.ExifTags import IFD
from torch import Tensor

from nlden.media.deep import decode_deep, encode_deep_png
from nlden.media.png import read_chunks, with_metadata
from nlden.media.probe import MediaError, reading
from nlden.media.sequences import is_sequence
from nlden.media.target import Target
from nlden.media.tiff import TEXTS, read_deep_tiff, write_deep_tiff

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

_GRAY = ("1", "L", "LA")
_TIFF = (".tif", ".tiff")


@dataclass(frozen=True)
class Still:
    """A decoded picture.

    Args:
        pixels: ``(1, H, W)`` grey or ``(3, H, W)`` RGB codes; uint8, or int32 for 16 bits.
        bits: 8 or 16.
        alpha: ``(1, H, W)`` opacity, if there is one.
        metadata: EXIF and XMP data, ICC profile, resolution and, of PNG, other colour and texts, as
            Pillow saves them.
    """

    pixels: Tensor
    bits: int
    alpha: Tensor | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def is_still(path: Path) -> bool:
    """Tell by its name whether a file is a still picture; numbered pictures are one video."""
    return path.suffix.lower() in SUFFIXES and not is_sequence(path)


def is_gray(path: Path) -> bool:
    """Tell by its header whether a still picture is read as grey; False where it has no header."""
    with suppress(MediaError), _decoding(path), Image.open(path) as image:
        return image.mode in _GRAY or image.mode.startswith("I;16")
    return False


def read_still(path: Path) -> Still:
    """Read a still picture.

    Raises:
        MediaError: if the file cannot be read, or holds several pictures, or samples that are
            neither of 8 nor of 16 bits.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    tiff = path.suffix.lower() in _TIFF
    with _decoding(path):
        if tiff and (deep := read_deep_tiff(path)) is not None:
            pixels, metadata = deep
            return _still(pixels.astype(np.int32), 16, metadata)
        with Image.open(path) as image:
            # A second picture in a JPEG is a small or a brighter copy of the first.
            pages = getattr(image, "n_frames", 1) if image.format != "MPO" and not tiff else 1
            if pages > 1:
                raise MediaError(
                    f"{path}: holds {pages} pictures; store each as a file, or all as a video"
                )
            metadata = _metadata(image)
            depth, kept = read_chunks(path)
            if kept.chunks:
                metadata["pnginfo"] = kept
            if depth == 16:
                return _still(decode_deep(path), 16, metadata)
            if image.mode[0] in "IF":  # of 16 bits and more
                raise MediaError(f"{path}: samples of mode {image.mode} are not supported")
            colors = _rgb_or_gray(image, metadata)
            transparent = colors.mode in ("LA", "PA", "RGBA") or "transparency" in colors.info
            mode = "LA" if colors.mode in _GRAY else "RGBA"
            pixels = np.asarray(colors.convert(mode if transparent else mode[:-1]))
            return _still(pixels, 8, metadata)


def _still(pixels: np.ndarray[Any, Any], bits: int, metadata: dict[str, Any]) -> Still:
    planes = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    count = 3 if len(planes) > 2 else 1
    alpha = planes[count:] if len(planes) > count else None
    return Still(planes[:count].contiguous(), bits, alpha, metadata)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn the errors of Pillow into one line; on damaged files it raises many kinds."""
    try:
        with reading(path):
            yield
    except (Image.DecompressionBombError, SyntaxError, LookupError, struct.error) as error:
        raise MediaError(f"{path}: not a readable picture ({error})") from error


def _metadata(image: Image.Image) -> dict[str, Any]:
    metadata = {k: v for k, v in image.info.items() if k in ("exif", "icc_profile", "dpi", "xmp")}
    if image.format == "TIFF":
        # All tags of the file are its EXIF data; Pillow has turned the pixels already.
        tags, exif = image.getexif(), Image.Exif()
        exif.update({k: tags[k] for k in TEXTS if k in tags})
        exif.update({k: ifd for k in (IFD.Exif, IFD.GPSInfo) if (ifd := tags.get_ifd(k))})
        if len(exif):
            metadata["exif"] = exif.tobytes()
    return metadata


def _rgb_or_gray(image: Image.Image, metadata: dict[str, Any]) -> Image.Image:
    """Bring other colours than RGB to sRGB by their profile, which is no longer theirs then."""
    if image.mode not in ("CMYK", "LAB"):
        return image
    profile = metadata.pop("icc_profile", None)
    if image.mode == "CMYK" and not profile:
        return image.convert("RGB")
    given = io.BytesIO(profile) if profile else ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    try:
        # Without inPlace there is a result.
        return ImageCms.profileToProfile(image, given, srgb, outputMode="RGB") or image
    except ImageCms.PyCMSError:  # a profile of another kind
        return image.convert("RGB")


def write_still(path: Path, still: Still, quality: int = 95) -> None:
    """Write a still picture; the extension chooses the format.

    Args:
        path: target.
        still: the picture; 16 bits are kept by PNG and TIFF and rounded to 8 by the others.
        quality: JPEG and WebP quality.

    Raises:
        MediaError: if the target cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MediaError(f"{path}: unknown picture format; use {', '.join(SUFFIXES)}")
    planes = [still.pixels] + ([still.alpha] if still.alpha is not None else [])
    if suffix in (".jpg", ".jpeg", ".bmp"):
        planes = planes[:1]  # these formats have no alpha
    pixels = torch.cat(planes).permute(1, 2, 0)
    target = Target(path)
    try:
        if still.bits == 16 and suffix in (".png", *_TIFF):
            codes = pixels.numpy().astype(np.uint16)
            if suffix in _TIFF:
                write_deep_tiff(target.temporary, codes, still.metadata)
            else:
                png = with_metadata(encode_deep_png(codes), still.metadata)
                target.temporary.write_bytes(png)
        else:
            if still.bits == 16:
                pixels = (pixels.float() / 257).round()
            array = pixels.to(torch.uint8).numpy()
            image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
            if suffix == ".bmp":  # which cannot tell how it is to be turned
                image.getexif().load(still.metadata.get("exif", b""))
                image = ImageOps.exif_transpose(image)
            options: dict[str, Any] = dict(still.metadata)
            if suffix in (".jpg", ".jpeg", ".webp"):
                options["quality"] = quality
            if suffix in (".jpg", ".jpeg"):
                options["subsampling"] = 0
            image.save(target.temporary, **options)
        target.keep()
    except (OSError, ValueError) as error:
        target.discard()
        raise MediaError(f"{path}: cannot be written ({error})") from error
