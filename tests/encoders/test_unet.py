from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlden.attention import NonLocal2d, SqueezeExcitation
from nlden.encoders import ResidualBlock, UNet

GATE = partial(SqueezeExcitation, reduction=4, window=3)
BOTTLENECK = partial(NonLocal2d, scale=True, bias=False, window=8, block=4)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(*args, **slots):
    """A U-Net in float64 whose non-local blocks are not the identity any more."""
    torch.manual_seed(0)
    net = UNet(*args, **slots).double()
    for module in net.modules():
        if isinstance(module, NonLocal2d):
            torch.nn.init.normal_(module.out.weight)
    return net


def test_a_residual_block_follows_its_formula():
    block = ResidualBlock(6, partial(SqueezeExcitation, reduction=2)).double()
    x = randn(2, 6, 5, 7)
    kept = x.clone()
    hidden = F.conv2d(x, block.conv1.weight, padding=1).clamp(min=0)
    expected = x + block.attention(F.conv2d(hidden, block.conv2.weight, padding=1))
    assert torch.allclose(block(x), expected, rtol=1e-12)
    assert torch.equal(x, kept)  # nothing is computed in place of the input
    assert ResidualBlock(6).attention is None


@settings(deadline=None, max_examples=12)
@given(
    widths=st.lists(st.sampled_from([4, 6, 8]), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    factor=st.floats(0, 100),
    data=st.data(),
)
def test_shape_is_kept_and_the_net_is_homogeneous(widths, size, factor, data):
    net = build(widths, [data.draw(st.integers(0, 2)) for _ in widths])
    assert net.stride == 2 ** (len(widths) - 1)
    x = randn(2, widths[0], *(net.stride * s for s in size))
    assert net(x).shape == x.shape
    assert torch.allclose(net(factor * x), factor * net(x), rtol=1e-9, atol=1e-9)


def test_no_parameter_is_a_bias_and_slots_are_where_they_are_promised():
    net = build((4, 6, 8), (1, 2, 3), gate=GATE, bottleneck=BOTTLENECK)
    assert not [name for name, _ in net.named_parameters() if "bias" in name]
    gates = {name for name, m in net.named_modules() if isinstance(m, SqueezeExcitation)}
    assert gates == {f"coarsest.{side}.{i}.attention" for side in (0, 2) for i in range(3)}
    assert [n for n, m in net.named_modules() if isinstance(m, NonLocal2d)] == ["coarsest.1"]


CASES = {
    "one level": ((8,), (1,), {}),
    "two levels": ((4, 4), (1, 2), {}),
    "three levels": ((4, 4, 4), (1, 1, 1), {}),
    "gate": ((4, 4), (1, 1), {"gate": GATE}),
    "bottleneck": ((4, 4), (1, 1), {"bottleneck": BOTTLENECK}),
    "both": ((4, 4, 4), (1, 1, 1), {"gate": GATE, "bottleneck": BOTTLENECK}),
}


@pytest.mark.parametrize("name", CASES)
def test_reach_bounds_what_a_position_changes(name):
    widths, blocks, slots = CASES[name]
    net = build(widths, blocks, **slots)
    half = -(-net.reach // net.grid) * net.grid
    x = randn(1, widths[0], net.stride, 2 * half + 2 * net.grid)
    before = net(x)
    furthest = 0
    for position in range(half, half + net.grid):
        y = x.clone()
        y[..., position] += 100
        changed = (net(y) - before).abs().amax((0, 1, 2)).nonzero()
        furthest = max(furthest, int((changed - position).abs().max()))
    # A bound that is far from the truth would make tiles needlessly slow.
    assert net.reach / 2 < furthest <= net.reach


def test_the_whole_map_and_the_paper_s_gate_reach_everywhere():
    assert build((4, 4), (1, 1), gate=partial(SqueezeExcitation, reduction=2)).reach is None
    assert build((4, 4), (1, 1), bottleneck=NonLocal2d).reach is None


@pytest.mark.parametrize(
    ("name", "grid"), [("one level", 1), ("three levels", 4), ("gate", 2), ("both", 16)]
)
def test_crops_agree_on_the_grid_and_only_there(name, grid):
    widths, blocks, slots = CASES[name]
    net = build(widths, blocks, **slots)
    assert net.grid == grid
    x = randn(1, widths[0], net.stride, 4 * grid * (net.reach // grid + 2))

    def interior(start):
        inner = slice(start + net.reach, x.shape[3] - net.reach)
        return net(x[..., start:])[..., net.reach : -net.reach], net(x)[..., inner]

    assert torch.allclose(*interior(grid), rtol=1e-9, atol=1e-9)
    if "bottleneck" in slots:
        assert not torch.allclose(*interior(net.stride), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("widths", "blocks"), [((4,), ()), ((), ()), ((4, 4), (1, 1, 1))])
def test_levels_that_do_not_match_are_named(widths, blocks):
    with pytest.raises(ValueError, match=r"widths=.*blocks="):
        UNet(widths, blocks)
