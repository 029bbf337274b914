"""A denoiser taken apart: what its parts count and what a picture costs."""

import pytest
import torch

from nlden.evaluation.roofline import picture_cost, roofline
from nlden.models import image_denoiser_fast


def test_the_parts_are_the_whole():
    network = image_denoiser_fast()
    whole, *parts, plain = roofline(network, torch.device("cpu"), torch.float32, 64)
    assert whole.name == "network"
    assert sum(p.operations for p in parts) == pytest.approx(whole.operations, rel=0.02)
    names = {p.name: p for p in parts}
    assert set(names) == {
        "stem and tail",
        "3x3 convolutions",
        "changes of level",
        "Squeeze-and-Excitation",
        "non-local block",
        "sums, activations, copies",
    }
    assert all(p.seconds > 0 for p in [whole, *parts, plain])
    # Two operations for each weight and position, 41 kMAC per pixel in all.
    convolutions = names["3x3 convolutions"].operations + names["stem and tail"].operations
    assert plain.operations == convolutions
    assert whole.operations / 64**2 == pytest.approx(2 * 41e3, rel=0.05)
    assert not network._forward_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_picture_costs_time_and_memory():
    cost = picture_cost("image-fast", "cpu", "fp32", 0.02)
    assert cost.megapixels == 0.02
    assert cost.seconds > 0
    assert 100 < cost.mebibytes < 4000
