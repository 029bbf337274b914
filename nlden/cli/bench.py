"""``nlden bench``: speed and quality, measured here."""

import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nlden.cli.errors import UsageError, check_precision, check_target

Rows = Annotated[Path | None, typer.Option(help="Write the rows here.", callback=check_target)]
"""CSV file that a command writes."""

app = typer.Typer(help="Measure speed and quality on this machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure speed and quality on this machine."""


@app.command("denoise")
def denoise(
    sigma: Annotated[float, typer.Option(help="Level of the noise, 0 to 255.")] = 25.0,
    frames: Annotated[int, typer.Option(min=1, help="Length of the clip.")] = 32,
    model: Annotated[
        str, typer.Option(help="Weights by name or file, or auto: all that are shipped.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Source of the noise.")] = 0,
    csv: Rows = None,
) -> None:
    """Compare with filters of FFmpeg's on one noisy 960x540 8-bit 4:2:0 file."""
    if not 0 < sigma <= 255:
        raise UsageError(f"--sigma {sigma:g}: give a level above 0, up to 255")

    from rich.console import Console
    from rich.table import Table

    from nlden.evaluation.benchmark import compare
    from nlden.evaluation.environment import environment, write_csv
    from nlden.inference.engines import (
        DeviceError,
        choose_device,
        choose_precision,
        keep_freed_memory,
    )
    from nlden.jobs.denoise import choose_model, open_denoiser
    from nlden.models.pretrained import WeightsError, load

    keep_freed_memory()
    try:
        where = choose_device(device)
        first = choose_model(model, Path("noisy.mp4"), where)
        others = [
            n
            for n in ("image-fast", "image-base", "video-fast", "video-base")
            if model == "auto" and n != first
        ]
        denoisers = []
        for name in (first, *others):
            taken = choose_precision(load(name), where)
            for precision in (taken, "bf16" if taken == "fp32" else "fp32"):
                label = f"{name} {precision}{' (auto)' if precision == taken else ''}"
                denoisers.append((label, open_denoiser(name, where, precision, None)))
    except (DeviceError, WeightsError) as error:
        raise UsageError(str(error)) from error
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(Path(folder), denoisers, sigma=sigma, frames=frames, seed=seed)
    reference = rows[-1].rate
    table = Table("method", "PSNR (dB)", "frames/s", "x nlmeans")
    for row in rows:
        rate = "" if row.rate is None else f"{row.rate:.2f}"
        ratio = "" if row.rate is None or reference is None else f"{row.rate / reference:.2f}"
        table.add_row(row.method, f"{row.psnr:.2f}", rate, ratio)
    console = Console()
    console.print(table)
    console.print(
        f"960x540, sigma {sigma:g} in RGB, {frames} frames, file to file; {environment(where)}"
    )
    if csv is not None:
        write_csv(csv, [asdict(row) for row in rows])


@app.command("attention")
def attention(
    positions: Annotated[
        str, typer.Option(help="Numbers of positions N, squares, with commas.")
    ] = "256,1024,4096,16384",
    limit: Annotated[
        float, typer.Option(min=0, help="GiB beyond which plain forms are left out.")
    ] = 4.0,
    clip: Annotated[
        str | None,
        typer.Option(
            help="Inference of windowed 3D blocks instead, over frames x height x width of "
            "features, such as 8x270x480."
        ),
    ] = None,
    csv: Rows = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture (PNG) here.", callback=check_target)
    ] = None,
) -> None:
    """Time and memory of the attention blocks, beside the forms that hold the N x N map."""
    try:
        counts = [int(n) for n in positions.split(",")]
    except ValueError:
        counts = []
    if not counts or any(n < 1 or math.isqrt(n) ** 2 != n for n in counts):
        raise UsageError(f"--positions {positions}: give squares with commas, such as 1024,4096")
    size = [int(n) for n in clip.split("x") if n.isdecimal()] if clip is not None else []
    if clip is not None and (len(size) != 3 or clip.count("x") != 2 or min(size) < 1):
        raise UsageError(f"--clip {clip}: give frames, height and width, such as 8x270x480")
    if clip is not None and plot is not None:
        raise UsageError("--plot draws what grows with N: leave --clip out")
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: name a .png file")

    import torch
    from rich.console import Console
    from rich.table import Table

    from nlden.evaluation.attention import CHANNELS, Row, measure, measure_clip
    from nlden.evaluation.attention import plot as draw
    from nlden.evaluation.environment import environment, write_csv

    with Console(stderr=True).status("") as status:

        def report(row: Row) -> None:
            status.update(f"{row.block}, {row.form}, N = {row.positions}")

        rows = measure_clip(size, report) if size else measure(counts, limit, report)
    if size:
        counts = [math.prod(size)]
    table = Table("block", "form", *(f"N = {n:,}" for n in counts))
    cells = {(r.block, r.form, r.positions): r for r in rows}
    for block, form in dict.fromkeys((r.block, r.form) for r in rows):
        found = [cells.get((block, form, n)) for n in counts]
        shown = [f"{r.seconds:.2g} s\n{r.mebibytes:.0f} MiB" if r else "-" for r in found]
        table.add_row(block, form, *shown)
    console = Console()
    console.print(table)
    what = (
        f"inference over {clip} (frames, height, width), memory beside input and output"
        if size
        else "forward and backward"
    )
    console.print(f"{what}, {CHANNELS} channels, float32; {environment(torch.device('cpu'))}")
    if csv is not None:
        write_csv(csv, [asdict(row) for row in rows])
    if plot is not None:
        draw(rows, plot)


