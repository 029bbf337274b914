"""What every block must do: the sizes, precisions and ways to run it that are promised."""

from functools import cache

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nlden.attention.cbam import CBAM, ChannelGate, SpatialGate
from nlden.attention.dual_attention import (
    ChannelAttention,
    DualAttention,
    DualAttentionHead,
    PositionAttention,
)
from nlden.attention.global_context import GlobalContext
from nlden.attention.layers import BATCH_NORMS
from nlden.attention.non_local import NonLocal1d, NonLocal2d, NonLocal3d
from nlden.attention.squeeze_excitation import SqueezeExcitation

NON_LOCAL = {1: NonLocal1d, 2: NonLocal2d, 3: NonLocal3d}
# Each builds a block for C channels and a number of dimensions.
BLOCKS = {
    "squeeze_excitation": lambda c, _: SqueezeExcitation(c, reduction=4),
    "squeeze_excitation_all": lambda c, d: SqueezeExcitation(
        c, inner=3, bias=True, norm=BATCH_NORMS[d], maximum=True
    ),
    "squeeze_excitation_window": lambda c, _: SqueezeExcitation(
        c, reduction=4, maximum=True, window=5
    ),
    "effective_squeeze_excitation": lambda c, _: SqueezeExcitation(
        c, reduction=None, bias=True, gate=nn.Hardsigmoid
    ),
    "channel_gate": lambda c, _: ChannelGate(c, reduction=4),
    "channel_gate_all": lambda c, _: ChannelGate(
        c, reduction=4, bias=True, pools=("avg", "max", "lp", "lse")
    ),
    "spatial_gate": lambda _, d: SpatialGate(dimensions=d),
    "cbam": lambda c, d: CBAM(c, reduction=4, dimensions=d),
    "cbam_norm": lambda c, d: CBAM(c, reduction=4, bias=True, norm=True, dimensions=d),
    "cbam_light": lambda c, d: CBAM(c, reduction=4, merge=True, norm=True, dimensions=d),
    "global_context": lambda c, _: GlobalContext(c, reduction=4),
    "global_context_all": lambda c, _: GlobalContext(c, reduction=4, scale=True),
    "global_context_mean": lambda c, _: GlobalContext(c, reduction=4, attention=False),
    "position_attention": lambda c, _: PositionAttention(c),
    "channel_attention": lambda _c, _: ChannelAttention(),
    "channel_attention_inverted": lambda _c, _: ChannelAttention(inverted=True),
    "dual_attention": lambda c, _: DualAttention(c, inner=2),
    "dual_attention_head": lambda c, d: DualAttentionHead(c, 3, dimensions=d),
    "non_local": lambda c, d: NON_LOCAL[d](c),
    "non_local_gaussian": lambda c, d: NON_LOCAL[d](c, pairwise="gaussian", subsample=2),
    "non_local_dot_product": lambda c, d: NON_LOCAL[d](
        c, pairwise="dot_product", subsample=2, subsample_at="projections"
    ),
    "non_local_concatenation": lambda c, d: NON_LOCAL[d](c, pairwise="concatenation"),
    "non_local_window": lambda c, d: NON_LOCAL[d](
        c, scale="inner", norm=None, window=6, block=4, clip=True
    ),
    "non_local_window_dot_product": lambda c, d: NON_LOCAL[d](
        c, pairwise="dot_product", window=6, block=4, clip=True
    ),
    "non_local_window_concatenation": lambda c, d: NON_LOCAL[d](
        c, pairwise="concatenation", window=6, block=4, clip=True
    ),
}
# Those that do not ask how many channels there are.
ANY_CHANNELS = {"spatial_gate", "channel_attention", "channel_attention_inverted"}
# Those that return three tensors of another shape.
HEADS = {"dual_attention_head"}
# Those whose graph is that of another with less in it.
PARTS = {
    "squeeze_excitation",
    "channel_gate",
    "cbam",
    "cbam_light",
    "global_context",
    "global_context_mean",
    "channel_attention",
    "non_local_window_dot_product",
    "dual_attention",
}

# One of each kind, without windows.
KINDS = (
    "squeeze_excitation_window",
    "cbam_norm",
    "global_context_all",
    "position_attention",
    "non_local",
)
GRAPHS = [name for name in BLOCKS if name not in PARTS]

every_block = pytest.mark.parametrize("name", BLOCKS)
every_graph = pytest.mark.parametrize("name", GRAPHS)


def graphs(*names):
    """Every graph as above; what is not named is slow."""
    slow = [pytest.param(n, marks=pytest.mark.slow) for n in GRAPHS if n not in names]
    return pytest.mark.parametrize("name", [*names, *slow])


def build(name, channels=8, dimensions=2, *, active=True):
    """A block in evaluation mode; active: what starts at zero no longer is."""
    torch.manual_seed(0)
    block = BLOCKS[name](channels, dimensions).eval()
    if active:
        for parameter in block.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.5)
    return block


