"""Which files a denoise run reads and writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nlden.media.pipes import is_pipe
from nlden.media.sequences import is_sequence, numbers
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
    """

    source: Path
    target: Path


def plan(sources: Sequence[Path], output: Path, *, overwrite: bool = False) -> list[Item]:
    """Pair every input file with its target.

    One file goes to ``output``, or into it if that is a folder. Several files and the media
    files of folders (searched through, hidden ones left out) go into the folder ``output``,
    which mirrors the tree. A name like ``frames/%06d.png`` stands for numbered pictures that are
    one video, and ``-`` for standard input or output.

    Raises:
        PlanError: if an input is missing or without media, if a target is an input, exists
            (without ``overwrite``), is the target of two inputs, or is of the wrong kind.
    """
    if any(map(is_pipe, (*sources, output))) and len(sources) > 1:
        raise PlanError("-: standard input and output carry one video; name one input")
    items: list[Item] = []
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
    inputs = {item.source.resolve() for item in items}
    for item in items:
        _check(item, inputs, overwrite=overwrite)
        if item.target.resolve() in seen:
            raise PlanError(f"{item.target}: two inputs would be written here; rename one")
        seen.add(item.target.resolve())
    return items


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


def _check(item: Item, inputs: set[Path], *, overwrite: bool) -> None:
    target = item.target
    video = not is_still(item.source) or is_sequence(item.source)
    if is_pipe(target):
        if not video:
            raise PlanError(f"{item.source}: a picture cannot be written to a pipe; name a file")
        return
    if target.resolve() in inputs:
        raise PlanError(f"{target}: the target is an input; inputs are never overwritten")
    if target.is_dir():
        raise PlanError(f"{target}: the target is a folder")
    if (numbers(target) if is_sequence(target) else target.exists()) and not overwrite:
        raise PlanError(f"{target}: exists already; -y overwrites it")
    kind, known = ("video", VIDEOS) if video else ("picture", STILLS)
    if not (video if is_sequence(target) else target.suffix.lower() in known):
        raise PlanError(
            f"{target}: a {kind} cannot be written with the extension "
            f"{target.suffix or '(none)'}; use {', '.join(known[:5])}"
        )
