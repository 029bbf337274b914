"""Image sequences: numbered pictures under one pattern, ``frames/%06d.png``, as one video."""

import re
from pathlib import Path

ENCODERS = {
    ".png": "png",
    ".jpg": "mjpeg",
    ".jpeg": "mjpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
}
"""FFmpeg's encoder of each extension that a sequence may have."""

_NUMBER = re.compile(r"%(?:0(\d+))?d")


def is_sequence(path: Path) -> bool:
    """Tell whether a path is a pattern of numbered pictures."""
    return path.suffix.lower() in ENCODERS and len(_NUMBER.findall(path.name)) == 1


def numbers(pattern: Path) -> list[int]:
    """Return the numbers of the pictures that are there, in order."""
    before, width, after = _NUMBER.split(pattern.name)
    # %06d writes at least six digits: a seventh is no reason to stop.
    digits = rf"(\d{{{width},}})" if width else r"(\d+)"
    name = re.compile(re.escape(before) + digits + re.escape(after))
    if not pattern.parent.is_dir():
        return []
    matches = (name.fullmatch(path.name) for path in pattern.parent.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def files_of(path: Path) -> list[Path]:
    """Return a file, or the pictures of a pattern that are there."""
    if not is_sequence(path):
        return [path]
    return [file for n in numbers(path) if (file := path.with_name(path.name % n)).exists()]
