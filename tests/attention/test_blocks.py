import itertools

import pytest
import timm.layers
import torch
import torchvision

from nlden.attention import SqueezeExcitation


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


def test_reach_is_the_truth():
    block = randomize(SqueezeExcitation(6, reduction=2, window=5))
    x = randn(1, 6, 15, 16).requires_grad_()
    furthest = 0
    for position in itertools.product(range(15), range(16)):
        (gradient,) = torch.autograd.grad(block(x)[(0, slice(None), *position)].sum(), x)
        touched = gradient[0].abs().amax(0).nonzero()
        furthest = max(furthest, int((touched - torch.tensor(position)).abs().max()))
    assert furthest == block.reach


def test_whole_maps_reach_everywhere():
    assert SqueezeExcitation(4, reduction=2).reach is None


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: SqueezeExcitation(8, reduction=16), "reduction"),
        (lambda: SqueezeExcitation(8, reduction=0), "reduction"),
        (lambda: SqueezeExcitation(32, window=4), "window"),
    ],
)
def test_impossible_arguments_are_named(build, word):
    with pytest.raises(ValueError, match=word):
        build()
