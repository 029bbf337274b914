"""Non-local and dual attention converted from timm and from restatements of other public code.

The restatements say in few words what that code computes and how it names its parameters.
"""

from functools import partial

import pytest
import torch
from timm.layers.non_local_attn import NonLocalAttn
from torch import nn
from torch.nn import functional as F

from nlden.attention.interop import from_reference

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d(2), 2: nn.MaxPool2d(2), 3: nn.MaxPool3d((1, 2, 2))}


def aggregate(theta, phi, g, form, scale=1.0, concat=None):
    """The N x N map times g, as a map of theta's size; concat is w_f as a module."""
    query, key, value = (t.flatten(2) for t in (theta, phi, g))
    if form == "concatenation":
        pairs = torch.broadcast_tensors(query.unsqueeze(3), key.unsqueeze(2))
        weights = F.relu(concat(torch.cat(pairs, 1))).squeeze(1) / key.shape[2]
    elif form == "dot_product":
        weights = query.mT @ key / key.shape[2]
    else:
        weights = (query.mT @ key * scale).softmax(2)
    return (weights @ value.mT).mT.unflatten(2, theta.shape[2:])


class NONLocalBlock(nn.Module):
    """AlexHex7's, of any dimension and mode: pooling after the projections, no scale."""

    def __init__(
        self, dims, mode, in_channels, inter_channels=None, sub_sample=True, bn_layer=True
    ):
        super().__init__()
        inner, self.mode = inter_channels or max(1, in_channels // 2), mode
        pooled = (lambda m: nn.Sequential(m, POOL[dims])) if sub_sample else (lambda m: m)
        self.g = pooled(CONV[dims](in_channels, inner, 1))
        w = CONV[dims](inner, in_channels, 1)
        self.W = nn.Sequential(w, NORM[dims](in_channels)) if bn_layer else w
        if mode == "gaussian":
            self.theta, self.phi = nn.Identity(), pooled(nn.Identity())
        else:
            self.theta = CONV[dims](in_channels, inner, 1)
            self.phi = pooled(CONV[dims](in_channels, inner, 1))
        if mode == "concatenation":
            self.concat_project = nn.Sequential(nn.Conv2d(2 * inner, 1, 1, bias=False), nn.ReLU())

    def forward(self, x):
        concat = getattr(self, "concat_project", None)
        return x + self.W(
            aggregate(self.theta(x), self.phi(x), self.g(x), self.mode, concat=concat)
        )


class ConvModule(nn.Module):
    """mmcv's convolution, which has a bias unless it has a norm, then an activation."""

    def __init__(self, conv, norm=None, active=False):
        super().__init__()
        self.conv, self.norm_name, self.active = conv, "", active
        if norm is not None:
            conv.bias, self.norm_name = None, "gn" if isinstance(norm, nn.GroupNorm) else "bn"
            self.add_module(self.norm_name, norm)

    def forward(self, x):
        x = self.conv(x)
        x = getattr(self, self.norm_name)(x) if self.norm_name else x
        return F.relu(x) if self.active else x


class MmcvNonLocal(nn.Module):
    """mmcv's, of any dimension; the scale is that of the embedded Gaussian alone."""

    def __init__(self, dims, in_channels, reduction=2, use_scale=True, norm=None,
                 mode="embedded_gaussian", sub_sample=False):  # fmt: skip
        super().__init__()
        inner, self.mode = in_channels // reduction, mode
        self.scale = inner**-0.5 if use_scale and mode == "embedded_gaussian" else 1.0
        pooled = (lambda m: nn.Sequential(m, POOL[dims])) if sub_sample else (lambda m: m)
        self.g = pooled(ConvModule(CONV[dims](in_channels, inner, 1)))
        self.conv_out = ConvModule(CONV[dims](inner, in_channels, 1), norm)
        self.theta, self.phi = nn.Identity(), pooled(nn.Identity())
        if mode != "gaussian":
            self.theta = ConvModule(CONV[dims](in_channels, inner, 1))
            self.phi = pooled(ConvModule(CONV[dims](in_channels, inner, 1)))
        if mode == "concatenation":
            self.concat_project = ConvModule(nn.Conv2d(2 * inner, 1, 1, bias=False))

    def forward(self, x):
        concat = getattr(self, "concat_project", None)
        terms = self.theta(x), self.phi(x), self.g(x)
        return x + self.conv_out(aggregate(*terms, self.mode, self.scale, concat))


class Nonlocal(nn.Module):
    """SlowFast's: pools what phi and g see; softmax with scale, or dot product without."""

    def __init__(self, dim, dim_inner, pool_size=None, instantiation="softmax", norm=None):
        super().__init__()
        for name in ("theta", "phi", "g"):
            self.add_module(f"conv_{name}", nn.Conv3d(dim, dim_inner, 1))
        self.conv_out = nn.Conv3d(dim_inner, dim, 1)
        self.norm = norm
        self.pool = nn.MaxPool3d(pool_size) if pool_size else nn.Identity()
        self.instantiation, self.scale = instantiation, dim_inner**-0.5

    def forward(self, x):
        keys = self.pool(x)
        terms = self.conv_theta(x), self.conv_phi(keys), self.conv_g(keys)
        y = self.conv_out(aggregate(*terms, self.instantiation, self.scale))
        return x + (y if self.norm is None else self.norm(y))


class PAM(nn.Module):
    """Position attention of DANet's authors (suffix conv) and of mmseg (suffix project)."""

    def __init__(self, channels, inner, suffix="conv", gamma=None):
        super().__init__()
        for name, width in (("query", inner), ("key", inner), ("value", channels)):
            self.add_module(f"{name}_{suffix}", nn.Conv2d(channels, width, 1))
        self.suffix = suffix
        self.gamma = gamma or nn.Parameter(torch.zeros(1))

    def forward(self, x):
        terms = (getattr(self, f"{name}_{self.suffix}")(x) for name in ("query", "key", "value"))
        return x + scaled(self.gamma, aggregate(*terms, "softmax"))


class CAM(nn.Module):
    """Channel attention of both: softmax of the largest energy minus the energy."""

    def __init__(self, gamma=None):
        super().__init__()
        self.gamma = gamma or nn.Parameter(torch.zeros(1))

    def forward(self, x):
        flat = x.flatten(2)
        energy = flat @ flat.mT
        weights = (energy.amax(2, keepdim=True) - energy).softmax(2)
        return x + scaled(self.gamma, (weights @ flat).reshape(x.shape))


class Scale(nn.Module):
    """mmcv's learned factor, a parameter without dimensions."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0))


def scaled(gamma, y):
    return y * (gamma.scale if isinstance(gamma, Scale) else gamma)


class DANetHead(nn.Module):
    """The head of DANet's authors."""

    def __init__(self, in_channels, out_channels, norm_layer=nn.BatchNorm2d):
        super().__init__()
        width = in_channels // 4
        for name, before in (
            ("5a", in_channels),
            ("5c", in_channels),
            ("51", width),
            ("52", width),
        ):
            conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
            self.add_module(f"conv{name}", nn.Sequential(conv, norm_layer(width), nn.ReLU()))
        self.sa, self.sc = PAM(width, width // 8), CAM()
        for name in ("conv6", "conv7", "conv8"):
            self.add_module(
                name, nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, out_channels, 1))
            )

    def forward(self, x):
        position = self.conv51(self.sa(self.conv5a(x)))
        channel = self.conv52(self.sc(self.conv5c(x)))
        return self.conv8(position + channel), self.conv6(position), self.conv7(channel)


