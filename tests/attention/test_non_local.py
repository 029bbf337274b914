import pytest
import timm.layers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.attention import NonLocal2d


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def active(*args, seed=0, **kwargs):
    """A block in float64 whose ``out`` is not zero any more."""
    block = NonLocal2d(*args, **kwargs).double()
    block.out.weight.data = randn(*block.out.weight.shape, seed=seed)
    return block


def test_the_whole_map_is_that_of_timm():
    ours = active(16, inner=8)
    theirs = timm.layers.NonLocalAttn(16, use_scale=False, rd_channels=8).double()
    theirs.t, theirs.p, theirs.g = ours.theta, ours.phi, ours.g
    theirs.z, theirs.norm = ours.out, torch.nn.Identity()  # the paper normalises in recognition
    x = randn(2, 16, 5, 7)
    assert torch.allclose(ours(x), theirs(x), rtol=1e-9, atol=1e-12)


def test_defaults_are_those_of_the_paper():
    block = NonLocal2d(10)
    assert {k: tuple(v.shape) for k, v in block.state_dict().items()} == {
        "theta.weight": (5, 10, 1, 1),
        "theta.bias": (5,),
        "phi.weight": (5, 10, 1, 1),
        "phi.bias": (5,),
        "g.weight": (5, 10, 1, 1),
        "g.bias": (5,),
        "out.weight": (10, 5, 1, 1),
        "out.bias": (10,),
    }
    assert not block.out.weight.any()
    assert not block.out.bias.any()


@pytest.mark.parametrize("window", [None, 6])
def test_scale_divides_the_logits_by_the_root_of_the_width(window):
    scaled = active(6, inner=4, scale=True, bias=False, window=window, block=2)
    plain = active(6, inner=4, bias=False, window=window, block=2)
    plain.load_state_dict(scaled.state_dict())
    x = randn(1, 6, 5, 5)
    assert not torch.allclose(plain(x), scaled(x))
    plain.theta.weight.data /= 2  # the root of 4
    assert torch.allclose(plain(x), scaled(x), rtol=1e-10)


@pytest.mark.parametrize("window", [None, 4])
def test_of_a_single_position_only_its_value_is_left(window):
    block = active(6, bias=False, window=window, block=2)
    x = randn(2, 6, 1, 1)
    assert torch.allclose(block(x), x + block.out(block.g(x)), rtol=1e-12)


def test_the_whole_map_knows_no_places():
    block = active(6)
    x = randn(1, 6, 4, 5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    shuffled = block(x.flatten(2)[:, :, order].unflatten(2, (4, 5)))
    assert torch.allclose(shuffled.flatten(2), block(x).flatten(2)[:, :, order], rtol=1e-9)


@settings(deadline=None, max_examples=15)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), extent=st.integers(1, 9))
def test_a_window_that_covers_the_map_is_the_whole_map(size, extent):
    # The first and the last block both have to see everything.
    windowed = active(4, window=extent + 2 * 9, block=extent)
    whole = active(4)
    whole.load_state_dict(windowed.state_dict())
    x = randn(2, 4, *size)
    assert torch.allclose(windowed(x), whole(x), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(8, 25)),
    shape=st.sampled_from([(2, 2), (4, 2), (7, 3), (8, 4)]),
    first=st.integers(0, 6),
)
def test_a_tile_on_the_grid_computes_what_the_whole_map_computes(size, shape, first):
    block = active(4, window=shape[0], block=shape[1])
    x = randn(1, 4, *size)
    left = min(first * block.block, size[1] - 1) // block.block * block.block
    halo = -(-block.reach // block.block) * block.block
    start = max(0, left - halo)
    tile = block(x[..., start : left + 5 + block.reach])[..., left - start :][..., :5]
    assert torch.allclose(tile, block(x)[..., left:][..., :5], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("window", [None, 4])
def test_gradients(window):
    block = active(4, inner=2, window=window, block=2)
    inputs = (randn(1, 4, 3, 3).requires_grad_(), *block.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: block(x), inputs)


@pytest.mark.parametrize("window", [None, 4])
def test_an_empty_batch_stays_empty(window):
    x = torch.zeros(0, 4, 5, 6)
    assert NonLocal2d(4, window=window, block=2)(x).shape == x.shape


def test_inner_is_named_when_it_cannot_be():
    with pytest.raises(ValueError, match="inner=0"):
        NonLocal2d(8, inner=0)
    with pytest.raises(ValueError, match="block=0"):
        NonLocal2d(8, window=8, block=0)
