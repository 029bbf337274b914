"""Plots and before/after sheets."""

import csv
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor


def plot_curves(folder: Path) -> Path | None:
    """Draw the loss and the validation PSNR of a training log.

    Args:
        folder: where ``metrics.csv`` lies; ``curves.png`` is written beside it.

    Returns:
        The picture, or None if the log holds nothing to draw.
    """
    from matplotlib.figure import Figure

    log = folder / "metrics.csv"
    if not log.is_file():
        return None
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if value and name.startswith(("train/", "val/")):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(float(value))
    if not curves:
        return None
    figure = Figure(figsize=(11, 4), layout="constrained")
    loss_axes, psnr_axes = figure.subplots(1, 2)
    for name, (steps, values) in curves.items():
        axes = psnr_axes if "psnr" in name else loss_axes
        axes.plot(steps, values, label=name, linewidth=1)
    loss_axes.set(xlabel="step", ylabel="loss")
    psnr_axes.set(xlabel="step", ylabel="PSNR (dB)")
    for axes in (loss_axes, psnr_axes):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
    path = folder / "curves.png"
    figure.savefig(path, dpi=120)
    return path


def before_after_sheet(rows: Sequence[Sequence[Tensor]], titles: Sequence[str], path: Path) -> None:
    """Write a sheet of pictures, each with a crop of its middle at three times its size.

    Args:
        rows: rows of RGB pictures ``(3, H, W)`` in [0, 1], one for each title.
        titles: names of the columns.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    height, width = rows[0][0].shape[1:]
    columns = 2 * len(titles)
    unit = 2.4
    shape = (unit * columns * 0.8, unit * (len(rows) * height / width * 1.05 + 0.15))
    figure = Figure(figsize=shape, layout="constrained")
    grid = figure.subplots(
        len(rows), columns, squeeze=False, width_ratios=[width / height, 1] * len(titles)
    )
    for number, (axes_row, row) in enumerate(zip(grid, rows, strict=True)):
        for i, (title, picture) in enumerate(zip(titles, row, strict=True)):
            pixels = picture.permute(1, 2, 0).numpy()
            side = min(height, width) // 3
            top, left = (height - side) // 2, (width - side) // 2
            crop = pixels[top : top + side, left : left + side]
            for axes, shown in ((axes_row[2 * i], pixels), (axes_row[2 * i + 1], crop)):
                axes.imshow(shown, interpolation="nearest", vmin=0, vmax=1)
                axes.set_axis_off()
            if number == 0:
                axes_row[2 * i].set_title(title, fontsize=9)
    figure.savefig(path, dpi=150)
