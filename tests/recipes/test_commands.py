"""The commands that a recipe's header names: a fresh training, one step, a resumed run, a test."""

import csv
import re
from pathlib import Path

import pytest
import yaml
from skimage import data as photographs
from skimage.io import imsave

from nlden.cli.train import main
from nlden.models import ImageDenoiser
from nlden.models.pretrained import load

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
TINY_NET = {
    "class_path": "nlden.models.ImageDenoiser",
    "init_args": {
        "body": {
            "class_path": "nlden.encoders.UNet",
            "init_args": {"widths": [8, 8], "blocks": [1, 1]},
        }
    },
}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that runs a subcommand of a recipe, small, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(14):
        view = photographs.cat()[i * 5 : i * 5 + 40, i * 9 : i * 9 + 48]
        imsave(folder / f"{i:02}.png", view, check_contrast=False)

    def run(subcommand, recipe, **options):
        small = {
            "data.init_args.folders": f"[{folder}]",
            "data.init_args.test_folders": f"[{folder}]",
            "data.init_args.crop": 32,
            "data.init_args.batch_size": 2,
            "data.init_args.batches_per_epoch": 2,
            "trainer.accelerator": "cpu",
            "trainer.precision": "32-true",
            "trainer.log_every_n_steps": 1,
        }
        options = {k.replace("__", "."): v for k, v in options.items()}
        flags = [f"--{k}={v}" for k, v in {**small, **options}.items()]
        main([subcommand, "--config", str(recipe), *flags])
        return tmp_path / "runs" / recipe.stem

    return run


def losses(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return {
            int(r["step"]): r["train/loss"] for r in csv.DictReader(file) if r.get("train/loss")
        }


@pytest.fixture(params=RECIPES, ids=lambda r: r.stem)
def recipe(request):
    return request.param


def test_the_header_tells_every_command_and_names_what_exists(recipe):
    header = "".join(line for line in recipe.open() if line.startswith("#"))
    configs = re.findall(r"nlden train (\w+) --config (\S+)", header)
    assert ("fit", str(recipe.relative_to(ROOT))) in configs
    assert all((ROOT / path).is_file() for _, path in configs)
    content = yaml.safe_load(recipe.read_text())
    assert content["trainer"]["logger"]["init_args"]["name"] == recipe.stem
    (resume,) = re.findall(r"--ckpt_path (\S+)/last\.ckpt", header)
    checkpoints = [c["init_args"] for c in content["trainer"]["callbacks"] if "init_args" in c]
    assert resume in [c.get("dirpath") for c in checkpoints]


def test_a_recipe_runs_one_step_and_publishes_nothing(recipe, train):
    folder = train("fit", recipe, trainer__fast_dev_run="true")
    assert not list(folder.rglob("*.safetensors"))


def test_the_test_command_runs_and_keeps_the_training_s_log(recipe, train):
    folder = train("fit", recipe, trainer__max_steps=2, model__init_args__net=TINY_NET)
    before, config = losses(folder), (folder / "config.yaml").read_text()
    assert sorted(before) == [0, 1]
    train("test", recipe, model__init_args__weights="image-base")
    assert losses(folder) == before
    assert (folder / "config.yaml").read_text() == config


def test_the_resume_command_goes_on_and_keeps_the_log_so_far(recipe, train):
    options = {"model__init_args__net": TINY_NET}
    folder = train("fit", recipe, trainer__max_steps=2, **options)
    before = losses(folder)
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        pytest.skip("no checkpoint after two steps")
    train("fit", recipe, trainer__max_steps=4, ckpt_path=last, **options)
    after = losses(folder)
    assert before.items() <= after.items()
    assert len(after) == 4


def test_weights_of_a_net_from_its_parts_can_be_loaded_again(recipe, train):
    folder = train("fit", recipe, trainer__max_steps=2, model__init_args__net=TINY_NET)
    network = load(folder / "weights.safetensors")
    assert isinstance(network, ImageDenoiser)
    assert network.body.widths == (8, 8)
