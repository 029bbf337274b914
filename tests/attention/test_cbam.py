import itertools
import shutil

import pytest
import timm.layers.cbam
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nlden.attention.cbam import CBAM, ChannelGate, SpatialGate

POOLS = ("avg", "max", "lp", "lse")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adopt(block, reference):
    """Take the parameters of a reference in their order."""
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


def pooled(x, name):
    """A pooling by its definition, over everything behind the channels."""
    flat = x.flatten(2)
    return {
        "avg": lambda: flat.sum(2) / flat.shape[2],
        "max": lambda: flat.max(2).values,
        "lp": lambda: flat.pow(2).sum(2).sqrt(),
        "lse": lambda: flat.exp().sum(2).log(),
    }[name]()


def channel_gate(x, block):
    """The channel gate by its formula."""

    def mlp(z):
        hidden = (z @ block.fc1.weight.T + (0 if block.fc1.bias is None else block.fc1.bias)).relu()
        return hidden @ block.fc2.weight.T + (0 if block.fc2.bias is None else block.fc2.bias)

    logits = sum(mlp(pooled(x, name)) for name in block.pools)
    return x * torch.sigmoid(logits).reshape(*logits.shape, *[1] * (x.ndim - 2))


def planes(x, names):
    both = {"avg": x.sum(1) / x.shape[1], "max": x.max(1).values}
    return torch.stack([both[name] for name in names], dim=1)


def spatial_gate(x, block):
    """The spatial gate by its formula, one output position after the other."""
    seen, kernel = planes(x, block.planes), block.conv.weight
    half = kernel.shape[-1] // 2
    logits = x.new_zeros(x.shape[0], *x.shape[2:])
    for position in itertools.product(*map(range, x.shape[2:])):
        for offset in itertools.product(range(kernel.shape[-1]), repeat=x.ndim - 2):
            at = [p + o - half for p, o in zip(position, offset, strict=True)]
            if all(0 <= a < s for a, s in zip(at, x.shape[2:], strict=True)):
                value = (seen[(..., *at)] * kernel[(0, slice(None), *offset)]).sum(1)
                logits[(slice(None), *position)] += value
    return x * torch.sigmoid(logits).unsqueeze(1)


@pytest.mark.parametrize(
    "pools", [c for n in range(1, 5) for c in itertools.combinations(POOLS, n)], ids=str
)
def test_channel_gate_follows_the_formula_with_all_gradients(pools):
    block = ChannelGate(6, reduction=2, bias=True, pools=pools).double()
    x = randn(2, 6, 3, 5).requires_grad_()
    same_with_gradients(block(x), channel_gate(x, block), [x, *block.parameters()])


