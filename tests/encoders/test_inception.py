"""Inception-v3 and its slots; what it computes is compared with torchvision in test_interop."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from nlden.attention.squeeze_excitation import SqueezeExcitation
from nlden.encoders.inception import Branches, InceptionOutput, InceptionV3, se_inception_v3

WIDTHS = [256, 288, 288, 768, 768, 768, 768, 768, 1280, 2048, 2048]


@pytest.fixture
def without_values():
    with FakeTensorMode():
        yield


@pytest.mark.usefixtures("without_values")
def test_maps_have_the_sizes_of_the_paper():
    net = InceptionV3()
    maps = net(torch.empty(2, 3, 299, 299))
    assert [tuple(m.shape[1:]) for m in maps] == [(288, 35, 35), (768, 17, 17), (2048, 8, 8)]
    assert [m.shape[1] for m in maps] == list(net.channels)
    assert [m.shape[2] for m in net(torch.empty(0, 3, 75, 75))] == [7, 3, 1]


@pytest.mark.usefixtures("without_values")
def test_attention_follows_every_inception_block():
    seen = []

    def slot(channels):
        seen.append(channels)
        return nn.Identity()

    InceptionV3(attention=slot)
    assert seen == WIDTHS
    net = se_inception_v3(7, reduction=4)
    blocks = [block for stage in net.stages for block in stage]
    assert [b.attention.fc1.weight.shape for b in blocks] == [(c // 4, c) for c in WIDTHS]
    assert net(torch.empty(2, 3, 96, 96)).shape == (2, 7)


@pytest.mark.usefixtures("without_values")
def test_the_auxiliary_classifier_speaks_in_training():
    net = se_inception_v3(7, auxiliary=True)
    found = net(torch.empty(2, 3, 299, 299))
    assert isinstance(found, InceptionOutput)
    assert found.logits.shape == found.auxiliary.shape == (2, 7)
    assert isinstance(net.eval()(torch.empty(2, 3, 299, 299)), torch.Tensor)
    without = InceptionV3(1000)
    plain = sum(p.numel() for p in without.parameters())
    assert plain == 23_834_568
    squeezes = sum(2 * c * (c // 16) for c in WIDTHS)
    assert sum(p.numel() for p in se_inception_v3(1000).parameters()) == plain + squeezes


def test_branches_stand_side_by_side_and_are_gated_together():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    left, right = nn.Conv2d(3, 4, 1).double(), nn.Conv2d(3, 2, 1).double()
    block = Branches(left, right, channels=6, attention=lambda c: SqueezeExcitation(c, reduction=2))
    block.double()
    joined = torch.cat([left(x), right(x)], 1)
    assert torch.equal(block(x), block.attention(joined))
    assert not torch.equal(block(x), joined)


def test_rescaling_undoes_the_statistics_of_imagenet():
    torch.manual_seed(0)
    plain = InceptionV3(3).double().eval()
    rescaled = InceptionV3(3, rescale_imagenet=True).double().eval()
    rescaled.load_state_dict(plain.state_dict())
    picture = torch.rand(1, 3, 80, 80, dtype=torch.float64)
    mean, deviation = torch.tensor(
        [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64
    )[..., None, None]
    with torch.no_grad():
        expected = plain(2 * picture - 1)
        assert torch.allclose(rescaled((picture - mean) / deviation), expected, rtol=1e-9)


# Tracing and compiling are Python of torch, which the tracer of coverage slows down.
@pytest.mark.no_cover
def test_it_compiles_and_exports():
    torch.manual_seed(0)
    net = se_inception_v3(3).eval()
    size = {2: torch.export.Dim("height", min=107), 3: torch.export.Dim("width", min=107)}
    x = torch.randn(2, 3, 107, 120)
    program = torch.export.export(net, (x,), dynamic_shapes=(size,)).module()
    other = torch.randn(2, 3, 130, 111)
    with torch.no_grad():
        assert torch.allclose(program(other), net(other), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="auxiliary=True"):
        InceptionV3(auxiliary=True)
    with FakeTensorMode():
        net = InceptionV3()
        for shape in ((1, 4, 80, 80), (1, 3, 80)):
            with pytest.raises(ValueError, match="x of shape"):
                net(torch.empty(shape))
