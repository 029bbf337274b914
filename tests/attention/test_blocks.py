import itertools

import pytest
import timm.layers
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention import NonLocal2d, SqueezeExcitation
from nlden.attention.windows import from_blocks, inside, to_blocks


def randomize(module, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = module.to(dtype)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.3
    return module


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_squeeze_excitation_is_that_of_timm():
    ours = SqueezeExcitation(32, reduction=8, bias=True)
    theirs = timm.layers.SEModule(32, rd_channels=4)
    for name in ("fc1", "fc2"):
        getattr(theirs, name).weight.data = getattr(ours, name).weight.data[..., None, None]
        getattr(theirs, name).bias.data = getattr(ours, name).bias.data
    x = torch.randn(2, 32, 5, 7)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_squeeze_excitation_is_that_of_torchvision():
    ours = SqueezeExcitation(32, reduction=8, bias=True)
    theirs = torchvision.ops.SqueezeExcitation(32, 4)
    for name in ("fc1", "fc2"):
        getattr(theirs, name).weight.data = getattr(ours, name).weight.data[..., None, None]
        getattr(theirs, name).bias.data = getattr(ours, name).bias.data
    x = torch.randn(2, 32, 5, 7)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("window", [None, 3])
def test_squeeze_excitation_follows_the_formula(size, window):
    block = randomize(SqueezeExcitation(8, reduction=2, window=window))
    x = randn(2, 8, *size)
    expected = torch.empty_like(x)
    for position in itertools.product(*map(range, size)):
        reach = max(size) if window is None else window // 2
        box = tuple(slice(max(0, p - reach), p + reach + 1) for p in position)
        mean = x[(slice(None), slice(None), *box)].flatten(2).mean(2)
        gate = torch.sigmoid(torch.relu(mean @ block.fc1.weight.T) @ block.fc2.weight.T)
        expected[(..., *position)] = x[(..., *position)] * gate
    assert torch.allclose(block(x), expected, rtol=1e-9, atol=1e-12)


def dense(block, x):
    """The block by the formula, with the whole N x N map in float64."""
    batch, _, height, width = x.shape
    theta, phi, g = (m(x).flatten(2) for m in (block.theta, block.phi, block.g))
    logits = theta.transpose(1, 2) @ phi * block.logit_scale
    if block.window is not None:
        halo = (block.window - block.block) // 2
        rows, columns = (torch.arange(n) for n in (height, width))
        row = rows[:, None].expand(height, width).flatten()
        column = columns[None].expand(height, width).flatten()

        def sees(a):
            corner = a // block.block * block.block
            low, high = corner - halo, corner + block.block + halo
            return (a[None, :] >= low[:, None]) & (a[None, :] < high[:, None])

        logits = logits.masked_fill(~(sees(row) & sees(column)), -torch.inf)
    y = (logits.softmax(-1) @ g.transpose(1, 2)).transpose(1, 2).reshape(batch, -1, height, width)
    return x + block.out(y)


@settings(deadline=None, max_examples=20)
@given(
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    window=st.sampled_from([None, (2, 2), (6, 2), (7, 3), (12, 4)]),
    scale=st.booleans(),
    bias=st.booleans(),
)
def test_non_local_follows_the_formula_with_all_gradients(size, window, scale, bias):
    extent = {} if window is None else {"window": window[0], "block": window[1]}
    block = randomize(NonLocal2d(6, inner=4, scale=scale, bias=bias, **extent))
    x = randn(2, 6, *size).requires_grad_()
    cotangent = randn(2, 6, *size, seed=2)
    inputs = [x, *block.parameters()]
    ours, expected = block(x), dense(block, x)
    assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-11)
    got = torch.autograd.grad(ours, inputs, cotangent)
    want = torch.autograd.grad(expected, inputs, cotangent)
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_a_new_non_local_block_is_the_identity():
    x = torch.randn(1, 16, 9, 9)
    assert torch.equal(NonLocal2d(16)(x), x)
    assert torch.equal(NonLocal2d(16, window=8, block=4)(x), x)


@pytest.mark.parametrize(
    "block",
    [
        SqueezeExcitation(6, reduction=2, window=5),
        NonLocal2d(6, window=6, block=4),
    ],
    ids=["squeeze_excitation", "non_local"],
)
def test_reach_is_the_truth(block):
    block = randomize(block)
    x = randn(1, 6, 15, 16).requires_grad_()
    furthest = 0
    for position in itertools.product(range(15), range(16)):
        (gradient,) = torch.autograd.grad(block(x)[(0, slice(None), *position)].sum(), x)
        touched = gradient[0].abs().amax(0).nonzero()
        furthest = max(furthest, int((touched - torch.tensor(position)).abs().max()))
    assert furthest == block.reach


def test_whole_maps_reach_everywhere():
    assert SqueezeExcitation(4, reduction=2).reach is None
    assert NonLocal2d(4).reach is None


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    block=st.integers(1, 6),
    halo=st.integers(0, 4),
)
def test_blocks_go_back_together_and_know_what_is_inside(size, block, halo):
    x = randn(2, 3, *size)
    assert torch.equal(from_blocks(to_blocks(x, block), block, size), x)
    blocks = to_blocks(x, block, halo).reshape(2, -1, (block + 2 * halo) ** 2, 3)
    mask = inside(size, block, halo, x.device)
    assert (blocks[0][~mask] == 0).all()
    corners = itertools.product(*(range(0, s, block) for s in size))
    for number, (top, left) in enumerate(corners):
        rows, columns = (slice(max(0, c - halo), c + block + halo) for c in (top, left))
        expected = x[0, :, rows, columns].flatten(1).T
        assert torch.equal(blocks[0, number][mask[number]], expected)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: SqueezeExcitation(8, reduction=16), "reduction"),
        (lambda: SqueezeExcitation(8, reduction=0), "reduction"),
        (lambda: SqueezeExcitation(32, window=4), "window"),
        (lambda: NonLocal2d(1), "inner"),
        (lambda: NonLocal2d(8, window=7, block=4), "window"),
        (lambda: NonLocal2d(8, window=2, block=4), "window"),
    ],
)
def test_impossible_arguments_are_named(build, word):
    with pytest.raises(ValueError, match=word):
        build()
