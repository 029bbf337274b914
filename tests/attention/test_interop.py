"""What the conversion of reference blocks promises about names, weights and errors."""

import re

import pytest
import torch
from timm.layers.cbam import CbamModule
from torch import nn

from nlden.attention.interop import REFERENCES, from_reference


def gaussian():
    """The weights of AlexHex7's two-dimensional Gaussian block of four channels."""
    norm = {f"W.1.{name}": t for name, t in nn.BatchNorm2d(4).state_dict().items()}
    g = {"g.0.weight": torch.ones(2, 4, 1, 1), "g.0.bias": torch.ones(2)}
    return g | {"W.0.weight": torch.ones(4, 2, 1, 1), "W.0.bias": torch.ones(4)} | norm


def test_every_reference_is_known():
    blocks = "alexhex7.NONLocalBlock{}D", "mmcv.NonLocal{}d"
    assert {block.format(d) for block in blocks for d in (1, 2, 3)} <= set(REFERENCES)
    with pytest.raises(ValueError, match=r"name='timm\.SELayer' must be one of alexhex7"):
        from_reference("timm.SELayer", {})


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("timm.SEModule", {"channels": 8, "rdratio": 0.5}, "'rdratio'; allowed are channels, rd_r"),
        ("timm.SEModule", {}, "'channels'"),
        ("timm.SEModule", {"channels": 8, "gate_layer": "quick_gelu"}, "gate_layer='quick_gelu'"),
        ("timm.GlobalContext", {"channels": 8, "fuse_scale": False}, "scale=False"),
        ("jongchan.ChannelGate", {"gate_channels": 8}, r"jongchan.ChannelGate: reduction=16"),
        ("jongchan.ChannelGate", {"gate_channels": 32, "pool_types": ["min"]}, "min"),
        ("alexhex7.NONLocalBlock1D", {"in_channels": 8, "mode": "rbf"}, "mode='rbf' must be one"),
        ("mmcv.NonLocal2d", {"in_channels": 8, "mode": "rbf"}, "mode='rbf' must be one of gaus"),
        ("mmcv.NonLocal2d", {"in_channels": 8, "reduction": 0}, "reduction=0 must be at least 1"),
        ("mmcv.NonLocal1d", {"in_channels": 8, "conv_cfg": {"type": "Conv2d"}}, "conv_cfg="),
        ("mmcv.NonLocal3d", {"in_channels": 8, "norm_cfg": {"type": "BN2d"}}, "'BN2d' must be"),
        ("mmcv.NonLocal3d", {"in_channels": 8, "norm_cfg": {"type": "BN", "e": 1}}, "norm_cfg="),
        ("mmcv.NonLocal2d", {"in_channels": 8, "norm_cfg": {"type": "GN"}}, "num_groups"),
        ("slowfast.Nonlocal", {"dim": 8, "dim_inner": 4, "norm_type": "l"}, "norm_type='l'"),
        ("slowfast.Nonlocal", {"dim": 8, "dim_inner": 4, "instantiation": "x"}, "instantiation="),
        ("mmseg.DAHead", {"act_cfg": {"type": "GELU"}}, "act_cfg="),
        ("mmseg.DAHead", {"act_cfg": None}, "act_cfg=None"),
        ("mmseg.DAHead", {"input_transform": "resize_concat"}, "input_transform='resize_concat'"),
        ("mmseg.DAHead", {"out_channels": 1}, "out_channels=1 must be None or num_classes=2"),
    ],
)
def test_arguments_that_do_not_fit_are_named(name, arguments, named):
    if name == "mmseg.DAHead":
        defaults = {"in_channels": 8, "channels": 8, "pam_channels": 1, "num_classes": 2}
        arguments = defaults | arguments
    with pytest.raises(ValueError, match=named):
        from_reference(name, {}, **arguments)


def test_weights_that_do_not_fit_are_named():
    weights = {"fc.0.weight": torch.ones(4, 16), "fc.2.weight": torch.ones(16, 4)}
    with pytest.raises(ValueError, match=r"^state_dict has fc\.1\.weight, which moskomule"):
        from_reference("moskomule.SELayer", weights | {"fc.1.weight": torch.ones(1)}, channel=16)
    shapes = re.escape("fc.0.weight of shape (4, 16) instead of (1, 16), fc.2.weight of shape")
    with pytest.raises(ValueError, match=shapes):
        from_reference("moskomule.SELayer", weights, channel=16)
    del weights["fc.2.weight"]
    with pytest.raises(ValueError, match=r"^state_dict lacks fc\.2\.weight of moskomule\.SELayer$"):
        from_reference("moskomule.SELayer", weights, channel=16, reduction=4)


def test_dimensions_are_not_mixed_up():
    weights = gaussian()
    for dims in (1, 3):
        with pytest.raises(ValueError, match=r"g\.0\.weight of shape \(2, 4, 1, 1\)"):
            from_reference(
                f"alexhex7.NONLocalBlock{dims}D", weights, in_channels=4, mode="gaussian"
            )


def test_sub_sampling_shows_in_the_names():
    weights = gaussian()
    with pytest.raises(ValueError, match=r"state_dict has g\.0\.weight, g\.0\.bias, which"):
        from_reference(
            "alexhex7.NONLocalBlock2D", weights, in_channels=4, mode="gaussian", sub_sample=False
        )


def test_weights_are_copies_in_their_own_precision():
    reference = CbamModule(16).half()
    block = from_reference("timm.CbamModule", reference.state_dict(), channels=16)
    assert {p.dtype for p in block.parameters()} == {torch.float16}
    before = block.channel.fc1.weight.clone()
    nn.init.zeros_(reference.channel.fc1.weight)
    assert torch.equal(block.channel.fc1.weight, before)


def test_weights_from_before_batches_were_counted():
    arguments = {"mode": "gaussian", "in_channels": 4}
    weights = gaussian()
    del weights["W.1.num_batches_tracked"]
    block = from_reference("alexhex7.NONLocalBlock2D", weights, **arguments)
    assert block(torch.zeros(2, 4, 4, 4)).shape == (2, 4, 4, 4)
    assert block.norm.num_batches_tracked == 1
