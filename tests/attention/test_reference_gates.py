"""Gates converted from timm and torchvision, and from restatements of what cannot be installed.

The restatements say in few words what the public code computes and how it names its parameters.
"""

import pytest
import torch
from timm.layers.cbam import CbamModule, LightCbamModule
from timm.layers.global_context import GlobalContext
from timm.layers.squeeze_excite import EffectiveSEModule, SEModule
from torch import nn
from torchvision.ops.misc import SqueezeExcitation

CHANNEL_POOLS = {
    "avg": lambda x: x.mean(2),
    "max": lambda x: x.amax(2),
    "lp": lambda x: (x**2).sum(2).sqrt(),
    "lse": lambda x: x.exp().sum(2).log(),
}


class SELayer(nn.Module):
    """moskomule's: layers without bias on the mean."""

    def __init__(self, channel, reduction=16):
        super().__init__()
        inner = channel // reduction
        one, two = nn.Linear(channel, inner, bias=False), nn.Linear(inner, channel, bias=False)
        self.fc = nn.Sequential(one, nn.ReLU(), two, nn.Sigmoid())

    def forward(self, x):
        return x * self.fc(x.mean((2, 3)))[..., None, None]


class ChannelGate(nn.Module):
    """Jongchan's: layers with biases, shared by the poolings."""

    def __init__(self, gate_channels, reduction_ratio=16, pool_types=("avg", "max")):
        super().__init__()
        inner = gate_channels // reduction_ratio
        one, two = nn.Linear(gate_channels, inner), nn.Linear(inner, gate_channels)
        self.mlp = nn.Sequential(nn.Flatten(), one, nn.ReLU(), two)
        self.pool_types = pool_types

    def forward(self, x):
        logits = sum(self.mlp(CHANNEL_POOLS[name](x.flatten(2))) for name in self.pool_types)
        return x * logits.sigmoid()[..., None, None]


class SpatialGate(nn.Module):
    """Jongchan's: maximum before mean, with a slow batch norm."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.spatial = nn.ModuleDict({"conv": conv, "bn": nn.BatchNorm2d(1, momentum=0.01)})

    def forward(self, x):
        planes = torch.stack([x.amax(1), x.mean(1)], 1)
        return x * self.spatial["bn"](self.spatial["conv"](planes)).sigmoid()


class CBAM(nn.Module):
    """Jongchan's: both gates, or the first."""

    def __init__(
        self, gate_channels, reduction_ratio=16, pool_types=("avg", "max"), no_spatial=False
    ):
        super().__init__()
        self.ChannelGate = ChannelGate(gate_channels, reduction_ratio, pool_types)
        self.SpatialGate = None if no_spatial else SpatialGate()

    def forward(self, x):
        x = self.ChannelGate(x)
        return x if self.SpatialGate is None else self.SpatialGate(x)


class LeakyReLU(nn.LeakyReLU):
    """An activation given as a class."""


TIMM = [
    (SEModule, {}),
    (SEModule, {"rd_ratio": 0.3, "rd_divisor": 2, "add_maxpool": True, "bias": False}),
    (SEModule, {"rd_channels": 3, "norm_layer": nn.BatchNorm2d, "gate_layer": "tanh"}),
    (SEModule, {"act_layer": nn.PReLU, "device": "cpu"}),
    (EffectiveSEModule, {}),
    (EffectiveSEModule, {"add_maxpool": True, "gate_layer": nn.Sigmoid}),
    (CbamModule, {}),
    (CbamModule, {"rd_ratio": 0.2, "spatial_kernel_size": 3, "mlp_bias": True}),
    (CbamModule, {"rd_channels": 5, "act_layer": LeakyReLU, "gate_layer": "hard_sigmoid"}),
    (LightCbamModule, {"rd_ratio": 0.25, "gate_layer": "hard_sigmoid"}),
    (GlobalContext, {}),
    (GlobalContext, {"fuse_add": True, "fuse_scale": False, "act_layer": "gelu"}),
    (GlobalContext, {"fuse_add": True, "use_attn": False, "rd_channels": 3}),
]


@pytest.mark.parametrize(("reference", "arguments"), TIMM)
def test_timm(agree, reference, arguments):
    arguments = {"channels": 20} | arguments
    agree(f"timm.{reference.__name__}", reference(**arguments), arguments, width=20)


@pytest.mark.parametrize("more", [{}, {"activation": nn.PReLU, "scale_activation": nn.Hardsigmoid}])
def test_torchvision(agree, more):
    arguments = {"input_channels": 16, "squeeze_channels": 3} | more
    agree("torchvision.SqueezeExcitation", SqueezeExcitation(**arguments), arguments)


@pytest.mark.parametrize(
    ("name", "reference", "arguments"),
    [
        ("moskomule.SELayer", SELayer, {"channel": 16}),
        ("moskomule.SELayer", SELayer, {"channel": 16, "reduction": 3}),
        ("jongchan.ChannelGate", ChannelGate, {"gate_channels": 16}),
        (
            "jongchan.ChannelGate",
            ChannelGate,
            {"gate_channels": 16, "reduction_ratio": 4, "pool_types": ["lse", "avg", "lp"]},
        ),
        ("jongchan.SpatialGate", SpatialGate, {}),
        ("jongchan.CBAM", CBAM, {"gate_channels": 16}),
        (
            "jongchan.CBAM",
            CBAM,
            {"gate_channels": 16, "reduction_ratio": 5, "pool_types": ["max"], "no_spatial": True},
        ),
    ],
)
def test_moskomule_and_jongchan(agree, name, reference, arguments):
    agree(name, reference(**arguments), arguments)
