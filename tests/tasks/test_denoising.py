import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from skimage import data as photographs
from skimage.io import imsave
from skimage.metrics import peak_signal_noise_ratio

from nlden.data import ImageDataModule
from nlden.encoders import UNet
from nlden.models import ImageDenoiser, video_denoiser_base
from nlden.models.pretrained import Description, WeightsError, load, load_weights, save
from nlden.models.self_ensemble import TURNS, self_ensemble
from nlden.tasks import ImageDenoising, VideoDenoising
from nlden.tasks.denoising import mean_psnr, psnr_loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs")
    for i in range(26):
        view = photographs.astronaut()[i * 9 : i * 9 + 48, i * 11 : i * 11 + 56]
        imsave(path / f"{i:02}.png", view, check_contrast=False)
    return path


def build(**arguments):
    torch.manual_seed(0)
    return ImageDenoising(ImageDenoiser(UNet((8, 8, 8), (1, 1, 1))), **arguments)


def module(folder):
    return ImageDataModule([folder], [folder], crop=32, batch_size=4, batches_per_epoch=20)


def trainer(folder, **arguments):
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **arguments},
    )


@settings(deadline=None, max_examples=20)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(7, 20), st.integers(7, 20)),
    sigma=st.floats(0.02, 1),
)
def test_the_loss_is_the_negative_psnr_of_scikit_image(size, sigma):
    x, y = torch.rand(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x + sigma * (y - 0.5)
    psnr = [
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1)
        for a, b in zip(x, y, strict=True)
    ]
    assert float(psnr_loss(x, y)) == pytest.approx(-sum(psnr) / len(psnr), abs=0.2)
    assert float(psnr_loss(x, y, eps=0)) == pytest.approx(-sum(psnr) / len(psnr), abs=1e-9)


def test_the_loss_of_equal_pictures_is_finite_and_so_is_its_gradient():
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    z = x.clone().requires_grad_()
    loss = psnr_loss(z, x)
    loss.backward()
    assert float(loss) == pytest.approx(-60)
    assert z.grad.isfinite().all()


def test_training_on_photographs_raises_the_validated_psnr(folder):
    task, data = build(), module(folder)
    run = trainer(folder, max_steps=80, limit_val_batches=6)
    (before,) = run.validate(task, data, verbose=False)
    run.fit(task, data)
    (after,) = trainer(folder).validate(task, data, verbose=False)
    assert set(after) == {"val/psnr"} | {
        f"val/psnr/{kind}/{sigma}" for kind in ("rgb", "yuv420") for sigma in (15, 25, 50)
    }
    assert after["val/psnr"] > before["val/psnr"] + 1
    assert after["val/psnr/rgb/50"] > before["val/psnr/rgb/50"] + 1


def test_a_resumed_run_is_the_uninterrupted_one(folder, tmp_path):
    def callbacks():
        last = ModelCheckpoint(dirpath=tmp_path, save_top_k=-1, every_n_train_steps=3)
        return [EMAWeightAveraging(decay=0.5), last]

    whole, data = build(), module(folder)
    arguments = {"max_steps": 6, "limit_val_batches": 0, "enable_checkpointing": True}
    trainer(folder, callbacks=callbacks(), **arguments).fit(whole, data)
    (path,) = tmp_path.glob("*step=3.ckpt")

    resumed = build()
    run = trainer(folder, callbacks=callbacks(), **arguments)
    run.fit(resumed, module(folder), ckpt_path=path, weights_only=False)
    assert run.global_step == 6
    for (name, p), q in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5), name


def test_tests_log_the_mean_psnr_of_each_set_and_level(folder):
    task, data = build(), module(folder)
    (logged,) = trainer(folder).test(task, data, verbose=False)
    expected = {}
    data.setup("test")
    for batch in data.test_dataloader():
        with torch.no_grad():
            output = task(batch["noisy"], batch["sigma"]).clamp(0, 1)
        value = peak_signal_noise_ratio(batch["clean"].numpy(), output.numpy(), data_range=1)
        expected.setdefault(f"test/psnr/{batch['name']}", []).append(value)
    assert logged == pytest.approx({k: sum(v) / len(v) for k, v in expected.items()}, abs=1e-3)
    assert set(logged) == {f"test/psnr/{folder.name}/{s}" for s in (15, 25, 50)}


