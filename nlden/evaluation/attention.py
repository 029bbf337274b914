"""Time and memory of the attention blocks, beside the forms that hold the N x N map."""

import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention import (
    CBAM,
    ChannelAttention,
    GlobalContext,
    NonLocal2d,
    NonLocal3d,
    PositionAttention,
    SqueezeExcitation,
)

CHANNELS = 64
CLIP_WINDOWS = ((3, 16, 16), (5, 12, 12), (8, 16, 16), (16, 16, 16))


@dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        block: what ran.
        form: ``nlden``, or the plain formula of a public design.
        positions: N, of a square map (or of the clip) of 64 channels.
        seconds: of a forward and a backward pass (of a clip: of inference).
        mebibytes: by which they raised the peak memory of the process (of a clip: beside its
            output).
    """

    block: str
    form: str
    positions: int
    seconds: float
    mebibytes: float


def _rows(x: Tensor) -> Tensor:
    return x.flatten(2).mT


def direct_softmax(block: NonLocal2d, x: Tensor) -> Tensor:
    """Hold the map of weights: the design of mmcv's and timm's non-local blocks."""
    theta, phi, g = (m(x) if m else x for m in (block.theta, block.phi, block.g))
    weights = (_rows(theta) @ phi.flatten(2) * block.logit_scale).softmax(-1)
    return _back(block, x, weights @ _rows(g))


def direct_dot_product(block: NonLocal2d, x: Tensor) -> Tensor:
    """Hold the map of products, as mmcv does."""
    theta, phi, g = (m(x) for m in (block.theta, block.phi, block.g) if m)
    weights = _rows(theta) @ phi.flatten(2) / g[0, 0].numel()
    return _back(block, x, weights @ _rows(g))


def all_pairs(block: NonLocal2d, x: Tensor) -> Tensor:
    """Hold a tensor of all concatenated pairs, as mmcv does."""
    theta, phi, g = (m(x) for m in (block.theta, block.phi, block.g) if m)
    count = g[0, 0].numel()
    left = theta.flatten(2).unsqueeze(3).expand(-1, -1, -1, count)
    right = phi.flatten(2).unsqueeze(2).expand(-1, -1, count, -1)
    assert block.concat is not None
    kernel = block.concat.weight.view(1, -1, 1, 1)
    weights = F.relu(F.conv2d(torch.cat([left, right], dim=1), kernel)).squeeze(1) / count
    return _back(block, x, weights @ _rows(g))


def folded(block: NonLocal2d, x: Tensor) -> Tensor:
    """Hold the map of relu(a_i + b_j)."""
    theta, phi, g = (_rows(m(x)) for m in (block.theta, block.phi, block.g) if m)
    assert block.concat is not None
    of_query, of_key = block.concat.weight.view(2, -1, 1)
    weights = F.relu(theta @ of_query + (phi @ of_key).mT) / g.shape[1]
    return _back(block, x, weights @ g)


def _back(block: NonLocal2d, x: Tensor, y: Tensor) -> Tensor:
    assert block.norm is not None
    z: Tensor = x + block.norm(block.out(y.mT.unflatten(2, x.shape[2:])))
    return z


def direct_position(block: PositionAttention, x: Tensor) -> Tensor:
    """Hold the map of weights, as DANet's code does."""
    query, key, value = (m(x.flatten(2)) for m in (block.query, block.key, block.value))
    y = value @ (query.mT @ key).softmax(-1).mT
    return block.gamma * y.unflatten(2, x.shape[2:]) + x


# Of each block: how it is built, and other ways to compute the same.
Form = Callable[[Any, Tensor], Tensor]
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Form]]] = {
    "embedded Gaussian": (lambda: NonLocal2d(CHANNELS), {"N x N map": direct_softmax}),
    "Gaussian": (
        lambda: NonLocal2d(CHANNELS, pairwise="gaussian"),
        {"N x N map": direct_softmax},
    ),
    "dot product": (
        lambda: NonLocal2d(CHANNELS, pairwise="dot_product"),
        {"N x N map": direct_dot_product},
    ),
    "concatenation": (
        lambda: NonLocal2d(CHANNELS, pairwise="concatenation"),
        {"all pairs": all_pairs, "N x N map": folded},
    ),
    "embedded Gaussian, window 16": (
        lambda: NonLocal2d(CHANNELS, window=16, block=8, clip=True),
        {},
    ),
    "position attention": (lambda: PositionAttention(CHANNELS), {"N x N map": direct_position}),
    "channel attention": (ChannelAttention, {}),
    "Squeeze-and-Excitation": (lambda: SqueezeExcitation(CHANNELS), {}),
    "CBAM": (lambda: CBAM(CHANNELS), {}),
    "global context": (lambda: GlobalContext(CHANNELS), {}),
}
# Numbers of the largest tensors that the plain forms hold, for N positions.
_HELD = {"N x N map": lambda n: 3 * n * n, "all pairs": lambda n: 3 * CHANNELS * n * n}


