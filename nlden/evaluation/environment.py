"""What every benchmark states beside its figures, and the file it writes them to."""

import csv
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def environment(device: torch.device) -> str:
    """Describe the machine and the software in one line."""
    processor = platform.processor() or platform.machine()
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    return (
        f"nlden {version('nlden')}, torch {torch.__version__}, {device.type}, "
        f"{torch.get_num_threads()} threads, {processor}"
    )


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of one kind as CSV; None stays empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
