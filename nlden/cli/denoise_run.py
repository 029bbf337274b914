"""Running ``nlden denoise``: progress, results, interruptions."""

import json
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nlden.inference.planes import PlaneDenoiser
from nlden.jobs.batch import Item
from nlden.jobs.denoise import Interrupted, Request, Result, denoise_file, precision_name
from nlden.jobs.journal import kept_frames
from nlden.media.probe import MediaError
from nlden.media.target import TargetError

Work: TypeAlias = tuple[Item, str, PlaneDenoiser]
"""A file, the name of its network and the network itself."""

_EVERY = 0.5  # seconds between two objects of progress


class Stop:
    """Whether SIGINT or SIGTERM has asked to stop; while it is entered, a second one does."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.signal is not None

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = number
        # Not through sys.stderr, which the signal may have found in the middle of a line.
        os.write(2, b"nlden: finishing the segment; a second signal stops at once\n")


@dataclass
class Report:
    """Where the progress of a file is told.

    Args:
        item: the file.
        bar: the progress bar.
        as_json: tell it on stdout, too.
        passed: frames that an earlier run has done; they do not count for the speed.
    """

    item: Item
    bar: Progress
    as_json: bool
    passed: int = 0

    def __post_init__(self) -> None:
        self._task = self.bar.add_task(self.item.source.name, total=None, frames="?", fps="-")
        self._begun = self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Tell that so many frames of so many (0: unknown) are done."""
        now = time.monotonic()
        if done <= self.passed:
            self._begun = now
        rate = max(0, done - self.passed) / max(now - self._begun, 1e-9)
        self.bar.update(
            self._task,
            completed=done,
            total=total or None,
            frames=total or "?",
            fps=f"{rate:.2f}",
        )
        if self.as_json and now - self._told >= _EVERY:
            self._told = now
            left = round((total - done) / rate, 1) if total and rate else None
            tell(
                "progress",
                self.item,
                frames=done,
                total=total or None,
                fps=round(rate, 2),
                seconds_left=left,
            )


def progress_bar() -> Progress:
    """Return a bar on stderr that vanishes when it is left."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.fields[frames]} frames"),
        TextColumn("{task.fields[fps]} fps"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def tell(event: str, item: Item, **facts: Any) -> None:
    """Write an event of a file to stdout, as a line of JSON."""
    names = {"event": event, "source": str(item.source), "target": str(item.target)}
    print(json.dumps({**names, **facts}), flush=True)


def _kept(frames: int) -> str:
    arguments = [a for a in sys.argv[1:] if a != "--resume"]
    command = shlex.join(["nlden", *arguments, "--resume"])
    return f"{_frames(frames)} kept; go on with: {command}"


def run_all(work: Sequence[Work], request: Request, stop: Stop, *, as_json: bool = False) -> int:
    """Denoise files one after the other; go on after one that fails; return the exit status.

    Args:
        work: the files.
        request: how.
        stop: asked before each file and after each segment.
        as_json: whether to write progress and results to stdout.
    """
    counts: Counter[str] = Counter()
    for item, name, denoiser in work:
        if stop() or counts["interrupted"]:
            counts["not begun"] += 1
            continue
        if item.finished:
            print(f"{item.target}: is there already, skipped", file=sys.stderr)
            status, facts = "skipped", dict[str, Any]()
        else:
            status, facts = _run(item, name, denoiser, request, stop, as_json)
        counts[status] += 1
        if as_json:
            tell("result", item, status=status, **facts)
    if len(work) > 1:
        rest = "".join(
            f", {counts[kind]} {kind}"
            for kind in ("skipped", "failed", "interrupted", "not begun")
            if counts[kind]
        )
        print(f"{counts['denoised']} of {len(work)} files denoised{rest}", file=sys.stderr)
    if stop.signal is not None and (counts["interrupted"] or counts["not begun"]):
        return 128 + stop.signal
    return 1 if counts["failed"] else 0


def _run(
    item: Item,
    name: str,
    denoiser: PlaneDenoiser,
    request: Request,
    stop: Callable[[], bool],
    as_json: bool,
) -> tuple[str, dict[str, Any]]:
    """Denoise one file under a progress bar; return how it went and the facts."""
    try:
        item.target.parent.mkdir(parents=True, exist_ok=True)
        passed = kept_frames(item.target) if request.resume else 0
        with progress_bar() as bar:
            report = Report(item, bar, as_json, passed)
            result = denoise_file(item.source, item.target, denoiser, request, report, stop)
    except Interrupted as interruption:
        advice = _kept(interruption.frames)
        print(f"nlden: {item.target}: interrupted; {advice}", file=sys.stderr)
        return "interrupted", {"frames": interruption.frames}
    except (MediaError, OSError) as error:
        message = str(error)
        if isinstance(error, TargetError) and (kept := kept_frames(item.target)):
            message += f"; {_kept(kept)}"
        print(f"nlden: {message}", file=sys.stderr)
        return "failed", {"error": message}
    for warning in result.warnings:
        print(f"nlden: warning: {warning}", file=sys.stderr)
    print(_summary(item, name, denoiser, result), file=sys.stderr)
    return "denoised", _facts(name, denoiser, result)


def _facts(name: str, denoiser: PlaneDenoiser, result: Result) -> dict[str, Any]:
    return {
        "frames": result.frames,
        "resumed": result.passed,
        "seconds": round(result.seconds, 3),
        "model": name,
        "device": str(denoiser.device),
        "precision": precision_name(denoiser),
        "noise": {
            "luma": round(255 * result.levels.luma, 2),
            "chroma": round(255 * result.levels.chroma, 2),
        },
        "warnings": result.warnings,
    }


def _frames(number: int) -> str:
    return "1 frame" if number == 1 else f"{number} frames"


def _summary(item: Item, name: str, denoiser: PlaneDenoiser, result: Result) -> str:
    levels, new = result.levels, result.frames - result.passed
    rate = new / max(result.seconds, 1e-9)
    before = f" after {result.passed} of an interrupted run" if result.passed else ""
    return (
        f"{item.target}: {_frames(new)}{before} in {result.seconds:.1f} s "
        f"({rate:.2f} fps, {name}, {denoiser.device.type} {precision_name(denoiser)}), "
        f"noise {255 * levels.luma:.1f} luma, {255 * levels.chroma:.1f} chroma"
    )
