"""Networks converted from timm and torchvision, and from restatements of what cannot be installed.

The restatements say what the public code computes and how it names its parameters; they are built
on torchvision's networks where the public code is.
"""

import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from nlden.encoders.interop import REFERENCES, from_reference


def randomise(net):
    """Give a network in float64 norms and statistics that are not trivial, and no dropout."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net.double()


def run(net, x):
    """Logits in evaluation; logits, input gradient and new statistics in training."""
    x = x.clone().requires_grad_()
    with torch.no_grad():
        evaluated = net.eval()(x)
    outputs = net.train()(x)
    trained = torch.cat(list(outputs), 1) if isinstance(outputs, tuple) else outputs
    weight = torch.linspace(-1, 1, trained.numel(), dtype=trained.dtype).reshape(trained.shape)
    (gradient,) = torch.autograd.grad((trained * weight).sum(), x)
    with torch.no_grad():
        return evaluated, trained.detach(), gradient, net.eval()(x)


def agree(name, reference, shape, **arguments):
    randomise(reference)
    net = from_reference(name, reference.state_dict(), **arguments)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in net.parameters())
    x = torch.randn(shape, dtype=torch.float64)
    for found, expected in zip(run(net, x), run(reference, x), strict=True):
        assert found.shape == expected.shape
        assert (found - expected).norm() <= 1e-9 * expected.norm()
    return net


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("seresnet18", {"in_chans": 1, "output_stride": 16}),
        ("seresnet50", {"output_stride": 8}),
        ("seresnext50_32x4d", {"num_classes": 0}),
        ("legacy_seresnet18", {"in_chans": 4, "drop_rate": 0.0}),
        ("legacy_seresnet50", {"drop_rate": 0.0}),
        ("legacy_seresnext50_32x4d", {"drop_rate": 0.0}),
    ],
)
def test_timm(name, arguments):
    arguments = {"num_classes": 7} | arguments
    shape = (2, arguments.get("in_chans", 3), 48, 64)
    agree(f"timm.{name}", timm.create_model(name, **arguments), shape, **arguments)


@pytest.mark.slow
def test_timms_senet154():
    reference = timm.create_model("legacy_senet154", num_classes=3, drop_rate=0.0)
    agree("timm.legacy_senet154", reference, (2, 3, 40, 32), num_classes=3, drop_rate=0.0)


@pytest.mark.parametrize("name", [n for n in REFERENCES if re.match(r"timm|torchvision", n)])
def test_every_name_has_the_parameters_of_its_reference(name):
    package, short = name.split(".")
    with torch.device("meta"):
        if package == "timm":
            reference = timm.create_model(short)
        else:
            extra = {"init_weights": False} if short == "inception_v3" else {}
            reference = torchvision.models.get_model(short, **extra)
    net = from_reference(name, reference.state_dict())
    assert len(net.state_dict()) == len(reference.state_dict())


def test_float32_stays_within_a_ten_thousandth():
    reference = randomise(timm.create_model("seresnet50", num_classes=7)).eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    weights = {
        k: v.float() if v.is_floating_point() else v for k, v in reference.state_dict().items()
    }
    net = from_reference("timm.seresnet50", weights, num_classes=7).eval()
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert (net(x.float()) - reference(x)).abs().max() < 1e-4 * reference(x).abs().max()


def test_the_weights_are_copied():
    reference = timm.create_model("seresnet18", num_classes=7)
    net = from_reference("timm.seresnet18", reference.state_dict(), num_classes=7)
    before = reference.fc.weight.clone()
    with torch.no_grad():
        net.head.fc.weight.zero_()
    assert torch.equal(reference.fc.weight, before)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {}),
        ("resnet34", {"zero_init_residual": True}),
        ("resnet50", {"replace_stride_with_dilation": [False, True, True]}),
        ("resnext50_32x4d", {}),
        ("inception_v3", {"aux_logits": False, "transform_input": True, "dropout": 0.1}),
    ],
)
def test_torchvision(name, arguments):
    extra = {"init_weights": False} if name == "inception_v3" else {}
    reference = getattr(torchvision.models, name)(num_classes=7, **arguments, **extra)
    size = (91, 107) if name == "inception_v3" else (48, 64)
    agree(f"torchvision.{name}", reference, (2, 3, *size), num_classes=7, **arguments)


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_torchvisions_clips(name):
    reference = getattr(torchvision.models.video, name)(num_classes=7)
    agree(f"torchvision.{name}", reference, (2, 3, 5, 32, 24), num_classes=7)


class SELayer(nn.Module):
    """Squeeze-and-Excitation as moskomule's repository names it."""

    def __init__(self, channel, reduction=16):
        super().__init__()
        inner = channel // reduction
        self.fc = nn.Sequential(
            nn.Linear(channel, inner, bias=False),
            nn.ReLU(),
            nn.Linear(inner, channel, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.fc(x.mean((2, 3)))[..., None, None]


class Gated(BasicBlock):
    """torchvision's block with a gate before the sum, in an attribute of the repository's name."""

    gate_name = "se"

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y = getattr(self, self.gate_name)(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class GatedBottleneck(Bottleneck):
    gate_name = "cbam"

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        y = getattr(self, self.gate_name)(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class MoskomuleCifar(nn.Module):
    """moskomule's se_resnet20."""

    def __init__(self, num_classes=10, reduction=16):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for i, width in enumerate((16, 32, 64), start=1):
            blocks = []
            for j in range(3):
                stride, shortcut = 1, None
                if inputs != width:
                    stride = 2
                    conv = nn.Conv2d(inputs, width, 1, 2, bias=False)
                    shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))
                assert j == 0 or stride == 1
                block = Gated(inputs, width, stride, shortcut)
                block.se = SELayer(width, reduction)
                blocks.append(block)
                inputs = width
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


@pytest.mark.parametrize("arguments", [{}, {"num_classes": 5, "reduction": 4}])
def test_moskomules_se_resnet20(arguments):
    agree("moskomule.se_resnet20", MoskomuleCifar(**arguments), (2, 3, 32, 32), **arguments)


class MoskomuleInception(nn.Module):
    """moskomule's SE-Inception: the layers have the widths of the inputs and are never called."""

    def __init__(self, num_classes, aux_logits=True, transform_input=False):
        super().__init__()
        self.model = torchvision.models.Inception3(
            num_classes, aux_logits, transform_input, init_weights=False
        )
        widths = {"5b": 192, "5c": 256, "5d": 288, "6a": 288, "7a": 768, "7b": 1280, "7c": 2048}
        widths |= dict.fromkeys(("6b", "6c", "6d", "6e"), 768)
        for block, width in widths.items():
            getattr(self.model, f"Mixed_{block}").add_module("SELayer", SELayer(width))
        if aux_logits:
            self.model.AuxLogits.add_module("SELayer", SELayer(768))

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize(
    ("size", "arguments"), [(299, {"transform_input": True}), (96, {"aux_logits": False})]
)
def test_moskomules_se_inception(size, arguments):
    reference = MoskomuleInception(4, **arguments)
    arguments = {"num_classes": 4} | arguments
    agree("moskomule.se_inception_v3", reference, (2, 3, size, size), **arguments)


class JongchanCBAM(nn.Module):
    """Jongchan's CBAM: biases, maximum before mean, a norm after the convolution."""

    def __init__(self, channels):
        super().__init__()
        self.ChannelGate = nn.Module()
        self.ChannelGate.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, channels // 16), nn.ReLU(),
            nn.Linear(channels // 16, channels),
        )  # fmt: skip
        self.SpatialGate = nn.Module()
        self.SpatialGate.spatial = nn.Module()
        self.SpatialGate.spatial.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.SpatialGate.spatial.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x):
        pooled = self.ChannelGate.mlp(x.mean((2, 3))) + self.ChannelGate.mlp(x.amax((2, 3)))
        x = x * pooled.sigmoid()[..., None, None]
        planes = torch.stack([x.amax(1), x.mean(1)], 1)
        spatial = self.SpatialGate.spatial
        return x * spatial.bn(spatial.conv(planes)).sigmoid()


def jongchan(network_type, depth, num_classes, att_type):
    """Jongchan's ResidualNet."""
    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    kinds = {18: (BasicBlock, Gated), 50: (Bottleneck, GatedBottleneck)}[depth]
    net = torchvision.models.ResNet(kinds[att_type is not None], blocks, num_classes)
    if att_type is not None:
        for module in list(net.modules()):
            if isinstance(module, (Gated, GatedBottleneck)):
                module.gate_name = "cbam"
                width = (module.bn3 if depth == 50 else module.bn2).num_features
                module.cbam = JongchanCBAM(width)
    net.avgpool = nn.AvgPool2d(7)
    if network_type != "ImageNet":
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool, net.avgpool = nn.Identity(), nn.AvgPool2d(4)
    return net


@pytest.mark.parametrize(
    ("network_type", "depth", "att_type", "size"),
    [
        ("ImageNet", 18, "CBAM", (256, 224)),
        ("CIFAR10", 50, "CBAM", (32, 32)),
        ("CIFAR100", 18, None, (32, 40)),
    ],
)
def test_jongchans_residual_net(network_type, depth, att_type, size):
    arguments = {
        "network_type": network_type,
        "depth": depth,
        "num_classes": 6,
        "att_type": att_type,
    }
    agree("jongchan.ResidualNet", jongchan(**arguments), (2, 3, *size), **arguments)


def test_old_weights_without_counters_load():
    reference = randomise(torchvision.models.resnet18(num_classes=3)).eval()
    weights = {k: v for k, v in reference.state_dict().items() if "num_batches" not in k}
    net = from_reference("torchvision.resnet18", weights, num_classes=3).eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(net(x), reference(x), rtol=1e-9)
    assert net.train()(torch.cat([x, x])).isfinite().all()


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("timm.resnet18", {}, "name='timm.resnet18'.*timm.seresnet50"),
        ("timm.seresnet18", {"classes": 7}, "classes.*num_classes"),
        ("timm.seresnet18", {"depth": 7}, "depth.*num_classes"),
        ("timm.seresnet18", {"output_stride": 5}, "output_stride=5"),
        ("timm.seresnet18", {"num_classes": 8}, "fc.weight of shape"),
        ("torchvision.resnet18", {"replace_stride_with_dilation": [True]}, "three values"),
        (
            "torchvision.resnet18",
            {"replace_stride_with_dilation": [True, False, False]},
            "replace_stride_with_dilation=",
        ),
        ("moskomule.se_inception_v3", {}, "num_classes"),
        ("jongchan.ResidualNet", {"depth": 20}, "depth=20"),
        ("jongchan.ResidualNet", {"att_type": "BAM"}, "att_type='BAM'"),
        ("jongchan.ResidualNet", {"network_type": "MNIST"}, "network_type='MNIST'"),
    ],
)
def test_what_does_not_fit_is_named(name, arguments, named):
    if name == "jongchan.ResidualNet":
        defaults = {"network_type": "CIFAR10", "depth": 18, "num_classes": 7, "att_type": "CBAM"}
        arguments = defaults | arguments
    with torch.device("meta"):
        weights = timm.create_model("seresnet18", num_classes=7).state_dict()
    with pytest.raises(ValueError, match=named):
        from_reference(name, weights, **arguments)


def test_weights_that_are_missing_or_too_many_are_named():
    with torch.device("meta"):
        weights = timm.create_model("seresnet18").state_dict()
    with pytest.raises(ValueError, match=re.escape("layer5.0.conv1.weight")):
        from_reference(
            "timm.seresnet18", weights | {"layer5.0.conv1.weight": weights["conv1.weight"]}
        )
    del weights["layer2.0.se.fc1.bias"]
    with pytest.raises(ValueError, match=re.escape("stages.1.0.attention.fc1.bias")):
        from_reference("timm.seresnet18", weights)
