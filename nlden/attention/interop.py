"""Blocks of public implementations by their own names: their arguments, their weights.

Where a reference has 1x1 convolutions, nlden has some on flattened maps and fully connected layers
on pooled values, of the same numbers. Arguments that only matter for new weights or for a loss
(initialisation, device, dtype) are accepted and change nothing.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from nlden.attention.non_local import NonLocal1d
from nlden.attention.reference_aggregation import AGGREGATIONS
from nlden.attention.reference_gates import GATES, Built

T = TypeVar("T")


def from_reference(name: str, state_dict: Mapping[str, Tensor], **arguments: object) -> nn.Module:
    """Return the nlden block that computes what a reference block computes.

    It does so in evaluation and in training. Weights are copied and keep their precision.

    Args:
        name: one of :data:`REFERENCES`, such as ``timm.SEModule``.
        state_dict: the reference's weights by the reference's own names.
        arguments: what the reference was built with, by the reference's own names; arguments that
            are left out have the reference's defaults.

    Raises:
        ValueError: for a name or an argument that is not known, a value that is not supported,
            and weights that are missing, unknown or of another shape.
    """
    if name not in REFERENCES:
        raise ValueError(f"name={name!r} must be one of {', '.join(sorted(REFERENCES))}")
    block, modules = construct(name, REFERENCES[name], arguments)
    names = {}
    for key in block.state_dict():
        parts = [m for m in modules if key == m or key.startswith(f"{m}.")]
        new = max(parts, key=len, default="")
        names[modules.get(new, "") + key.removeprefix(new)] = key
    load(name, block, state_dict, names)
    return block


def construct(name: str, build: Callable[..., T], arguments: Mapping[str, object]) -> T:
    """Return what ``build`` makes of a reference's arguments, without memory for the weights.

    Raises:
        ValueError: if arguments are unknown or missing, or ``build`` refuses their values.
    """
    signature = inspect.signature(build)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"arguments of {name}: {error}; allowed are {', '.join(signature.parameters)}"
        ) from error
    try:
        with torch.device("meta"):  # every weight comes from the state dict
            return build(**arguments)
    except ValueError as error:
        raise ValueError(f"arguments of {name}: {error}") from error


def load(
    name: str, module: nn.Module, state_dict: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    """Give a module copies of a reference's weights, in the precision that they have.

    Args:
        name: the reference, for error messages.
        module: what takes the weights.
        state_dict: the weights by the reference's names.
        names: nlden's name for each of the reference's.

    Raises:
        ValueError: if weights are missing, unknown or of another shape.
    """
    known = module.state_dict()
    unknown = [key for key in state_dict if names.get(key) not in known]
    if unknown:
        raise ValueError(f"state_dict has {', '.join(unknown)}, which {name} has not")
    # Maps of one dimension are flattened in every block but this one.
    flat = not isinstance(module, NonLocal1d)
    weights = {names[key]: _fitted(t, known[names[key]], flat) for key, t in state_dict.items()}
    originals = {new: key for key, new in names.items()}
    # PyTorch counts batches since 0.4.1; the count of older weights starts at zero.
    missing = [
        originals.get(new, new)
        for new in known
        if new not in weights and not new.endswith(".num_batches_tracked")
    ]
    if missing:
        raise ValueError(f"state_dict lacks {', '.join(missing)} of {name}")
    others = [
        f"{originals[new]} of shape {tuple(t.shape)} instead of {tuple(known[new].shape)}"
        for new, t in weights.items()
        if t.shape != known[new].shape
    ]
    if others:
        raise ValueError(f"state_dict does not fit the arguments of {name}: {', '.join(others)}")
    module.load_state_dict(weights, assign=True)


def _fitted(tensor: Tensor, like: Tensor, flat: bool) -> Tensor:
    """Return a copy; a 1x1 convolution becomes one over flattened maps or a connected layer."""
    point = tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
    if point and (like.ndim == 2 or (like.ndim == 3 and flat)):
        tensor = tensor.flatten(like.ndim - 1)
    elif tensor.ndim == 0 and like.shape == (1,):
        tensor = tensor.reshape(1)
    return tensor.detach().clone()


REFERENCES: Mapping[str, Callable[..., Built]] = GATES | AGGREGATIONS
"""For each reference what builds its block."""
