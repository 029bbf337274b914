"""``nlden info``: what files hold and what this machine can do."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlden.cli.errors import UsageError
from nlden.cli.text import grid, plain, size_text, time_text

if TYPE_CHECKING:
    from rich.console import Console

    from nlden.jobs.hardware import Hardware
    from nlden.jobs.inspect import FileFacts
    from nlden.media.facts import Picture, StreamFacts


def command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Videos, pictures or folders.", show_default=False),
    ] = None,
    cuts: Annotated[
        bool, typer.Option("--cuts", help="Find scene cuts; decodes the whole file.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line for each file.")
    ] = False,
    devices: Annotated[
        bool, typer.Option("--devices", help="What this machine computes and encodes on.")
    ] = False,
) -> None:
    """Show what files hold: streams, colour, timing, noise, and what a denoise run keeps.

    nlden info in.mp4
    """
    if not inputs and not devices:
        raise UsageError("info: name a file, or --devices")

    from dataclasses import asdict

    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if devices:
        from nlden.jobs.hardware import find_hardware

        hardware = find_hardware()
        if as_json:
            typer.echo(json.dumps(asdict(hardware)))
        else:
            _show_hardware(console, hardware)
    from nlden.jobs.inspect import media_files
    from nlden.media.probe import MediaError

    failed = False
    for given in inputs or []:
        try:
            files = media_files(given)
        except MediaError as error:
            print(f"nlden: {error}", file=sys.stderr)
            failed = True
            continue
        for path in files:
            facts = _inspect(path, cuts)
            failed |= facts is None
            if facts is None:
                continue
            if as_json:
                typer.echo(json.dumps(asdict(facts)))
            else:
                _show(console, facts)
    if failed:
        raise typer.Exit(1)


def _inspect(path: Path, cuts: bool) -> "FileFacts | None":
    """Describe one file, under a progress bar if it is decoded; an error is told in one line."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from nlden.jobs.inspect import inspect_file
    from nlden.media.probe import MediaError

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.fields[frames]} frames"),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(path.name, total=None, frames="?")

    def progress(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total or None, frames=total or "?")

    try:
        # Where it cannot draw, a bar would leave an empty line.
        with bar if cuts and bar.console.is_terminal else nullcontext():
            facts = inspect_file(path, progress if cuts else None)
    except (MediaError, OSError) as error:
        print(f"nlden: {error}", file=sys.stderr)
        return None
    for warning in facts.warnings:
        print(f"nlden: warning: {warning}", file=sys.stderr)
    return facts


def _show(console: "Console", facts: "FileFacts") -> None:
    from rich.table import Table

    rows = [("container", facts.container), ("size", size_text(facts.size))]
    if facts.duration is not None:
        rows.append(("duration", time_text(facts.duration)))
    for stream in facts.streams:
        if stream.picture is not None and not stream.dispositions.count("attached_pic"):
            rows += _picture_rows(stream.picture)
    rows.append(("noise", f"{facts.noise.luma:.1f} luma, {facts.noise.chroma:.1f} chroma (of 255)"))
    if facts.cuts is not None:
        times = ", ".join(f"{time_text(cut.second)} (frame {cut.frame})" for cut in facts.cuts)
        rows.append(("cuts", f"{len(facts.cuts)}{': ' if times else ''}{times}"))
    rows += [
        ("chapter", f"{time_text(c.start)} to {time_text(c.end)}  {c.title}".rstrip())
        for c in facts.chapters
    ]
    rows += [("metadata", f"{key}: {value}") for key, value in facts.metadata.items()]
    console.print(plain(facts.path), style="bold", soft_wrap=True)
    console.print(grid(rows))
    if facts.streams:
        table = Table("#", "type", "codec", "language", "title", "flags", "form", "denoise")
        for stream in facts.streams:
            table.add_row(*map(plain, _stream_row(stream)))
        console.print(table)
    console.print()


def _picture_rows(picture: "Picture") -> list[tuple[str, str]]:
    forms = (picture.pixel_format, f"{picture.bits} bits", picture.chroma, picture.fields)
    rows = [
        ("picture", f"{picture.width}x{picture.height}, {', '.join(f for f in forms if f)}"),
    ]
    if picture.alpha:
        rows.append(("alpha", "yes"))
    if picture.taken_as is not None:
        said = {
            "range": picture.range,
            "matrix": picture.matrix,
            "primaries": picture.primaries,
            "transfer": picture.transfer,
        }
        told = ", ".join(f"{name} {value or 'unspecified'}" for name, value in said.items())
        guess = "" if picture.range and picture.matrix else f" (taken as {picture.taken_as})"
        rows.append(("colour", told + guess))
    if picture.aspect is not None:
        rows.append(("pixels", f"aspect {picture.aspect}"))
    if picture.rotation:
        rows.append(("rotation", f"{picture.rotation} degrees"))
    if picture.hdr:
        rows.append(("HDR", ", ".join(f"{key} {value}" for key, value in picture.hdr.items())))
    if (timing := picture.timing) is not None:
        rate = "" if timing.rate is None else f"{timing.rate:.6g} fps, "
        spread = ""
        if timing.slowest is not None and timing.fastest is not None:
            spread = f" ({timing.slowest:.4g} to {timing.fastest:.4g})"
        kind = "of unknown kind" if timing.kind == "unknown" else timing.kind
        rows.append(("frame rate", f"{rate}{kind}{spread}"))
    return rows


def _stream_row(stream: "StreamFacts") -> list[str]:
    form = ""
    if stream.picture is not None:
        form = f"{stream.picture.width}x{stream.picture.height} {stream.picture.pixel_format}"
    elif stream.sound is not None:
        form = f"{stream.sound[0]} Hz {stream.sound[1]}"
    named = (stream.kind, stream.codec, stream.language, stream.title)
    flags = ", ".join(stream.dispositions)
    return [str(stream.index), *(n or "" for n in named), flags, form, stream.denoised]


def _show_hardware(console: "Console", hardware: "Hardware") -> None:
    from rich.table import Table

    table = Table("device", "what", "memory", "threads", "faster precision", "model for videos")
    for device in hardware.devices:
        table.add_row(
            device.name,
            device.description,
            "" if device.memory is None else size_text(device.memory),
            "" if device.threads is None else str(device.threads),
            device.precision,
            device.model,
        )
    console.print(table)
    works = [name for name, opens in hardware.encoders.items() if opens]
    silent = [name for name, opens in hardware.encoders.items() if not opens]
    rows = [
        ("hardware encoders that open here", ", ".join(works) or "none"),
        ("in this build, but not here", ", ".join(silent) or "none"),
        ("hardware decoders in this build", ", ".join(hardware.decoders) or "none"),
    ]
    console.print(grid(rows))
