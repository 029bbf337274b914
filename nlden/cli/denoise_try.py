"""``nlden denoise`` before a long run: plans, previews and samples."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from nlden.cli.denoise_run import Report, Work, progress_bar, tell
from nlden.cli.text import grid, plain, size_text, time_text
from nlden.inference.planes import PlaneDenoiser
from nlden.jobs.batch import Item
from nlden.jobs.denoise import Request, precision_name
from nlden.jobs.dry_run import DryRun, dry_run
from nlden.jobs.preview import preview, sample
from nlden.media.probe import MediaError


@dataclass(frozen=True)
class Show:
    """What to show instead of a whole run: the frame at ``instant``, or ``seconds`` of a clip."""

    instant: float | None
    seconds: float | None


def show_plans(work: Sequence[Work], request: Request, *, as_json: bool) -> int:
    """Tell for each file what a run would do; return the exit status."""
    console = Console(markup=False, emoji=False, highlight=False)
    failed = False
    for item, name, denoiser in work:
        try:
            trial = dry_run(item.source, item.target, denoiser, request)
        except (MediaError, OSError) as error:
            print(f"nlden: {error}", file=sys.stderr)
            failed = True
            continue
        kinds = {
            "model": name,
            "device": str(denoiser.device),
            "precision": precision_name(denoiser),
        }
        if as_json:
            facts = asdict(trial)
            facts["levels"] = {k: round(255 * v, 2) for k, v in facts["levels"].items()}
            tell("plan", item, **kinds, seconds=trial.seconds, **facts)
        else:
            _show_plan(console, item, trial, kinds)
    return int(failed)


def _show_plan(console: Console, item: Item, trial: DryRun, kinds: dict[str, str]) -> None:
    table = Table("stream", "denoise")
    for row in trial.streams:
        table.add_row(*map(plain, row))
    width, height = trial.size
    pieces = "in one piece" if trial.pieces == 1 else f"in {trial.pieces} tiles"
    levels = trial.levels
    rows = [
        ("network", ", ".join(kinds.values())),
        ("picture", f"{width}x{height}, {pieces} (up to {trial.tile} x {trial.tile} pixels)"),
        ("noise", f"{255 * levels.luma:.1f} luma, {255 * levels.chroma:.1f} chroma (of 255)"),
    ]
    if trial.memory is not None:
        rows.append(("memory", f"below {size_text(trial.memory)}"))
    if trial.device_memory is not None:
        rows.append(("device memory", f"about {size_text(trial.device_memory)}"))
    rate = f"{1 / trial.seconds_per_frame:.2f} frames per second"
    if trial.seconds is not None:
        rows.append(("time", f"about {time_text(trial.seconds)}, {trial.frames} frames at {rate}"))
    else:
        rows.append(("time", f"{rate}; the file does not tell how many there are"))
    console.print(plain(f"{item.source} -> {item.target}"), style="bold", soft_wrap=True)
    console.print(table)
    console.print(grid(rows))


def run_preview(work: Sequence[Work], request: Request, show: Show, *, as_json: bool) -> int:
    """Write a preview or sample of each file; return the exit status."""
    failed = False
    for item, _, denoiser in work:
        try:
            item.target.parent.mkdir(parents=True, exist_ok=True)
            facts = _write(item, denoiser, request, show, as_json)
        except (MediaError, OSError) as error:
            print(f"nlden: {error}", file=sys.stderr)
            failed = True
            continue
        if as_json:
            tell("result", item, status="denoised", **facts)
    return int(failed)


def _write(
    item: Item, denoiser: PlaneDenoiser, request: Request, show: Show, as_json: bool
) -> dict[str, object]:
    if show.instant is not None:
        preview(item.source, show.instant, item.target, denoiser, request)
        print(f"{item.target}: before and after", file=sys.stderr)
        return {"frames": 1}
    assert show.seconds is not None
    with progress_bar() as bar:
        report = Report(item, bar, as_json)
        frames, _, warnings = sample(
            item.source, show.seconds, item.target, denoiser, request, report
        )
    for warning in warnings:
        print(f"nlden: warning: {warning}", file=sys.stderr)
    print(f"{item.target}: {frames} frames side by side", file=sys.stderr)
    return {"frames": frames, "warnings": warnings}
