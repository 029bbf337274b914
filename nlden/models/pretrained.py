"""Weight files: safetensors whose header describes the network.

The header's metadata holds ``architecture`` (the name of a function of :mod:`nlden.models`),
``arguments`` (its keyword arguments as JSON), ``card`` (the model card in Markdown) and
``facts`` (short texts as JSON). Nothing is ever unpickled, and only functions of
:mod:`nlden.models` are called.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import nlden.models


class WeightsError(ValueError):
    """A weight file is missing, damaged or not ours. The message is one line for the user."""


@dataclass(frozen=True)
class Description:
    """What a weight file says about itself.

    Args:
        architecture: name of a function of :mod:`nlden.models`.
        arguments: its keyword arguments.
        card: model card, Markdown.
        facts: short texts by name: ``use`` and ``results`` are listed by ``nlden models``.
    """

    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Return the network, untrained.

        Raises:
            WeightsError: if :mod:`nlden.models` has no such function, or not of these arguments.
        """
        builder = getattr(nlden.models, self.architecture, None)
        if self.architecture not in nlden.models.__all__ or builder is None:
            raise WeightsError(f"unknown architecture {self.architecture!r}; a newer nlden?")
        try:
            network = builder(**self.arguments)
        except TypeError as error:
            raise WeightsError(f"{self.architecture} cannot be built ({error})") from error
        assert isinstance(network, nn.Module)
        return network


def shipped() -> dict[str, Path]:
    """Return the names and files of the weights inside the package."""
    folder = Path(str(resources.files("nlden") / "weights"))
    return {p.stem: p for p in sorted(folder.glob("*.safetensors"))}


def find(weights: str | os.PathLike[str]) -> Path:
    """Return the file of a shipped name or of a path.

    Raises:
        WeightsError: if there is neither.
    """
    names = shipped()
    path = names.get(str(weights), Path(weights))
    if not path.is_file():
        raise WeightsError(
            f"{weights}: no weights of this name or file (shipped: {', '.join(names) or 'none'})"
        )
    return path


def read(weights: str | os.PathLike[str]) -> tuple[Description, dict[str, Tensor]]:
    """Read description and tensors of a weight file.

    Raises:
        WeightsError: if the file is missing, is no safetensors file or has no description.
    """
    path = find(weights)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = Description(
            metadata["architecture"],
            json.loads(metadata["arguments"]),
            metadata.get("card", ""),
            json.loads(metadata.get("facts", "{}")),
        )
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error
    except (KeyError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: not written by nlden (no description of its net)") from error
    return description, tensors


def load(weights: str | os.PathLike[str]) -> nn.Module:
    """Build the network of a weight file, in float32 and channels-last, ready for inference.

    Args:
        weights: a shipped name (see :func:`shipped`) or a safetensors file.

    Raises:
        WeightsError: if it cannot be read or does not fit its network.
    """
    description, tensors = read(weights)
    network = description.build()
    _fill(network, tensors, find(weights))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def load_weights(
    network: nn.Module, weights: str | os.PathLike[str], *, partly: bool = False
) -> None:
    """Fill a network with the tensors of a weight file.

    Stems and tails of formats that the network does not take are passed over.

    Args:
        network: the network.
        weights: a shipped name or a safetensors file.
        partly: pass over all that the network has not, and leave what the file has not.

    Raises:
        WeightsError: if it cannot be read or does not fit the network.
    """
    _, tensors = read(weights)
    own = network.state_dict()
    edges = {"stems", "tails", "besides"}  # those of videos' networks, too
    kept = {
        k: v
        for k, v in tensors.items()
        if k in own or not (partly or not edges.isdisjoint(k.split(".")))
    }
    _fill(network, own | kept if partly else kept, find(weights))


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    # Looked at before anything is copied: load_state_dict fills what fits, then complains.
    own = {name: tensor.shape for name, tensor in network.state_dict().items()}
    given = {name: tensor.shape for name, tensor in tensors.items()}
    if own != given:
        differ = sorted(n for n in own.keys() | given.keys() if own.get(n) != given.get(n))
        raise WeightsError(f"{path}: does not fit its network ({len(differ)} differ: {differ[0]})")
    network.load_state_dict(dict(tensors))


def save(network: nn.Module, path: str | os.PathLike[str], description: Description) -> None:
    """Write a network as float16 safetensors with its description."""
    tensors = {k: v.detach().half().contiguous() for k, v in network.state_dict().items()}
    metadata = {
        "architecture": description.architecture,
        "arguments": json.dumps(dict(description.arguments)),
        "card": description.card,
        "facts": json.dumps(dict(description.facts)),
    }
    save_file(tensors, path, metadata)
