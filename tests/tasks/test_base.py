import datetime
import math
from itertools import pairwise

import pytest
import torch
from lightning import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader

from nlden.tasks.base import Task


class Line(Task):
    """A task that takes hardly any time: kernels, a vector and an edge."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        torch.manual_seed(0)
        self.first = nn.Linear(4, 6)
        self.middle = nn.Linear(6, 6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.factors, self.times = [], []

    def edge_modules(self):
        return [self.first]

    def training_step(self, batch, batch_idx):
        self.factors.append(self.optimizers().param_groups[0]["lr"] / self.lr)
        self.times.append(self.progress())
        return self.frozen(self.middle(self.first(batch))).square().mean()


class StopAfter(Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= self.steps


def data(count):
    generator = torch.Generator().manual_seed(0)
    # One batch throughout: Lightning does not go on within an epoch where a resumed run stood.
    batch = torch.randn(2, 4, generator=generator)
    return DataLoader([batch] * count, batch_size=None)


def trainer(**arguments):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **arguments},
    )


def test_each_parameter_has_one_optimiser_and_a_frozen_one_has_none():
    task = Line(lr=0.03, adamw_lr=0.002)
    trainer(max_steps=1).fit(task, data(1))
    muon, adamw = task.optimizers().param_groups
    assert [id(p) for p in muon["params"]] == [id(task.middle.weight)]
    assert {id(p) for p in adamw["params"]} == {
        id(p) for p in (*task.first.parameters(), task.middle.bias)
    }
    assert (muon["muon"], adamw["muon"]) == (True, False)
    assert (muon["initial_lr"], adamw["initial_lr"]) == (0.03, 0.002)


@pytest.mark.parametrize("limit", ["steps", "epochs"])
def test_rates_rise_over_a_hundredth_and_fall_on_a_half_cosine(limit):
    task, steps = Line(), 300
    arguments = {"max_steps": steps} if limit == "steps" else {"max_epochs": 3}
    trainer(**arguments).fit(task, data(100))
    assert len(task.factors) == steps
    for step, factor in enumerate(task.factors):
        rise = min(1, (step / steps + 1e-4) / 0.01)
        assert factor == pytest.approx(rise * (1 + math.cos(math.pi * step / steps)) / 2, abs=1e-9)
    assert task.factors[0] == pytest.approx(0.01)
    assert max(task.factors) == pytest.approx(1, abs=1e-3)
    assert task.optimizers().param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    assert task.progress() == 1


def test_the_clock_ends_a_training_and_sets_its_rates():
    task = Line()
    run = trainer(max_epochs=-1, max_time=datetime.timedelta(seconds=0.7))
    run.fit(task, data(50))
    assert run.global_step > 2
    assert task.progress() == 1
    assert task.times == sorted(task.times)
    # The rate of a step was set between the step before and the step itself.
    for (before, now), factor in zip(pairwise(task.times), task.factors[1:], strict=True):
        low, high = ((1 + math.cos(math.pi * time)) / 2 for time in (now, before))
        assert factor <= high + 1e-9
        assert factor >= low - 1e-9 or before < 0.01  # within the rise it is smaller


def test_what_ends_first_counts():
    task = Line()
    trainer(max_steps=10, max_time=datetime.timedelta(hours=1)).fit(task, data(10))
    assert task.factors[5] == pytest.approx(0.5, abs=1e-3)


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path):
    whole = Line()
    trainer(max_steps=12).fit(whole, data(4))

    first = trainer(max_steps=12, callbacks=[StopAfter(8)])
    first.fit(Line(), data(4))
    assert first.global_step == 8
    path = tmp_path / "x.ckpt"
    first.save_checkpoint(path)

    second, run = Line(), trainer(max_steps=12)
    run.fit(second, data(4), ckpt_path=path, weights_only=False)
    assert run.global_step == 12
    assert second.factors == pytest.approx(whole.factors[8:])
    for p, q in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_the_clock_goes_on_in_a_resumed_training(tmp_path):
    limit = datetime.timedelta(minutes=1)
    first = trainer(max_epochs=-1, max_time=limit, callbacks=[StopAfter(20)])
    task = Line()
    first.fit(task, data(20))
    done = task.progress()
    assert 0 < done < 1
    path = tmp_path / "x.ckpt"
    first.save_checkpoint(path)
    second = Line()
    run = trainer(max_epochs=-1, max_time=limit, callbacks=[StopAfter(21)])
    run.fit(second, data(20), ckpt_path=path, weights_only=False)
    assert done <= second.progress() <= 1
    assert run.global_step > 20
