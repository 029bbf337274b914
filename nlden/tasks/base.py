"""What all tasks share: the optimiser and a learning rate that follows steps or the clock."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nlden.tasks.muon import Muon


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


class Task(LightningModule):
    """Base of the tasks.

    Hidden kernels are trained by Muon, the first and last layers and all vectors by AdamW. The
    learning rates rise over the first hundredth of the training and fall to zero on a half
    cosine. The training's length is its time limit (``max_time``) or its steps, whichever ends
    it first; a resumed run goes on where the interrupted one stood.

    Args:
        lr: learning rate of Muon.
        adamw_lr: learning rate of AdamW.
    """

    def __init__(self, lr: float = 0.01, adamw_lr: float = 0.001) -> None:
        super().__init__()
        self.lr = lr
        self.adamw_lr = adamw_lr

    def edge_modules(self) -> list[nn.Module]:
        """Return the first and last layers, which AdamW trains."""
        return []

    def progress(self) -> float:
        """Return how much of the training is done, 0 to 1."""
        trainer = self.trainer
        done = 0.0
        if trainer.max_steps > 0:
            done = trainer.global_step / trainer.max_steps
        elif trainer.max_epochs is not None and trainer.max_epochs > 0:
            done = trainer.global_step / max(1, float(trainer.estimated_stepping_batches))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and callback._duration:
                done = max(done, callback.time_elapsed() / callback._duration)
        if trainer.world_size > 1:  # the clocks differ, the learning rates must not
            done = trainer.strategy.broadcast(done)
        return min(done, 1.0)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another network.

        Raises:
            ValueError: if its weights are not those of this one.
        """
        own, given = self.state_dict(), checkpoint["state_dict"]
        strange = [k for k in own.keys() | given.keys() if _shape(own, k) != _shape(given, k)]
        if strange:
            raise ValueError(
                f"the checkpoint is of another network, which differs in {min(strange)}"
            )

    def _factor(self, _: int) -> float:
        done = self.progress()
        return min(1.0, (done + 1e-4) / 0.01) * (0.5 + 0.5 * math.cos(math.pi * done))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Pass over a step whose gradients are no numbers: every weight would inherit them."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            optimizer.zero_grad()
            rank_zero_warn(f"step {self.trainer.global_step}: no finite gradients, passed over")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return Muon with its groups and the schedule."""
        edges = {p for module in self.edge_modules() for p in module.parameters()}
        parameters = [p for p in self.parameters() if p.requires_grad]
        hidden = [p for p in parameters if p.ndim >= 2 and p not in edges]
        rest = [p for p in parameters if p.ndim < 2 or p in edges]
        groups = [
            {"params": hidden, "muon": True, "lr": self.lr},
            {"params": rest, "lr": self.adamw_lr},
        ]
        optimizer = Muon([g for g in groups if g["params"]])
        schedule = LambdaLR(optimizer, self._factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
