"""Attention in networks that exist already."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from nlden.attention.non_local import NonLocal2d, NonLocal3d
from nlden.attention.squeeze_excitation import SqueezeExcitation
from nlden.encoders.slots import insert_attention


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


CASES = {
    "r3d_18": (
        torchvision.models.video.r3d_18,
        ["layer2.1", "layer3"],
        NonLocal3d,
        (1, 3, 4, 32, 32),
        [128, 256],
    ),
    "resnet50": (
        torchvision.models.resnet50,
        ["layer3.4", "layer2.1", "layer2"],
        NonLocal2d,
        (1, 3, 64, 64),
        [1024, 512, 512],
    ),
    "inception_v3": (
        partial(torchvision.models.inception_v3, init_weights=False),
        ["Mixed_5b", "Mixed_7c"],
        NonLocal2d,
        (1, 3, 80, 80),
        [256, 2048],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_new_blocks_change_nothing_and_learn(name):
    build, where, factory, shape, widths = CASES[name]
    net = build(num_classes=5).eval()
    x = torch.randn(shape)
    with torch.no_grad():
        expected = net(x)
    seen = []

    def slot(channels):
        seen.append(channels)
        return factory(channels)

    assert insert_attention(net, where, slot) is net
    assert seen == widths
    with torch.no_grad():
        assert torch.equal(net(x), expected)
    blocks = [m for m in net.modules() if isinstance(m, factory)]
    assert len(blocks) == len(where)
    for block in blocks:
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.1)
    assert not torch.allclose(net(x), expected)


def test_statistics_weights_and_mode_stay_as_they_were():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)).double()
    net[1].eval()
    before = copy.deepcopy(net.state_dict())
    insert_attention(net, "1", partial(SqueezeExcitation, reduction=2))
    after = net.state_dict()
    for key, value in before.items():
        found = after[key.replace("1.", "1.0.")]
        assert torch.equal(found, value)
        assert found.device == value.device
    gate = net[1][1]
    assert not gate.training
    assert net.training
    assert {p.dtype for p in gate.parameters()} == {torch.float64}
    assert not net[1][0]._forward_hooks


def test_dimensions_follow_the_first_convolution_or_the_example():
    line = nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU())
    insert_attention(line, ["1"], partial(SqueezeExcitation, reduction=2))
    assert line(torch.randn(2, 2, 9)).shape == (2, 6, 7)
    net = nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (5, 7)), nn.Identity())
    insert_attention(
        net, ["1"], partial(SqueezeExcitation, reduction=2), example=torch.ones(1, 4, 35)
    )
    assert net(torch.ones(1, 4, 35)).shape == (1, 4, 5, 7)


def test_it_trains_and_compiles():
    net = torchvision.models.resnet18(num_classes=3)
    insert_attention(net, ["layer3.1"], NonLocal2d)
    x = torch.randn(2, 3, 64, 64)
    net(x).sum().backward()
    (block,) = (m for m in net.modules() if isinstance(m, NonLocal2d))
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
    net.eval()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), net(x), atol=1e-5)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.spare = nn.Conv2d(3, 4, 1)
        self.pair = nn.Identity()

    def forward(self, x):
        return self.pair((self.conv(x), x))[0]


@pytest.mark.parametrize(
    ("where", "named"),
    [
        (["conv", "missing"], r"\['missing'\].*conv"),
        ([""], r"\[''\]"),
        (["conv", "conv"], "once"),
        (["spare"], "'spare'.*unused"),
        (["pair"], "'pair'.*tuple"),
    ],
)
def test_modules_without_a_map_are_named_and_nothing_changes(where, named):
    net = Unused()
    before = list(dict(net.named_modules()))
    with pytest.raises(ValueError, match=named):
        insert_attention(net, where, nn.BatchNorm2d)
    assert list(dict(net.named_modules())) == before


def test_inputs_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(1, 5, 8, 8\)"):
        insert_attention(Unused(), ["conv"], nn.BatchNorm2d, example=torch.ones(1, 5, 8, 8))
    with pytest.raises(ValueError, match="example=None"):
        insert_attention(nn.Sequential(nn.Linear(3, 3)), ["0"], nn.BatchNorm2d)
