"""How near a denoiser comes to the speed of its convolutions, and what large pictures cost."""

import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nlden.attention import NonLocal2d, SqueezeExcitation
from nlden.evaluation.attention import peak_memory
from nlden.inference.engines import choose_device, return_freed_memory, synchronize
from nlden.jobs.denoise import open_denoiser
from nlden.media.color import YCbCr
from nlden.media.probe import Layout
from nlden.models import ImageDenoiser
from nlden.noise.estimation import Levels

_RGB = YCbCr("bt709", full_range=True)
_REPEATS = 3
_ENOUGH = 5.0  # seconds that a picture's size is timed for


@dataclass(frozen=True)
class Part:
    """A group of layers, or the whole.

    Args:
        name: what it is.
        seconds: of one pass.
        operations: floating-point operations of that pass.
    """

    name: str
    seconds: float
    operations: float

    @property
    def rate(self) -> float:
        """Operations per second, in 10^9."""
        return self.operations / self.seconds / 1e9


def _group(name: str, module: nn.Module) -> str | None:
    """Name the group of a layer; None for what only holds layers."""
    if isinstance(module, NonLocal2d):
        return "non-local block"
    if isinstance(module, SqueezeExcitation):
        return "Squeeze-and-Excitation"
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return None
    if name.startswith(("stems", "tails")):
        return "stem and tail"
    return "3x3 convolutions" if module.kernel_size == (3, 3) else "changes of level"


@contextmanager
def _clocks(network: nn.Module, device: torch.device) -> Iterator[dict[str, float]]:
    """Add up the seconds that each group takes while the context lasts."""
    spent: dict[str, float] = defaultdict(float)
    started: dict[nn.Module, float] = {}

    def start(module: nn.Module, _: object) -> None:
        synchronize(device)
        started[module] = time.perf_counter()

    def stop(module: nn.Module, _: object, __: object, group: str) -> None:
        synchronize(device)
        spent[group] += time.perf_counter() - started[module]

    hooks = []
    blocks = [m for m in network.modules() if isinstance(m, NonLocal2d | SqueezeExcitation)]
    inside = {id(part) for block in blocks for part in block.modules() if part is not block}
    for name, module in network.named_modules():
        group = None if id(module) in inside else _group(name, module)
        if group is not None:
            hooks.append(module.register_forward_pre_hook(start))
            hooks.append(module.register_forward_hook(lambda m, i, o, g=group: stop(m, i, o, g)))
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def roofline(
    network: ImageDenoiser, device: torch.device, dtype: torch.dtype, side: int
) -> list[Part]:
    """Time a network on a square picture, its layers, and its 3x3 convolutions on their own.

    Args:
        network: the denoiser.
        device: where it runs.
        dtype: its precision.
        side: extent of the picture in pixels.

    Returns:
        The whole network, its groups of layers (with the rest last), and plain 3x3 convolutions
        of the same widths and sizes, one after the other.
    """
    network = network.to(device, dtype).eval()
    x = torch.rand(1, 3, side, side, device=device)
    shapes: list[tuple[nn.Conv2d, torch.Size]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        shapes.append((module, inputs[0].shape))

    convolutions = [
        m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    hooks = [m.register_forward_pre_hook(note) for m in convolutions]
    with FlopCounterMode(display=False) as counter:
        network(x, 0.1)
    for hook in hooks:
        hook.remove()

    def timed(run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(_REPEATS):
            synchronize(device)
            started = time.perf_counter()
            run()
            synchronize(device)
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    whole = Part("network", timed(lambda: network(x, 0.1)), float(counter.get_total_flops()))
    with _clocks(network, device) as spent:
        started = time.perf_counter()
        network(x, 0.1)
        synchronize(device)
        total = time.perf_counter() - started
    counts: dict[str, float] = defaultdict(float)
    flops = counter.get_flop_counts()
    for name, module in network.named_modules():
        group = _group(name, module)
        if group is not None:
            counts[group] += sum(flops.get(f"{type(network).__name__}.{name}", {}).values())
    parts = [Part(group, seconds, counts[group]) for group, seconds in spent.items()]
    parts.append(Part("sums, activations, copies", total - sum(spent.values()), 0.0))

    plain, operations = 0.0, 0.0
    for module, shape in shapes:
        features = torch.rand(shape, device=device).to(dtype, memory_format=torch.channels_last)
        plain += timed(partial(module, features))
        operations += 2.0 * shape[0] * module.weight.numel() * shape[2] * shape[3]
    return [whole, *parts, Part("plain 3x3 convolutions", plain, operations)]


@dataclass(frozen=True)
class Cost:
    """What a picture costs.

    Args:
        megapixels: its size.
        seconds: per megapixel.
        mebibytes: resident memory of the process at its peak, libraries included.
    """

    megapixels: float
    seconds: float
    mebibytes: float


def picture_cost(model: str, device: str, precision: str, megapixels: float) -> Cost:
    """Denoise a picture of 3:2 in a process of its own, in tiles as ``nlden denoise`` does.

    Args:
        model: weights by name or file.
        device: where to run.
        precision: ``fp32`` or ``bf16``.
        megapixels: size of the picture.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_picture_cost, (model, device, precision, megapixels))


def _picture_cost(model: str, device: str, precision: str, megapixels: float) -> Cost:
    return_freed_memory()
    denoiser = open_denoiser(model, choose_device(device), precision, None)
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    generator = torch.Generator().manual_seed(0)
    size = (3, height, round(height * 1.5))
    picture = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    times: list[float] = []
    # The first run prepares each shape and fetches memory; small pictures are timed often.
    while len(times) < _REPEATS or sum(times) < _ENOUGH:
        started = time.perf_counter()
        denoiser((picture,), Layout("rgb", 8), _RGB, Levels(0.1, 0.1))
        synchronize(denoiser.device)
        times.append(time.perf_counter() - started)
    return Cost(megapixels, min(times) / (picture[0].numel() / 1e6), peak_memory())