class DAHead(nn.Module):
    """mmseg's head, without the choice of its input from a list."""

    def __init__(self, in_channels, channels, pam_channels, num_classes, norm=lambda _: None):
        super().__init__()
        for name in ("pam", "cam"):
            for side, width in (("in", in_channels), ("out", channels)):
                conv = nn.Conv2d(width, channels, 3, padding=1)
                self.add_module(f"{name}_{side}_conv", ConvModule(conv, norm(channels), True))
            self.add_module(f"{name}_conv_seg", nn.Conv2d(channels, num_classes, 1))
        self.pam, self.cam = PAM(channels, pam_channels, "project", Scale()), CAM(Scale())
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x):
        position = self.pam_out_conv(self.pam(self.pam_in_conv(x)))
        channel = self.cam_out_conv(self.cam(self.cam_in_conv(x)))
        scores = self.pam_conv_seg(position), self.cam_conv_seg(channel)
        return self.conv_seg(position + channel), *scores


@pytest.mark.parametrize("more", [{}, {"rd_ratio": 0.7, "use_scale": False}, {"rd_channels": 5}])
def test_timm(agree, more):
    arguments = {"in_channels": 20} | more
    agree("timm.NonLocalAttn", NonLocalAttn(**arguments), arguments, width=20)


@pytest.mark.parametrize(
    ("name", "reference", "arguments"),
    [
        (
            "mmseg.PAM",
            lambda in_channels, channels: PAM(in_channels, channels, "project", Scale()),
            {"in_channels": 16, "channels": 3},
        ),
        ("mmseg.CAM", lambda: CAM(Scale()), {}),
        ("danet.PAM_Module", lambda in_dim: PAM(in_dim, in_dim // 8), {"in_dim": 16}),
        ("danet.CAM_Module", lambda in_dim: CAM(), {"in_dim": 16}),
    ],
)
def test_attention_of_danet_and_mmseg(agree, name, reference, arguments):
    agree(name, reference(**arguments), arguments)


MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flags", [(True, True), (False, False)])
def test_alexhex7(agree, dims, mode, flags):
    arguments = {"mode": mode, "in_channels": 6, "sub_sample": flags[0], "bn_layer": flags[1]}
    agree(
        f"alexhex7.NONLocalBlock{dims}D",
        NONLocalBlock(dims, **arguments),
        arguments,
        dims=dims,
        width=6,
    )


def test_alexhex7_width(agree):
    arguments = {"mode": "concatenation", "in_channels": 6, "inter_channels": 5}
    agree("alexhex7.NONLocalBlock2D", NONLocalBlock(2, **arguments), arguments, width=6)
    arguments = {"mode": "embedded_gaussian", "in_channels": 1}
    agree("alexhex7.NONLocalBlock1D", NONLocalBlock(1, **arguments), arguments, dims=1, width=1)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [{}, {"sub_sample": True, "use_scale": False, "reduction": 3}])
def test_mmcv(agree, dims, mode, more):
    arguments = {"in_channels": 6, "mode": mode} | more
    norm = NORM[dims](6, eps=1e-3, momentum=0.2) if more else None
    reference = MmcvNonLocal(dims, norm=norm, **arguments)
    if more:
        arguments["norm_cfg"] = {"type": f"BN{dims}d", "eps": 1e-3, "momentum": 0.2}
        arguments |= {"conv_cfg": {"type": f"Conv{dims}d"}, "zeros_init": False}
    agree(f"mmcv.NonLocal{dims}d", reference, arguments, dims=dims, width=6)


def test_mmcv_with_other_norms(agree):
    reference = MmcvNonLocal(2, 6, norm=nn.GroupNorm(3, 6))
    cfg = {"type": "GN", "num_groups": 3}
    agree("mmcv.NonLocal2d", reference, {"in_channels": 6, "norm_cfg": cfg}, width=6)
    fixed = {"type": "SyncBN", "requires_grad": False}
    weights = MmcvNonLocal(2, 6, norm=nn.BatchNorm2d(6)).state_dict()
    block = from_reference("mmcv.NonLocal2d", weights, in_channels=6, norm_cfg=fixed)
    frozen = [name for name, p in block.named_parameters() if not p.requires_grad]
    assert frozen == ["norm.weight", "norm.bias"]


@pytest.mark.parametrize("instantiation", ["softmax", "dot_product"])
@pytest.mark.parametrize("pool_size", [None, [1, 2, 3]])
@pytest.mark.parametrize("norm_type", ["batchnorm", "layernorm", "none"])
def test_slowfast(agree, instantiation, pool_size, norm_type):
    norms = {
        "batchnorm": nn.BatchNorm3d(6, eps=1e-4, momentum=0.3),
        "layernorm": nn.GroupNorm(1, 6, eps=1e-4, affine=False),
        "none": None,
    }
    arguments = {"dim": 6, "dim_inner": 4, "pool_size": pool_size, "instantiation": instantiation}
    reference = Nonlocal(norm=norms[norm_type], **arguments)
    arguments |= {"norm_type": norm_type, "norm_eps": 1e-4, "norm_momentum": 0.3}
    agree("slowfast.Nonlocal", reference, arguments, dims=3, width=6)


@pytest.mark.parametrize("more", [{}, {"norm_layer": partial(nn.BatchNorm2d, momentum=0.3)}])
def test_danet_head(agree, more):
    arguments = {"in_channels": 32, "out_channels": 3} | more
    block = agree("danet.DANetHead", DANetHead(**arguments), arguments, width=32)
    dropped = from_reference("danet.DANetHead", DANetHead(**arguments).state_dict(), **arguments)
    assert [m.p for m in dropped.modules() if isinstance(m, nn.Dropout2d)] == [0.1] * 3
    assert block.training


@pytest.mark.parametrize("cfg", [None, {"type": "BN", "momentum": 0.3}])
def test_mmseg_head(agree, cfg):
    arguments = {"in_channels": 12, "channels": 8, "pam_channels": 3, "num_classes": 5}
    norm = (lambda width: nn.BatchNorm2d(width, momentum=0.3)) if cfg else (lambda _: None)
    reference = DAHead(**arguments, norm=norm)
    arguments |= {"norm_cfg": cfg, "act_cfg": {"type": "ReLU", "inplace": True}}
    agree("mmseg.DAHead", reference, arguments, width=12)
