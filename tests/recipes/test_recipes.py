"""Every recipe runs for a step on real photographs, and its header tells how to start it."""

from pathlib import Path

import pytest
import yaml
from skimage import data as photographs
from skimage.io import imsave

from nlden.cli.train import main
from nlden.models.pretrained import load

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs")
    for i in range(26):
        imsave(path / f"{i:02}.png", photographs.cat()[i : i + 40, i * 4 : i * 4 + 48])
    return path


@pytest.fixture(scope="module")
def clips(folder, tmp_path_factory):
    """Five clips of three frames, so that one is held out."""
    path = tmp_path_factory.mktemp("clips")
    for clip in range(5):
        (path / f"{clip}").mkdir()
        for i in range(3):
            view = photographs.cat()[8 * clip : 8 * clip + 40, 2 * i : 2 * i + 48]
            imsave(path / f"{clip}" / f"{i}.png", view)
    return path


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_a_recipe_runs(recipe, folder, clips, tmp_path, monkeypatch):
    header = recipe.read_text().split("\nmodel:")[0]
    assert f"nlden train fit --config {recipe.relative_to(ROOT)}" in header
    monkeypatch.chdir(tmp_path)
    data = ["--data.init_args.crop", "32"]
    text = yaml.safe_load(recipe.read_text())
    described, net = text["data"], text["model"]["init_args"]["net"]
    recipe_data = described["init_args"]
    if described["class_path"].endswith("ClipDataModule"):
        data += ["--data.init_args.frames", "2", "--data.init_args.reduce", "1"]
        data += ["--data.init_args.folders", f"[{clips}]"]
        data += ["--data.init_args.photographs", f"[{folder}]"]
        del recipe_data["folders"]
    else:
        data += ["--data.init_args.cache", str(tmp_path / "cache")]
    for name in ("folders", "partners", "val_folders", "val_partners"):
        if name in recipe_data:
            data += [f"--data.init_args.{name}", f"[{folder}]"]
    small = ["--data.init_args.batch_size", "2", "--data.init_args.batches_per_epoch", "2"]
    steps = ["--trainer.max_steps", "2", "--trainer.check_val_every_n_epoch", "1"]
    main(["fit", "--config", str(recipe), *data, *small, *steps, "--trainer.accelerator", "cpu"])
    (curves,) = tmp_path.rglob("curves.png")
    assert curves.stat().st_size > 1000
    assert (curves.parent / "metrics.csv").is_file()
    if "body" in net.get("init_args", {}):  # put together in the recipe: a checkpoint alone
        assert [*tmp_path.rglob("last.ckpt")]
        return
    weights = curves.parent / "weights.safetensors"
    assert sum(p.numel() for p in load(weights).parameters()) > 1000
