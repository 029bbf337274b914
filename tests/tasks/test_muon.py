import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.tasks.muon import Muon, orthogonalize


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    seed=st.integers(0, 9),
)
def test_the_directions_stay_and_their_lengths_come_near_one(shape, scale, seed):
    matrices = randn(*shape, seed=seed)
    result = orthogonalize(scale * matrices)
    assert result.dtype == matrices.dtype
    u, before, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
    # Values far below the largest need more than five steps.
    clear = before > 0.1 * before[:, :1]
    after = torch.linalg.svdvals(result.double())
    assert after.max() < 1.3
    projected = (u.mT @ result.double() @ vh.mT).diagonal(dim1=1, dim2=2)
    assert 0.6 < projected[clear].min() <= projected[clear].max() < 1.3
    # Near the polar factor, the nearest orthogonal matrix.
    if clear.all():
        assert torch.linalg.matrix_norm(result - u @ vh, ord=2).max() < 0.45


def test_nothing_divides_by_zero():
    assert torch.equal(orthogonalize(torch.zeros(2, 3, 5)), torch.zeros(2, 3, 5))


def single_step(parameters, gradients, **group):
    parameters = [torch.nn.Parameter(p.clone()) for p in parameters]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = None if g is None else g.clone()
    Muon([{"params": parameters, **group}]).step()
    return [p.detach() for p in parameters]


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (4, 20), (20, 4), (5, 5, 2)])
def test_the_first_step_follows_the_formula(shape):
    weight, gradient = randn(*shape), randn(*shape, seed=1)
    (got,) = single_step([weight], [gradient], muon=True, lr=0.02, weight_decay=0.1)
    flat = gradient.flatten(1)
    # A single direction: momentum and Nesterov only scale it, and orthogonalising undoes that.
    u, _, vh = torch.linalg.svd(flat, full_matrices=False)
    step = 0.02 * max(1, flat.shape[0] / flat.shape[1]) ** 0.5
    change = (weight * (1 - 0.02 * 0.1) - got).flatten(1)
    assert torch.linalg.matrix_norm(change / step - u @ vh, ord=2) < 0.45
    assert torch.allclose(change / step, orthogonalize(flat[None])[0], atol=0.03)


def test_the_momentum_is_that_of_nesterov():
    weight = torch.nn.Parameter(torch.zeros(6, 8))
    optimizer = Muon([{"params": [weight], "muon": True, "lr": 1.0}], momentum=0.7)
    average = torch.zeros(6, 8)
    for seed in range(4):
        before, gradient = weight.detach().clone(), randn(6, 8, seed=seed)
        weight.grad = gradient.clone()
        optimizer.step()
        average = 0.7 * average + 0.3 * gradient
        ahead = 0.7 * average + 0.3 * gradient
        assert torch.allclose(before - weight, orthogonalize(ahead[None])[0], atol=0.03)


def test_kernels_of_one_shape_are_stepped_as_if_they_were_alone():
    shapes = [(4, 3, 3, 3), (4, 27), (6, 8), (4, 3, 3, 3)]
    weights = [randn(*s, seed=i) for i, s in enumerate(shapes)]
    gradients = [10.0**i * randn(*s, seed=9 + i) for i, s in enumerate(shapes)]
    together = single_step(weights, gradients, muon=True)
    for got, weight, gradient in zip(together, weights, gradients, strict=True):
        (alone,) = single_step([weight], [gradient], muon=True)
        assert torch.allclose(got, alone, atol=1e-3)


@pytest.mark.parametrize("muon", [True, False])
def test_parameters_without_gradient_are_left_alone(muon):
    weights = [randn(3, 4), randn(3, 4, seed=1)]
    first, second = single_step(weights, [None, randn(3, 4)], muon=muon, weight_decay=0.5)
    assert torch.equal(first, weights[0])
    assert not torch.equal(second, weights[1])


@settings(deadline=None, max_examples=15)
@given(
    lr=st.floats(1e-5, 0.1),
    beta1=st.floats(0, 0.95),
    beta2=st.floats(0.5, 0.999),
    weight_decay=st.sampled_from([0.0, 0.01, 0.3]),
    scale=st.sampled_from([1e-4, 1.0, 1e3]),
)
def test_the_other_half_is_adamw(lr, beta1, beta2, weight_decay, scale):
    start = [randn(7), randn(3, 2, seed=1)]
    settings = {"lr": lr, "betas": (beta1, beta2), "weight_decay": weight_decay}
    runs = []
    for build in (lambda p: Muon([{"params": p, **settings}]), None):
        parameters = [torch.nn.Parameter(s.clone()) for s in start]
        optimizer = build(parameters) if build else torch.optim.AdamW(parameters, **settings)
        for step in range(8):
            for i, p in enumerate(parameters):
                p.grad = scale * (randn(*p.shape, seed=10 * step + i) + p.detach())
            optimizer.step()
        runs.append(parameters)
    for ours, theirs in zip(*runs, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def train(optimizer, parameters, steps, first=0):
    for step in range(first, first + steps):
        for i, p in enumerate(parameters):
            p.grad = p.detach() + 0.1 * randn(*p.shape, seed=100 * step + i)
        optimizer.step()


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    def build():
        parameters = [torch.nn.Parameter(randn(6, 4, seed=1)), torch.nn.Parameter(randn(6, seed=2))]
        kernel, vector = parameters
        groups = [{"params": [kernel], "muon": True}, {"params": [vector], "lr": 1e-3}]
        return parameters, Muon(groups)

    whole, optimizer = build()
    train(optimizer, whole, 6)
    first, optimizer = build()
    train(optimizer, first, 3)
    second, resumed = build()
    for p, q in zip(second, first, strict=True):
        p.data = q.data.clone()
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(resumed, second, 3, first=3)
    assert all(torch.equal(p, q) for p, q in zip(whole, second, strict=True))


def test_the_closure_is_called_once_and_its_loss_returned():
    weight = torch.nn.Parameter(randn(3, 3))
    optimizer = Muon([{"params": [weight], "muon": True}])
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        losses.append(loss)
        return loss

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1
    assert weight.square().sum() < losses[0]
