"""Muon: momentum whose matrices are orthogonalised.

K. Jordan et al.: "Muon: An optimizer for hidden layers in neural networks" (2024); coefficients
of the quintic Newton-Schulz iteration as published there.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of ``(B, m, n)`` matrices near one.

    Every step multiplies the matrix by a polynomial of its Gram matrix, and these all commute: so
    they are gathered on the small side, ``min(m, n)`` squared, and applied once. In float32: many
    CPUs have no fast products of bfloat16, and the Gram matrix squares the condition.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.mT
    identity = torch.eye(gram.shape[1], device=x.device)
    product = identity
    for _ in range(steps):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(Optimizer):
    """Muon for kernels of two and more dimensions, AdamW for the rest, in one optimiser.

    A group with ``muon=True`` holds kernels, which are flattened to ``(out, in * extent)``; any
    other group is stepped by AdamW with its own learning rate. (torch's Muon takes
    two-dimensional parameters only, and two optimisers would need manual optimisation.)

    Args:
        params: parameter groups; each may set ``muon``, ``lr``, ``betas``, ``weight_decay``.
        lr: learning rate.
        momentum: Nesterov momentum of the Muon groups.
        betas: decay rates of the AdamW groups.
        weight_decay: decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "weight_decay": weight_decay,
            "muon": False,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            (self._muon if group["muon"] else self._adamw)(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        updates: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p in parameters:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            average = state["momentum"].lerp_(p.grad, 1 - momentum)
            update = p.grad.lerp(average, momentum).flatten(1)
            updates[(update.shape[0], update.shape[1])].append((p, update))
        # Kernels of one shape are orthogonalised as one batch.
        for (rows, columns), pairs in updates.items():
            steps = orthogonalize(torch.stack([u for _, u in pairs]))
            scale = -group["lr"] * max(1.0, rows / columns) ** 0.5
            for (p, _), direction in zip(pairs, steps, strict=True):
                p.add_(direction.view(p.shape), alpha=scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for p in parameters:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["step"] += 1
            state["mean"].lerp_(p.grad, 1 - beta1)
            state["square"].lerp_(p.grad.square(), 1 - beta2)
            mean = state["mean"] / (1 - beta1 ** state["step"])
            root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(1e-8)
            p.addcdiv_(mean, root, value=-group["lr"])
