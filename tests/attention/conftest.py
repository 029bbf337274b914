"""What the tests of converted blocks share."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlden.attention.interop import from_reference

SIZE = {1: (9,), 2: (5, 6), 3: (2, 4, 5)}


def step(block, x):
    """Result, gradient of the input, and gradients of the parameters left in the block."""
    block.zero_grad()
    x = x.clone().requires_grad_()
    y = block(x)
    y = y if isinstance(y, torch.Tensor) else torch.cat(y, 1)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    return y.detach(), x.grad


def close(found, expected):
    assert found.shape == expected.shape
    # Some gradients are zero but for rounding: softmax does not see a bias of the keys.
    assert (found - expected).norm() <= 1e-9 * expected.norm() + 1e-11


def _agree(name, reference, arguments, *, dims=2, width=16):
    """Compare results, all gradients and new statistics, in evaluation and in training."""
    torch.manual_seed(0)
    for module in reference.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.4)
    reference.double()
    block = from_reference(name, reference.state_dict(), **arguments)
    assert all(p.dtype == torch.float64 and p.requires_grad for p in block.parameters())
    for module in (*block.modules(), *reference.modules()):
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    x = torch.randn(2, width, *SIZE[dims], dtype=torch.float64)
    for training in (False, True):
        found, expected = (step(b.train(training), x) for b in (block, reference))
        for ours, theirs in zip(found, expected, strict=True):
            close(ours, theirs)
        # Their gradients and statistics as ours: converted like weights.
        state = reference.state_dict() | {n: p.grad for n, p in reference.named_parameters()}
        converted = from_reference(name, state, **arguments)
        for ours, theirs in zip(block.parameters(), converted.parameters(), strict=True):
            close(ours.grad, theirs.detach())
        for ours, theirs in zip(block.buffers(), converted.buffers(), strict=True):
            close(ours.double(), theirs.double())
    return block


@pytest.fixture
def agree():
    """The comparison of a reference with its conversion."""
    return _agree
