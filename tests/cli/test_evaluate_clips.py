import csv
import sys
from functools import partial

import pytest
import torch
from skimage import data as photographs
from skimage.io import imsave

from nlden.data.camera_motion import camera_motion


@pytest.fixture
def run(run_here):
    """Return a function that runs the command; see ``run_here``."""
    return partial(run_here, "evaluate-clips")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    picture = torch.from_numpy(photographs.coffee()).permute(2, 0, 1) / 255
    (root / "coffee").mkdir()
    for i, frame in enumerate(camera_motion(picture, 2, (48, 40))):
        pixels = (frame * 255).round().byte().permute(1, 2, 0).numpy()
        imsave(root / "coffee" / f"{i}.png", pixels, check_contrast=False)
    return root


def test_a_table_and_a_file_of_figures(run, folder, tmp_path):
    code, out, err = run(
        str(folder),
        *("--sigma", "20,40", "--model", "image-fast", "--peers", "nlm"),
        *("-o", str(tmp_path / "figures.csv")),
    )
    assert code == 0, err
    with (tmp_path / "figures.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = [(s, m) for s in ("20.0", "40.0") for m in ("noisy input", "image-fast", "nlm")]
    assert [(r["sigma"], r["method"]) for r in rows] == kinds * 2
    assert {r["clip"] for r in rows} == {"coffee", "mean"}
    for sigma in ("20.0", "40.0"):
        psnr = {r["method"]: float(r["psnr"]) for r in rows if r["sigma"] == sigma}
        assert min(psnr["image-fast"], psnr["nlm"]) > psnr["noisy input"] + 5
        assert f"{psnr['image-fast']:.2f}" in out


def test_stored_stills_and_peers_at_their_best(run, folder, tmp_path):
    code, out, err = run(
        folder,
        *("--sigma", 30, "--model", "image-fast", "--peers", "nlm,nlm3d", "--best-strength"),
        *("--stored", "--stills", "--frames", 3, "-o", tmp_path / "figures.csv"),
    )
    assert code == 0, err
    with (tmp_path / "figures.csv").open() as file:
        rows = {r["method"]: r for r in csv.DictReader(file) if r["clip"] == "coffee"}
    noisy = float(rows["noisy input"]["psnr"])
    assert all(float(rows[name]["psnr"]) > noisy + 2 for name in ("image-fast", "nlm", "nlm3d"))
    # A volume of equal frames is what averaging in time likes best.
    assert float(rows["nlm3d"]["flicker"]) < 0.6 * float(rows["nlm"]["flicker"])
    assert "PSNR of the planes of 8-bit 4:2:0" in out
    strength = float(rows["nlm"]["strength"])
    assert (f"nlm x{strength:.2f}" in out) == (strength != 1)


def test_noise_of_files_is_estimated_and_another_kind_is_one_line(run, folder):
    code, out, err = run(folder, "--sigma", 20, "--model", "image-fast", "--noise", "poisson")
    assert code == 0, err
    assert "PSNR of the planes of 8-bit 4:2:0" in out
    code, _, err = run(folder, "--noise", "pink")
    assert (code, err.count("\n")) == (2, 1)
    assert "--noise pink: give gaussian, correlated, poisson, compressed" in err


def test_a_peer_that_is_not_installed_is_one_line(run, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    code, _, err = run(folder, "--model", "image-fast", "--peers", "opencv")
    said = "nlden: opencv is not installed; pip install opencv-python-headless\n"
    assert (code, err) == (2, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nothing"], "nothing: no weights"),
        (["--sigma", "0"], "--sigma 0"),
        (["--halve", "tea"], "--halve tea: no such clip"),
        (["--peers", "magic"], "magic: no such peer"),
        (["--best-strength"], "--best-strength is of peers"),
        (["--precision", "auto"], "--precision auto"),
        (["-o", "nowhere/x.csv"], "there is no folder nowhere"),
        (["-o", "."], ".: is a folder"),
    ],
)
def test_wrong_usage_is_one_line(run, folder, arguments, said):
    arguments = [str(folder), *arguments]
    code, _, err = run(*arguments, *(() if "--model" in arguments else ("--model", "image-fast")))
    assert code == 2
    assert err.startswith("nlden: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_folder_without_clips_is_one_line(run, tmp_path):
    code, _, err = run(str(tmp_path), "--model", "image-fast")
    assert code == 2
    assert "no clip in it" in err
    assert len(err.splitlines()) == 1
