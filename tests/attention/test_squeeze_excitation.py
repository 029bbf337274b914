import itertools

import pytest
import timm.layers
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nlden.attention import SqueezeExcitation
from nlden.attention.squeeze_excitation import box_mean


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adopt(block, reference):
    """Take the parameters of a reference, whose layers are 1x1 convolutions, in their order."""
    for own, theirs in zip(block.parameters(), reference.parameters(), strict=True):
        own.data = theirs.data.reshape(own.shape).clone()


def same_with_gradients(got, want, inputs, pairs=()):
    """Compare outputs and their gradients by shared inputs and by pairs of parameters."""
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    cotangent = randn(*want.shape, seed=9)
    ours = torch.autograd.grad(got, [*inputs, *(a for a, _ in pairs)], cotangent)
    theirs = torch.autograd.grad(want, [*inputs, *(b for _, b in pairs)], cotangent)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(
    size=st.lists(st.integers(6, 12), min_size=1, max_size=3),
    half=st.integers(0, 3),
    start=st.integers(0, 5),
    data=st.data(),
)
def test_a_crop_computes_what_the_whole_map_computes(size, half, start, data):
    block = SqueezeExcitation(4, reduction=2, window=2 * half + 1).double()
    x = randn(2, 4, *size)
    axis = data.draw(st.integers(2, x.ndim - 1))
    length = data.draw(st.integers(1, x.shape[axis] - start))
    whole = block(x).narrow(axis, start, length)
    first = max(0, start - block.reach)
    last = min(x.shape[axis], start + length + block.reach)
    crop = block(x.narrow(axis, first, last - first)).narrow(axis, start - first, length)
    assert torch.allclose(crop, whole, rtol=1e-12)


@pytest.mark.parametrize("size", [(7,), (4, 7), (3, 2, 7)])
def test_a_window_that_covers_the_map_is_the_block_of_the_paper(size):
    whole = SqueezeExcitation(4, reduction=2).double()
    windowed = SqueezeExcitation(4, reduction=2, window=13).double()
    windowed.load_state_dict(whole.state_dict())
    x = randn(2, 4, *size)
    assert torch.allclose(windowed(x), whole(x), rtol=1e-12)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 2)])
def test_gradients(window, size):
    block = SqueezeExcitation(4, reduction=2, bias=True, window=window).double()
    inputs = (randn(1, 4, *size).requires_grad_(), *block.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: block(x), inputs)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 4)])
def test_an_empty_batch_stays_empty(window, size):
    x = torch.zeros(0, 4, *size)
    block = SqueezeExcitation(4, reduction=2, window=window)
    assert block(x).shape == x.shape
    with torch.no_grad():
        assert block(x).shape == x.shape


@pytest.mark.parametrize("window", [None, 5])
def test_precision_is_that_of_the_input(window):
    block = SqueezeExcitation(8, reduction=2, window=window).bfloat16()
    x = randn(1, 8, 9, 9).bfloat16()
    assert block(x).dtype == torch.bfloat16
    expected = block.double()(x.double())
    assert torch.allclose(block.bfloat16()(x).double(), expected, atol=0.03)


def test_defaults_are_those_of_the_paper():
    names = {k: tuple(v.shape) for k, v in SqueezeExcitation(32).state_dict().items()}
    assert names == {"fc1.weight": (2, 32), "fc2.weight": (32, 2)}


