"""Reach and grid of a U-Net whose slots are filled: what tiles rely on."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention import NonLocal2d, SqueezeExcitation
from nlden.encoders import UNet

GATE = partial(SqueezeExcitation, reduction=1, window=11)
BOTTLENECK = partial(NonLocal2d, scale="inner", bias=False, norm=None, clip=True, window=8, block=4)
# Levels, slots and the grid that follows from the stride and the blocks.
CASES = {
    "empty": (3, {}, 4),
    "gate": (2, {"gate": GATE}, 2),
    "bottleneck": (2, {"bottleneck": BOTTLENECK}, 8),
    "both": (3, {"gate": GATE, "bottleneck": BOTTLENECK}, 16),
    "odd block": (
        2,
        {"bottleneck": partial(NonLocal2d, norm=None, clip=True, window=5, block=3)},
        6,
    ),
}


def build(levels, slots):
    """A U-Net in float64 whose non-local blocks are not the identity any more."""
    torch.manual_seed(0)
    net = UNet((4,) * levels, (1,) * levels, **slots).double()
    for module in net.modules():
        if isinstance(module, NonLocal2d):
            torch.nn.init.normal_(module.out.weight)
    return net


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_reach_bounds_what_a_position_changes(name):
    net = build(*CASES[name][:2])
    half = -(-net.reach // net.grid) * net.grid
    x = randn(1, 4, net.stride, 2 * half + 2 * net.grid)
    before = net(x)
    furthest = 0
    for position in range(half, half + net.grid):
        y = x.clone()
        y[..., position] += 100
        changed = (net(y) - before).abs().amax((0, 1, 2)).nonzero()
        furthest = max(furthest, int((changed - position).abs().max()))
    # A bound that is far from the truth would make tiles needlessly slow.
    assert 0.7 * net.reach < furthest <= net.reach


@pytest.mark.parametrize("name", CASES)
def test_crops_agree_on_the_grid_and_only_there(name):
    levels, slots, grid = CASES[name]
    net = build(levels, slots)
    assert net.grid == grid
    x = randn(1, 4, net.stride, 4 * grid * (net.reach // grid + 2))

    def interior(start):
        inner = slice(start + net.reach, x.shape[3] - net.reach)
        return net(x[..., start:])[..., net.reach : -net.reach], net(x)[..., inner]

    assert torch.allclose(*interior(grid), rtol=1e-9, atol=1e-9)
    if grid > net.stride:
        assert not torch.allclose(*interior(net.stride), rtol=1e-3, atol=1e-3)


def test_whole_maps_reach_everywhere():
    assert build(2, {"gate": partial(SqueezeExcitation, reduction=2)}).reach is None
    assert build(2, {"bottleneck": partial(NonLocal2d, norm=None)}).reach is None


@settings(deadline=None, max_examples=12)
@given(
    widths=st.lists(st.sampled_from([4, 6, 8]), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    factor=st.floats(0, 100),
    data=st.data(),
)
def test_without_attention_any_net_keeps_the_shape_and_is_homogeneous(widths, size, factor, data):
    net = UNet(widths, [data.draw(st.integers(0, 2)) for _ in widths]).double()
    x = randn(2, widths[0], *(net.stride * s for s in size))
    assert net(x).shape == x.shape
    assert torch.allclose(net(factor * x), factor * net(x), rtol=1e-9, atol=1e-9)


def test_the_input_is_left_as_it_is():
    x = randn(1, 4, 8, 8)
    kept = x.clone()
    build(*CASES["both"][:2])(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(("widths", "blocks"), [((4,), ()), ((), ()), ((4, 4), (1, 1, 1))])
def test_levels_that_do_not_match_are_named(widths, blocks):
    with pytest.raises(ValueError, match=r"widths=.*blocks="):
        UNet(widths, blocks)
