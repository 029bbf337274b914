"""``nlden evaluate-clips``: quality on clips, beside denoisers of single pictures."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nlden.cli.errors import UsageError, check_precision, check_target, parse_sigmas


def command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Clean clips: videos and folders of frames; photographs with --stills.",
            show_default=False,
        ),
    ],
    sigma: Annotated[str, typer.Option(help="Levels of the noise to add, 0 to 255.")] = "30,50",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights by name or file; may be repeated; default: image-base, video-base.",
            show_default=False,
        ),
    ] = None,
    peers: Annotated[
        str,
        typer.Option(
            help="Classical denoisers, with commas: nlm, wavelet, bm3d by frames; opencv (five "
            "frames), nlm3d (the clip as a volume)."
        ),
    ] = "none",
    best_strength: Annotated[
        bool,
        typer.Option(
            "--best-strength",
            help="Run each peer at several strengths and show the best: what it is told, as a "
            "multiple of sigma (OpenCV's h is 0.55 of that).",
        ),
    ] = False,
    stored: Annotated[
        bool,
        typer.Option(
            "--stored",
            help="Measure on what video files hold: 8-bit limited-range BT.709 4:2:0; PSNR over "
            "the planes.",
        ),
    ] = False,
    noise: Annotated[
        str,
        typer.Option(
            help="gaussian; or correlated, poisson, compressed (H.264): stored, levels estimated."
        ),
    ] = "gaussian",
    stills: Annotated[
        bool,
        typer.Option(
            "--stills",
            help="Film photographs, or the first frames of clips, from a tripod: 8 frames, or "
            "--frames.",
        ),
    ] = False,
    halve: Annotated[
        list[str] | None,
        typer.Option(help="Name of a clip to use at half its size; may be repeated."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=2, help="Take the first frames of each clip only.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="CSV file for the figures.", callback=check_target),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    seed: Annotated[int, typer.Option(help="Seed of the noise of each clip.")] = 0,
) -> None:
    """PSNR, flicker and speed of denoisers on the same noisy clips.

    Noise is Gaussian in RGB unless --noise says else, drawn once for a clip, neither clipped nor
    rounded unless --stored; PSNR is the mean of the frames'.

    nlden evaluate-clips clips --sigma 30,50
    """
    levels = parse_sigmas(sigma)
    check_precision(precision)
    if precision == "auto":
        raise UsageError("--precision auto: give fp32, bf16 or fp16")
    if best_strength and peers == "none":
        raise UsageError("--best-strength is of peers; name some with --peers")

    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from nlden.data.clips import list_clips
    from nlden.evaluation.clip_pairs import NOISES, list_stills, through_rgb
    from nlden.evaluation.clip_peers import CLIP_PEERS
    from nlden.evaluation.clips import evaluate, mean_rows, network
    from nlden.evaluation.environment import environment, write_csv
    from nlden.evaluation.peers import choose_peers
    from nlden.inference.engines import DTYPES, choose_device, keep_freed_memory
    from nlden.media.probe import MediaError

    real = noise != "gaussian"
    if real and noise not in NOISES:
        raise UsageError(f"--noise {noise}: give gaussian, {', '.join(NOISES)}")
    stored = stored or real
    keep_freed_memory()
    try:
        where = choose_device(device)
        names = model or ["image-base", "video-base"]
        methods = {name: network(name, where, DTYPES[precision], estimate=real) for name in names}
        chosen = choose_peers([] if peers == "none" else peers.split(","), CLIP_PEERS)
        methods |= {n: through_rgb(m) for n, m in chosen.items()} if stored else chosen
        listed = list_stills if stills else list_clips
        clips = [clip for folder in dict.fromkeys(folders) for clip in listed(folder)]
        if unknown := set(halve or []) - {clip.stem for clip in clips}:
            raise UsageError(f"--halve {', '.join(sorted(unknown))}: no such clip")
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error

    rows = []
    try:
        sigmas = [255 * level for level in levels]
        searched = chosen if best_strength else ()
        for row in evaluate(
            clips,
            sigmas,
            methods,
            searched=searched,
            halved=halve or [],
            stored=stored,
            noise=noise,
            stills=stills,
            seed=seed,
            limit=frames,
        ):
            rows.append(row)
            print(f"{row.clip} sigma {row.sigma:g} {row.label}: {row.psnr:.2f}", file=sys.stderr)
    except (MediaError, OSError, ValueError) as error:
        print(f"nlden: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    rows += mean_rows(rows)
    if output is not None:
        write_csv(output, [asdict(row) for row in rows])
    table = Table("clip", "sigma", "method", "PSNR (dB)", "flicker", "s/frame")
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.3g}"
        table.add_row(
            row.clip,
            f"{row.sigma:g}",
            row.label,
            f"{row.psnr:.2f}",
            f"{row.flicker:.2f}",
            seconds,
        )
    Console(markup=False).print(table)
    kind = "the planes of 8-bit 4:2:0" if stored else "RGB"
    print(f"PSNR of {kind}, flicker of 255; seed {seed}; {precision}; {environment(where)}")
