"""Convolutions and residual blocks against formulas in float64."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nlden.encoders.convolutions import Time, convolution, factored_width
from nlden.encoders.residual import BasicBlock, Bottleneck


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def prepare(module):
    """The module in float64 and evaluation, with statistics that are not trivial."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    return module.double().eval()


def conv(x, weight, *arguments):
    return (F.conv2d if x.ndim == 4 else F.conv3d)(x, weight, None, *arguments)


def normalised(x, layer):
    mean, deviation = layer.running_mean, (layer.running_var + layer.eps) ** 0.5
    scale, shift = layer.weight / deviation, layer.bias - layer.weight * mean / deviation
    size = (1, -1, *[1] * (x.ndim - 2))
    return x * scale.reshape(size) + shift.reshape(size)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("relu_before", [False, True])
def test_a_basic_block_is_its_formula(stride, relu_before):
    gate = partial(nn.Conv2d, out_channels=6, kernel_size=1)
    block = prepare(
        BasicBlock(
            4,
            6,
            stride=stride,
            dilations=(1, 2),
            attention=gate,
            after=gate,
            relu_before_attention=relu_before,
        )
    )
    x = randn(2, 4, 7, 8)
    y = normalised(conv(x, block.conv1.weight, stride, 1), block.norm1).clamp(min=0)
    y = normalised(conv(y, block.conv2.weight, 1, 2, 2), block.norm2)
    y = block.attention(y.clamp(min=0) if relu_before else y)
    kernel, scale = block.shortcut
    y = (y + normalised(conv(x, kernel.weight, stride), scale)).clamp(min=0)
    assert torch.allclose(block(x), block.after(y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stride_first", [False, True])
def test_a_bottleneck_is_its_formula(stride_first):
    block = prepare(
        Bottleneck(
            8,
            16,
            stride=2,
            dilations=(2, 2),
            shortcut_kernel=3,
            groups=2,
            group_width=32,
            first_reduction=2,
            stride_first=stride_first,
        )
    )
    assert block.conv1.weight.shape == (8, 8, 1, 1)
    assert block.conv2.weight.shape == (16, 4, 3, 3)
    assert block.channels == 64
    first, second = (2, 1) if stride_first else (1, 2)
    x = randn(2, 8, 9, 12)
    y = normalised(conv(x, block.conv1.weight, first), block.norm1).clamp(min=0)
    y = conv(y, block.conv2.weight, second, 2, 2, 2)
    y = normalised(y, block.norm2).clamp(min=0)
    y = normalised(conv(y, block.conv3.weight), block.norm3)
    kernel, scale = block.shortcut
    y = (y + normalised(conv(x, kernel.weight, 2, 2, 2), scale)).clamp(min=0)
    assert torch.allclose(block(x), y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("inflate", "kernels"), [("1x1", [(3, 1, 1), (1, 3, 3)]), ("3x3", [(1, 1, 1), (3, 3, 3)])]
)
def test_inflation_is_a_convolution_over_frames(inflate, kernels):
    time = Time(inflate=inflate, stride=2)
    block = prepare(Bottleneck(8, 2, stride=2, time=time))
    assert [c.weight.shape[2:] for c in (block.conv1, block.conv2)] == kernels
    assert block.conv3.weight.shape[2:] == (1, 1, 1)
    x = randn(1, 8, 5, 6, 7)
    along = [(2, 1, 1), (1, 2, 2)] if inflate == "1x1" else [(1, 1, 1), (2, 2, 2)]
    y = x
    for layer, scale, stride in zip(
        (block.conv1, block.conv2), (block.norm1, block.norm2), along, strict=True
    ):
        half = tuple(k // 2 for k in layer.weight.shape[2:])
        y = normalised(conv(y, layer.weight, stride, half), scale).clamp(min=0)
    y = normalised(conv(y, block.conv3.weight), block.norm3)
    kernel, scale = block.shortcut
    y = (y + normalised(conv(x, kernel.weight, 2), scale)).clamp(min=0)
    assert torch.allclose(block(x), y, rtol=1e-9, atol=1e-12)


def test_factors_have_the_parameters_of_the_whole():
    torch.manual_seed(0)
    whole = convolution(64, 128, 3, time=Time())
    factored = convolution(64, 128, 3, time=Time(factored=True))
    assert factored_width(64, 128, 3, 3) == 230  # floor(3 * 9 * 64 * 128 / (9 * 64 + 3 * 128))
    spatial, scale, _, temporal = factored
    assert (scale.num_features, spatial.kernel_size, temporal.kernel_size) == (
        230,
        (1, 3, 3),
        (3, 1, 1),
    )
    count = spatial.weight.numel() + temporal.weight.numel()
    assert 0 <= whole.weight.numel() - count < 9 * 64 + 3 * 128


def test_the_width_between_factors_is_the_convolutions_or_the_blocks():
    def widths(middle):
        block = BasicBlock(64, 128, time=Time(factored=True, middle=middle))
        return block.conv1[0].out_channels, block.conv2[0].out_channels

    assert widths("convolution") == (230, 288)
    assert widths("block") == (230, 230)
    assert widths(45) == (45, 45)


def test_the_variance_survives_a_convolution():
    torch.manual_seed(0)
    weight = convolution(32, 64, 3).weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_blocks_take_their_share_of_a_stages_time():
    time = Time((3, 1), stride=2)
    assert [time.of_block(i).extents for i in range(3)] == [(3,), (1,), (3,)]
    assert [time.of_block(i).stride for i in range(3)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"extents": (2,)}, "extents"),
        ({"extents": ()}, "extents"),
        ({"stride": 0}, "stride=0"),
        ({"pool": 0}, "pool=0"),
        ({"pool": 2}, "pool=2"),
        ({"inflate": "5x5"}, "inflate='5x5'"),
        ({"middle": "half"}, "middle='half'"),
        ({"middle": 0}, "middle=0"),
    ],
)
def test_times_that_make_no_sense_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        Time(**arguments)


def test_blocks_that_cannot_be_built_are_named():
    with pytest.raises(ValueError, match="inflate='1x1'"):
        BasicBlock(4, 4, time=Time(inflate="1x1"))
    with pytest.raises(ValueError, match="groups=2"):
        convolution(4, 4, 3, groups=2, time=Time(factored=True))
    with pytest.raises(ValueError, match="group_width=4"):
        Bottleneck(4, 8, group_width=4)
