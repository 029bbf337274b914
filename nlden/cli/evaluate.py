"""``nlden evaluate``: quality on folders of pictures, beside classical denoisers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nlden.cli.errors import UsageError, check_precision, parse_sigmas


def command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Clean pictures.", show_default=False),
    ],
    noisy: Annotated[
        Path | None,
        typer.Option(help="Noisy counterparts of one FOLDER, in the same order, instead of noise."),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Levels of the noise to add, 0 to 255; default: 15,25,50. With --noisy the level "
            "that the methods are told; default: estimated in each picture.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights by name or file; may be repeated; default: image-base.",
            show_default=False,
        ),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            help="Classical denoisers: nlm, wavelet, bm3d with commas, or none; default: those "
            "that are installed.",
            show_default=False,
        ),
    ] = None,
    gray: Annotated[bool, typer.Option("--gray", help="Evaluate on luma (BT.601).")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take the first pictures of each folder only.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for tables, plot and before/after sheet."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, fp16, or auto (the faster of the first two here).")
    ] = "fp32",
    seed: Annotated[int, typer.Option(help="Seed of the first picture's noise.")] = 0,
) -> None:
    """PSNR, SSIM and speed of networks and classical denoisers on the same noisy pictures.

    Noise is Gaussian, neither clipped nor rounded; PSNR is taken per picture, then averaged.

    nlden evaluate photos --sigma 15,25,50 -o results
    """
    levels = parse_sigmas(sigma) if sigma is not None else []
    if noisy is not None and (len(folders) > 1 or len(levels) > 1):
        raise UsageError("--noisy goes with one FOLDER and at most one --sigma")
    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"-o {output}: is a file; give a folder")
    check_precision(precision)

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from nlden.evaluation.environment import environment
    from nlden.evaluation.peers import PEERS, choose_peers, missing_package
    from nlden.evaluation.quality import Row, evaluate, network, pairs, summarise, synthetic
    from nlden.evaluation.report import Sample, quality_table, write_report
    from nlden.inference.engines import choose_device, keep_freed_memory
    from nlden.jobs.denoise import open_denoiser
    from nlden.media.probe import MediaError
    from nlden.metrics import open_lpips

    keep_freed_memory()
    folders = list(dict.fromkeys(folders))
    try:
        if noisy is not None:
            cases = pairs(folders[0], noisy, levels[0] if levels else None, limit)
        else:
            levels = levels or [15 / 255, 25 / 255, 50 / 255]
            cases = [c for folder in folders for c in synthetic(folder, levels, seed, limit)]
        where = choose_device(device)
        names = model or ["image-base"]
        denoisers = {name: open_denoiser(name, where, precision, None) for name in names}
        methods = {name: network(denoiser) for name, denoiser in denoisers.items()}
        if peers is None:
            missing = {name: package for name in PEERS if (package := missing_package(name))}
            for name, package in missing.items():
                print(f"nlden: without {name} (pip install {package})", file=sys.stderr)
            methods |= choose_peers([name for name in PEERS if name not in missing])
        elif peers != "none":
            methods |= choose_peers(peers.split(","))
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error

    rows: list[Row] = []
    samples: list[Sample] = []
    shown = [c for c in cases if c.sigma == cases[len(cases) // 2].sigma]
    shown = shown[:: -(-len(shown) // 4)]
    lpips = open_lpips()
    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("evaluating", total=len(cases))
            for measured in evaluate(cases, methods, gray=gray, lpips=lpips):
                rows += measured.rows
                if output is not None and measured.case in shown:
                    samples.append(Sample.of(measured))
                bar.advance(task)
        measures = f"PSNR (dB) / SSIM{' / LPIPS' if lpips else ''}"
        precisions = ", ".join(f"{n} {str(d.dtype)[6:]}" for n, d in denoisers.items())
        note = f"{measures}; seed {seed}; {precisions}; {environment(where)}"
        if output is not None:
            write_report(output, rows, samples, note)
    except (MediaError, OSError, ValueError) as error:
        print(f"nlden: {error}", file=sys.stderr)
        raise typer.Exit(1) from error

    console = Console(markup=False)
    for folder in folders:
        summaries = [s for s in summarise(rows) if s.folder == str(folder)]
        header, *lines = quality_table(summaries)
        table = Table(*header)
        for line in lines:
            table.add_row(*line)
        print(f"{folder}, pictures: {summaries[0].images}")
        console.print(table)
    print(note)
