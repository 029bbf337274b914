"""TIFF pictures of 16 bits, which Pillow would cut down to 8, read and written by tifffile."""

import logging
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import tifffile
from PIL import Image

from nlden.media.deep import decode_deep
from nlden.media.probe import MediaError

_DEEP = 16
_ICC, _ORIENTATION = 34675, 274
TEXTS = (270, 271, 272, 305, 306, 315, 33432)
"""Tags of description, maker, camera, software, time, author and rights."""

_DAMAGED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zlib.error,
)
"""What tifffile raises on damaged files."""

_PHOTOMETRICS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)


def read_deep_tiff(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, Any]] | None:
    """Read the picture in a TIFF file of 16 bits.

    Args:
        path: the file.

    Returns:
        Codes ``(H, W)`` or ``(H, W, C)`` and metadata as Pillow saves them: ICC profile,
        resolution, orientation and texts. None for 8 bits, and for what is no TIFF file.

    Raises:
        MediaError: for several pages, and for other samples than 8 and 16 bits.
    """
    log = logging.getLogger("tifffile")
    log.addFilter(_silent)  # what it finds strange is told by the errors below, or harmless
    try:
        return _read(path)
    except _DAMAGED as error:
        raise MediaError(f"{path}: not a readable picture ({error})") from error
    finally:
        log.removeFilter(_silent)


def _silent(record: logging.LogRecord) -> bool:
    return False


def _read(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, Any]] | None:
    try:
        file = tifffile.TiffFile(path)
    except (tifffile.TiffFileError, *_DAMAGED):
        return None  # Pillow may know more
    with file:
        # Those that are reduced are thumbnails.
        pages = [page for page in file.pages if not page.aspage().is_reduced]
        if len(pages) > 1:
            raise MediaError(f"{path}: holds {len(pages)} pages; store each as a file of its own")
        page = pages[0].aspage() if pages else file.pages.first
        samples = page.dtype or np.dtype("V")
        if samples.kind in "bu" and page.bitspersample <= _DEEP // 2:
            return None
        if samples != np.uint16 or page.bitspersample != _DEEP:
            name = samples.name if page.dtype else "such"
            raise MediaError(f"{path}: {name} samples are not supported; convert to 8 or 16 bits")
        if page.photometric not in _PHOTOMETRICS:
            name = tifffile.PHOTOMETRIC(page.photometric).name
            raise MediaError(f"{path}: 16 bits of {name} are not supported; convert to RGB or grey")
        return _codes(path, page), _metadata(page)


def _codes(path: Path, page: tifffile.TiffPage) -> np.ndarray[Any, Any]:
    try:
        codes = page.asarray()
        return np.moveaxis(codes, 0, -1) if page.axes == "SYX" else codes
    except ValueError as error:  # LZW, for instance
        # FFmpeg has more codecs, but knows strips alone.
        name = tifffile.COMPRESSION(page.compression).name
        failure = MediaError(
            f"{path}: {name} compression of 16 bits cannot be read here; store it as deflate"
        )
        if page.is_tiled or page.parent.is_bigtiff or page.axes == "SYX":
            raise failure from error
        try:
            codes = decode_deep(path)
        except (ValueError, av.FFmpegError) as deeper:
            raise failure from deeper
        if codes.shape[:2] != (page.imagelength, page.imagewidth):
            raise failure from error
        return codes


def _metadata(page: Any) -> dict[str, Any]:
    tags = {tag.code: tag.value for tag in page.tags}
    exif = Image.Exif()
    for code in (_ORIENTATION, *(TEXTS[1:] if page.is_shaped else TEXTS)):  # tifffile's own note
        if code in tags:
            exif[code] = tags[code]
    metadata = {"exif": exif.tobytes()} if len(exif) else {}
    if _ICC in tags:
        metadata["icc_profile"] = tags[_ICC]
    if page.resolutionunit > 1:  # 1 is without a unit
        metadata["dpi"] = page.get_resolution(tifffile.RESUNIT.INCH)
    return metadata


def write_deep_tiff(path: Path, codes: np.ndarray[Any, Any], metadata: dict[str, Any]) -> None:
    """Write a picture of 16 bits.

    Args:
        path: target.
        codes: uint16 ``(H, W, C)``: grey or RGB, and alpha where C is even.
        metadata: as :func:`read_deep_tiff` returns them; of the EXIF data orientation and texts.
    """
    exif = Image.Exif()
    exif.load(metadata.get("exif", b""))
    tags = [(code, 2, 0, exif[code], True) for code in TEXTS if isinstance(exif.get(code), str)]
    if _ORIENTATION in exif:
        tags.append((_ORIENTATION, 3, 1, exif[_ORIENTATION], True))
    channels = codes.shape[2]
    tifffile.imwrite(
        path,
        codes[..., 0] if channels == 1 else codes,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels % 2 == 0 else None,
        compression="zlib",
        iccprofile=metadata.get("icc_profile"),
        resolution=metadata.get("dpi"),
        resolutionunit="inch" if "dpi" in metadata else None,
        extratags=tags,
        metadata=None,
        software=False,
    )
