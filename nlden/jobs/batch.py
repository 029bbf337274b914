"""Which files a denoise run reads and writes."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nlden.jobs.journal import kept_frames
from nlden.media.pipes import is_pipe
from nlden.media.sequences import files_of, is_sequence, numbers
from nlden.media.stills import SUFFIXES as STILLS
from nlden.media.stills import is_still

VIDEOS = (
    *(".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"),
    *(".vob", ".wmv", ".flv", ".ogv", ".3gp", ".mxf", ".nut", ".y4m"),
)


class PlanError(ValueError):
    """The inputs and the target do not go together. The message is one line for the user."""


@dataclass(frozen=True)
class Item:
    """One file to denoise.

    Args:
        source: the file.
        target: where its result goes.
        finished: the target is there already and stays.
    """

    source: Path
    target: Path
    finished: bool = False


def plan(
    sources: Sequence[Path],
    output: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    skip_existing: bool = False,
    preview: bool = False,
) -> list[Item]:
    """Pair every input file with its target.

    One file goes to ``output``, or into it if that is a folder. Several files and the media
    files of folders (searched through, hidden ones left out) go into the folder ``output``,
    which mirrors the tree. A name like ``frames/%06d.png`` stands for numbered pictures that are
    one video; one like ``*.mp4`` that no shell has expanded for the files of that form; ``-`` for
    standard input or output.

    Args:
        sources: files, folders and patterns.
        output: file or folder.
        overwrite: existing targets may be replaced, and interrupted runs begun anew.
        resume: interrupted runs are to be continued.
        skip_existing: existing targets stay, and their items are marked as finished.
        preview: the targets are pictures, whatever the inputs.

    Raises:
        PlanError: if an input is missing or without media, if a target is an input, exists,
            holds an interrupted run, is the target of two inputs, or is of the wrong kind.
    """
    if any(map(is_pipe, (*sources, output))) and len(sources) > 1:
        raise PlanError("-: standard input and output carry one video; name one input")
    items: list[Item] = []
    sources = [path for source in sources for path in _expand(source)]
    single = len(sources) == 1 and not sources[0].is_dir()
    into_folder = not single or output.is_dir()
    if not single and output.exists() and not output.is_dir():
        raise PlanError(f"{output}: several inputs need a folder as their target")
    if single and not output.parent.is_dir():
        raise PlanError(f"{output}: there is no folder {output.parent}; make it first")
    for source in sources:
        there = is_pipe(source) or source.exists()
        if not (numbers(source) if is_sequence(source) else there):
            raise PlanError(f"{source}: no such file")
        if source.is_dir():
            items += _folder(source, output)
        else:
            items.append(Item(source, output / source.name if into_folder else output))
    seen: set[Path] = set()
    inputs = {path.resolve() for item in items for path in files_of(item.source)}
    for i, item in enumerate(items):
        exists = _check(item, inputs, preview=preview)
        kept = kept_frames(item.target)
        if exists and skip_existing and not kept:
            items[i] = replace(item, finished=True)
        elif kept and not (resume or overwrite):
            raise PlanError(
                f"{item.target}: an interrupted run has left {kept} finished frames; "
                "--resume goes on with them, -y starts anew"
            )
        elif exists and not (kept or overwrite):
            raise PlanError(f"{item.target}: exists already; -y overwrites it")
        if item.target.resolve() in seen:
            raise PlanError(f"{item.target}: two inputs would be written here; rename one")
        seen.add(item.target.resolve())
    return items


def _expand(source: Path) -> list[Path]:
    if source.exists() or is_sequence(source) or not glob.has_magic(str(source)):
        return [source]
    # Path.glob takes no absolute patterns.
    found = sorted(map(Path, glob.glob(str(source), recursive=True)))  # noqa: PTH207
    if not found:
        raise PlanError(f"{source}: no such files")
    return found


def _folder(folder: Path, output: Path) -> list[Item]:
    if folder.resolve() == output.resolve():
        raise PlanError(f"{output}: the target is an input; inputs are never overwritten")
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in (*VIDEOS, *STILLS)
        and p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        and output.resolve() not in p.resolve().parents
    )
    if not files:
        raise PlanError(f"{folder}: no videos or pictures in this folder")
    return [Item(p, output / p.relative_to(folder)) for p in files]


def _check(item: Item, inputs: set[Path], *, preview: bool) -> bool:
    """Refuse an impossible target; tell whether it exists."""
    target = item.target
    video = not is_still(item.source)
    if is_pipe(target):
        if not video:
            raise PlanError(f"{item.source}: a picture cannot be written to a pipe; name a file")
        return False
    if not inputs.isdisjoint(file.resolve() for file in (target, *files_of(target))):
        raise PlanError(f"{target}: the target is an input; inputs are never overwritten")
    if target.is_dir():
        raise PlanError(f"{target}: the target is a folder")
    known: tuple[str, ...] = VIDEOS if video else STILLS
    kind = "video" if video else "picture"
    if preview:
        video, kind, known = False, "preview", (".png",)
    if not (video if is_sequence(target) else target.suffix.lower() in known):
        raise PlanError(
            f"{target}: a {kind} cannot be written with the extension "
            f"{target.suffix or '(none)'}; use {', '.join(known[:5])}"
        )
    return bool(numbers(target)) if is_sequence(target) else target.exists()
