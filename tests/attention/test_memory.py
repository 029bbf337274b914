"""Estimates of memory against counts by hand, and that nothing is touched."""

import pytest
import torch
from torch import nn

from nlden.attention import NonLocal2d, NonLocal3d, SqueezeExcitation, memory_estimate

MIB = 2**20


class Direct(nn.Module):
    """Holds two N x N maps: the energies and their softmax."""

    def forward(self, x):
        rows = x.flatten(2)
        return (rows.mT @ rows).softmax(-1)


def test_the_maps_of_the_direct_form_are_counted():
    estimate = memory_estimate(Direct(), (1, 8, 64, 64))
    map_bytes = 4096**2 * 4
    assert estimate.inference == 2 * map_bytes
    # Backward holds the softmax, its gradient and the energies' gradient, and those of x.
    assert 3 * map_bytes <= estimate.training < 3.2 * map_bytes


def test_what_is_freed_no_longer_counts():
    class Chain(nn.Module):
        def forward(self, x):
            for _ in range(10):
                x = x + 1
            return x

    assert memory_estimate(Chain(), (1, 1, 512, 512)).inference == 2 * 512 * 512 * 4


@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian", "dot_product"])
def test_non_local_blocks_grow_with_n_and_not_with_its_square(pairwise):
    block = NonLocal2d(64, pairwise=pairwise)
    quarter, whole = (memory_estimate(block, (1, 64, n, n)) for n in (64, 128))
    assert whole.inference < 4.1 * quarter.inference
    assert whole.training + 4 * MIB < 60 * MIB  # with the buffers of the chunked backward


def test_long_concatenations_are_modest():
    block = NonLocal2d(64, pairwise="concatenation")
    assert memory_estimate(block, (1, 64, 32, 64)).training < 30 * MIB
    # The folded direct form holds three maps of 1 GiB.
    assert memory_estimate(block, (1, 64, 128, 128)).training < 3 * 1024 * MIB / 20


@pytest.mark.parametrize(
    "options",
    [
        {"window": (3, 16, 16), "block": (1, 8, 8)},
        pytest.param({"window": (5, 12, 12), "block": (1, 4, 4)}, marks=pytest.mark.slow),
        {"window": 16, "block": 8, "clip": True},
    ],
    ids=lambda o: str(o["window"]),
)
def test_windows_over_a_clip_stay_below_a_gibibyte(options):
    block = NonLocal3d(64, **options)
    output = 64 * 8 * 270 * 480 * 4
    with torch.inference_mode():  # in which there are no gradients: the estimate makes its own
        assert memory_estimate(block, (1, 64, 8, 270, 480)).inference - output < 1024 * MIB
        assert memory_estimate(block, (1, 64, 5, 16, 16)).training > 0


def test_the_estimate_is_near_what_a_real_pass_takes():
    block = SqueezeExcitation(64)
    tensor = 64 * 128 * 128 * 4
    # The product and the mean; backward: the gradients of both factors as maps.
    assert tensor <= memory_estimate(block, (1, 64, 128, 128)).inference < 1.1 * tensor


def test_nothing_is_run_or_changed():
    block = NonLocal2d(16)
    before = {k: v.clone() for k, v in block.state_dict().items()}
    memory_estimate(block, (2, 16, 1000, 1000))
    assert all(torch.equal(before[k], v) for k, v in block.state_dict().items())
    assert all(p.grad is None for p in block.parameters())
    assert "MiB training" in str(memory_estimate(block, (1, 16, 4, 4)))


def test_a_refused_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 8, 4, 4\)"):
        memory_estimate(NonLocal2d(16), (1, 8, 4, 4))
