import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nlden.attention.dual_attention import (
    ChannelAttention,
    DualAttention,
    DualAttentionHead,
    PositionAttention,
    dual_attention_loss,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def active(block):
    """In float64, and gamma is no longer zero."""
    for number, (name, parameter) in enumerate(block.double().named_parameters()):
        parameter.data = 0.4 * randn(*parameter.shape, seed=number)
        if name.endswith("gamma"):
            parameter.data.fill_(0.7)
    return block


def same_with_gradients(got, want, inputs):
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    cotangent = randn(*want.shape, seed=9)
    ours, theirs = (torch.autograd.grad(y, inputs, cotangent) for y in (got, want))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def softmax(energy):
    """Of the last dimension, by its definition."""
    weights = torch.exp(energy - energy.detach().max(-1, keepdim=True).values)
    return weights / weights.sum(-1, keepdim=True)


def position_formula(a, block):
    """``E_j = alpha sum_i s_ji D_i + A_j`` with the whole N x N map."""
    flat = a.flatten(2)

    def project(layer):
        return torch.einsum("oc,bcn->bon", layer.weight[..., 0], flat) + layer.bias[:, None]

    b, c, d = project(block.key), project(block.query), project(block.value)
    s = softmax(torch.einsum("bci,bcj->bji", b, c))
    return (block.gamma * torch.einsum("bji,bci->bcj", s, d) + flat).reshape(a.shape)


def channel_formula(a, block):
    """``E_j = beta sum_i x_ji A_i + A_j`` with the softmax of the paper or of the authors' code."""
    flat = a.flatten(2)
    energy = torch.einsum("bin,bjn->bji", flat, flat)
    if block.inverted:
        energy = energy.max(-1, keepdim=True).values - energy
    x = softmax(energy)
    return (block.gamma * torch.einsum("bji,bin->bjn", x, flat) + flat).reshape(a.shape)


@pytest.mark.parametrize("size", [(9,), (4, 3), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("inner", [None, 1, 3])
def test_position_attention_follows_the_formula_with_all_gradients(inner, size):
    block = active(PositionAttention(6, inner=inner))
    x = randn(2, 6, *size).requires_grad_()
    same_with_gradients(block(x), position_formula(x, block), [x, *block.parameters()])


@pytest.mark.parametrize("size", [(9,), (4, 3), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("inverted", [False, True])
def test_channel_attention_follows_the_formula_with_all_gradients(inverted, size):
    block = active(ChannelAttention(inverted=inverted))
    x = (0.5 * randn(2, 6, *size)).requires_grad_()
    same_with_gradients(block(x), channel_formula(x, block), [x, *block.parameters()])


def test_dual_attention_is_their_sum():
    block = active(DualAttention(6, inner=2, inverted=True))
    x = (0.5 * randn(2, 6, 4, 3)).requires_grad_()
    expected = position_formula(x, block.position) + channel_formula(x, block.channel)
    same_with_gradients(block(x), expected, [x, *block.parameters()])


def test_new_blocks_are_the_identity():
    x = randn(2, 8, 5, 7).float()
    assert torch.equal(PositionAttention(8)(x), x)
    assert torch.equal(ChannelAttention()(x), x)
    assert torch.equal(DualAttention(8)(x), 2 * x)


def test_defaults_are_those_of_the_paper():
    shapes = {k: tuple(v.shape) for k, v in DualAttention(8).state_dict().items()}
    assert shapes == {
        "position.gamma": (1,),
        "position.query.weight": (8, 8, 1),
        "position.query.bias": (8,),
        "position.key.weight": (8, 8, 1),
        "position.key.bias": (8,),
        "position.value.weight": (8, 8, 1),
        "position.value.bias": (8,),
        "channel.gamma": (1,),
    }
    assert not DualAttention(8).channel.inverted


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(8)), inverted=st.booleans())
def test_channel_attention_knows_no_order_of_channels(order, inverted):
    block = active(ChannelAttention(inverted=inverted))
    x = randn(2, 8, 3, 4)
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order], rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(12)))
def test_position_attention_knows_no_places(order):
    block = active(PositionAttention(4))
    x = randn(2, 4, 12)
    torch.testing.assert_close(block(x[..., order]), block(x)[..., order], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_channel_energies_of_a_thousand_million_decide_rightly(dtype, inverted):
    block = active(ChannelAttention(inverted=inverted)).to(dtype)
    x = (550 * randn(1, 8, 64, 64)).to(dtype).requires_grad_()
    assert x.double().flatten(2).pow(2).sum(2).max() > 1e9
    y = block(x)
    expected = channel_formula(x.double(), block.double())
    assert (y - expected).norm() <= 0.01 * expected.norm()
    assert torch.autograd.grad(y.float().sum(), x)[0].isfinite().all()


class Unit(nn.Sequential):
    """3x3 convolution, norm or bias, ReLU, as both references have them."""

    def __init__(self, before, after, norm):
        conv = nn.Conv2d(before, after, 3, padding=1, bias=not norm)
        super().__init__(conv, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU())


class Reference(nn.Module):
    """The order of both public heads: position, channel, sum; energies with N x N maps."""

    def __init__(self, channels, width, inner, classes, norm):
        super().__init__()
        self.position_in, self.channel_in = Unit(channels, width, norm), Unit(channels, width, norm)
        self.query, self.key = nn.Conv2d(width, inner, 1), nn.Conv2d(width, inner, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.position_gamma = nn.Parameter(torch.tensor([0.4]))
        self.channel_gamma = nn.Parameter(torch.tensor([-0.3]))
        self.position_out, self.channel_out = Unit(width, width, norm), Unit(width, width, norm)
        self.classifiers = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in range(3))

    def forward(self, x):
        a = self.position_in(x)
        query, key, value = (m(a).flatten(2) for m in (self.query, self.key, self.value))
        attention = torch.softmax(query.mT @ key, dim=2)
        a = self.position_out(self.position_gamma * (value @ attention.mT).reshape(a.shape) + a)
        scores = [self.classifiers[0](F.dropout2d(a, 0.1, self.training))]
        b = self.channel_in(x)
        flat = b.flatten(2)
        energy = flat @ flat.mT
        attention = torch.softmax(energy.amax(2, keepdim=True) - energy, dim=2)
        b = self.channel_out(self.channel_gamma * (attention @ flat).reshape(b.shape) + b)
        scores.append(self.classifiers[1](F.dropout2d(b, 0.1, self.training)))
        return self.classifiers[2](F.dropout2d(a + b, 0.1, self.training)), *scores


def adopt(head, reference):
    """Take the parameters of a reference; return the pairs."""
    theirs = dict(reference.named_parameters())
    renamed = {
        "position.gamma": "position_gamma",
        "channel.gamma": "channel_gamma",
        "classify_position.1": "classifiers.0",
        "classify_channel.1": "classifiers.1",
        "classify_sum.1": "classifiers.2",
        "position.": "",
    }
    pairs = []
    for name, parameter in head.named_parameters():
        old = next((k for k in renamed if name.startswith(k)), "")
        other = theirs.pop(renamed.get(old, "") + name[len(old) :])
        parameter.data = other.data.reshape(parameter.shape).clone()
        pairs.append((parameter, other))
    assert not theirs
    return pairs


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("norm", "ours", "width", "inner"),
    [
        (True, {"inner": 2}, 16, 2),  # the authors' code: in_channels / 4 and an eighth of that
        (False, {"width": 12, "inner": 5}, 12, 5),  # mmseg without norm_cfg
        (True, {"width": 12}, 12, 12),  # the paper's projections
    ],
)
def test_the_public_heads(norm, ours, width, inner, training):
    torch.manual_seed(0)
    head = DualAttentionHead(64, 5, inverted=True, norm=norm, **ours).double().train(training)
    reference = Reference(64, width, inner, 5, norm).double().train(training)
    pairs = adopt(head, reference)
    x = randn(3, 64, 7, 5).requires_grad_()
    results = []
    for module in (head, reference):
        torch.manual_seed(3)  # the same dropout
        results.append(module(x))
    got, want = results
    weights = [randn(*t.shape, seed=9 + i) for i, t in enumerate(want)]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    ours_, theirs = (
        torch.autograd.grad(out, [x, *(p[i] for p in pairs)], weights)
        for i, out in enumerate(results)
    )
    for a, b in zip(ours_, theirs, strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=1e-9, atol=1e-9)
    for kept, fresh in zip(head.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(kept.sum(), fresh.sum())


def test_a_head_counts_its_channels():
    head = DualAttentionHead(32, 3)
    assert head.position.query.weight.shape == (8, 8, 1)
    assert head.classify_sum[0].p == 0.1
    assert head.position_in[0].bias is None


def by_hand(scores, target, ignore, count_ignored):
    """The mean of the negative logarithm of the right class's share."""
    losses = []
    for b in range(target.shape[0]):
        for row in range(target.shape[1]):
            for column in range(target.shape[2]):
                right = int(target[b, row, column])
                if right != ignore:
                    share = scores[b, :, row, column].exp()
                    losses.append(-torch.log(share[right] / share.sum()))
    return sum(losses) / (target.numel() if count_ignored else len(losses))


@pytest.mark.parametrize("count_ignored", [False, True])
@pytest.mark.parametrize("ignore", [-1, 255])
def test_the_loss_is_the_weighted_sum_of_cross_entropies(ignore, count_ignored):
    scores = [randn(2, 4, 3, 5, seed=i).requires_grad_() for i in range(3)]
    target = torch.randint(0, 4, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    target[0, :2] = ignore
    weights = (1.0, 0.5, 0.25)
    loss = dual_attention_loss(
        scores, target, weights=weights, ignore=ignore, count_ignored=count_ignored
    )
    each = [by_hand(s, target, ignore, count_ignored) for s in scores]
    same_with_gradients(loss, sum(w * e for w, e in zip(weights, each, strict=True)), scores)
    plain = dual_attention_loss(scores, target, ignore=ignore, count_ignored=count_ignored)
    torch.testing.assert_close(plain, sum(each))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("small", "size", "mode"),
    [((3,), (8,), "linear"), ((3, 2), (8, 9), "bilinear"), ((2, 2, 1), (4, 5, 3), "trilinear")],
)
def test_the_loss_interpolates_to_the_size_of_the_target(small, size, mode, align_corners):
    scores = [randn(2, 4, *small, seed=i) for i in range(3)]
    target = torch.randint(0, 4, (2, *size), generator=torch.Generator().manual_seed(0))
    large = [F.interpolate(s, size, mode=mode, align_corners=align_corners) for s in scores]
    torch.testing.assert_close(
        dual_attention_loss(scores, target, align_corners=align_corners),
        sum(F.cross_entropy(s, target) for s in large),
    )


def test_a_target_without_labels_costs_nothing():
    scores = [randn(2, 4, 3, 3, seed=i).half().requires_grad_() for i in range(3)]
    loss = dual_attention_loss(scores, torch.full((2, 3, 3), -1))
    assert loss.dtype == torch.float32
    assert loss == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, scores))
    assert dual_attention_loss([s[:0] for s in scores], torch.zeros(0, 3, 3).long()) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PositionAttention(8, inner=0), "inner=0 must be .*channels=8, reduction=1"),
        (lambda: DualAttentionHead(3, 5), r"width=0 must be at least 1 \(channels=3\)"),
        (lambda: DualAttentionHead(8, 0), "classes=0 must be at least 1"),
        (lambda: DualAttentionHead(8, 2, dropout=1.5), r"dropout=1.5 must lie in 0\.\.1"),
        (lambda: DualAttentionHead(8, 2, dimensions=4), "dimensions=4 must be 1, 2 or 3"),
        (lambda: dual_attention_loss([], torch.zeros(1, 2, 2)), "must be three, not 0 and 3"),
        (
            lambda: dual_attention_loss([torch.zeros(1, 2, 3)] * 3, torch.zeros(1, 2, 2)),
            r"\(1, 2, 3\) must be \(B, C, \*size\) with 2 dimensions",
        ),
    ],
)
def test_impossible_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