@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("window", [None, 3])
def test_the_formula_with_all_gradients(window, size, maximum):
    block = SqueezeExcitation(8, inner=3, bias=True, maximum=maximum, window=window).double()
    x = randn(2, 8, *size).requires_grad_()
    expected = torch.empty_like(x)
    for position in itertools.product(*map(range, size)):
        reach = max(size) if window is None else window // 2
        box = tuple(slice(max(0, p - reach), p + reach + 1) for p in position)
        seen = x[(slice(None), slice(None), *box)].flatten(2)
        z = (seen.mean(2) + seen.amax(2)) / 2 if maximum else seen.mean(2)
        hidden = (z @ block.fc1.weight.T + block.fc1.bias).clamp(min=0)
        logits = hidden @ block.fc2.weight.T + block.fc2.bias
        expected[(..., *position)] = x[(..., *position)] / (1 + torch.exp(-logits))
    same_with_gradients(block(x), expected, [x, *block.parameters()])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"divisor": 8}, {}),
        ({"reduction": 4, "divisor": 8}, {"rd_ratio": 0.25}),
        ({"reduction": 5, "divisor": 1}, {"rd_ratio": 0.2, "rd_divisor": 1}),
        ({"inner": 7}, {"rd_channels": 7}),
        ({"inner": 7, "maximum": True}, {"rd_channels": 7, "add_maxpool": True}),
        (
            {"inner": 5, "activation": nn.SiLU, "gate": nn.Hardsigmoid},
            {"rd_channels": 5, "act_layer": nn.SiLU, "gate_layer": "hard_sigmoid"},
        ),
        (
            {"inner": 5, "norm": nn.BatchNorm2d},
            {"rd_channels": 5, "norm_layer": nn.BatchNorm2d},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [False, True])
def test_timm(ours, theirs, training):
    block = SqueezeExcitation(44, **{"bias": True, **ours}).double().train(training)
    reference = timm.layers.SEModule(44, **theirs).double().train(training)
    assert [p.numel() for p in block.parameters()] == [p.numel() for p in reference.parameters()]
    adopt(block, reference)
    x = randn(3, 44, 5, 7).requires_grad_()
    parameters = zip(block.parameters(), reference.parameters(), strict=True)
    same_with_gradients(block(x), reference(x), [x], list(parameters))
    for kept, fresh in zip(block.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(kept, fresh)


@pytest.mark.parametrize("maximum", [False, True])
def test_a_single_layer_is_that_of_timm(maximum):
    block = SqueezeExcitation(
        12, reduction=None, bias=True, gate=nn.Hardsigmoid, maximum=maximum
    ).double()
    reference = timm.layers.EffectiveSEModule(12, add_maxpool=maximum).double()
    adopt(block, reference)
    x = randn(2, 12, 5, 7).requires_grad_()
    parameters = zip(block.parameters(), reference.parameters(), strict=True)
    same_with_gradients(block(x), reference(x), [x], list(parameters))


def test_torchvision():
    block = SqueezeExcitation(32, inner=6, bias=True, activation=nn.SiLU)
    reference = torchvision.ops.SqueezeExcitation(32, 6, activation=nn.SiLU)
    adopt(block, reference)
    x = randn(2, 32, 5, 7).float()
    torch.testing.assert_close(block(x), reference(x), rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(channels=st.integers(1, 300), reduction=st.integers(1, 40), divisor=st.integers(1, 20))
def test_rounding_is_that_of_timm(channels, reduction, divisor):
    width = timm.layers.make_divisible(channels / reduction, divisor, round_limit=0.0)
    block = SqueezeExcitation(channels, reduction=reduction, divisor=divisor)
    assert block.fc1.out_features == width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": 9}, r"reduction=9 .* channels=8; it must lie in 1\.\.8"),
        ({"inner": 0}, "inner=0 must be at least 1"),
        ({"divisor": 0}, "divisor=0 must be at least 1"),
        ({"reduction": None, "inner": 4}, "reduction=None is a single layer: inner=4"),
        ({"window": 2}, "window=2 must be a positive odd number"),
    ],
    ids=str,
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SqueezeExcitation(8, **arguments)


@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    window=st.sampled_from([1, 3, 5, 9]),
    channels_last=st.booleans(),
)
def test_the_mean_over_a_box_is_that_of_pooling(size, window, channels_last):
    x = randn(2, 3, *size)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    want = nn.functional.avg_pool2d(x, window, 1, window // 2, count_include_pad=False)
    torch.testing.assert_close(box_mean(x, window), want, rtol=1e-12, atol=1e-12)


def test_large_maps_are_gated_in_pieces_with_the_same_result():
    torch.manual_seed(0)
    block = SqueezeExcitation(16, reduction=2, bias=True, window=5).eval()
    x = torch.randn(1, 16, 600, 501)  # more than a piece
    with torch.no_grad():
        got = block(x)
    torch.testing.assert_close(got, block(x).detach(), rtol=1e-5, atol=1e-6)
