"""``nlden evaluate`` on real files: what it prints and writes, and how it refuses."""

import csv
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs
from skimage.metrics import peak_signal_noise_ratio

import nlden


@pytest.fixture
def run(run_here):
    """Return a function that runs the command; see ``run_here``."""
    return partial(run_here, "evaluate")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "clean"
    path.mkdir()
    for name in ("cat", "coffee"):
        Image.fromarray(getattr(photographs, name)()[40:88, 60:124]).save(path / f"{name}.png")
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_files_and_figures_agree(run, folder, tmp_path):
    out = tmp_path / "new" / "out"
    arguments = (folder, "--sigma", "15,50", "--model", "image-fast", "--peers", "nlm")
    code, printed, said = run(*arguments, "-o", out, "--device", "cpu")
    assert code == 0, said
    assert "Traceback" not in said
    names = {"images.csv", "table.csv", "table.md", "psnr.png", "sheet.png"}
    assert {p.name for p in out.iterdir()} == names

    images = rows_of(out / "images.csv")
    assert len(images) == 2 * 2 * 3
    for row in images:
        if row["method"] != "image-fast":
            continue
        clean = np.asarray(Image.open(folder / row["image"])).astype(np.float32) / 255
        seed = {"cat.png": 0, "coffee.png": 1}[row["image"]]
        noise = torch.randn(3, 48, 64, generator=torch.Generator().manual_seed(seed))
        noisy = clean + noise.permute(1, 2, 0).numpy() * float(row["noise"]) / 255
        kind = {"model": "image-fast", "device": "cpu", "precision": "fp32"}
        output = nlden.denoise(noisy, float(row["noise"]) / 255, **kind).clip(0, 1)
        psnr = peak_signal_noise_ratio(clean, output, data_range=1)
        assert float(row["psnr"]) == pytest.approx(psnr, abs=2e-3)
        assert float(row["seconds"]) > 0

    table = rows_of(out / "table.csv")
    assert len(table) == 2 * 3
    markdown = (out / "table.md").read_text()
    assert "seed 0; image-fast float32" in markdown
    for row in table:
        group = [r for r in images if (r["noise"], r["method"]) == (row["noise"], row["method"])]
        for name in ("psnr", "ssim"):
            mean = np.mean([float(r[name]) for r in group])
            assert float(row[name]) == pytest.approx(mean, abs=1e-3)
        cell = f"{float(row['psnr']):.2f} / {float(row['ssim']):.4f}"
        (line,) = (x for x in markdown.splitlines() if x.startswith(f"| {row['method']} |"))
        column = {"15": 2, "50": 3}[row["noise"]]
        assert line.split("|")[column].strip() == cell
        assert cell in printed
    for name in ("psnr.png", "sheet.png"):
        assert np.asarray(Image.open(out / name).convert("L")).std() > 10

    run(*arguments, "-o", out, "--device", "cpu")
    again = rows_of(out / "images.csv")
    for row in (*images, *again):
        del row["seconds"]
    assert again == images


def test_real_pairs_two_models_and_grey(run, folder, tmp_path):
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    rng = np.random.default_rng(0)
    for path in folder.iterdir():
        codes = np.asarray(Image.open(path)) + 15 * rng.standard_normal((48, 64, 3))
        Image.fromarray(codes.round().clip(0, 255).astype(np.uint8)).save(noisy / path.name)
    models = ("--model", "image-fast", "--model", "image-base")
    out = tmp_path / "out"
    code, printed, said = run(
        folder, "--noisy", noisy, *models, "--peers", "none", "--gray", "--limit", 1, "-o", out
    )
    assert code == 0, said
    assert "real noise" in printed
    rows = rows_of(out / "images.csv")
    assert [r["method"] for r in rows] == ["noisy input", "image-fast", "image-base"]
    assert float(rows[0]["sigma"]) == pytest.approx(15 * 0.67, rel=0.4)  # luma averages colours
    assert float(rows[2]["psnr"]) > float(rows[0]["psnr"]) + 2