@pytest.mark.parametrize("size", [(7,), (4, 3), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("names", [("avg", "max"), ("max", "avg"), ("avg",), ("max",)], ids=str)
def test_spatial_gate_follows_the_formula_with_all_gradients(names, size):
    block = SpatialGate(kernel=3, planes=names, dimensions=len(size)).double()
    x = randn(2, 6, *size).requires_grad_()
    same_with_gradients(block(x), spatial_gate(x, block), [x, *block.parameters()])


def test_channel_comes_before_space_and_each_can_stand_alone():
    block = CBAM(8, reduction=2).double()
    x = randn(2, 8, 4, 5).requires_grad_()
    both = spatial_gate(channel_gate(x, block.channel), block.spatial)
    same_with_gradients(block(x), both, [x, *block.parameters()])
    block.channel, channel = None, block.channel
    assert torch.equal(block(x), block.spatial(x))
    block.channel, block.spatial = channel, None
    assert torch.equal(block(x), channel(x))
    assert CBAM(8, reduction=2, channel=False).channel is None
    assert CBAM(8, reduction=2, spatial=False).spatial is None


def test_defaults_are_those_of_the_paper():
    block = CBAM(32)
    assert {k: tuple(v.shape) for k, v in block.state_dict().items()} == {
        "channel.fc1.weight": (2, 32),
        "channel.fc2.weight": (32, 2),
        "spatial.conv.weight": (1, 2, 7, 7),
    }
    assert block.channel.pools == block.spatial.planes == ("avg", "max")


def authors(x, block):
    """The authors' code: biases, plane order (max, mean), batch norm with momentum 0.01."""
    y = channel_gate(x, block.channel)
    spatial, norm = block.spatial, block.spatial.norm
    logits = F.conv2d(planes(y, ("max", "avg")), spatial.conv.weight, padding=3)
    mean, var = logits.mean(), logits.var(correction=0)
    if norm.training:
        count = logits.numel()
        fresh = (0.01 * mean, 0.99 + 0.01 * var * count / (count - 1))  # from 0 and 1
    else:
        fresh = mean, var = norm.running_mean, norm.running_var
    logits = (logits - mean) / (var + 1e-5).sqrt() * norm.weight + norm.bias
    return y * torch.sigmoid(logits), [t.detach().reshape(1) for t in fresh]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pools", [("avg", "max"), ("lse", "lp", "lp")], ids=str)
def test_authors_code(pools, training):
    block = CBAM(
        8, reduction=3, bias=True, pools=pools, planes=("max", "avg"), norm=True, momentum=0.01
    )
    block = block.double().train(training)
    nn.init.normal_(block.spatial.norm.weight)
    x = randn(2, 8, 6, 5).requires_grad_()
    expected, statistics = authors(x, block)
    same_with_gradients(block(x), expected, [x, *block.parameters()])
    kept = [block.spatial.norm.running_mean, block.spatial.norm.running_var]
    torch.testing.assert_close(kept, statistics)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"divisor": 1}, {}),
        ({"reduction": 3, "divisor": 2}, {"rd_ratio": 1 / 3, "rd_divisor": 2}),
        ({"inner": 5, "bias": True, "kernel": 3},
         {"rd_channels": 5, "mlp_bias": True, "spatial_kernel_size": 3}),
        ({"inner": 5, "activation": nn.SiLU}, {"rd_channels": 5, "act_layer": nn.SiLU}),
    ],
    ids=str,
)  # fmt: skip
def test_timm(ours, theirs, light, training):
    block = CBAM(20, norm=True, merge=light, **ours).double().train(training)
    kind = timm.layers.cbam.LightCbamModule if light else timm.layers.cbam.CbamModule
    reference = kind(20, **theirs).double().train(training)
    adopt(block, reference)
    x = randn(2, 20, 9, 5).requires_grad_()
    parameters = zip(block.parameters(), reference.parameters(), strict=True)
    same_with_gradients(block(x), reference(x), [x], list(parameters))
    for kept, fresh in zip(block.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(kept, fresh)


def test_the_gate_of_both_can_be_chosen():
    block = CBAM(20, divisor=1, norm=True, gate=nn.Hardsigmoid)
    reference = timm.layers.cbam.CbamModule(20, gate_layer="hard_sigmoid")
    adopt(block, reference)
    x = randn(2, 20, 9, 5).float()
    torch.testing.assert_close(block(x), reference(x), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    level=st.sampled_from([-1e4, -90.0, 0.0, 90.0, 1e4]),
    spread=st.sampled_from([0.0, 1.0, 300.0]),
    size=st.lists(st.integers(1, 6), min_size=1, max_size=3),
)
def test_the_logarithm_of_the_sum_of_exponentials_is_stable(level, spread, size):
    block = ChannelGate(2, reduction=1, pools=("lse",))
    block.fc1.weight.data = torch.eye(2) * 1e-4
    block.fc2.weight.data = torch.eye(2)
    x = (level + spread * randn(2, 2, *size)).float().requires_grad_()
    y = block(x)
    flat = x.detach().double().flatten(2)
    top = flat.max(2, keepdim=True).values
    lse = top.squeeze(2) + (flat - top).exp().sum(2).log()
    gate = torch.sigmoid((1e-4 * lse).relu()).reshape(2, 2, *[1] * len(size))
    torch.testing.assert_close(y.double(), x.double() * gate, rtol=1e-5, atol=1e-5)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_the_norm_of_a_zero_map_has_a_gradient():
    block = ChannelGate(4, reduction=1, bias=True, pools=("lp",))
    x = torch.zeros(1, 4, 3, 3, requires_grad=True)
    assert torch.autograd.grad(block(x).sum(), x)[0].isfinite().all()


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(12)), pools=st.permutations(POOLS))
def test_the_channel_gate_knows_neither_places_nor_the_order_of_poolings(order, pools):
    block, other = (ChannelGate(4, reduction=2, pools=p).double() for p in (POOLS, pools))
    other.load_state_dict(block.state_dict())
    x = randn(2, 4, 12)
    torch.testing.assert_close(other(x[..., order]), block(x)[..., order], rtol=1e-9, atol=1e-12)


# Tracing and compiling are Python of torch, which the tracer of coverage slows down.
@pytest.mark.no_cover
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of torch needs g++")
def test_compiled_gradients_in_half_precision_find_the_maximum():
    torch.manual_seed(0)
    block = CBAM(16, reduction=4).bfloat16()
    x = randn(2, 16, 5, 6).bfloat16().requires_grad_()
    y, expected = torch.compile(block, fullgraph=True)(x), block(x)
    got, want = (torch.autograd.grad(t.float().square().sum(), x)[0] for t in (y, expected))
    assert (got - want).norm() <= 0.02 * want.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_trains_the_statistics_of_the_norm(dtype):
    x = (30 * randn(2, 16, 32, 32)).to(dtype)
    statistics = []
    for kind in (dtype, torch.float64):
        torch.manual_seed(0)
        block = CBAM(16, reduction=4, norm=True).to(dtype).to(kind)
        block(x.to(kind))
        norm = block.spatial.norm
        assert norm.running_mean.dtype == kind
        statistics.append([t.double() for t in norm.buffers()])
    assert statistics[0][2] == 1
    torch.testing.assert_close(*statistics, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ChannelGate(8), r"reduction=16 .* channels=8"),
        (lambda: ChannelGate(8, inner=0), "inner=0"),
        (lambda: ChannelGate(8, reduction=2, pools=()), r"pools=\(\) must .* avg, max, lp, lse"),
        (lambda: ChannelGate(8, reduction=2, pools=("mean",)), r"pools=\('mean',\)"),
        (lambda: ChannelGate(8, reduction=2, pools="avg"), "pools='avg'"),
        (lambda: SpatialGate(planes=("lp",)), r"planes=\('lp',\) must .* avg, max"),
        (lambda: SpatialGate(kernel=4), "kernel=4 must be a positive odd number"),
        (lambda: SpatialGate(dimensions=4), "dimensions=4 must be 1, 2 or 3"),
        (lambda: CBAM(8, reduction=2, dimensions=0), "dimensions=0 must be 1, 2 or 3"),
        (lambda: CBAM(8, channel=False, spatial=False), "channel=False and spatial=False"),
    ],
)
def test_impossible_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_map_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 8, 5\) .* with 2 dimensions of size"):
        SpatialGate()(torch.zeros(2, 8, 5))
    with pytest.raises(ValueError, match=r"with 3 dimensions of size"):
        CBAM(8, reduction=2, dimensions=3, spatial=False)(torch.zeros(2, 8, 5, 5))
