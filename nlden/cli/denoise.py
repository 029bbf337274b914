"""``nlden denoise``: files in, clean files out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlden.cli.errors import UsageError, check_choice, check_precision

if TYPE_CHECKING:
    from nlden.inference.planes import PlaneDenoiser
    from nlden.jobs.batch import Item
    from nlden.jobs.denoise import Request, Result


def _level(value: float | None, option: str) -> float | None:
    if value is None:
        return None
    if not 0 <= value <= 255:
        raise UsageError(f"{option} {value:g}: a noise level lies between 0 and 255")
    return value / 255


def _sigma(value: str) -> float | None:
    if value == "auto":
        return None
    try:
        return _level(float(value), "--sigma")
    except ValueError as error:
        raise UsageError(f"--sigma {value}: give auto or a number from 0 to 255") from error


def _tile(value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 64:
        raise UsageError(f"--tile {value}: give auto or a number of pixels from 64")
    return int(value)


def _strength(value: float, option: str) -> float:
    if not 0 <= value <= 1:
        raise UsageError(f"{option} {value:g}: give a number from 0 to 1")
    return value


def _options(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair.strip("="):
            raise UsageError(f"-e {pair}: give key=value")
    return dict(pair.split("=", 1) for pair in pairs)


def _second(value: str | None, option: str) -> float | None:
    if value is None:
        return None
    try:
        parts = [float(part) for part in value.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(not 0 <= part < float("inf") for part in parts):
        raise UsageError(f"{option} {value}: give seconds or [[H:]M:]S")
    return sum(part * 60**i for i, part in enumerate(reversed(parts)))


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...",
            help="Videos, pictures, folders of them, or frames/%06d.png.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="File, or folder for several inputs."),
    ],
    sigma: Annotated[
        str,
        typer.Option(help="Level of white noise in RGB, 0 to 255, or auto: measured in the file."),
    ] = "auto",
    sigma_luma: Annotated[
        float | None, typer.Option(help="Level of the luma plane itself, 0 to 255.")
    ] = None,
    sigma_chroma: Annotated[
        float | None, typer.Option(help="Level of the chroma planes themselves, 0 to 255.")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="0 keeps the picture, 1 denoises fully; a blend between.")
    ] = 1.0,
    luma_strength: Annotated[
        float | None, typer.Option(help="Strength for luma; default: --strength.")
    ] = None,
    chroma_strength: Annotated[
        float | None, typer.Option(help="Strength for chroma; default: --strength.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A name that `nlden models` lists, a weight file, or auto: image-fast for videos "
            "on a CPU, image-base otherwise."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto (the faster of fp32 and bf16 here), fp32, bf16 or fp16.")
    ] = "auto",
    tile: Annotated[
        str, typer.Option(help="Largest extent in pixels that is computed in one piece, or auto.")
    ] = "auto",
    codec: Annotated[
        str | None, typer.Option(help="Encoder (libx264, libx265, ffv1...); default: the source's.")
    ] = None,
    crf: Annotated[
        float | None, typer.Option(help="Quality of the encoder; smaller is better and larger.")
    ] = None,
    encoder_preset: Annotated[str | None, typer.Option(help="Speed preset of the encoder.")] = None,
    pix_fmt: Annotated[
        str | None, typer.Option(help="Pixel format of the output; default: the source's.")
    ] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Encode without loss.")] = False,
    encoder_option: Annotated[
        list[str] | None,
        typer.Option("-e", metavar="KEY=VALUE", help="Another option of the encoder; repeatable."),
    ] = None,
    deinterlace: Annotated[
        str,
        typer.Option(
            help="Of interlaced video make whole frames: auto (of frames flagged as interlaced) "
            "or all; none takes it as progressive; refuse stops."
        ),
    ] = "refuse",
    hwaccel: Annotated[
        str, typer.Option(help="Where to decode: none (the CPU), auto, or cuda, videotoolbox...")
    ] = "none",
    start: Annotated[str | None, typer.Option(help="Begin here: seconds or H:M:S.")] = None,
    end: Annotated[str | None, typer.Option(help="Stop before: seconds or H:M:S.")] = None,
    frames: Annotated[
        int | None, typer.Option(help="Write at most so many frames of a video.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("-y", help="Overwrite existing targets.")] = False,
    seed: Annotated[int, typer.Option(help="Source of randomness, for models that use any.")] = 0,
) -> None:
    """Denoise videos, pictures and folders of them.

    The noise level is measured; sound, subtitles and all else are copied; timing, bit depth and
    colour are kept. A name like frames/%06d.png reads or writes numbered pictures as one video.

    nlden denoise in.mp4 -o out.mp4
    """
    noise = (
        _sigma(sigma),
        _level(sigma_luma, "--sigma-luma"),
        _level(sigma_chroma, "--sigma-chroma"),
    )
    strength = _strength(strength, "--strength")
    if luma_strength is not None:
        _strength(luma_strength, "--luma-strength")
    if chroma_strength is not None:
        _strength(chroma_strength, "--chroma-strength")
    options = _options(encoder_option or [])
    extent = _tile(tile)
    first, last = _second(start, "--start") or 0.0, _second(end, "--end")
    if last is not None and last <= first:
        raise UsageError(f"--end {end}: must come after --start {start or 0}")
    if frames is not None and frames < 1:
        raise UsageError(f"--frames {frames}: give a number from 1")
    check_precision(precision)

    import torch
    from av.codec.hwaccel import hwdevices_available

    from nlden.inference.engines import DeviceError, choose_device, keep_freed_memory
    from nlden.jobs.batch import PlanError, plan
    from nlden.jobs.denoise import Noise, Request, choose_model, open_denoiser
    from nlden.media.interlacing import MODES
    from nlden.media.writer import Encoding
    from nlden.models.pretrained import WeightsError

    check_choice("--deinterlace", deinterlace, MODES)
    check_choice("--hwaccel", hwaccel, ("none", "auto", *hwdevices_available()))
    keep_freed_memory()
    torch.manual_seed(seed)
    request = Request(
        Noise(*noise),
        strength,
        Encoding(codec, crf, encoder_preset, pix_fmt, lossless, options),
        first,
        last,
        frames,
        luma_strength,
        chroma_strength,
        deinterlace,
        hwaccel,
    )
    try:
        items = plan(inputs, output, overwrite=overwrite)
        where = choose_device(device)
        names = [choose_model(model, item.source, where) for item in items]
        denoisers = {name: open_denoiser(name, where, precision, extent) for name in set(names)}
    except (PlanError, WeightsError, DeviceError) as error:
        raise UsageError(str(error)) from error
    runs = zip(items, names, strict=True)
    failed = sum(not _run(item, name, denoisers[name], request) for item, name in runs)
    if len(items) > 1:
        print(f"{len(items) - failed} of {len(items)} files denoised", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _run(item: "Item", name: str, denoiser: "PlaneDenoiser", request: "Request") -> bool:
    """Denoise one file under a progress bar; report, and tell whether it went well."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from nlden.jobs.denoise import denoise_file
    from nlden.media.probe import MediaError

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.fields[frames]} frames"),
        TextColumn("{task.fields[fps]} fps"),
        TimeRemainingColumn(),
    )
    try:
        item.target.parent.mkdir(parents=True, exist_ok=True)
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(item.source.name, total=None, frames="?", fps="-")

            def progress(done: int, total: int) -> None:
                elapsed = bar.tasks[0].elapsed or 0.0
                rate = f"{done / elapsed:.2f}" if elapsed > 0 else "-"
                bar.update(task, completed=done, total=total or None, frames=total or "?", fps=rate)

            result = denoise_file(item.source, item.target, denoiser, request, progress)
    except (MediaError, OSError) as error:
        print(f"nlden: {error}", file=sys.stderr)
        return False
    for warning in result.warnings:
        print(f"nlden: warning: {warning}", file=sys.stderr)
    print(_summary(item, name, denoiser, result), file=sys.stderr)
    return True


def _summary(item: "Item", name: str, denoiser: "PlaneDenoiser", result: "Result") -> str:
    levels = result.levels
    precision = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    kind = precision[str(denoiser.dtype).removeprefix("torch.")]
    rate = result.frames / max(result.seconds, 1e-9)
    pictures = "1 frame" if result.frames == 1 else f"{result.frames} frames"
    return (
        f"{item.target}: {pictures} in {result.seconds:.1f} s "
        f"({rate:.2f} fps, {name}, {denoiser.device.type} {kind}), "
        f"noise {255 * levels.luma:.1f} luma, {255 * levels.chroma:.1f} chroma"
    )