def test_two_sets_have_a_table_each_with_the_same_seeds(run, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "cat.png").write_bytes((folder / "cat.png").read_bytes())
    out = tmp_path / "out"
    code, printed, said = run(
        folder, other, "--sigma", "25", "--limit", 1, "--model", "image-fast",
        "--peers", "none", "-o", out,
    )  # fmt: skip
    assert code == 0, said
    assert f"{other}, pictures: 1\n" in printed
    figures = [(r["method"], r["psnr"], r["ssim"]) for r in rows_of(out / "images.csv")]
    assert figures[:2] == figures[2:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: no such folder"),
        (("empty",), "empty: no such folder, or no image in it"),
        (("clean", "--sigma", "0"), "--sigma 0: give levels above 0"),
        (("clean", "--sigma", "15,256"), "--sigma 15,256: give levels"),
        (("clean", "--sigma", "much"), "--sigma much: give levels"),
        (("clean", "--sigma", "nan"), "--sigma nan: give levels"),
        (("clean", "--sigma", "15,15.0"), "--sigma 15,15.0: a level is there twice"),
        (("clean", "--model", "image-best"), "image-best: no weights of this name"),
        (("clean", "--model", "text.safetensors"), "not a readable safetensors file"),
        (("clean", "--peers", "median"), "median: no such peer"),
        (("clean", "--device", "abacus"), "abacus: not on this machine"),
        (("clean", "--precision", "fp8"), "--precision fp8: give one of"),
        (("clean", "--limit", "0"), "--limit"),
        (("clean", "-o", "clean/cat.png"), "is a file; give a folder"),
        (("clean", "-o", "clean/cat.png/out"), "cat.png"),
        (("clean", "empty", "--noisy", "clean"), "--noisy goes with one FOLDER"),
        (("clean", "--noisy", "clean", "--sigma", "15,25"), "at most one --sigma"),
        (("clean", "--noisy", "one"), "one: 1 pictures for the 2 of clean"),
        ((), "FOLDER"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "cat.png").write_bytes((folder / "cat.png").read_bytes())
    (tmp_path / "text.safetensors").write_text("no weights")
    if "--peers" not in arguments:
        arguments = (*arguments, "--peers", "none")
    code, printed, said = run(*arguments)
    assert code == 2
    assert not printed
    assert said.startswith("nlden: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("broken",), "broken/text.png"),
        (("clean", "--noisy", "clean"), "the same pixels as"),
        (("clean", "--noisy", "smaller"), "smaller/cat.png: not of the size of clean/cat.png"),
    ],
)
def test_a_failed_run_is_one_line_and_leaves_nothing(
    arguments, message, run, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("broken", "smaller"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "text.png").write_text("no picture")
    for path in folder.iterdir():
        Image.open(path).crop((0, 0, 50, 40)).save(tmp_path / "smaller" / path.name)
    options = ("--peers", "none", "--model", "image-fast", "-o", "out")
    code, printed, said = run(*arguments, *options)
    assert code == 1
    assert not printed
    assert message in said
    assert said.strip().startswith("nlden: ")
    assert said.strip().count("\n") == 0
    assert not list((tmp_path / "out").iterdir())


def test_peers_that_are_not_installed_are_noted_or_refused(run, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    code, _, said = run(folder, "--peers", "nlm,bm3d")
    assert (code, said) == (2, "nlden: bm3d is not installed; pip install bm3d\n")
    monkeypatch.setitem(sys.modules, "pywt", None)
    code, printed, said = run(folder, "--sigma", "25", "--limit", 1, "--model", "image-fast")
    assert code == 0
    assert "nlden: without bm3d (pip install bm3d)" in said
    assert "nlden: without wavelet (pip install PyWavelets)" in said
    assert "nlm" in printed
    assert "wavelet" not in printed