def randn(*shape, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def joined(result):
    """The result of a block or head as one tensor."""
    return result if isinstance(result, torch.Tensor) else torch.cat(result, dim=1)


@every_block
@pytest.mark.parametrize(
    "size", [(1,), (7,), (1, 1), (5, 3), (1, 1, 1), (1, 5, 3), (3, 2, 5)], ids=str
)
def test_every_size_works(name, size):
    block = build(name, dimensions=len(size))
    x = randn(2, 8, *size)
    y = block(x)
    assert joined(y).isfinite().all()
    if name in HEADS:
        assert [s.shape for s in y] == [(2, 3, *size)] * 3
    else:
        assert y.shape == x.shape
    empty = joined(block(x[:0]))
    assert empty.shape == joined(y)[:0].shape


@every_block
def test_the_batch_is_no_matter(name):
    block = build(name).double()
    x = randn(3, 8, 5, 6, dtype=torch.float64)
    alone = torch.cat([joined(block(x[i : i + 1])) for i in range(3)])
    torch.testing.assert_close(joined(block(x)), alone, rtol=1e-9, atol=1e-11)


@every_block
def test_dimensions_are_one_implementation(name):
    if name in HEADS or "gate" in name or name.startswith("cbam"):
        pytest.skip("its convolution has a kernel in every dimension")
    if "window" in name or name in {"non_local_gaussian", "non_local_dot_product"}:
        pytest.skip("its window or pooling has an extent in every dimension")
    x = randn(2, 8, 12, dtype=torch.float64)
    line, *others = (
        build(name, dimensions=len(size)).double()(x.reshape(2, 8, *size)).flatten(2)
        for size in ((12,), (3, 4), (2, 3, 2))
    )
    for other in others:
        torch.testing.assert_close(other, line, rtol=1e-9, atol=1e-11)


@every_block
def test_another_input_is_refused(name):
    block = build(name)
    for shape in ((8, 5), (2, 8), (2, 8, 1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"x of shape"):
            block(torch.zeros(shape))
    if name not in ANY_CHANNELS:
        with pytest.raises(ValueError, match=r"x of shape \(2, 7, 5, 5\) must be \(B, 8, \*size\)"):
            block(torch.zeros(2, 7, 5, 5))


@every_block
def test_single_precision_is_near_double(name):
    block = build(name, 64)
    x = randn(2, 64, 24, 24)
    y = joined(block(x)).double()
    expected = joined(block.double()(x.double()))
    assert (y - expected).norm() <= 1e-4 * expected.norm()


@every_block
@pytest.mark.parametrize("std", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_near_double(name, dtype, std):
    x = (std * randn(1, 64, 40, 40)).to(dtype)
    block = build(name, 64, active=False).to(dtype)
    results = {}
    for kind in (dtype, torch.float64):
        module = block.to(kind)
        at = x.to(kind).requires_grad_()
        y = joined(module(at))
        assert y.dtype == kind
        cotangent = randn(*y.shape, dtype=kind)
        gradients = torch.autograd.grad(y, [at, *module.parameters()], cotangent)
        results[kind] = y.double(), gradients
    (y, got), (expected, want) = results[dtype], results[torch.float64]
    assert y.isfinite().all()
    assert (y - expected).norm() <= 0.02 * expected.norm()
    for a, b in zip(got, want, strict=True):
        fits = b.abs() <= torch.finfo(dtype).max
        assert a[fits].isfinite().all()


@every_block
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_keeps_the_precision_of_what_decides(name, dtype):
    block = build(name, 32)
    x = 30 * randn(1, 32, 16, 16)
    expected = joined(block(x))
    with torch.autocast("cpu", dtype=dtype):
        y = joined(block(x))
        half = joined(block(x.to(dtype)))
    if name not in HEADS:  # their convolutions are those of autocast
        torch.testing.assert_close(y, expected)
        assert half.dtype == dtype
    assert half.isfinite().all()
    assert (half - expected).norm() <= 0.02 * expected.norm()


def compare_compiled(name, *sizes):
    torch.compiler.reset()
    block = build(name)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for size in sizes:
        x = randn(2, 8, *size).requires_grad_()
        y, expected = joined(compiled(x)), joined(block(x))
        torch.testing.assert_close(y, expected)
        got, want = (torch.autograd.grad(F.gelu(t).sum(), x)[0] for t in (y, expected))
        torch.testing.assert_close(got, want)


# Tracing and compiling are Python of torch, which the tracer of coverage slows down.
@pytest.mark.no_cover
@every_graph
def test_compiles_into_one_graph(name):
    compare_compiled(name, (5, 6))


@pytest.mark.no_cover
@graphs(*KINDS)
def test_compiles_into_one_graph_for_other_sizes(name):
    compare_compiled(name, (5, 6), (7, 4))


# Exporting takes a map of one position or block for a constant: what must be larger, and how much.
LEAST = {"non_local_gaussian": 4, "non_local_dot_product": 4}
LEAST |= {name: 6 for name in BLOCKS if name.startswith("non_local_window")}


@cache
def exported(name):
    least = LEAST.get(name, 2)
    height = torch.export.Dim("height", min=least, max=512)
    size = {2: height, 3: torch.export.Dim("width", min=least)}
    return torch.export.export(build(name), (randn(2, 8, 6, 7),), dynamic_shapes=(size,))


@pytest.mark.no_cover
@every_graph
def test_exports_with_any_height_and_width(name):
    block, program = build(name), exported(name)
    for size in ((6, 7), (9, 8), (LEAST.get(name, 2), 13)):
        x = randn(2, 8, *size)
        torch.testing.assert_close(joined(program.module()(x)), joined(block(x)))


@pytest.mark.no_cover
@graphs(*KINDS, "non_local_window")
def test_onnx_with_any_height_and_width(name, tmp_path):
    block = build(name)
    path = tmp_path / "block.onnx"
    torch.onnx.export(exported(name), (), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    for size in ((6, 7), (9, 8), (LEAST.get(name, 2), 13)):
        x = randn(2, 8, *size)
        results = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(
            np.concatenate(results, axis=1), joined(block(x)).detach(), atol=1e-4, rtol=1e-4
        )
