"""Tables, plots and before/after sheets."""

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from nlden.evaluation.environment import write_csv
from nlden.evaluation.quality import Measured, Row, Summary, summarise

_DETAIL = 96  # pixels a side


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


def most_detail(picture: Tensor) -> tuple[int, int, int]:
    """Return top, left and side of the square with the largest total variation.

    Args:
        picture: ``(C, H, W)``. The square is 96 pixels wide, or as wide as the picture.
    """
    side = min(_DETAIL, *picture.shape[1:])
    gray = picture.mean(0)
    change = F.pad(gray.diff(dim=0).abs(), (0, 0, 0, 1)) + F.pad(gray.diff(dim=1).abs(), (0, 1))
    step = max(1, side // 8)
    sums = F.avg_pool2d(change[None], side, step)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return top * step, left * step, side


@dataclass(frozen=True)
class Sample:
    """A picture of the sheet: the whole, and its detail from every method.

    Args:
        title: picture and noise.
        whole: clean picture ``(C, H, W)``.
        box: top, left and side of the detail.
        details: detail and what to write under it, by method.
    """

    title: str
    whole: Tensor
    box: tuple[int, int, int]
    details: Mapping[str, tuple[Tensor, str]]

    @classmethod
    def of(cls, measured: Measured) -> "Sample":
        """Cut the square of most detail out of what was measured."""
        top, left, side = box = most_detail(measured.clean)
        pictures = {"clean": measured.clean, **measured.outputs}
        figures = {"clean": "", **{r.method: f"{r.psnr:.2f} dB" for r in measured.rows}}
        details = {
            # Copied, so that the whole pictures are let go.
            name: (x[:, top : top + side, left : left + side].clone(), figures[name])
            for name, x in pictures.items()
        }
        title = f"{measured.case.clean.name}\n{_noise(measured.case.noise)}"
        return cls(title, measured.clean, box, details)


def detail_sheet(samples: Sequence[Sample], path: Path) -> None:
    """Write a sheet with a row for each sample: the whole picture, then the details.

    Args:
        samples: of the same methods.
        path: PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = 1 + len(samples[0].details)
    figure = Figure(figsize=(1.9 * (columns + 0.5), 2.35 * len(samples)), layout="constrained")
    grid = figure.subplots(
        len(samples), columns, squeeze=False, width_ratios=[1.5, *[1] * (columns - 1)]
    )
    for row, sample in zip(grid, samples, strict=True):
        top, left, side = sample.box
        _show(row[0], sample.whole)
        row[0].add_patch(Rectangle((left, top), side, side, fill=False, color="yellow"))
        row[0].set_xlabel(sample.title, fontsize=8)
        for axes, (name, (detail, figures)) in zip(row[1:], sample.details.items(), strict=True):
            _show(axes, detail)
            axes.set_xlabel(f"{name}\n{figures}", fontsize=8)
    figure.savefig(path, dpi=150)


def _show(axes: Any, picture: Tensor) -> None:
    pixels = picture.clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(pixels, interpolation="nearest", vmin=0, vmax=1, cmap="gray")
    axes.set(xticks=[], yticks=[])


def plot_psnr(summaries: Sequence[Summary], path: Path) -> None:
    """Draw the PSNR of every method over the noise level, one panel a set.

    Where there is one level, or real noise, the methods stand one below the other.

    Args:
        summaries: what :func:`nlden.evaluation.quality.summarise` returns.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    sets: dict[str, dict[str, list[Summary]]] = {}
    for summary in summaries:
        sets.setdefault(summary.folder, {}).setdefault(summary.method, []).append(summary)
    levels = list(dict.fromkeys(s.noise for s in summaries))
    figure = Figure(figsize=(5.5 * len(sets), 4), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, (folder, methods) in zip(panels, sets.items(), strict=True):
        axes.set_title(folder, fontsize=9)
        axes.grid(alpha=0.3)
        for method, row in methods.items():
            psnr = [s.psnr for s in row]
            if len(levels) == 1:
                axes.plot(psnr, [method], "o")
                axes.annotate(
                    f"{psnr[0]:.2f}",
                    (psnr[0], method),
                    (0, 6),
                    fontsize=8,
                    textcoords="offset points",
                    ha="center",
                )
            else:
                axes.plot([float(s.noise) for s in row], psnr, "o-", label=method)
        if len(levels) == 1:
            axes.set_xlabel(f"PSNR (dB), {_noise(levels[0])}")
            axes.margins(0.1)
            axes.invert_yaxis()
        else:
            axes.set(xlabel="sigma", ylabel="PSNR (dB)", xticks=[float(n) for n in levels])
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def _noise(name: str) -> str:
    return "real noise" if name == "real" else f"sigma {name}"


def quality_table(summaries: Sequence[Summary]) -> list[list[str]]:
    """Return a table of the methods over the noise levels of one set, its header first.

    Each cell holds PSNR, SSIM and, where it was measured, LPIPS.

    Args:
        summaries: those of the set.
    """
    levels = list(dict.fromkeys(s.noise for s in summaries))
    table = [["method", *map(_noise, levels), "s/megapixel"]]
    for method in dict.fromkeys(s.method for s in summaries):
        row = [s for s in summaries if s.method == method]
        cells = [
            f"{s.psnr:.2f} / {s.ssim:.4f}" + ("" if s.lpips is None else f" / {s.lpips:.4f}")
            for s in row
        ]
        times = [s.seconds_per_megapixel for s in row if s.seconds_per_megapixel is not None]
        # Every level has the same pictures, so that the mean weighs them alike.
        table.append([method, *cells, f"{sum(times) / len(times):.3g}" if times else ""])
    return table


def write_report(folder: Path, rows: Sequence[Row], samples: Sequence[Sample], note: str) -> None:
    """Write ``table.md``, ``table.csv``, ``images.csv``, ``psnr.png`` and ``sheet.png``.

    They appear when all are complete.

    Args:
        folder: where; it exists.
        rows: every measurement.
        samples: rows of the sheet.
        note: how it was measured, a line under the tables.
    """
    from matplotlib import rc_context

    summaries = summarise(rows)
    literal = rc_context({"text.parse_math": False})  # a file may have a dollar in its name
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as name, literal:
        unfinished = Path(name)
        write_csv(unfinished / "images.csv", [_figures(asdict(r)) for r in rows])
        write_csv(unfinished / "table.csv", [_figures(asdict(s)) for s in summaries])
        (unfinished / "table.md").write_text(_markdown(summaries, note), encoding="utf-8")
        plot_psnr(summaries, unfinished / "psnr.png")
        detail_sheet(samples, unfinished / "sheet.png")
        for path in unfinished.iterdir():
            path.replace(folder / path.name)


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}


def _markdown(summaries: Sequence[Summary], note: str) -> str:
    lines = []
    for folder in dict.fromkeys(s.folder for s in summaries):
        header, *table = quality_table([s for s in summaries if s.folder == folder])
        rule = ["---", *["---:"] * (len(header) - 1)]
        lines += [f"## {folder}", "", *(f"| {' | '.join(r)} |" for r in (header, rule, *table)), ""]
    return "\n".join([*lines, note, ""])
