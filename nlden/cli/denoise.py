"""``nlden denoise``: files in, clean files out."""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from nlden.cli.errors import UsageError, check_choice, check_precision


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


def _format(value: str | None, inputs: list[Path], output: Path) -> str:
    """Return the format of a pipe; look whether there are pipes where ``-`` says so."""
    from nlden.media.pipes import FORMAT, is_pipe, suffix_of

    if any(map(is_pipe, inputs)) and sys.stdin.isatty():
        raise UsageError("-: standard input is a terminal; pipe a video into it or name a file")
    if not is_pipe(output):
        if value is not None:
            raise UsageError(f"-f {value}: only for -o -; a file's extension chooses its format")
        return FORMAT
    if sys.stdout.isatty():
        raise UsageError("-o -: standard output is a terminal; pipe it or name a file")
    try:
        suffix_of(value or FORMAT)
    except ValueError as error:
        raise UsageError(str(error)) from error
    # A reader that has gone ends the command as it ends other filters: quietly, exit 141.
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return value or FORMAT


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...",
            help="Videos, pictures, folders of them, frames/%06d.png, or - for standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="File, folder for several inputs, or - for standard output."
        ),
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
            help="A name that `nlden models` lists, a weight file, or auto: image-base for "
            "pictures, image-gray for grey ones, video-base for videos, video-fast on a CPU."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto (the faster of fp32 and bf16 here), fp32, bf16 or fp16.")
    ] = "auto",
    tile: Annotated[
        str, typer.Option(help="Pieces are no larger than a square of so many pixels, or auto.")
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
    container: Annotated[
        str | None,
        typer.Option(
            "-f", "--format", help="FFmpeg's format of standard output; default: yuv4mpegpipe."
        ),
    ] = None,
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
    start: Annotated[str | None, typer.Option(help="Begin here: seconds or H:MM:SS.")] = None,
    end: Annotated[str | None, typer.Option(help="Stop before: seconds or H:MM:SS.")] = None,
    frames: Annotated[
        int | None, typer.Option(help="Write at most so many frames of a video.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("-y", help="Overwrite existing targets, begin interrupted runs anew.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with interrupted runs where they stopped.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out inputs whose target is there.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Tell what would be done, in what time and memory."),
    ] = False,
    preview: Annotated[
        str | None,
        typer.Option(help="Write the frame at this time before and after, as a PNG.", metavar="T"),
    ] = None,
    sample: Annotated[
        float | None,
        typer.Option(
            help="Write so many seconds from the middle (or --start), source and result side "
            "by side."
        ),
    ] = None,
    segment: Annotated[
        int,
        typer.Option(
            help="Frames of a video that are finished together: what an interruption may cost."
        ),
    ] = 240,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Progress and results on stdout, one JSON object a line."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Source of randomness, for models that use any.")] = 0,
) -> None:
    """Denoise videos, pictures and folders of them.

    The noise level is measured; sound, subtitles and all else are copied; timing, bit depth and
    colour are kept. A name like frames/%06d.png reads or writes numbered pictures as one video.
    Ctrl-C stops a video at the end of a segment; --resume goes on there.

    nlden denoise in.mp4 -o out.mp4

    ffmpeg -i in.mp4 -f yuv4mpegpipe - | nlden denoise - -o - | ffmpeg -i - out.mp4
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
    if segment < 1:
        raise UsageError(f"--segment {segment}: give a number from 1")
    instant = _second(preview, "--preview")
    if sample is not None and not 0 < sample < float("inf"):
        raise UsageError(f"--sample {sample:g}: give a number of seconds above 0")
    if sum((dry_run, instant is not None, sample is not None)) > 1:
        raise UsageError("--dry-run, --preview and --sample exclude each other")
    if overwrite and skip_existing:
        raise UsageError("-y and --skip-existing exclude each other")
    form = _format(container, inputs, output)
    piped = Path("-") in (*inputs, output)
    whole = (
        ("--resume", resume),
        ("--dry-run", dry_run),
        ("--preview", preview is not None),
        ("--sample", sample is not None),
        ("--json", as_json and output == Path("-")),
    )
    if piped and (needing := [name for name, given in whole if given]):
        raise UsageError(f"{needing[0]}: not with - (a pipe is read and written once); name a file")

    import torch
    from av.codec.hwaccel import hwdevices_available

    from nlden.cli.denoise_run import Stop, run_all
    from nlden.cli.denoise_try import Show, run_preview, show_plans
    from nlden.inference.engines import (
        DeviceError,
        choose_device,
        keep_freed_memory,
        return_freed_memory,
    )
    from nlden.jobs.batch import PlanError, plan
    from nlden.jobs.denoise import Request, choose_model, open_denoiser
    from nlden.jobs.journal import kept_setting
    from nlden.jobs.levels import Noise
    from nlden.media.interlacing import MODES
    from nlden.media.stills import is_still
    from nlden.media.writer import Encoding
    from nlden.models.pretrained import WeightsError

    check_choice("--deinterlace", deinterlace, MODES)
    check_choice("--hwaccel", hwaccel, ("none", "auto", *hwdevices_available()))
    show = None
    if instant is not None or sample is not None:
        show = Show(instant, sample)
    request = Request(
        Noise(*noise),
        strength,
        Encoding(codec, crf, encoder_preset, pix_fmt, lossless, form, options),
        first,
        last,
        frames,
        resume,
        segment,
        luma_strength,
        chroma_strength,
        deinterlace,
        hwaccel,
    )
    try:
        items = plan(
            inputs,
            output,
            overwrite=overwrite,
            resume=resume or dry_run,
            skip_existing=skip_existing or (resume and not overwrite),
            preview=instant is not None,
        )
        if all(is_still(item.source) for item in items):
            return_freed_memory()
        else:
            keep_freed_memory()
        torch.manual_seed(seed)
        where = choose_device(device)
        kinds = []
        for item in items:
            kind = precision
            if resume and precision == "auto":
                # Which is the faster may be measured otherwise the second time.
                kind = kept_setting(item.target, "precision") or "auto"
            kinds.append((choose_model(model, item.source, where), kind))
        denoisers = {
            (name, kind): open_denoiser(name, where, kind, extent) for name, kind in set(kinds)
        }
    except (PlanError, WeightsError, DeviceError, OSError) as error:
        raise UsageError(str(error)) from error
    work = [(item, kind[0], denoisers[kind]) for item, kind in zip(items, kinds, strict=True)]
    missing = [entry for entry in work if not entry[0].finished]
    stop = Stop()
    if dry_run:
        status = show_plans(missing, request, as_json=as_json)
    elif show is not None:
        status = run_preview(missing, request, show, as_json=as_json)
    else:
        # A pipe has no segments to finish: a signal ends it at once.
        with nullcontext() if piped else stop:
            status = run_all(work, request, stop, as_json=as_json)
    if status:
        raise typer.Exit(status)
