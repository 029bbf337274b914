"""Attention blocks for a network that exists already.

X. Wang et al.: "Non-local Neural Networks", CVPR 2018 (arXiv 1711.07971), section 3.3: a block that
starts as the identity can be put into any trained network without changing what it computes.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode  # documented, but has no public name

from nlden.encoders.unet import Slot


def insert_attention(
    model: nn.Module,
    where: str | Sequence[str],
    factory: Slot,
    *,
    example: Tensor | None = None,
) -> nn.Module:
    """Put an attention block after chosen modules of a network, in place.

    A chosen module becomes ``nn.Sequential(module, block)``, with the block on the module's device
    and in its precision and mode; the names of its parameters gain a ``.0``, so weights must be
    loaded before. How many channels leave a module is seen by running the network once on fake
    tensors, which have shapes alone: nothing is computed and neither weights nor statistics change.

    Args:
        model: the network; it is changed.
        where: names of submodules as ``model.named_modules()`` tells them, such as ``layer3.1``.
        factory: builds a block for a number of channels.
        example: an input that the network accepts; None is a batch of two, with the channels and
            dimensions of the first convolution, of 224x224 pixels, 1024 samples or 16 frames of
            112x112.

    Returns:
        ``model``.

    Raises:
        ValueError: for names that the network does not have, name twice or does not run, for
            modules that return anything but one map ``(B, C, *size)``, and for a network that
            cannot be run on ``example``. The network is then as it was.
    """
    names = [where] if isinstance(where, str) else list(where)
    modules = dict(model.named_modules())
    unknown = [name for name in names if not name or name not in modules]
    if unknown:
        raise ValueError(
            f"where={names} names {unknown}, which the network does not have; "
            f"it has {[name for name in modules if name]}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"where={names} must name every module once")
    channels = _channels(model, {name: modules[name] for name in names}, example)
    blocks = {name: factory(count) for name, count in channels.items()}
    for name, block in blocks.items():
        module = modules[name]
        reference = next((p for p in module.parameters() if p.is_floating_point()), None)
        if reference is not None:
            block = block.to(device=reference.device, dtype=reference.dtype)
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, nn.Sequential(module, block.train(module.training)))
    return model


def _channels(
    model: nn.Module, chosen: dict[str, nn.Module], example: Tensor | None
) -> dict[str, int]:
    """Return the number of channels that leave each chosen module."""
    outputs: dict[str, object] = {}

    def note(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        outputs[name] = output

    example = _example(model) if example is None else example
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    fakes: dict[str, Tensor] = {name: mode.from_tensor(tensor) for name, tensor in tensors.items()}
    hooks = [m.register_forward_hook(partial(note, name)) for name, m in chosen.items()]
    try:
        with torch.no_grad(), mode:
            torch.func.functional_call(model, fakes, (mode.from_tensor(example),))
    except Exception as error:
        raise ValueError(
            f"example of shape {tuple(example.shape)} does not pass through the network ({error}); "
            "give one that does"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    counts = {}
    for name in chosen:
        output = outputs.get(name)
        if not isinstance(output, Tensor) or output.ndim < 3:
            raise ValueError(
                f"where names {name!r}, which must return one map (B, C, *size) when the network "
                f"runs, not {type(output).__name__ if name in outputs else 'stay unused'}"
            )
        counts[name] = output.shape[1]
    return counts


def _example(model: nn.Module) -> Tensor:
    """Return an input for the network's first convolution."""
    sizes = {nn.Conv1d: (1024,), nn.Conv2d: (224, 224), nn.Conv3d: (16, 112, 112)}
    for module in model.modules():
        for kind, size in sizes.items():
            if isinstance(module, kind):
                return torch.empty((2, module.in_channels, *size)).to(module.weight)
    raise ValueError("example=None needs a network with a convolution; give an input")
