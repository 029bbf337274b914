"""Whether a data pipeline keeps up with training: batches per second of each."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer

from nlden.data import ImageDataModule
from nlden.data.images import Hold
from nlden.inference.engines import choose_precision, synchronize
from nlden.models import image_denoiser_base, image_denoiser_fast
from nlden.tasks import ImageDenoising

_WARM = 4  # batches before the clock runs: memory is fetched, kernels chosen, queues drained


@dataclass(frozen=True)
class Rate:
    """One measurement.

    Args:
        what: pipeline or training.
        rate: batches per second.
    """

    what: str
    rate: float


def compare(
    folders: Sequence[Path],
    device: torch.device,
    workers: int,
    crop: int,
    batch_size: int,
    batches: int,
    report: Callable[[str], None] = lambda _: None,
) -> list[Rate]:
    """Time the pipeline for each way to hold the pictures, then trainings that it feeds.

    Args:
        folders: photographs.
        device: where batches are made and networks trained.
        workers: processes that crop from disk.
        crop: extent of the crops.
        batch_size: crops of a batch.
        batches: batches that are timed.
        report: called with what is measured next.
    """
    rates = []
    with tempfile.TemporaryDirectory() as cache:

        def module(hold: Hold, workers: int = 0) -> ImageDataModule:
            return ImageDataModule(
                folders,
                crop=crop,
                batch_size=batch_size,
                batches_per_epoch=_WARM + batches,
                hold=hold,
                workers=workers,
                cache=Path(cache),
            )

        ways: list[tuple[Hold, int]] = [("device", 0), ("memory", 0), ("disk", workers)]
        for hold, used in ways:
            what = f"pipeline, {hold}" + (f", {used} workers" if used else "")
            report(what)
            rates.append(Rate(what, feeding_rate(module(hold, used), device, batches)))
        for build in (image_denoiser_fast, image_denoiser_base):
            net = build()
            precision = choose_precision(net, device)
            what = f"training {build.__name__}, {precision}"
            report(what)
            task = ImageDenoising(net)
            rates.append(
                Rate(what, training_rate(task, module("device"), device, precision, batches))
            )
    return rates


def feeding_rate(module: ImageDataModule, device: torch.device, batches: int) -> float:
    """Return how many batches a second the pipeline makes on its own.

    Args:
        module: the pipeline; its epochs have at least four batches more than are timed.
        device: where the batches are made.
        batches: number of batches that are timed.
    """
    module.setup("fit")
    made: Iterator[object] = (module.make(batch, device) for batch in module.train_dataloader())
    _take(made, _WARM)
    synchronize(device)
    started = time.perf_counter()
    _take(made, batches)
    synchronize(device)
    return batches / (time.perf_counter() - started)


def _take(made: Iterator[object], count: int) -> None:
    if len(list(islice(made, count))) < count:
        raise ValueError(f"batches_per_epoch must be at least {_WARM} more than are timed")


class _Clock(Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        synchronize(trainer.strategy.root_device)
        self.ends.append(time.perf_counter())


def training_rate(
    task: LightningModule,
    module: ImageDataModule,
    device: torch.device,
    precision: str,
    steps: int,
) -> float:
    """Return how many batches a second training takes, fed by the pipeline.

    Args:
        task: what is trained; its weights change.
        module: the pipeline.
        device: where it is trained.
        precision: ``fp32`` or ``bf16``.
        steps: number of steps that are timed.
    """
    # Announcements of the trainer and its advice on trainings, of which this is none.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    clock = _Clock()
    Trainer(
        max_steps=_WARM + steps,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1 if device.index is None else [device.index],
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        callbacks=[clock],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(task, module)
    return steps / (clock.ends[-1] - clock.ends[-1 - steps])
