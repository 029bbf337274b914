import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention import CBAM, DualAttention, NonLocal2d, SqueezeExcitation
from nlden.encoders import ResidualBlock, UNet


def test_without_attention_the_body_is_homogeneous():
    torch.manual_seed(0)
    body = UNet((8, 12), (1, 2)).double()
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    assert torch.allclose(body(3 * x), 3 * body(x), rtol=1e-9)
    assert not [n for n, _ in body.named_parameters() if n.endswith("bias")]


def test_slots_are_called_with_the_widths():
    seen = []

    def slot(channels):
        seen.append(channels)
        return torch.nn.Identity()

    UNet((8, 12, 20), (1, 1, 2), gate=slot, bottleneck=slot)
    ResidualBlock(7, slot)
    assert sorted(seen) == [7, 20, 20, 20, 20, 20]
    seen.clear()
    UNet((8, 12, 20), (1, 1, 2), joins=(None, slot))
    assert seen == [12]
    with pytest.raises(ValueError, match="blocks"):
        UNet((8, 12), (1,))
    with pytest.raises(ValueError, match="joins"):
        UNet((8, 12), (1, 1), joins=(slot, slot))
    with pytest.raises(ValueError, match="down_blocks"):
        UNet((8, 12), (1, 1), down_blocks=(1,))


def test_the_way_down_may_have_blocks_of_its_own():
    body = UNet((4, 6, 8), (1, 2, 3), down_blocks=(0, 1, 2))
    assert [len(level) for level in body.encoder] == [0, 1]
    assert [len(body.coarsest[i]) for i in (0, 2)] == [2, 3]
    assert [len(level) for level in body.decoder] == [1, 2]


@pytest.mark.parametrize("index", [0, 1])
def test_a_slot_where_levels_join_decides_what_its_level_gets(index):
    """One that clears its level leaves nothing of what is coarser, and nothing of its skip."""
    torch.manual_seed(0)
    seen = []

    class Clear(torch.nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return 0 * x

    joins = [None, None]
    joins[index] = lambda width: Clear()
    body = UNet((4, 6, 8), (1, 1, 1), joins=joins).double()
    finest = body(torch.randn(1, 4, 8, 8, dtype=torch.float64))
    assert seen[0].shape == ((1, 4, 8, 8), (1, 6, 4, 4))[index]
    assert seen[0].abs().max() > 0
    assert (finest.abs().max() == 0) == (index == 0)


def test_a_residual_block_is_its_formula():
    torch.manual_seed(0)
    block = ResidualBlock(4, lambda channels: torch.nn.Conv2d(channels, channels, 1)).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    conv = torch.nn.functional.conv2d
    hidden = conv(x, block.conv1.weight, padding=1).clamp(min=0)
    branch = conv(hidden, block.conv2.weight, padding=1)
    attention = conv(branch, block.attention.weight, block.attention.bias)
    assert torch.allclose(block(x), x + attention, rtol=1e-9)


@pytest.mark.parametrize(
    ("widths", "blocks", "down_blocks"),
    [
        ((4,), (1,), None),
        ((4, 6), (2, 1), None),
        ((4, 6, 8), (1, 2, 1), None),
        ((4, 6, 8), (1, 2, 1), (0, 1, 0)),
    ],
)
def test_reach_bounds_what_an_input_touches(widths, blocks, down_blocks):
    torch.manual_seed(0)
    body = UNet(widths, blocks, down_blocks=down_blocks).double()
    x = torch.randn(1, 4, 96, 8, dtype=torch.float64, requires_grad=True)
    for row in range(44, 52):
        (gradient,) = torch.autograd.grad(body(x)[0, :, row].sum(), x)
        touched = gradient[0].abs().amax((0, 2)).nonzero().flatten()
        furthest = int((touched - row).abs().max())
        assert furthest <= body.reach
        assert furthest > body.reach // 2
    assert body.stride == 2 ** (len(widths) - 1)


def test_attention_tells_its_reach_or_reaches_everywhere():
    def reach(gate=None, bottleneck=None, *joins):
        return UNet((4, 16), (1, 1), gate=gate, bottleneck=bottleneck, joins=joins).reach

    def squeeze(channels):
        return SqueezeExcitation(channels, window=5)

    def near(channels):
        return NonLocal2d(channels, window=8, block=4)

    plain = reach()
    assert reach(torch.nn.Identity, torch.nn.Identity) == plain
    assert reach(squeeze) == plain + 2 * (2 * 2)  # two gates, of two positions of stride two
    assert reach(squeeze, near) == plain + 2 * (2 * 2) + 2 * 5
    assert reach(None, near, near) == plain + 2 * 5 + 5
    for block in (SqueezeExcitation, CBAM, NonLocal2d, DualAttention):
        assert reach(block) is None
        assert reach(squeeze, block) is None
    assert reach(None, near, NonLocal2d) is None


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 6),
    step=st.integers(3, 12),
    batch=st.integers(1, 2),
    channels_last=st.booleans(),
)
def test_a_block_in_the_place_of_its_input_gives_what_it_gives_elsewhere(
    height, width, step, batch, channels_last
):
    torch.manual_seed(height)
    block = ResidualBlock(3).double()
    x = torch.randn(batch, 3, height, width, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        want = block(x)
        got = block.in_place(x, step)
    assert got is x
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_large_maps_are_refined_in_their_place_with_the_same_result():
    torch.manual_seed(0)
    body = UNet((8, 16), (1, 1)).to(memory_format=torch.channels_last)
    x = torch.randn(1, 8, 1504, 1402).to(memory_format=torch.channels_last)  # 67 MB
    assert x.nbytes > 64 << 20
    before = x.clone()
    with torch.no_grad():
        got = body(x)
        taken = body.refine([x.clone()])
    assert torch.equal(x, before)  # the caller's features stay as they are
    assert torch.equal(taken, got)
    want = body(x).detach()  # with gradients nothing is done in place
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
