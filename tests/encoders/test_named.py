"""The numbers of the named networks, on tensors that have shapes and no values."""

from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from nlden.attention.cbam import CBAM
from nlden.attention.non_local import NonLocal3d
from nlden.attention.squeeze_excitation import SqueezeExcitation
from nlden.encoders import named

# Parameters with 1,000 classes (400 for clips), of torchvision where it has the network.
IMAGES = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    # Hu et al., equation 5: 2 / 16 times the sum of C^2 over the blocks comes on top.
    "se_resnet18": 11_689_512 + 2 * 2 * (64**2 + 128**2 + 256**2 + 512**2) // 16,
    "se_resnet34": 21_797_672 + 2 * (3 * 64**2 + 4 * 128**2 + 6 * 256**2 + 3 * 512**2) // 16,
    "se_resnet50": 25_557_032 + 2_514_944,
    "se_resnet101": 44_549_160 + 2_514_944 + 2 * 17 * 1024**2 // 16,
    "se_resnext50_32x4d": 25_028_904 + 2_514_944,
    # timm's legacy_senet154 less the biases of its squeezes, C and C / 16 in every block.
    "senet154": 115_088_984 - (3 * 256 + 8 * 512 + 36 * 1024 + 3 * 2048) * 17 // 16,
    # CBAM adds the two layers of its channel gate and 2x7x7 weights of its spatial gate.
    "cbam_resnet18": 11_689_512 + 2 * 2 * (64**2 + 128**2 + 256**2 + 512**2) // 16 + 8 * 98,
    "cbam_resnet34": 21_797_672
    + 2 * (3 * 64**2 + 4 * 128**2 + 6 * 256**2 + 3 * 512**2) // 16
    + 16 * 98,
    "cbam_resnet50": 25_557_032 + 2_514_944 + 16 * 98,
    "cbam_resnet101": 44_549_160 + 2_514_944 + 2 * 17 * 1024**2 // 16 + 33 * 98,
}
CLIPS = {
    "r3d_18": (33_371_472, (8, 4, 2, 1)),
    "mc3_18": (11_695_440, (8, 8, 8, 8)),
    "r2plus1d_34": (None, (8, 4, 2, 1)),
}


@pytest.fixture(autouse=True)
def without_values():
    with FakeTensorMode():
        yield


def build(name, *arguments, **named_arguments):
    return getattr(named, name)(*arguments, **named_arguments)


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", IMAGES)
def test_image_networks_have_the_parameters_of_their_papers(name):
    net = build(name, 1000)
    assert count(net) == IMAGES[name]
    maps = net.forward_features(torch.empty(2, 3, 224, 224))
    assert net.head(maps[-1]).shape == (2, 1000)
    assert [m.shape[2:] for m in maps] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert [m.shape[1] for m in maps] == net.channels


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_plain_networks_take_channels_strides_and_attention(name):
    seen = []

    def slot(channels):
        seen.append(channels)
        return nn.Identity()

    net = build(name, in_channels=4, output_stride=8, attention=slot)
    assert [m.shape[2] for m in net(torch.empty(1, 4, 64, 64))] == [16, 8, 8, 8]
    assert len(seen) == sum(len(stage) for stage in net.stages)


@pytest.mark.parametrize("name", ["resnet34", "resnet101", "resnet152"])
def test_the_other_depths_do_so_too(name):
    net = build(name, 5, in_channels=1, output_stride=16, attention=SqueezeExcitation)
    assert net(torch.empty(2, 1, 64, 64)).shape == (2, 5)
    assert net.forward_features(torch.empty(2, 1, 64, 64))[-1].shape[2:] == (4, 4)
    gates = [m for m in net.modules() if isinstance(m, SqueezeExcitation)]
    assert len(gates) == sum(named.BLOCKS[int(name[6:])][1])


