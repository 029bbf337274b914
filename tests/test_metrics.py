import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from nlden.metrics import PlanePSNR


def test_psnr_is_that_of_all_samples_together():
    rng = np.random.default_rng(0)
    measure = PlanePSNR()
    everything = [[], []]
    for size in ((8, 9), (4, 5), (3, 3)):
        pair = [rng.integers(0, 256, size) for _ in range(2)]
        measure.update(*([torch.from_numpy(p)] for p in pair))
        for collected, plane in zip(everything, pair, strict=True):
            collected.append(plane.ravel())
    a, b = (np.concatenate(c).astype(float) for c in everything)
    expected = peak_signal_noise_ratio(a, b, data_range=255)
    assert measure.compute() == pytest.approx(expected)


def test_equal_pictures_and_none():
    measure = PlanePSNR()
    with pytest.raises(ValueError, match="no picture"):
        measure.compute()
    measure.update([torch.ones(3)], [torch.ones(3)])
    assert measure.compute() == math.inf