def measure(
    positions: Sequence[int], limit: float, report: Callable[[Row], None] = lambda _: None
) -> list[Row]:
    """Measure each form of each block, in a process of its own.

    Args:
        positions: numbers of positions N, squares.
        limit: GiB; plain forms that would take more are left out.
        report: called with each row as it comes.
    """
    results = []
    for block, (_, forms) in CASES.items():
        for form in ("nlden", *forms):
            for count in positions:
                if form != "nlden" and 4 * _HELD[form](count) > limit * 2**30:
                    continue
                results.append(Row(block, form, count, *_apart(_one, block, form, count)))
                report(results[-1])
    return results


def measure_clip(size: Sequence[int], report: Callable[[Row], None] = lambda _: None) -> list[Row]:
    """Measure the inference of windowed 3D blocks over a clip, each in a process of its own.

    Args:
        size: frames, height and width of the features.
        report: called with each row as it comes.
    """
    results = []
    for window in CLIP_WINDOWS:
        shown = "x".join(map(str, window))
        row = Row(
            f"embedded Gaussian 3D, window {shown}",
            "inference",
            math.prod(size),
            *_apart(_windowed_clip, window, size),
        )
        results.append(row)
        report(row)
    return results


def _apart(function: Callable[..., tuple[float, float]], *arguments: object) -> tuple[float, float]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once for all
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def _one(name: str, form: str, positions: int) -> tuple[float, float]:
    """Return seconds and MiB of a forward and a backward pass, in a fresh process."""
    torch.manual_seed(0)
    build, forms = CASES[name]
    block = build()
    run = block if form == "nlden" else lambda x: forms[form](block, x)

    def step(side: int) -> tuple[float, float]:
        x = torch.randn(1, CHANNELS, side, side, requires_grad=True)
        before = peak_memory()
        started = time.perf_counter()
        y = run(x)
        y.backward(torch.ones_like(y))
        return time.perf_counter() - started, peak_memory() - before

    step(8)  # libraries are loaded and threads are made
    side = round(positions**0.5)
    seconds, mebibytes = step(side)
    if seconds < 1:
        seconds = min(step(side)[0] for _ in range(3))
    return seconds, mebibytes


@torch.inference_mode()
def _windowed_clip(window: Sequence[int], size: Sequence[int]) -> tuple[float, float]:
    """Return seconds and MiB beside input and output, in a fresh process."""
    torch.manual_seed(0)
    # In time a block of queries covers what is left of the window by one frame on each side.
    frames = window[0] if window[0] >= size[0] else window[0] - 2
    block = NonLocal3d(CHANNELS, window=window, block=(frames, 8, 8), clip=True).eval()
    block(torch.randn(1, CHANNELS, *(min(w, s) for w, s in zip(window, size, strict=True))))
    x = torch.randn(1, CHANNELS, *size)
    before = peak_memory()
    started = time.perf_counter()
    y = block(x)
    return time.perf_counter() - started, peak_memory() - before - y.nbytes / 2**20


def peak_memory() -> float:
    """Return the highest resident memory so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw time and memory over N, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    blocks = list(dict.fromkeys(row.block for row in rows))
    dashes = {"nlden": "-", "N x N map": "--", "all pairs": ":"}
    for row_block, form in dict.fromkeys((row.block, row.form) for row in rows):
        chosen = [row for row in rows if (row.block, row.form) == (row_block, form)]
        count = [row.positions for row in chosen]
        label = row_block if form == "nlden" else f"{row_block}: {form}"
        style = {"color": f"C{blocks.index(row_block)}", "linestyle": dashes[form], "marker": "."}
        axes[0].plot(count, [row.seconds for row in chosen], label=label, **style)
        axes[1].plot(count, [max(row.mebibytes, 0.1) for row in chosen], label=label, **style)
    axes[0].set(title="forward and backward", ylabel="seconds")
    axes[1].set(title="peak memory", ylabel="MiB")
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="positions N (64 channels)")
        axis.grid(alpha=0.3)
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(path, dpi=110)
