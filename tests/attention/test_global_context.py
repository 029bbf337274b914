import pytest
import timm.layers
import torch
from torch import nn

from nlden.attention.global_context import GlobalContext


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def active(block):
    """In float64, and nothing starts at zero or one any more."""
    for number, parameter in enumerate(block.double().parameters()):
        parameter.data = 0.4 * randn(*parameter.shape, seed=number)
    return block


def same_with_gradients(got, want, inputs, pairs=()):
    """Compare outputs and their gradients by shared inputs and by pairs of parameters."""
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    cotangent = randn(*want.shape, seed=9)
    ours = torch.autograd.grad(got, [*inputs, *(a for a, _ in pairs)], cotangent)
    theirs = torch.autograd.grad(want, [*inputs, *(b for _, b in pairs)], cotangent)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=1e-9, atol=1e-11)


def formula(x, block):
    """The block position by position, as the paper writes it."""
    flat = x.flatten(2)
    positions = range(flat.shape[2])
    if block.key is None:
        weights = [torch.full_like(flat[:, 0, 0], 1 / len(positions)) for _ in positions]
    else:
        key, bias = block.key.weight[0, :, 0], block.key.bias
        energies = [(torch.exp(flat[..., j] @ key + bias)) for j in positions]
        weights = [e / sum(energies) for e in energies]
    context = sum(w[:, None] * flat[..., j] for j, w in zip(positions, weights, strict=True))

    def transform(part):
        y = context @ part.fc1.weight.T + part.fc1.bias
        away = y - y.mean(1, keepdim=True)
        y = away / (away.pow(2).mean(1, keepdim=True) + part.norm.eps).sqrt()
        y = (y * part.norm.weight + part.norm.bias).clamp(min=0)
        return (y @ part.fc2.weight.T + part.fc2.bias)[..., None]

    y = flat
    if block.scale is not None:
        y = y / (1 + torch.exp(-transform(block.scale)))
    if block.add is not None:
        y = y + transform(block.add)
    return y.reshape(x.shape)


@pytest.mark.parametrize("size", [(7,), (4, 3), (2, 3, 2), (1, 1)])
@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize(("add", "scale"), [(True, False), (False, True), (True, True)])
def test_the_formula_with_all_gradients(size, attention, add, scale):
    block = active(GlobalContext(6, reduction=2, attention=attention, add=add, scale=scale))
    x = randn(2, 6, *size).requires_grad_()
    same_with_gradients(block(x), formula(x, block), [x, *block.parameters()])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"divisor": 1, "reduction": 8}, {}),
        ({"divisor": 1, "reduction": 3}, {"rd_ratio": 1 / 3, "use_attn": False}),
        ({"inner": 5, "add": True}, {"rd_channels": 5, "fuse_add": True}),
        (
            {"inner": 5, "add": True, "scale": False, "activation": nn.SiLU},
            {"rd_channels": 5, "fuse_add": True, "fuse_scale": False, "act_layer": "silu"},
        ),
        (
            {"divisor": 4, "reduction": 8, "gate": nn.Hardsigmoid},
            {"rd_divisor": 4, "gate_layer": "hard_sigmoid"},
        ),
    ],
    ids=str,
)
def test_timm(ours, theirs):
    attention = theirs.get("use_attn", True)
    arguments = {"add": False, "scale": True, "eps": 1e-6, "attention": attention, **ours}
    block = active(GlobalContext(20, **arguments))
    reference = timm.layers.GlobalContext(20, **theirs).double()
    named = {
        "key": reference.conv_attn,
        "add": reference.mlp_add,
        "scale": reference.mlp_scale,
    }
    pairs = []
    for name, parameter in block.named_parameters():
        part, rest = name.split(".", 1)
        own = named[part].get_parameter(rest)
        own.data = parameter.data.reshape(own.shape).clone()
        pairs.append((parameter, own))
    assert len(pairs) == len(list(reference.parameters()))
    x = randn(2, 20, 5, 7).requires_grad_()
    biases = {id(block.key.bias)} if attention else set()  # its gradient is zero by softmax
    pairs = [pair for pair in pairs if id(pair[0]) not in biases]
    same_with_gradients(block(x), reference(x), [x], pairs)


def test_a_new_block_is_the_identity():
    x = randn(2, 32, 5, 7).float()
    assert torch.equal(GlobalContext(32)(x), x)
    assert not torch.equal(GlobalContext(32, zero_bias=False)(x), x)
    assert not GlobalContext(32, zero_bias=False).add.fc2.weight.any()


def test_defaults_are_those_of_the_paper():
    block = GlobalContext(32)
    assert block.scale is None
    assert block.key.weight.shape == (1, 32, 1)
    assert block.add.fc1.weight.shape == (2, 32)


def test_far_apart_logits_stay_finite():
    block = active(GlobalContext(6, reduction=2))
    x = (1e5 * randn(2, 6, 5, 7)).float().requires_grad_()
    y = block.float()(x)
    assert y.isfinite().all()
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": 9}, "reduction=9"),
        ({"inner": 0}, "inner=0"),
        ({"reduction": 2, "add": False}, "add=False and scale=False"),
    ],
    ids=str,
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GlobalContext(8, **arguments)
