"""Aggregation by softmax and dot product against the whole map of weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention import affinity
from nlden.attention.affinity import attend, chunked, dot_product, fused


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def softmax(query, key, value, scale):
    return (scale * query @ key.mT).softmax(-1) @ value


SIZES = st.tuples(*(st.integers(1, high) for high in (3, 14, 14, 11, 21)))


def compare(ours, expected, inputs):
    assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-12)
    cotangent = randn(*expected.shape, seed=9)
    got = torch.autograd.grad(ours, inputs, cotangent)
    want = torch.autograd.grad(expected, inputs, cotangent)
    for x, y in zip(got, want, strict=True):
        assert torch.allclose(x, y, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(sizes=SIZES, head=st.sampled_from([8, 16, 256]), chunk=st.integers(1, 60))
@pytest.mark.parametrize("form", [fused, chunked])
def test_softmax_is_that_of_the_whole_map_with_all_gradients(form, sizes, head, chunk):
    batch, queries, keys, inner, outer = sizes
    query, key = randn(batch, queries, inner), randn(batch, keys, inner, seed=1)
    value = randn(batch, keys, outer, seed=2)
    inputs = [t.requires_grad_() for t in (query, key, value)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(affinity, "_MAX_HEAD", head)
        patch.setattr(affinity, "_CHUNK", chunk)
        patch.setattr(affinity, "_ROWS", 1)
        compare(form(*inputs, 0.7), softmax(*inputs, 0.7), inputs)


def test_masked_keys_do_not_count():
    query, key, value = randn(2, 5, 8), randn(2, 7, 8, seed=1), randn(2, 7, 3, seed=2)
    mask = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [1] * 7]).bool()
    y = fused(query, key, value, 1.0, mask)
    assert torch.allclose(y[0], softmax(query, key[:, mask[0]], value[:, mask[0]], 1.0)[0])
    assert torch.allclose(y[1], softmax(query, key, value, 1.0)[1])


@settings(deadline=None, max_examples=40)
@given(sizes=SIZES)
def test_dot_product_is_that_of_the_whole_map_with_all_gradients(sizes):
    batch, queries, keys, inner, outer = sizes
    inputs = [randn(batch, queries, inner), randn(batch, keys, inner), randn(batch, keys, outer)]
    inputs = [t.requires_grad_() for t in inputs]
    query, key, value = inputs
    compare(dot_product(*inputs), (query @ key.mT) @ value, inputs)


def test_the_algorithm_follows_the_sizes_and_never_changes_the_result():
    few, many = randn(1, 3, 8), randn(1, 90, 8)
    assert affinity.dot_product_algorithm(few, few, few) == "direct"
    assert affinity.dot_product_algorithm(many, many, many) == "associative"
    query = randn(1, 64, 8, dtype=torch.float32).requires_grad_()
    assert affinity.softmax_algorithm(query, query) == "fused"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(affinity, "_LONG", 64 * 64)
        assert affinity.softmax_algorithm(query, query) == "fused+chunked"
        assert affinity.softmax_algorithm(query.detach(), query.detach()) == "fused"
        long = attend(query, query, query)
    assert torch.allclose(long, attend(query, query, query), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", [attend, dot_product])
def test_low_precision_is_raised(form, dtype):
    x = randn(1, 5, 8).to(dtype)
    y = form(x, x, x)
    assert y.dtype == torch.float32
    assert torch.equal(y, form(x.float(), x.float(), x.float()))