def test_a_task_starts_from_weights(tmp_path):
    start = build()
    path = tmp_path / "w.safetensors"
    save(start.net, path, Description("image_denoiser_base"))
    torch.manual_seed(1)
    task = ImageDenoising(ImageDenoiser(UNet((8, 8, 8), (1, 1, 1))), weights=str(path))
    for p, q in zip(task.parameters(), start.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=2**-11, atol=6e-8)
        assert p.requires_grad
    with pytest.raises(WeightsError, match="does not fit"):
        build(weights="image-base")


def test_weights_of_other_widths_are_refused_even_in_part():
    net = ImageDenoiser(UNet((64, 96), (1, 2)))
    with pytest.raises(WeightsError, match="does not fit"):
        load_weights(net, "image-base", partly=True)


@pytest.mark.parametrize("turns", [0, 9])
def test_there_are_eight_orientations(turns):
    with pytest.raises(ValueError, match=f"turns={turns}"):
        build(turns=turns)


def test_a_teacher_shows_the_target_and_is_not_taught(tmp_path, monkeypatch):
    start = build()
    path = tmp_path / "teacher.safetensors"
    save(start.net, path, Description("image_denoiser_base"))
    with pytest.raises(WeightsError, match="does not fit"):
        build(teacher=str(path))  # the file tells which network it is of
    teacher = load("image-fast")
    task = build(teacher="image-fast", turns=TURNS)
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    generator = torch.Generator().manual_seed(0)
    noisy, clean = torch.rand(2, 2, 3, 16, 16, generator=generator)
    sigma = torch.full((2, 2), 0.1)
    batch = {"noisy": noisy, "clean": clean, "sigma": sigma}
    loss = task.training_step(batch, 0)
    with torch.no_grad():
        expected = psnr_loss(task(noisy, sigma), self_ensemble(teacher, noisy, sigma))
    assert loss.item() == pytest.approx(float(expected), abs=1e-4)
    loss.backward()
    assert {p.grad is None for p in task.teacher.parameters()} == {True}
    optimized = [p for p in task.parameters() if p.requires_grad]
    assert {*optimized} == {*task.net.parameters()}


def test_frames_of_a_clip_count_one_by_one():
    clip, other = torch.rand(2, 3, 4, 8, 8), torch.rand(2, 3, 4, 8, 8)
    frames, others = (c.transpose(1, 2).flatten(0, 1) for c in (clip, other))
    assert psnr_loss(clip, other) == pytest.approx(float(psnr_loss(frames, others)))
    assert mean_psnr(clip, other) == pytest.approx(float(mean_psnr(frames, others)))


class TestVideoDenoising:
    def test_a_step_lowers_the_loss_and_leaves_the_first_stage(self, small_video_denoiser):
        torch.manual_seed(0)
        net = small_video_denoiser(untrained=True)
        task = VideoDenoising(net, train_spatial=False, fusion=None, lr=0.01)
        clean = torch.from_numpy(photographs.coffee()[:32, :48]).permute(2, 0, 1) / 255
        clean = clean[None, :, None].repeat(1, 1, 3, 1, 1)
        batch = {
            "noisy": clean + 0.1 * torch.randn(clean.shape),
            "clean": clean,
            "sigma": torch.full((1, 2), 0.1),
        }
        before = {k: v.clone() for k, v in task.net.state_dict().items()}
        first = float(psnr_loss(task(batch["noisy"], batch["sigma"]), clean))
        loader = torch.utils.data.DataLoader([batch] * 8, None)
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(task, loader)
        assert float(psnr_loss(task(batch["noisy"], batch["sigma"]), clean)) < first
        changed = {k for k, v in task.net.state_dict().items() if not torch.equal(v, before[k])}
        assert {k.split(".")[0] for k in changed} >= {"fusion", "mismatch", "besides"}
        assert not any(k.startswith("spatial.") for k in changed)

    def test_the_second_stage_starts_from_the_weights_of_an_image_denoiser(self):
        task = VideoDenoising(video_denoiser_base())
        given, own = load("image-base").state_dict(), task.net.fusion.state_dict()
        assert own.keys() <= given.keys()
        assert all(torch.equal(own[key], given[key]) for key in own)
