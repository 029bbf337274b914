"""What the noise models share: normal numbers and parameters that differ between pictures."""

import math

import torch
from torch import Generator, Tensor


def normal(shape: torch.Size | tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """Return independent standard normal numbers with the type and device of ``like``."""
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def per_picture(
    name: str, value: Tensor | float, x: Tensor, low: float = 0.0, high: float = math.inf
) -> Tensor:
    """Return a parameter in a form that broadcasts against a batch.

    Args:
        name: the parameter's name, for the error.
        value: one number, ``(B,)`` one a picture, or a tensor that broadcasts against ``x``
            already: ``(1, C, 1, 1)`` one a channel, ``(B, 1, H, W)`` a map.
        x: the batch ``(B, C, H, W)``, whose type and device the parameter takes.
        low: smallest value allowed.
        high: largest value allowed.

    Raises:
        ValueError: if ``x`` is no batch, or the value has another shape or lies outside.
    """
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, must be (B, C, H, W)")
    tensor = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if tensor.ndim == 1:
        tensor = tensor.view(-1, 1, 1, 1)
    fits = tensor.ndim in (0, 4) and all(
        s in (1, n) for s, n in zip(tensor.shape, x.shape, strict=False)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, must be one number, (B,) or broadcast "
            f"against the batch {tuple(x.shape)}"
        )
    outside = ~((tensor >= low) & (tensor <= high))  # NaN lies outside as well
    if outside.any():
        worst = tensor[outside].flatten()[0].item()
        limit = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"at least {low:g}"
        raise ValueError(f"{name}={worst:g} must be {limit}")
    return tensor
