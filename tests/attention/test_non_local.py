"""Non-local blocks against the paper's formula over the whole map of pairs."""

import itertools
import math

import pytest
import timm.layers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlden.attention import NonLocal1d, NonLocal2d, NonLocal3d, non_local

BLOCKS = {1: NonLocal1d, 2: NonLocal2d, 3: NonLocal3d}
PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomize(block):
    """A block in float64 with no parameter at a special value."""
    block = block.double()
    for seed, parameter in enumerate(block.parameters()):
        parameter.data = 0.4 * randn(*parameter.shape, seed=seed)
    return block


def near(size, window, block):
    """(N, N): whether j lies in the neighbourhood of i, position by position."""
    positions = list(itertools.product(*map(range, size)))

    def sees(i, j):
        for a, b, w, e in zip(i, j, window, block, strict=True):
            low = a // e * e - (w - e) // 2
            if not low <= b < low + w:
                return False
        return True

    return torch.tensor([[sees(i, j) for j in positions] for i in positions])


def weights(block, x):
    """The N x N map of f(x_i, x_j) / C(x), the map of g and the neighbourhoods."""
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[block.dims]

    def pooled(t):
        if block.subsample is None:
            return t
        return pool(t, [min(k, s) for k, s in zip(block.subsample, t.shape[2:], strict=True)])

    first = block.subsample_at == "input"
    keys = pooled(x) if first else x
    theta = x if block.theta is None else block.theta(x)
    phi, g = keys if block.phi is None else block.phi(keys), block.g(keys)
    if not first:
        phi, g = pooled(phi), pooled(g)
    theta, phi, g = (t.flatten(2) for t in (theta, phi, g))
    if block.pairwise == "concatenation":
        pairs = torch.cat(
            [
                theta[:, :, :, None].expand(-1, -1, -1, phi.shape[2]),
                phi[:, :, None, :].expand(-1, -1, theta.shape[2], -1),
            ],
            dim=1,
        )
        f = torch.relu(torch.einsum("c,bcij->bij", block.concat.weight[0], pairs))
    else:
        f = theta.mT @ phi
    seen = torch.ones(f.shape[1:], dtype=torch.bool)
    if block.window is not None:
        seen = near(x.shape[2:], block.window, block.block)
    if block.pairwise.endswith("gaussian"):
        energies = (f * block.logit_scale).masked_fill(~seen, -math.inf)
        return energies.softmax(-1), g
    return f * seen / seen.sum(1, keepdim=True), g


def formula(block, x):
    f, g = weights(block, x)
    y = (f @ g.mT).mT.unflatten(2, x.shape[2:])
    y = block.out(y)
    return x + (y if block.norm is None else block.norm(y))


@st.composite
def cases(draw):
    dims = draw(st.integers(1, 3))
    size = tuple(draw(st.integers(1, {1: 20, 2: 8, 3: 5}[dims])) for _ in range(dims))
    options = {
        "pairwise": draw(st.sampled_from(PAIRWISE)),
        "inner": draw(st.sampled_from([None, 1, 4])),
        "scale": draw(st.sampled_from([None, "inner", "channels"])),
        "bias": draw(st.booleans()),
        "norm": draw(st.sampled_from(["batch", None])),
    }
    way = draw(st.sampled_from(["whole", "pool", "window"]))
    if way == "pool":
        options["subsample"] = tuple(draw(st.integers(1, 3)) for _ in range(dims))
        options["subsample_at"] = draw(st.sampled_from(["input", "projections"]))
    if way == "window":
        options["block"] = tuple(draw(st.integers(1, 4)) for _ in range(dims))
        options["window"] = tuple(b + 2 * draw(st.integers(0, 2)) for b in options["block"])
        options["clip"] = True
    return dims, size, options


