"""Standard input and output as media files: ``-``, as command lines have it.

What comes through a pipe is read once, from its beginning to its end; what goes into one has no
name to appear under and is never looked at again.
"""

from pathlib import Path

import av

PIPE = Path("-")
"""Stands for standard input among sources and for standard output as a target."""

FORMAT = "yuv4mpegpipe"
"""FFmpeg's name of the format that goes into a pipe unless another is named."""

_SEEKING = ("mp4", "mov", "ipod", "3gp", "3g2", "psp", "f4v")

STDIN, STDOUT = "pipe:0", "pipe:1"  # FFmpeg's names of them


def is_pipe(path: Path) -> bool:
    """Tell whether a path is ``-``."""
    return path == PIPE


def suffix_of(form: str) -> str:
    """Return the extension, with its dot, of an output format of FFmpeg (``matroska``).

    Raises:
        ValueError: if there is no such format, or none that a pipe can carry.
    """
    if form in _SEEKING:
        raise ValueError(f"-f {form}: has to go back in what is written; use nut or matroska")
    try:
        extensions = av.ContainerFormat(form, "w").extensions
    except ValueError as error:
        names = f"{FORMAT}, nut, matroska"
        raise ValueError(f"-f {form}: no such output format (try {names})") from error
    return f".{min(extensions)}" if extensions else ""
