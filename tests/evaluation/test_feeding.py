"""The pipeline and the trainings that it feeds are timed as they run."""

import pytest
import torch
from skimage import data as photographs
from skimage.io import imsave

from nlden.data import ImageDataModule
from nlden.evaluation.feeding import compare, feeding_rate

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        view = photographs.astronaut()[i * 60 :][:48, :64]
        imsave(tmp_path / f"{i}.png", view, check_contrast=False)
    return tmp_path


def test_every_way_to_hold_and_every_training_is_timed(folder):
    seen = []
    rates = compare([folder], CPU, workers=0, crop=16, batch_size=2, batches=1, report=seen.append)
    names = [r.what for r in rates]
    assert names == seen
    assert names[:3] == ["pipeline, device", "pipeline, memory", "pipeline, disk"]
    assert [n.split(",")[0] for n in names[3:]] == [
        "training image_denoiser_fast",
        "training image_denoiser_base",
    ]
    assert all(r.rate > 0 for r in rates)


def test_the_rate_is_that_of_the_batches(folder, monkeypatch):
    module = ImageDataModule([folder], crop=16, batch_size=2, batches_per_epoch=24)
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert feeding_rate(module, CPU, 20) == 5


def test_epochs_that_are_too_short_are_named(folder):
    module = ImageDataModule([folder], crop=16, batch_size=2, batches_per_epoch=6)
    with pytest.raises(ValueError, match="batches_per_epoch"):
        feeding_rate(module, CPU, 3)