@settings(deadline=None, max_examples=120)
@given(case=cases())
def test_blocks_follow_the_formula_with_all_gradients(case):
    dims, size, options = case
    block = randomize(BLOCKS[dims](6, **options)).eval()
    x = randn(2, 6, *size).requires_grad_()
    inputs = [x, *block.parameters()]
    ours, expected = block(x), formula(block, x)
    assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-11)
    cotangent = randn(*x.shape, seed=2)
    got = torch.autograd.grad(ours, inputs, cotangent, allow_unused=True, materialize_grads=True)
    want = torch.autograd.grad(
        expected, inputs, cotangent, allow_unused=True, materialize_grads=True
    )
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-10)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(non_local, "_PIECE", 1)  # inference in the smallest pieces
        patch.setattr(non_local, "_STRIP", 1)
        assert torch.allclose(block(x), expected, rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(case=cases(), data=st.data())
def test_rows_of_attention_are_those_of_the_map(case, data):
    dims, size, options = case
    block = randomize(BLOCKS[dims](6, **options))
    x = randn(2, 6, *size)
    chosen = st.lists(st.integers(0, math.prod(size) - 1), min_size=1, max_size=4)
    positions = torch.tensor(data.draw(chosen))
    expected = weights(block, x)[0][:, positions]
    assert torch.allclose(block.attention(x, positions), expected, rtol=1e-9, atol=1e-12)


def test_in_training_the_norm_takes_the_statistics_of_the_batch():
    block = randomize(NonLocal2d(6))
    x = randn(3, 6, 4, 5)
    assert torch.allclose(block(x), formula(block, x), rtol=1e-9)
    assert block.norm.num_batches_tracked == 2
    assert block.norm.running_mean.any()


def test_the_whole_map_is_that_of_timm():
    ours = randomize(NonLocal2d(16, **NonLocal2d.presets["timm"] | {"inner": 8}))
    theirs = timm.layers.NonLocalAttn(16, rd_channels=8).double()
    theirs.t, theirs.p, theirs.g = ours.theta, ours.phi, ours.g
    theirs.z, theirs.norm = ours.out, ours.norm
    x = randn(2, 16, 5, 7)
    assert torch.allclose(ours(x), theirs(x), rtol=1e-9, atol=1e-12)


def test_defaults_are_those_of_the_paper():
    block = NonLocal2d(10)
    shapes = {k: tuple(v.shape) for k, v in block.named_parameters()}
    weights = dict.fromkeys(("theta.weight", "phi.weight", "g.weight"), (5, 10, 1, 1))
    biases = dict.fromkeys(("theta.bias", "phi.bias", "g.bias"), (5,))
    end = {"out.weight": (10, 5, 1, 1), "out.bias": (10,), "norm.weight": (10,), "norm.bias": (10,)}
    assert shapes == weights | biases | end
    assert block.logit_scale == 1
    assert set(BLOCKS[1].presets) == set(BLOCKS[2].presets) == set(BLOCKS[3].presets)
    assert all(isinstance(NonLocal3d(16, **p), NonLocal3d) for p in NonLocal3d.presets.values())


def test_the_last_projection_has_a_bias_of_its_own():
    biased = {}
    for bias, out_bias in itertools.product([True, False], [None, True, False]):
        block = NonLocal2d(10, bias=bias, out_bias=out_bias, norm=None)
        biased[bias, out_bias] = block.g.bias is not None, block.out.bias is not None
    assert biased[True, None] == biased[True, True] == (True, True)
    assert biased[False, None] == biased[False, False] == (False, False)
    assert biased[True, False] == (True, False)
    assert biased[False, True] == (False, True)


@pytest.mark.parametrize("options", [{}, {"window": 8, "block": 4}])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_the_memory_format_stays(options, form):
    """A convolution that follows a block must not have to put its input in order again."""
    x = torch.randn(2, 8, 12, 16).contiguous(memory_format=form)
    block = randomize(NonLocal2d(8, norm=None, **options)).float()
    assert block(x).is_contiguous(memory_format=form)


@pytest.mark.parametrize("dims", BLOCKS)
@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize(
    "options", [{}, {"norm": None}, {"window": 4, "block": 2}, {"subsample": 2}]
)
def test_a_new_block_is_the_identity(dims, pairwise, options):
    block = BLOCKS[dims](16, pairwise=pairwise, **options)
    x = torch.randn(2, 16, *(4, 7, 5)[:dims])
    assert torch.equal(block(x), x)


@settings(deadline=None, max_examples=15)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), extent=st.integers(1, 9))
def test_a_window_that_covers_the_map_is_the_whole_map(size, extent):
    # The first and the last block both have to see everything.
    windowed = randomize(NonLocal2d(4, window=extent + 2 * 9, block=extent, clip=True))
    whole = NonLocal2d(4).double()
    whole.load_state_dict(windowed.state_dict())
    x = randn(2, 4, *size)
    assert torch.allclose(windowed.eval()(x), whole.eval()(x), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(8, 25)),
    shape=st.sampled_from([(2, 2), (4, 2), (7, 3), (8, 4)]),
    first=st.integers(0, 6),
)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_tile_on_the_grid_computes_what_the_whole_map_computes(pairwise, size, shape, first):
    extent = shape[1]
    block = randomize(
        NonLocal2d(4, pairwise=pairwise, norm=None, window=shape[0], block=extent, clip=True)
    )
    x = randn(1, 4, *size)
    left = min(first * extent, size[1] - 1) // extent * extent
    halo = -(-block.reach // extent) * extent
    start = max(0, left - halo)
    tile = block(x[..., start : left + 5 + block.reach])[..., left - start :][..., :5]
    assert torch.allclose(tile, block(x)[..., left:][..., :5], rtol=1e-9, atol=1e-12)


def test_reach_is_the_truth():
    block = randomize(NonLocal2d(6, norm=None, window=6, block=4))
    x = randn(1, 6, 15, 16).requires_grad_()
    furthest = 0
    for position in itertools.product(range(15), range(16)):
        (gradient,) = torch.autograd.grad(block(x)[(0, slice(None), *position)].sum(), x)
        touched = gradient[0].abs().amax(0).nonzero()
        furthest = max(furthest, int((touched - torch.tensor(position)).abs().max()))
    assert furthest == block.reach
    assert NonLocal2d(4).reach is None


def test_the_algorithm_is_named():
    x = torch.randn(1, 8, 9, 9)
    expected = {
        "gaussian": "fused",
        "embedded_gaussian": "fused",
        "dot_product": "associative",
        "concatenation": "sorted",
    }
    for pairwise, algorithm in expected.items():
        block = NonLocal2d(8, pairwise=pairwise)
        block(x)
        assert block.algorithm == algorithm
    block = NonLocal2d(8)
    block(torch.randn(1, 8, 64, 64))
    assert block.algorithm == "fused+chunked"
    with torch.no_grad():
        block(torch.randn(1, 8, 64, 64))
    assert block.algorithm == "fused"


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: NonLocal2d(1), "inner=0"),
        (lambda: NonLocal2d(8, inner=0), "inner=0"),
        (lambda: NonLocal2d(8, reduction=0), "reduction=0"),
        (lambda: NonLocal2d(8, pairwise="cosine"), "pairwise='cosine'.*concatenation"),
        (lambda: NonLocal2d(8, scale="root"), "scale='root'.*inner, channels"),
        (lambda: NonLocal2d(8, subsample_at="end"), "subsample_at='end'"),
        (lambda: NonLocal2d(8, subsample=0), "subsample=0"),
        (lambda: NonLocal3d(8, subsample=(2, 2)), r"subsample=\(2, 2\).*3 numbers"),
        (lambda: NonLocal2d(8, window=7, block=4), "window=7"),
        (lambda: NonLocal2d(8, window=2, block=4), "window=2"),
        (lambda: NonLocal2d(8, window=8, block=0), "block=0"),
        (lambda: NonLocal2d(8, window=8, subsample=2), "window=8 and subsample=2"),
        (lambda: NonLocal2d(8)(torch.zeros(1, 8, 4)), r"\(1, 8, 4\)"),
        (lambda: NonLocal2d(8)(torch.zeros(1, 6, 4, 4)), r"\(1, 6, 4, 4\) must be \(B, 8"),
        (lambda: NonLocal2d(8, window=8)(torch.zeros(1, 8, 9, 7)), r"window=\(8, 8\)"),
        (lambda: NonLocal2d(8, norm="layer"), "norm='layer'"),
        (lambda: NonLocal2d(8)(torch.zeros(1, 8, 0, 7)), r"\(1, 8, 0, 7\)"),
        (
            lambda: NonLocal2d(8).attention(torch.zeros(1, 8, 2, 2), torch.tensor([1, 4])),
            r"positions=\[1, 4\]",
        ),
    ],
)
def test_impossible_arguments_are_named(build, word):
    with pytest.raises(ValueError, match=word):
        build()


def test_the_norm_of_a_single_position_is_its_shift():
    # The value is its own mean, and says nothing of the variance.
    block = NonLocal2d(8).double()
    x = torch.randn(1, 8, 1, 1, dtype=torch.float64, requires_grad=True)
    torch.nn.init.normal_(block.norm.bias)
    y = block(x)
    torch.testing.assert_close(y, x + block.norm.bias.view(8, 1, 1))
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert not block.norm.running_mean.any()
    assert block.norm.num_batches_tracked == 0
