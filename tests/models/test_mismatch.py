import pytest
import torch

from nlden.models.mismatch import Mismatch


@pytest.mark.parametrize("halve", [False, True])
def test_reach_bounds_what_an_input_touches(halve):
    torch.manual_seed(0)
    network = Mismatch(("yuv420",), 8, halve=halve).double()
    torch.nn.init.normal_(network.tail.weight)
    clean, fused = torch.randn(2, 1, 6, 48, 8, dtype=torch.float64)
    variance = torch.rand(1, 2, 48, 8, dtype=torch.float64, requires_grad=True)
    clean.requires_grad_()
    inputs = (clean, variance)
    for row in range(22, 26):
        out = network(clean, fused, variance)[0, :, row].sum()
        furthest = 0
        for gradient in torch.autograd.grad(out, inputs):
            touched = gradient[0].abs().amax((0, 2)).nonzero().flatten()
            furthest = max(furthest, int((touched - row).abs().max()))
        assert network.reach // 2 < furthest <= network.reach


@pytest.mark.parametrize("factor", [80.0, 200.0])
@pytest.mark.parametrize("difference", [0.0, 1.0])
def test_gradients_are_numbers_where_nothing_agrees(factor, difference):
    network = Mismatch(("yuv420",), 8)
    torch.nn.init.constant_(network.tail.bias, factor)  # of the logarithm of the factor, too
    maps = torch.full((1, 6, 8, 8), difference, requires_grad=True)
    variance = network(maps, maps, torch.ones(1, 2, 8, 8))
    assert variance.isfinite().all()
    (1 / (1 + 1 / variance)).sum().backward()
    assert all(p.grad.isfinite().all() for p in (maps, *network.parameters()))
