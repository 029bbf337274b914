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


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_a_recipe_runs(recipe, folder, tmp_path, monkeypatch):
    header = recipe.read_text().split("\nmodel:")[0]
    assert f"nlden train fit --config {recipe.relative_to(ROOT)}" in header
    monkeypatch.chdir(tmp_path)
    data = ["--data.init_args.crop", "32", "--data.init_args.cache", str(tmp_path / "cache")]
    recipe_data = yaml.safe_load(recipe.read_text())["data"]["init_args"]
    for name in ("folders", "partners", "val_folders", "val_partners"):
        if name in recipe_data:
            data += [f"--data.init_args.{name}", f"[{folder}]"]
    small = ["--data.init_args.batch_size", "2", "--data.init_args.batches_per_epoch", "2"]
    steps = ["--trainer.max_steps", "2", "--trainer.check_val_every_n_epoch", "1"]
    main(["fit", "--config", str(recipe), *data, *small, *steps, "--trainer.accelerator", "cpu"])
    (weights,) = tmp_path.rglob("weights.safetensors")
    assert (weights.parent / "curves.png").stat().st_size > 1000
    assert (weights.parent / "metrics.csv").is_file()
    assert sum(p.numel() for p in load(weights).parameters()) > 1000
