import datetime

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from nlden.encoders import UNet
from nlden.models import ImageDenoiser
from nlden.tasks import ImageDenoising
from nlden.tasks.denoising import psnr_loss
from nlden.tasks.muon import Muon, orthogonalize


def task(**arguments):
    torch.manual_seed(0)
    return ImageDenoising(ImageDenoiser(UNet((8, 12), (1, 1))), **arguments)


def batches(count=8):
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(4, 3, 1, 1, generator=generator).expand(4, 3, 16, 16)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    batch = {"clean": clean, "noisy": noisy, "sigma": torch.full((4, 2), 0.1)}
    return torch.utils.data.DataLoader([batch] * count, batch_size=None)


def trainer(tmp_path, **arguments):
    return Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 6, 6)])
def test_singular_values_come_near_one(shape):
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert 0.5 < values.min() <= values.max() < 1.4


def test_muon_finds_the_minimum_of_a_quadratic():
    # Steps have a fixed length, so that the distance left depends on the goal: one goal is drawn.
    goal = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    kernel = torch.nn.Parameter(torch.zeros_like(goal))
    optimizer = Muon([{"params": [kernel], "muon": True, "lr": 0.1}])
    before = (kernel - goal).norm()
    for _ in range(100):
        optimizer.zero_grad()
        (kernel - goal).square().sum().backward()
        optimizer.step()
    assert (kernel - goal).norm() < 0.3 * before


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_other_groups_are_stepped_as_by_adamw(weight_decay):
    start = torch.randn(7)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.02, "betas": (0.9, 0.99), "weight_decay": weight_decay}
    optimizers = (Muon([{"params": [ours], **settings}]), torch.optim.AdamW([theirs], **settings))
    for step in range(10):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (parameter * torch.arange(7) * (step + 1)).sin().sum().backward()
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_edges_and_vectors_are_left_to_adamw(tmp_path):
    module = task()
    module.trainer = trainer(tmp_path, max_steps=2)
    groups = module.configure_optimizers()["optimizer"].param_groups
    edges = {id(p) for part in (module.net.stems, module.net.tails) for p in part.parameters()}
    assert {id(p) for p in groups[1]["params"]} == edges
    assert sum(len(g["params"]) for g in groups) == len(list(module.parameters()))


def test_training_lowers_the_loss_and_the_rate_falls_to_zero(tmp_path):
    module = task()
    batch = next(iter(batches()))

    def loss():
        with torch.no_grad():
            return psnr_loss(module(batch["noisy"], batch["sigma"]), batch["clean"])

    before = loss()
    run = trainer(tmp_path, max_steps=40, enable_checkpointing=False)
    run.fit(module, batches(40))
    assert loss() < before - 3  # dB
    assert run.optimizers[0].param_groups[0]["lr"] < 1e-6


def test_a_step_without_finite_gradients_is_passed_over(tmp_path):
    good = next(iter(batches()))
    bad = {**good, "noisy": good["noisy"] * float("nan")}
    module = task()
    before = [p.detach().clone() for p in module.parameters()]
    run = trainer(tmp_path, max_steps=3, enable_checkpointing=False)
    with pytest.warns(UserWarning, match="step 1: no finite gradients"):
        run.fit(module, torch.utils.data.DataLoader([good, bad, good], batch_size=None))
    after = list(module.parameters())
    assert all(p.isfinite().all() for p in after)
    assert not all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_resumed_run_goes_on(tmp_path):
    first = trainer(tmp_path, max_steps=4, callbacks=[EMAWeightAveraging(decay=0.9)])
    first.fit(task(), batches(4))
    first.save_checkpoint(tmp_path / "x.ckpt")
    second = trainer(tmp_path, max_steps=8, callbacks=[EMAWeightAveraging(decay=0.9)])
    module = task()
    second.fit(module, batches(4), ckpt_path=tmp_path / "x.ckpt", weights_only=False)
    assert second.global_step == 8
    assert module.progress() == 1.0


def test_a_run_ends_at_its_time_limit(tmp_path):
    limit = datetime.timedelta(seconds=2)
    run = trainer(tmp_path, max_epochs=-1, max_time=limit, enable_checkpointing=False)
    module = task()
    run.fit(module, batches(10))
    assert run.global_step > 0
    assert module.progress() == 1.0
    assert run.optimizers[0].param_groups[0]["lr"] < 1e-3


def test_validation_logs_the_psnr(tmp_path):
    batch = {**next(iter(batches())), "name": "rgb/25"}
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    run = trainer(tmp_path)
    (logged,) = run.validate(task(), loader, verbose=False)
    module = task()
    with torch.no_grad():
        output = module(batch["noisy"], batch["sigma"]).clamp(0, 1)
    errors = (output - batch["clean"]).square().mean((1, 2, 3))
    assert logged["val/psnr"] == pytest.approx(float((-10 * errors.log10()).mean()), abs=1e-3)
    assert logged["val/psnr/rgb/25"] == logged["val/psnr"]
