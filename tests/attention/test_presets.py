"""Presets build what the implementations of their names compute."""

import pytest
import timm.layers.cbam
import torch
import torchvision

from nlden.attention import (
    CBAM,
    ChannelAttention,
    ChannelGate,
    DualAttention,
    DualAttentionHead,
    NonLocal1d,
    NonLocal2d,
    NonLocal3d,
    PositionAttention,
    SpatialGate,
    SqueezeExcitation,
    from_reference,
)

BLOCKS = {
    SqueezeExcitation: (40,),
    CBAM: (40,),
    ChannelGate: (40,),
    SpatialGate: (),
    NonLocal1d: (40,),
    NonLocal2d: (40,),
    NonLocal3d: (40,),
    PositionAttention: (40,),
    ChannelAttention: (),
    DualAttention: (40,),
    DualAttentionHead: (160, 3),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_paper_is_the_default_and_every_preset_builds(kind):
    assert kind.presets["paper"] == {}
    for preset in kind.presets.values():
        kind(*BLOCKS[kind], **preset)


@pytest.mark.parametrize(
    ("kind", "preset", "name", "reference", "argument"),
    [
        (SqueezeExcitation, "timm", "timm.SEModule", timm.layers.SEModule, "channels"),
        (CBAM, "timm", "timm.CbamModule", timm.layers.cbam.CbamModule, "channels"),
        (NonLocal2d, "timm", "timm.NonLocalAttn", timm.layers.NonLocalAttn, "in_channels"),
    ],
)
def test_timm_presets_compute_what_timm_computes(kind, preset, name, reference, argument):
    # 40 channels: a width that timm rounds to a multiple of eight.
    channels = 40 if kind is not NonLocal2d else 64
    torch.manual_seed(0)
    theirs = reference(channels).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    converted = from_reference(name, theirs.state_dict(), **{argument: channels})
    ours = kind(channels, **kind.presets[preset]).double().eval()
    ours.load_state_dict(converted.state_dict())
    x = torch.randn(2, channels, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-12)


def test_the_preset_of_torchvision_computes_what_torchvision_computes():
    theirs = torchvision.ops.SqueezeExcitation(48, 3).double()
    ours = SqueezeExcitation(48, **SqueezeExcitation.presets["torchvision"]).double()
    ours.load_state_dict(
        {name: t.flatten(1) if t.ndim == 4 else t for name, t in theirs.state_dict().items()}
    )
    x = torch.randn(2, 48, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-12)


def test_official_dual_attention_is_narrow_and_inverted():
    block = DualAttention(40, **DualAttention.presets["official"])
    assert block.position.query.out_channels == 5
    assert block.channel.inverted
    head = DualAttentionHead(160, 3, **DualAttentionHead.presets["official"])
    assert head.position.query.out_channels == 5
    assert head.channel.inverted
