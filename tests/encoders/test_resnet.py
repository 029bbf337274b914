"""Residual networks: sizes, slots, dilation, heads, and what compilers make of them."""

from functools import partial

import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nlden.attention.squeeze_excitation import SqueezeExcitation
from nlden.encoders import named
from nlden.encoders.convolutions import Time
from nlden.encoders.residual import BasicBlock, Bottleneck
from nlden.encoders.resnet import Classifier, ResNet, Stem

GATE = partial(SqueezeExcitation, reduction=2)


def small(block=BasicBlock, blocks=(1, 2, 1), *, channels=2, time=None, **arguments):
    """A small network in float64 and evaluation whose statistics are not trivial."""
    torch.manual_seed(0)
    stem = Stem(channels, (4,), kernel=3, time=None if time is None else Time())
    widths = [4, 6, 8, 10][: len(blocks)]
    net = ResNet(block, blocks, stem=stem, widths=widths, time=time, **arguments)
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return net.double().eval()


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(1, 37), st.integers(1, 37)),
    frames=st.none() | st.integers(1, 5),
    output_stride=st.sampled_from([None, 4, 8, 16]),
    batch=st.integers(0, 2),
)
def test_maps_are_the_input_divided_by_their_strides(size, frames, output_stride, batch):
    time = None if frames is None else (Time(), Time(stride=2), Time((3, 1)))
    net = small(time=time, output_stride=output_stride)
    depth = () if frames is None else (frames,)
    maps = net(randn(batch, 2, *depth, *size))
    strides = [min(s, output_stride or s) for s in (4, 8, 16)]
    for found, channels, stride, slow in zip(maps, net.channels, strides, (1, 2, 2), strict=True):
        expected = [-(-n // slow) for n in depth] + [-(-n // stride) for n in size]
        assert found.shape == (batch, channels, *expected)
        assert found.isfinite().all()


@pytest.mark.parametrize(
    "block", [BasicBlock, Bottleneck, partial(Bottleneck, groups=2, stride_first=True)]
)
@pytest.mark.parametrize(("output_stride", "steps"), [(16, (1, 1, 2)), (8, (1, 2, 4))])
def test_dilation_computes_what_strides_compute_and_more(block, output_stride, steps):
    plain = small(block, (1, 2, 2, 2))
    dilated = small(block, (1, 2, 2, 2), output_stride=output_stride)
    dilated.load_state_dict(plain.state_dict())
    x = randn(1, 2, 64, 96)
    for coarse, fine, step in zip(plain(x)[1:], dilated(x)[1:], steps, strict=True):
        assert torch.allclose(fine[..., ::step, ::step], coarse, rtol=1e-9, atol=1e-12)
    assert dilated(x)[-1].shape[2:] == (64 // output_stride, 96 // output_stride)


def test_the_kernel_of_the_shortcut_dilates_too():
    plain = small(Bottleneck, (1, 1, 1), shortcut_kernel=3)
    dilated = small(Bottleneck, (1, 1, 1), shortcut_kernel=3, output_stride=4)
    dilated.load_state_dict(plain.state_dict())
    assert [stage[0].shortcut[0].kernel_size[0] for stage in plain.stages] == [1, 3, 3]
    x = randn(1, 2, 32, 32)
    assert torch.allclose(dilated(x)[-1][..., ::4, ::4], plain(x)[-1], rtol=1e-9, atol=1e-12)


def test_attention_is_called_with_the_widths():
    seen, later = [], []

    def slot(into, channels):
        into.append(channels)
        return nn.Identity()

    small(
        Bottleneck,
        attention=partial(slot, seen),
        after=partial(slot, later),
        after_blocks=((), (0, 1), (0,)),
    )
    assert seen == [16, 24, 24, 32]
    assert later == [24, 24, 32]


def test_blocks_after_blocks_run_where_they_are_put():
    class Shift(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.channels = channels

        def forward(self, x):
            return x - 100

    plain, shifted = small(), small(after=Shift, after_blocks=((), (1,), ()))
    x = randn(2, 2, 16, 16)
    first, second, third = shifted(x)
    assert torch.equal(first, plain(x)[0])
    assert torch.equal(second, plain(x)[1] - 100)
    assert third.min() >= 0
    assert not torch.allclose(third, plain(x)[2])


def test_pooling_over_time_comes_before_the_stage():
    pooled = small(time=(Time(), Time(pool=3), Time((1,))))
    plain = small(time=(Time(), Time(), Time((1,))))
    plain.load_state_dict(pooled.state_dict())
    x = randn(1, 2, 6, 9, 9)
    maps, expected = pooled(x), plain(x)
    assert torch.equal(maps[0], expected[0])
    frames = nn.functional.pad(maps[0], (0, 0, 0, 0, 1, 1), value=-torch.inf)
    frames = torch.stack([frames[:, :, i : i + 3].amax(2) for i in (0, 2, 4)], dim=2)
    assert torch.equal(maps[1], plain.stages[1](frames))


@pytest.mark.parametrize("pool", ["padded", "ceiling", None])
def test_a_stem_is_its_formula(pool):
    torch.manual_seed(0)
    stem = Stem(2, (3, 4), kernel=3, pool=pool).double().train()
    x = randn(2, 2, 17, 22)
    y = x
    for i, stride in enumerate((2, 1)):
        y = nn.functional.conv2d(y, stem.convolutions[i].weight, None, stride, 1)
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), unbiased=False, keepdim=True)
        y = ((y - mean) / (var + 1e-5) ** 0.5).clamp(min=0)
    if pool is not None:
        edges = (1, 1, 1, 1) if pool == "padded" else (0, 1, 0, 1)
        y = nn.functional.pad(y, edges).unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))
    assert stem(x).shape == y.shape
    assert torch.allclose(stem(x), y, rtol=1e-9, atol=1e-12)
    assert stem.total_stride == (2 if pool is None else 4)