@pytest.mark.parametrize(("name", "reduction"), [("se_resnet18", 4), ("cbam_resnet18", 8)])
def test_the_reduction_reaches_the_gates(name, reduction):
    net = build(name, reduction=reduction)
    widths = [p.shape for n, p in net.named_parameters() if n.endswith("fc1.weight")]
    assert widths == [(c // reduction, c) for c in (64, 128, 256, 512) for _ in range(2)]


def test_gates_stand_before_the_sum():
    for name, kind in (("se_resnet50", SqueezeExcitation), ("cbam_resnet50", CBAM)):
        blocks = [block for stage in build(name).stages for block in stage]
        assert all(isinstance(block.attention, kind) for block in blocks)


def test_the_cifar_network():
    net = build("se_resnet20", 10)
    maps = net.forward_features(torch.empty(2, 3, 32, 32))
    assert [m.shape[1:] for m in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert net(torch.empty(2, 3, 32, 32)).shape == (2, 10)
    weighted = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == 20 + 2 + 2 * 9  # its depth, two shortcuts and the gates


def test_the_encoder_of_danet_gives_its_last_map_to_the_head():
    net = build("danet_resnet50")
    assert [tuple(m.shape[1:]) for m in net(torch.empty(1, 3, 64, 64))] == [
        (256, 16, 16),
        (512, 8, 8),
        (1024, 8, 8),
        (2048, 8, 8),
    ]
    headed = build("danet_resnet50", partial(nn.Conv2d, out_channels=5, kernel_size=1))
    assert headed(torch.empty(1, 3, 64, 64)).shape == (1, 5, 8, 8)


@pytest.mark.parametrize("name", CLIPS)
def test_clip_networks_of_tran(name):
    parameters, frames = CLIPS[name]
    net = build(name, 400)
    assert parameters in (None, count(net))
    maps = net.forward_features(torch.empty(2, 3, 8, 112, 112))
    found = [(m.shape[2], m.shape[3]) for m in maps]
    assert found == list(zip(frames, (56, 28, 14, 7), strict=True))
    assert net(torch.empty(2, 3, 8, 112, 112)).shape == (2, 400)


def test_factored_networks_weigh_what_the_whole_ones_do():
    # Tran et al. choose the widths for it; what is missing is rounding, the norms of the factors
    # come on top, and the stem has a width of its own.
    whole, factored = count(build("r3d_18")), count(build("r2plus1d_18"))
    assert factored == pytest.approx(whole, rel=2e-3)
    assert count(build("r2plus1d_18", 400, middle="block")) == 31_505_325


@pytest.mark.parametrize(
    ("blocks", "places"),
    [
        (0, []),
        (1, [(2, 4)]),
        (5, [(1, 1), (1, 3), (2, 1), (2, 3), (2, 5)]),
        (10, [(1, i) for i in range(4)] + [(2, i) for i in range(6)]),
    ],
)
def test_non_local_blocks_stand_where_wang_puts_them(blocks, places):
    net = build("nonlocal_resnet50_3d", blocks=blocks)
    units = [
        (i, int(j))
        for i, s in enumerate(net.stages)
        for j, b in s.named_children()
        if j != "pool" and b.after is not None
    ]
    assert units == places
    kinds = [m for m in net.modules() if isinstance(m, NonLocal3d)]
    assert len(kinds) == blocks


@pytest.mark.parametrize("inflate", ["1x1", "3x3", None])
def test_the_maps_of_a_clip_have_the_sizes_of_wangs_table(inflate):
    net = build("nonlocal_resnet50_3d", 400, inflate=inflate, non_local=lambda _: nn.Identity())
    maps = net.forward_features(torch.empty(1, 3, 32, 224, 224))
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 56, 56), (4, 28, 28), (4, 14, 14), (4, 7, 7)]
    assert net(torch.empty(1, 3, 32, 224, 224)).shape == (1, 400)
    extents = {
        n: m.kernel_size for n, m in net.named_modules() if isinstance(m, nn.Conv3d) and "conv" in n
    }
    inflated = {n for n, kernel in extents.items() if kernel[0] > 1}
    assert ("stem.convolutions.0" in inflated) == (inflate is not None)
    conv, kernel = ("conv2", (3, 3, 3)) if inflate == "3x3" else ("conv1", (3, 1, 1))
    expected = {
        f"stages.{s}.{b}.{conv}" for s, n in enumerate((3, 4, 6, 3)) for b in range(0, n, 2)
    }
    assert inflated - {"stem.convolutions.0"} == (set() if inflate is None else expected)
    assert {extents[n] for n in inflated if n.startswith("stages")} <= {kernel}


def test_other_numbers_of_non_local_blocks_are_named():
    with pytest.raises(ValueError, match="blocks=3"):
        named.nonlocal_resnet50_3d(blocks=3)
