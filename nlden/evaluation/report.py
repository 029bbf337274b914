"""Plots and before/after sheets."""

import csv
from pathlib import Path


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
    loss_axes.set(xlabel="step", ylabel="loss", yscale="log")
    psnr_axes.set(xlabel="step", ylabel="PSNR (dB)")
    for axes in (loss_axes, psnr_axes):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
    path = folder / "curves.png"
    figure.savefig(path, dpi=120)
    return path