def test_a_classifier_is_its_formula():
    torch.manual_seed(0)
    x = randn(2, 3, 4, 5)
    head = Classifier(3, 7).double()
    expected = x.mean((2, 3)) @ head.fc.weight.T + head.fc.bias
    assert torch.allclose(head(x), expected, rtol=1e-9)
    corner = Classifier(3, 7, extent=2).double()
    corner.load_state_dict(head.state_dict())
    assert torch.allclose(corner(x), head(x[..., :2, :2]), rtol=1e-9)
    assert torch.allclose(Classifier(3, 0)(x), x.mean((2, 3)), rtol=1e-9)
    assert not Classifier(3, 0, dropout=1.0).double().train()(x).any()


def test_means_of_half_precision_are_summed_in_float32():
    x = torch.full((1, 2, 300, 300), 3.0, dtype=torch.float16)
    assert torch.equal(Classifier(2, 0)(x), torch.full((1, 2), 3.0, dtype=torch.float16))


def test_a_head_gets_the_last_map():
    net = small(head=partial(Classifier, classes=5))
    x = randn(2, 2, 20, 20)
    assert torch.equal(net(x), net.head(net.forward_features(x)[-1]))
    assert net(x).shape == (2, 5)


def test_gradients_reach_every_parameter():
    net = small(attention=GATE, head=partial(Classifier, classes=5)).train()
    net(randn(2, 2, 40, 40)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_new_non_local_blocks_change_nothing():
    torch.manual_seed(0)
    with_blocks = named.nonlocal_resnet50_3d(3, dropout=0.0).eval()
    without = named.nonlocal_resnet50_3d(3, blocks=0, dropout=0.0).eval()
    state = {k: v for k, v in with_blocks.state_dict().items() if ".after." not in k}
    without.load_state_dict(state)
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(with_blocks(x), without(x))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"widths": (4,)}, "widths"),
        ({"output_stride": 12}, "output_stride=12"),
        ({"output_stride": 64}, "output_stride=64"),
        ({"after": GATE}, "after_blocks=None"),
        ({"after_blocks": ((), ())}, "after=None"),
        ({"after": GATE, "after_blocks": ((2,), ())}, "after_blocks"),
        ({"time": (Time(), Time())}, "time"),
        ({"stem": Stem(time=Time())}, "time=None"),
        ({"blocks": ()}, "blocks"),
        ({"blocks": (1, 0)}, "blocks"),
    ],
)
def test_networks_that_cannot_be_built_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        ResNet(BasicBlock, **{"blocks": (2, 2)} | arguments)


def test_bad_stems_heads_and_inputs_are_named():
    with pytest.raises(ValueError, match="widths"):
        Stem(widths=())
    with pytest.raises(ValueError, match="pool='mean'"):
        Stem(pool="mean")
    with pytest.raises(ValueError, match="classes=-1"):
        Classifier(3, -1)
    with pytest.raises(ValueError, match="extent=0"):
        Classifier(3, 2, extent=0)
    for shape in ((1, 3, 8, 8), (1, 2, 8), (1, 2, 4, 8, 8)):
        with pytest.raises(ValueError, match=r"x of shape"):
            small()(randn(*shape))


def exported():
    return small(attention=GATE, head=partial(Classifier, classes=5))


# Tracing and compiling are Python of torch, which the tracer of coverage slows down.
@pytest.mark.no_cover
def test_it_compiles_in_one_graph():
    net, x = exported(), randn(2, 2, 24, 32)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), net(x), rtol=1e-9)


@pytest.mark.no_cover
def test_it_exports_with_any_height_and_width():
    net = exported()
    size = {2: torch.export.Dim("height", min=17), 3: torch.export.Dim("width", min=17)}
    program = torch.export.export(net, (randn(2, 2, 24, 32),), dynamic_shapes=(size,)).module()
    for shape in ((2, 2, 24, 32), (2, 2, 33, 47)):
        assert torch.allclose(program(randn(*shape)), net(randn(*shape)), rtol=1e-9)


@pytest.mark.no_cover
def test_onnx_runtime_computes_the_same(tmp_path):
    net = exported().float()
    size = {2: torch.export.Dim("height", min=17), 3: torch.export.Dim("width", min=17)}
    path = str(tmp_path / "net.onnx")
    x = randn(1, 2, 24, 32).float()
    torch.onnx.export(net, (x,), path, dynamic_shapes=(size,), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = randn(1, 2, 35, 42).float()
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(found), net(x), atol=1e-4)
