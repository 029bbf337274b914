"""``nlden train``: Lightning's command line over nlden's tasks and data."""

from collections.abc import Sequence
from pathlib import Path

from lightning import LightningDataModule
from lightning.pytorch.cli import LightningCLI

from nlden.evaluation.report import plot_curves
from nlden.models.pretrained import Description, save
from nlden.tasks.base import Task


class TrainCLI(LightningCLI):
    """LightningCLI that publishes weights and curves when a training has ended."""

    def after_fit(self) -> None:
        """Write ``weights.safetensors`` and ``curves.png`` beside the log."""
        trainer = self.trainer
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        net = self.config[self.subcommand]["model"]["init_args"]["net"]
        arguments = dict(net.get("init_args", {}))
        description = Description(net["class_path"].rpartition(".")[2], arguments)
        save(self.model.net, folder / "weights.safetensors", description)
        plot_curves(folder)


def main(arguments: Sequence[str]) -> None:
    """Run ``fit``, ``validate`` or ``test`` of a recipe.

    Args:
        arguments: what follows ``nlden train`` on the command line.
    """
    TrainCLI(
        Task,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        args=list(arguments),
    )
