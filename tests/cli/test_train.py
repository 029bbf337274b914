"""``nlden train``: errors in one line; logs, resuming and weights of real short trainings."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from skimage import data as photographs
from skimage.io import imsave

from nlden.cli.errors import UsageError
from nlden.cli.train import main
from nlden.models.pretrained import load
from nlden.tasks import ImageDenoising

RECIPE = str(Path(__file__).parents[2] / "recipes/denoise/image_gaussian.yaml")
# As small as a network with every part can be, but the shipped weights keep theirs.
NESTED = {
    "--model.init_args.net.class_path": "nlden.models.ImageDenoiser",
    "--model.init_args.net.init_args.body.class_path": "nlden.encoders.UNet",
    "--model.init_args.net.init_args.body.init_args.widths": "[8, 8]",
    "--model.init_args.net.init_args.body.init_args.blocks": "[1, 1]",
}


@pytest.fixture
def options(tmp_path, monkeypatch):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(26):
        imsave(folder / f"{i:02}.png", photographs.cat()[i : i + 40, i * 4 : i * 4 + 48])
    monkeypatch.chdir(tmp_path)
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "00.png").write_bytes((folder / "00.png").read_bytes())
    data = {"folders": f"[{folder}]", "test_folders": f"[{shown}]", "test_sigmas": "[25]"}
    data |= {"crop": "32", "batch_size": "2", "batches_per_epoch": "2"}
    trainer = {"accelerator": "cpu", "check_val_every_n_epoch": "1", "max_steps": "2"}
    return (
        {"--model.init_args.net": "nlden.models.image_denoiser_fast"}
        | {f"--data.init_args.{k}": v for k, v in data.items()}
        | {f"--trainer.{k}": v for k, v in trainer.items()}
    )


def train(command, options, *more):
    main([command, "--config", RECIPE, *(x for pair in options.items() for x in pair), *more])


def steps_of(log):
    with log.open(newline="") as file:
        return {int(row["step"]) for row in csv.DictReader(file) if row.get("train/loss")}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.init_args.folders", "[nowhere]"], "nowhere: no such folder, or no image in it"),
        (["--data.init_args.crop", "64"], "no training image is as large as crop=64"),
        (["--data.init_args.crop", "wide"], "Got value: wide"),
        (["--model.init_args.lrr", "1"], "'lrr' is not accepted"),
        (["--model.init_args.weights", "nix"], "nix: no weights of this name or file"),
        (["--trainer.accelerator", "gpu", "--trainer.devices", "99"], "gpu"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--data.init_args.crop", "0"], "crop=0"),
        (["--ckpt_path", "photographs/00.png"], "not of a training"),
    ],
)
def test_errors_are_one_line(options, more, message):
    with pytest.raises(UsageError) as error:
        train("fit", options, *more)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_picture_is_one_line(options):
    damaged = Path("photographs/01.png")
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"01\.png"):
        train("fit", options)


def test_the_checkpoint_of_another_network_is_one_line(options):
    train("fit", options)
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    more = ["--trainer.max_steps", "4", "--ckpt_path", str(checkpoint)]
    with pytest.raises(UsageError, match="of another network"):
        train(
            "fit", {**options, "--model.init_args.net": "nlden.models.image_denoiser_tiny"}, *more
        )


def test_the_command_shows_one_line_and_no_traceback(tmp_path):
    command = [Path(sys.executable).with_name("nlden"), "train", "fit", "--config", "nowhere.yaml"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("nlden: train:")
    assert "nowhere.yaml" in line


def test_a_test_leaves_the_log_of_the_training(options, tmp_path):
    train("fit", options, "--trainer.log_every_n_steps", "1")
    (log,) = tmp_path.rglob("metrics.csv")
    before = log.read_bytes()
    train("test", options, "--model.init_args.weights", str(log.with_name("weights.safetensors")))
    assert log.read_bytes() == before


def test_a_resumed_training_goes_on_where_it_stood(options, tmp_path):
    every = ["--trainer.log_every_n_steps", "1"]
    train("fit", options, *every)
    (first,) = tmp_path.rglob("metrics.csv")
    (last,) = tmp_path.rglob("last.ckpt")
    options["--trainer.max_steps"] = "5"
    train("fit", options, *every, "--ckpt_path", str(last))
    (second,) = set(tmp_path.rglob("metrics.csv")) - {first}
    assert steps_of(first) == {0, 1}
    assert len(steps_of(second)) == 3
    assert min(steps_of(second)) > max(steps_of(first))


@pytest.mark.slow
def test_two_processes_train_as_one(options, tmp_path):
    given = {
        "--trainer.devices": "2",
        "--trainer.strategy": "ddp_find_unused_parameters_true",
        "--trainer.precision": "32-true",
        "--trainer.max_time": "00:00:10:00",  # the learning rate follows the clock, too
        "--trainer.log_every_n_steps": "1",
    }
    pairs = [x for pair in (options | given).items() for x in pair]
    command = [Path(sys.executable).with_name("nlden"), "train", "fit", "--config", RECIPE, *pairs]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    (log,) = tmp_path.rglob("metrics.csv")
    assert steps_of(log) == {0, 1}
    load(log.with_name("weights.safetensors"))


@pytest.mark.parametrize(
    ("taken", "precision"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_a_training_takes_the_faster_precision(options, monkeypatch, taken, precision):
    seen = set()
    forward = ImageDenoising.training_step

    def step(task, batch, number):
        seen.add(task.net.stems["rgb"](torch.zeros(1, 14, 4, 4)).dtype)
        return forward(task, batch, number)

    monkeypatch.setattr("nlden.cli.train.choose_precision", lambda *_: taken)
    monkeypatch.setattr(ImageDenoising, "training_step", step)
    train("fit", options)
    assert seen == {precision}


def test_nets_of_parts_train_and_say_that_no_weights_file_comes(options, tmp_path):
    with pytest.warns(UserWarning, match="net is put together in the recipe"):
        train("fit", options | NESTED)
    assert not list(tmp_path.rglob("weights.safetensors"))
    (last,) = tmp_path.rglob("last.ckpt")
    state = torch.load(last, weights_only=False)["state_dict"]
    assert state["net.stems.rgb.weight"].shape == (8, 14, 3, 3)


def test_nets_of_functions_give_weights_that_load(options, tmp_path):
    train("fit", options)
    (weights,) = tmp_path.rglob("weights.safetensors")
    (last,) = tmp_path.rglob("last.ckpt")
    averaged = torch.load(last, weights_only=False)["state_dict"]
    for name, tensor in load(weights).state_dict().items():
        assert torch.allclose(tensor, averaged[f"net.{name}"].float(), rtol=1e-3, atol=1e-6)
