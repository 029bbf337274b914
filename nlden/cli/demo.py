"""``nlden demo``: see it work."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nlden.cli.errors import UsageError


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path(
        "nlden-demo"
    ),
    sigma: Annotated[float, typer.Option(help="Level of the noise to add, 0 to 255.")] = 25.0,
    model: Annotated[str, typer.Option(help="auto, or weights by name or file.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Source of the noise.")] = 0,
) -> None:
    """Make a short noisy clip with sound from photographs, denoise it and show the result."""
    if not 0 <= sigma <= 255:
        raise UsageError(f"--sigma {sigma:g}: a noise level lies between 0 and 255")

    from rich.console import Console
    from rich.progress import Progress

    from nlden.evaluation import demo
    from nlden.inference.engines import DeviceError, choose_device, keep_freed_memory
    from nlden.jobs.denoise import choose_model, open_denoiser
    from nlden.media.probe import MediaError
    from nlden.models.pretrained import WeightsError

    keep_freed_memory()
    try:
        where = choose_device(device)
        name = choose_model(model, Path("noisy.mp4"), where)
        denoiser = open_denoiser(name, where, "auto", None)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("denoising", total=None)
            done = demo.run(
                output,
                denoiser,
                sigma=sigma,
                seed=seed,
                progress=lambda n, total: bar.update(task, completed=n, total=total or None),
            )
    except (WeightsError, DeviceError) as error:
        raise UsageError(str(error)) from error
    except (MediaError, OSError) as error:
        print(f"nlden: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    levels = done.result.levels
    print(f"noise added:     {sigma:g} in RGB, stored as 8-bit 4:2:0")
    print(f"noise estimated: {255 * levels.luma:.1f} luma, {255 * levels.chroma:.1f} chroma")
    print(f"PSNR noisy:      {done.before:.2f} dB")
    print(f"PSNR denoised:   {done.after:.2f} dB")
    rate = done.result.frames / done.result.seconds
    print(f"speed:           {rate:.1f} frames per second at 384x256 ({name})")
    for path in done.files.values():
        print(path)
