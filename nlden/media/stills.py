"""Still pictures: PNG, JPEG, WebP and TIFF, 8 and 16 bits, with their metadata.

Pillow reads and writes 8 bits; FFmpeg, through PyAV, the 16 bits of PNG and TIFF colour pictures
that Pillow would cut down to 8.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nlden.media.frames import plane_codes
from nlden.media.probe import MediaError, open_video, reading
from nlden.media.sequences import is_sequence
from nlden.media.target import Target

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

_GRAY = ("1", "L", "LA")
_DEEP = {".png": ("png", "be"), ".tif": ("tiff", "le"), ".tiff": ("tiff", "le")}


@dataclass(frozen=True)
class Still:
    """A decoded picture.

    Args:
        pixels: ``(1, H, W)`` grey or ``(3, H, W)`` RGB codes; uint8, or int32 for 16 bits.
        bits: 8 or 16.
        alpha: ``(1, H, W)`` opacity, if there is one.
        metadata: EXIF, ICC profile and resolution as Pillow saves them.
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
        return image.mode in _GRAY or (image.mode.startswith("I") and _is_deep(path))
    return False


def read_still(path: Path) -> Still:
    """Read a still picture.

    Raises:
        MediaError: if the file cannot be read.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    if deep := _is_deep(path):
        pixels, metadata = _read_deep(path), {}
        # Pillow knows not every deep file.
        with suppress(MediaError), _decoding(path), Image.open(path) as image:
            metadata = _metadata(image)
    else:
        with _decoding(path), Image.open(path) as image:
            metadata = _metadata(image)
            colored = image.mode not in _GRAY
            transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
            mode = "RGBA" if colored else "LA"
            pixels = np.asarray(image.convert(mode if transparent else mode[:-1]))
    planes = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    count = 3 if len(planes) > 2 else 1
    alpha = planes[count:] if len(planes) > count else None
    return Still(planes[:count].contiguous(), 16 if deep else 8, alpha, metadata)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn the errors of Pillow into one line; on damaged files it raises many kinds."""
    try:
        with reading(path):
            yield
    except (Image.DecompressionBombError, SyntaxError, LookupError, struct.error) as error:
        raise MediaError(f"{path}: not a readable picture ({error})") from error


def _metadata(image: Image.Image) -> dict[str, Any]:
    return {k: v for k, v in image.info.items() if k in ("exif", "icc_profile", "dpi")}


def _is_deep(path: Path) -> bool:
    if path.suffix.lower() not in _DEEP:
        return False
    try:
        container, stream = open_video(path)
    except MediaError:  # FFmpeg knows not every picture that Pillow does
        return False
    with container:
        pixel_format = stream.codec_context.format
        return pixel_format is not None and max(c.bits for c in pixel_format.components) > 8


def _read_deep(path: Path) -> np.ndarray[Any, np.dtype[np.int32]]:
    container, stream = open_video(path)
    with container, reading(path):
        frame = next(container.decode(stream))
        channels = len(frame.format.components)
        name = {1: "gray16le", 2: "ya16le", 3: "rgb48le", 4: "rgba64le"}[channels]
        frame = frame.reformat(format=name)
        codes = plane_codes(frame.planes[0], 16, frame.width * channels)
        return codes.reshape(frame.height, frame.width, channels).astype(np.int32)


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
        if still.bits == 16 and suffix in _DEEP:
            _write_deep(target.temporary, pixels.numpy().astype(np.uint16), *_DEEP[suffix])
        else:
            if still.bits == 16:
                pixels = (pixels.float() / 257).round()
            array = pixels.to(torch.uint8).numpy()
            image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
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


def _write_deep(path: Path, pixels: np.ndarray[Any, Any], codec: str, order: str) -> None:
    height, width, channels = pixels.shape
    name = {1: "gray16", 2: "ya16", 3: "rgb48", 4: "rgba64"}[channels] + order
    frame = av.VideoFrame(width, height, name)
    rows = pixels.reshape(height, -1)
    if order == "be":
        rows = rows.byteswap()
    plane_codes(frame.planes[0], 16, width * channels)[:] = rows
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, name
    encoder.time_base = Fraction(1, 25)
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
