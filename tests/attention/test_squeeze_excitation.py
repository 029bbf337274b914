import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention import SqueezeExcitation


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
    assert SqueezeExcitation(4, reduction=2, window=window)(x).shape == x.shape


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
