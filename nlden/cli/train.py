"""``nlden train``: Lightning's command line over nlden's tasks and data."""

import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningCLI

import nlden.models
from nlden.cli.errors import UsageError
from nlden.evaluation.report import plot_curves
from nlden.inference.engines import choose_device, choose_precision, keep_freed_memory
from nlden.media.probe import MediaError
from nlden.models.pretrained import Description, save
from nlden.tasks.base import Task


class TrainCLI(LightningCLI):
    """LightningCLI that publishes weights and curves when a training has ended."""

    def _description(self) -> Description | None:
        """Describe the network by its function; None if it was put together in the recipe."""
        net = self.config[self.subcommand]["model"]["init_args"]["net"]
        name = net["class_path"].rpartition(".")[2]
        given = dict(net.get("init_args", {}))
        plain = not any("." in key for key in given)  # of a nested class, with dotted names
        return Description(name, given) if plain and name in nlden.models.__all__ else None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; a training without precision takes what is fastest on this machine."""
        config = self._get(self.config_init, "trainer")
        if self.subcommand == "fit" and config["precision"] is None:
            device = choose_device("cpu" if config["accelerator"] == "cpu" else "auto")
            taken = choose_precision(self.model, device)
            kwargs["precision"] = {"fp32": "32-true", "bf16": "bf16-mixed"}[taken]
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Warn where no weights file will come of the training."""
        if self._description() is None:
            warnings.warn(
                "net is put together in the recipe: its weights stay in the checkpoint; for a "
                "weights.safetensors let net be a function of nlden.models",
                stacklevel=1,
            )

    def after_fit(self) -> None:
        """Write ``weights.safetensors`` and ``curves.png`` beside the log."""
        trainer = self.trainer
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # which all processes ask for
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder.mkdir(parents=True, exist_ok=True)
        if (description := self._description()) is not None:
            save(self.model.net, folder / "weights.safetensors", description)
        plot_curves(folder)


def _one_line(error: Exception) -> str:
    """Return what is wrong: the parser's explanation nests it, deepest is the cause."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if not line.lstrip().startswith("Given value")]
    deepest = max(causes, key=lambda line: len(line) - len(line.lstrip(" -")), default="")
    return deepest.strip(" -") or type(error).__name__


def main(arguments: Sequence[str]) -> None:
    """Run ``fit``, ``validate`` or ``test`` of a recipe.

    Args:
        arguments: what follows ``nlden train`` on the command line.

    Raises:
        UsageError: if the recipe, an option, a file or a device is not what it should be.
    """
    keep_freed_memory()
    # Batches are numbered over the whole training: a resumed one goes on with the next.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
    # The processes of several devices are started with sys.argv, which therefore stays as it is.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    quiet = {"exit_on_error": False}
    try:
        TrainCLI(
            Task,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={
                "prog": "nlden train",
                **quiet,
                **dict.fromkeys(LightningCLI.subcommands(), quiet),
            },
            args=list(arguments),
        )
    except UnpicklingError as error:
        raise UsageError(
            "train: --ckpt_path: not of a training; weights go by --model.init_args.weights"
        ) from error
    except (
        ArgumentError,
        MediaError,
        MisconfigurationException,
        OSError,
        ValueError,
    ) as error:
        raise UsageError(f"train: {_one_line(error)}") from error