@app.command("data")
def data(
    folders: Annotated[list[Path], typer.Argument(help="Folders of photographs.")],
    workers: Annotated[int, typer.Option(min=0, help="Processes that crop from disk.")] = 2,
    crop: Annotated[int, typer.Option(min=8, help="Extent of the crops.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops of a batch.")] = 16,
    batches: Annotated[int, typer.Option(min=1, help="Batches that are timed.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    csv: Rows = None,
) -> None:
    """Batches per second of the data pipeline, beside the training steps that it feeds."""
    from rich.console import Console
    from rich.table import Table

    from nlden.evaluation.environment import environment, write_csv
    from nlden.evaluation.feeding import compare
    from nlden.inference.engines import DeviceError, choose_device, keep_freed_memory
    from nlden.media.probe import MediaError

    keep_freed_memory()
    try:
        where = choose_device(device)
        with Console(stderr=True).status("") as status:
            rows = compare(folders, where, workers, crop, batch_size, batches, status.update)
    except (DeviceError, MediaError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    table = Table("what", "batches/s", "megapixels/s")
    for row in rows:
        megapixels = row.rate * batch_size * crop**2 / 1e6
        table.add_row(row.what, f"{row.rate:.3g}", f"{megapixels:.3g}")
    console = Console()
    console.print(table)
    console.print(f"{batch_size} crops of {crop}x{crop}; {environment(where)}")
    if csv is not None:
        write_csv(csv, [asdict(row) for row in rows])


@app.command("network")
def network(
    model: Annotated[str, typer.Option(help="Weights by name or file.")] = "image-base",
    megapixels: Annotated[
        str, typer.Option(help="Sizes of pictures, with commas; the first is taken apart.")
    ] = "1,24",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, fp16, or auto (the faster of the first two here).")
    ] = "auto",
    csv: Rows = None,
) -> None:
    """Speed of a denoiser against that of plain convolutions, and the cost of large pictures."""
    try:
        sizes = [float(n) for n in megapixels.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(0.01 <= n <= 1000 for n in sizes):
        raise UsageError(f"--megapixels {megapixels}: give sizes of 0.01 to 1000, such as 1,24")
    check_precision(precision)

    from rich.console import Console
    from rich.table import Table

    from nlden.evaluation.environment import environment, write_csv
    from nlden.evaluation.roofline import picture_cost, roofline
    from nlden.inference.engines import DTYPES, DeviceError, choose_device, keep_freed_memory
    from nlden.jobs.denoise import open_denoiser
    from nlden.models import ImageDenoiser
    from nlden.models.pretrained import WeightsError

    keep_freed_memory()
    try:
        where = choose_device(device)
        denoiser = open_denoiser(model, where, precision, None)
    except (DeviceError, WeightsError) as error:
        raise UsageError(str(error)) from error
    if not isinstance(denoiser.network, ImageDenoiser):
        raise UsageError(f"--model {model}: the roofline is drawn for denoisers of pictures")
    name = next(key for key, dtype in DTYPES.items() if dtype == denoiser.dtype)
    parts = roofline(denoiser.network, where, denoiser.dtype, round((sizes[0] * 1e6) ** 0.5))
    costs = [picture_cost(model, str(where), name, n) for n in sizes]

    table = Table("part", "seconds", "GFLOP", "GFLOP/s", "of plain")
    for part in parts:
        shown = f"{part.rate:.3g}" if part.operations else ""
        ratio = f"{part.rate / parts[-1].rate:.2f}" if part.operations else ""
        count = f"{part.operations / 1e9:.3g}" if part.operations else ""
        table.add_row(part.name, f"{part.seconds:.3g}", count, shown, ratio)
    pictures = Table("picture", "s/megapixel", "of the first", "peak memory")
    for cost in costs:
        pictures.add_row(
            f"{cost.megapixels:g} megapixels",
            f"{cost.seconds:.3g}",
            f"{cost.seconds / costs[0].seconds:.2f}",
            f"{cost.mebibytes:.0f} MiB",
        )
    console = Console()
    console.print(table)
    console.print(pictures)
    console.print(f"{model}, {name}; {environment(where)}")
    if csv is not None:
        write_csv(csv, [asdict(part) for part in parts])


@app.command("media")
def media(
    frames: Annotated[int, typer.Option(min=1, help="Length of the clip.")] = 100,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each; the medians count.")] = 3,
    csv: Rows = None,
) -> None:
    """Reading and writing 1280x720 files without a network, beside a plain transcode by PyAV."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from nlden.evaluation.environment import environment, write_csv
    from nlden.evaluation.transcoding import compare
    from nlden.inference.engines import keep_freed_memory

    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("") as status:
        rows = compare(Path(folder), frames=frames, repetitions=repetitions, report=status.update)
    table = Table("encoder", "bits", "plain (frames/s)", "nlden (frames/s)", "nlden / plain")
    for row in rows:
        ratio = f"{row.nlden / row.plain:.2f}"
        table.add_row(row.encoder, f"{row.bits}", f"{row.plain:.1f}", f"{row.nlden:.1f}", ratio)
    console = Console()
    console.print(table)
    console.print(
        f"H.264 4:2:0 in, {frames} frames, medians of {repetitions}; "
        f"{environment(torch.device('cpu'))}"
    )
    if csv is not None:
        write_csv(csv, [asdict(row) for row in rows])
