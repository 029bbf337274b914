"""The sorted concatenation form against the sum over all pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention import concatenation as module
from nlden.attention.concatenation import concatenation


def direct(a, b, value):
    return torch.relu(a.unsqueeze(2) + b.unsqueeze(1)) @ value


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 3)),
    ties=st.booleans(),
    ranks=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_the_sum_over_all_pairs_with_all_gradients(sizes, ties, ranks, seed):
    batch, queries, keys, width = sizes
    generator = torch.Generator().manual_seed(seed)
    # Small integers meet often: equal keys, and pairs whose sum is exactly zero.
    a, b = (
        torch.randint(-3, 4, (batch, n), generator=generator).double()
        if ties
        else torch.randn(batch, n, generator=generator, dtype=torch.float64)
        for n in (queries, keys)
    )
    value = torch.randn(batch, keys, width, generator=generator, dtype=torch.float64)
    cotangent = torch.randn(batch, queries, width, generator=generator, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (a, b, value)]
    with pytest.MonkeyPatch.context() as patch:
        if ranks:
            patch.setattr(module, "_active", lambda *_: module._active_by_rank(*inputs[:2]))
        ours = concatenation(*inputs)
    expected = direct(*inputs)
    assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-12)
    if ties and ranks:
        return  # where relu has a corner, its gradient is the sort's choice
    got = torch.autograd.grad(ours, inputs, cotangent)
    want = torch.autograd.grad(expected, inputs, cotangent)
    for x, y in zip(got, want, strict=True):
        assert torch.allclose(x, y, rtol=1e-9, atol=1e-12)


def test_long_sums_in_float32_keep_their_digits():
    generator = torch.Generator().manual_seed(0)
    a, b = (100 * torch.randn(1, 3000, generator=generator) for _ in range(2))
    value = torch.randn(1, 3000, 4, generator=generator)
    exact = direct(a.double(), b.double(), value.double())
    error = (concatenation(a, b, value) - exact).norm() / exact.norm()
    assert error < 1e-5
