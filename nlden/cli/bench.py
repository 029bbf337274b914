"""``nlden bench``: speed and quality, measured here."""

import platform
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from nlden.cli.errors import UsageError

app = typer.Typer(help="Measure speed and quality on this machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure speed and quality on this machine."""


@app.command("denoise")
def denoise(
    sigma: Annotated[float, typer.Option(help="Level of the noise, 0 to 255.")] = 25.0,
    frames: Annotated[int, typer.Option(min=1, help="Length of the clip.")] = 8,
    model: Annotated[str, typer.Option(help="Weights, by name or file.")] = "image-base",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Source of the noise.")] = 0,
) -> None:
    """Compare with FFmpeg's nlmeans on one noisy 960x540 8-bit 4:2:0 file."""
    if not 0 < sigma <= 255:
        raise UsageError(f"--sigma {sigma:g}: give a level above 0, up to 255")

    import torch
    from rich.console import Console
    from rich.table import Table

    from nlden.evaluation.benchmark import compare
    from nlden.inference.engines import DeviceError, choose_device, choose_precision
    from nlden.jobs.denoise import open_denoiser
    from nlden.models.pretrained import WeightsError, load

    try:
        where = choose_device(device)
        chosen = choose_precision(load(model), where)
        order = [chosen, "bf16" if chosen == "fp32" else "fp32"]
        denoisers = [
            (
                f"{name}{' (auto)' if name == chosen else ''}",
                open_denoiser(model, where, name, None),
            )
            for name in order
        ]
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
        f"960x540, sigma {sigma:g} in RGB, {frames} frames, file to file; "
        f"torch {torch.__version__}, {where.type}, {torch.get_num_threads()} threads, "
        f"{platform.processor() or platform.machine()}"
    )
