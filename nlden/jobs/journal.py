"""What an interrupted run leaves beside its target, and whether a later run may go on with it."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nlden.media.probe import MediaError
from nlden.media.segments import finished_frames, write_durably
from nlden.media.sequences import files_of
from nlden.media.target import TargetError
from nlden.models.video_denoiser import Shot
from nlden.noise.estimation import Levels


class ResumeError(MediaError):
    """An interrupted run cannot be continued as asked; it is left as it is."""


def folder_of(target: Path) -> Path:
    """Return the hidden folder beside a target in which its unfinished run lies."""
    # FFmpeg would put numbers for the pattern of numbered pictures in the folder's name, too.
    name = f".{target.name.replace('%', '#')}.segments"
    if len(os.fsencode(name)) > _LONGEST:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}.segments"
    return target.parent / name


def kept_frames(target: Path) -> int:
    """Return how many finished frames an interrupted run into a target has left; 0 is none."""
    folder = folder_of(target)
    return sum(finished_frames(folder)) if (folder / _JOB).exists() else 0


def kept_setting(target: Path, name: str) -> Any:
    """Return a setting of the interrupted run into a target; None if there is none."""
    stored = _load(folder_of(target))
    return None if stored is None else stored["settings"].get(name)


_JOB = "job.json"
_LONGEST = 255  # bytes of a name that file systems take


def _load(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / _JOB).read_text())
    except (OSError, ValueError):
        return None


def source_identity(source: Path) -> dict[str, Any]:
    """Return what tells a source from another or from its changed self: path, size, time."""
    files = files_of(source)
    facts = [file.stat() for file in files]
    return {
        "source": str(source.resolve()),
        "files of the source": len(files),
        "size of the source": sum(f.st_size for f in facts),
        "time of the source": max((f.st_mtime_ns for f in facts), default=0),
    }


def fingerprint(network: nn.Module) -> str:
    """Return a hash of all weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Journal:
    """The folder of a run: opened by one run at a time, gone when the target is complete.

    A denoiser that looks at neighbours begins a segment with the last frame of the one before:
    that lies here, too.

    Args:
        target: the file that is written.
        settings: all that changes the result, by the name to tell the user; JSON values.
        resume: whether to go on with what is there; otherwise it is cleared away.

    Raises:
        ResumeError: if another run is at work, or if its settings were others.
        TargetError: if the folder cannot be written.
    """

    def __init__(self, target: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.target, self.folder = target, folder_of(target)
        self._settings = {**settings, "version": version("nlden")}
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = FileLock(self.folder / "lock")
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ResumeError(f"{target}: another run is writing it; wait, or stop it") from error
        except OSError as error:
            raise TargetError(f"{target}: cannot be written ({error.strerror})") from error
        try:
            self.levels = self._go_on() if resume else None
            self._clear(everything=self.levels is None)
        except BaseException:
            self._lock.release()
            raise

    def _go_on(self) -> Levels | None:
        stored = _load(self.folder)
        if stored is None:
            return None
        before, now = stored["settings"], json.loads(json.dumps(self._settings))
        names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
        if names:
            changes = (f"{n} ({before.get(n)}, now {now.get(n)})" for n in names)
            raise ResumeError(
                f"{self.target}: --resume needs what the interrupted run had; this differs: "
                f"{', '.join(changes)}; -y without --resume starts anew"
            )
        return Levels(*stored["levels"])

    def _clear(self, *, everything: bool) -> None:
        """Remove half-written files, or all that an earlier run left."""
        for path in self.folder.iterdir():
            if path.name.startswith(".") or (everything and path.name != "lock"):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def begin(self, levels: Levels) -> None:
        """Note the noise levels: from now on the run can be continued."""
        self.levels = levels
        job = {"settings": self._settings, "levels": [levels.luma, levels.chroma]}
        try:
            write_durably(self.folder / _JOB, json.dumps(job, indent=1))
        except OSError as error:
            raise TargetError(f"{self.target}: writing failed ({error.strerror})") from error

    def keep_past(self, frames: int, shot: Shot) -> None:
        """Keep the last of so many first frames, on which those that follow depend."""
        path = self._past(frames)
        part = path.with_suffix(".tmp")
        try:
            save_file({k: t.cpu().clone() for k, t in shot.tensors().items()}, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            # Segments are finished in another thread: the one before may be needed still.
            for old in sorted(self.folder.glob("*.past"))[:-2]:
                old.unlink()
        except (OSError, SafetensorError) as error:
            raise TargetError(f"{self.target}: writing failed ({error})") from error

    def past(self, frames: int) -> Shot | None:
        """Return what :meth:`keep_past` kept; None if there is nothing."""
        path = self._past(frames)
        return Shot(**load_file(path)) if path.exists() else None

    def _past(self, frames: int) -> Path:
        return self.folder / f"{frames:09d}.past"

    def close(self, *, keep: bool) -> None:
        """Let the folder go, unless finished segments are to be kept in it."""
        keep = keep and kept_frames(self.target) > 0
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)  # where an open lock cannot be removed
