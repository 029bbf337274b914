import numpy as np
import pytest
import torch
from PIL import Image

from nlden.evaluation import benchmark, demo
from nlden.evaluation.report import before_after_sheet, plot_curves
from nlden.jobs.denoise import open_denoiser


@pytest.fixture(scope="module")
def denoiser():
    return open_denoiser("image-base", torch.device("cpu"), "fp32", None)


def test_the_demonstration_shows_what_it_says(denoiser, decode, tmp_path):
    result = demo.run(tmp_path, denoiser, frames_per_shot=2)
    assert result.after > result.before + 6
    assert set(result.files) == {p.name for p in tmp_path.iterdir()}
    videos = ("noisy.mp4", "denoised.mp4", "original.mp4", "side_by_side.mp4")
    noisy, clean, *others = (decode(result.files[n]) for n in videos)
    assert all(other.times == clean.times for other in others)
    assert noisy.sound
    assert noisy.sound == clean.sound
    assert noisy.times == clean.times
    assert len(noisy.times) == 6
    sheet = np.asarray(Image.open(result.files["before_after.png"]))
    assert sheet.std() > 20


def test_the_comparison_measures_both(denoiser, tmp_path):
    rows = benchmark.compare(
        tmp_path,
        [("fp32", denoiser)],
        frames=1,
        size=(120, 160),
        told=(0.5, 1.0),
        filters={"fftdnoiz": ["sigma=1", "sigma=60"], "nlmeans": ["s=6", "s=10"]},
    )
    noisy, auto, fixed, fftdnoiz, nlmeans = rows
    assert noisy.psnr < nlmeans.psnr < auto.psnr
    assert noisy.psnr < fftdnoiz.psnr < auto.psnr
    assert "sigma=60" in fftdnoiz.method
    assert auto.rate > 0
    assert nlmeans.rate > 0
    assert auto.psnr > fixed.psnr - 0.3


def test_curves_are_drawn_from_a_log(tmp_path):
    assert plot_curves(tmp_path) is None
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/psnr\n1,0.5,\n2,,30\n3,0.4,\n")
    assert Image.open(plot_curves(tmp_path)).size[0] > 500


def test_a_sheet_has_a_row_for_each_picture(tmp_path):
    rows = [[torch.rand(3, 40, 60)] * 3] * 2
    before_after_sheet(rows, ("a", "b", "c"), tmp_path / "sheet.png")
    one = tmp_path / "one.png"
    before_after_sheet(rows[:1], ("a", "b", "c"), one)
    heights = [Image.open(p).size[1] for p in (one, tmp_path / "sheet.png")]
    assert heights[1] > 1.5 * heights[0]
