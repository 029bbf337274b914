"""Files and folders of pictures that appear when they are complete, or not at all."""

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from nlden.media.frames import Frame
from nlden.media.pipes import STDOUT, is_pipe
from nlden.media.probe import MediaError
from nlden.media.sequences import is_sequence
from nlden.media.trim import Packet


class TargetError(MediaError):
    """Writing failed, by a full disk for instance: what was finished before stays good."""


class Unfinished(ABC):
    """A video that is complete when its context is left without an error, given up otherwise."""

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Encode a frame."""

    @abstractmethod
    def write_packet(self, packet: Packet) -> None:
        """Copy a packet of another stream."""

    @abstractmethod
    def close(self) -> None:
        """Complete it."""

    @abstractmethod
    def discard(self) -> None:
        """Give it up."""

    def take(self, item: "Frame | Packet") -> None:
        """Write a frame or a packet, as a reader gives them."""
        if isinstance(item, Frame):
            self.write(item)
        else:
            self.write_packet(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


@dataclass
class Target:
    """A temporary file beside its target that takes the target's name or vanishes.

    For a pattern of numbered pictures it is a pattern in a temporary folder. Standard output
    (``-``) has no name to take and nothing to remove.

    Args:
        path: the target.
        folder: where the temporary file lies instead, on the same file system.
    """

    path: Path
    folder: Path | None = None
    temporary: Path = field(init=False)

    def __post_init__(self) -> None:
        if is_pipe(self.path):
            self.temporary = Path(STDOUT)
            return
        try:
            if is_sequence(self.path):
                self.path.parent.mkdir(exist_ok=True)
                beside = self.folder or self.path.parent
                folder = tempfile.mkdtemp(prefix=".", suffix=".part", dir=beside)
                self.temporary = Path(folder) / self.path.name
                return
            handle, name = tempfile.mkstemp(
                prefix=f".{self.path.stem[:50]}.",  # a name may have 255 bytes
                suffix=f".part{self.path.suffix}",
                dir=self.folder or self.path.parent,
            )
        except OSError as error:
            raise MediaError(f"{self.path}: cannot be written ({error.strerror})") from error
        os.close(handle)
        mask = os.umask(0)
        os.umask(mask)
        self.temporary = Path(name)
        self.temporary.chmod(0o666 & ~mask)

    def keep(self) -> None:
        """Give the file its name."""
        if is_pipe(self.path):
            return
        if is_sequence(self.path):
            for picture in sorted(self.temporary.parent.iterdir()):
                picture.replace(self.path.parent / picture.name)
            self.temporary.parent.rmdir()
            return
        with self.temporary.open("r+b") as file:  # a name must not outlive its content
            os.fsync(file.fileno())
        self.temporary.replace(self.path)

    def discard(self) -> None:
        """Remove the file."""
        if is_pipe(self.path):
            return
        if is_sequence(self.path):
            shutil.rmtree(self.temporary.parent, ignore_errors=True)
            return
        self.temporary.unlink(missing_ok=True)
