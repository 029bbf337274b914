"""Chunks of PNG files that tell colour and texts; Pillow does not carry them over by itself."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"tIME", b"tEXt", b"zTXt", b"iTXt")
_DEPTH = 8  # place of the bit depth in the header's data
_METRE = 0.0254  # inches to metres


def read_chunks(path: Path) -> tuple[int, PngInfo]:
    """Return the bit depth of a PNG file, and what it tells of its colour and in texts.

    Of a file that is no PNG the depth is 0.
    """
    depth, kept = 0, PngInfo()
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) == _SIGNATURE:
            while len(head := file.read(8)) == 8:
                length, kind = struct.unpack(">I4s", head)
                if kind == b"IHDR":
                    data = file.read(length)
                    depth = data[_DEPTH] if len(data) > _DEPTH else 0
                elif kind in _KEPT:
                    kept.add(kind, file.read(length))
                else:
                    file.seek(length, 1)
                file.seek(4, 1)  # the checksum
    return depth, kept


def with_metadata(png: bytes, metadata: dict[str, Any]) -> bytes:
    """Put metadata, as Pillow saves them, into an encoded PNG, in place of its own."""
    more: list[tuple[bytes, bytes]] = []
    if profile := metadata.get("icc_profile"):
        more.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if dpi := metadata.get("dpi"):
        more.append((b"pHYs", struct.pack(">IIB", *(round(float(d) / _METRE) for d in dpi), 1)))
    if exif := metadata.get("exif"):
        more.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if kept := metadata.get("pnginfo"):
        more += [chunk[:2] for chunk in kept.chunks]
    header, *rest = (c for c in _chunks(png) if c[0] in (b"IHDR", b"IDAT", b"IEND"))
    return _SIGNATURE + b"".join(_encoded([header, *more, *rest]))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_SIGNATURE)
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        yield kind, png[place + 8 : place + 8 + length]
        place += length + 12


def _encoded(chunks: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for kind, data in chunks:
        yield struct.pack(">I", len(data)) + kind + data
        yield struct.pack(">I", zlib.crc32(kind + data))
