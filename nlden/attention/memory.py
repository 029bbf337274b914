"""What a block costs in memory, found without running it."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak bytes of the tensors that a block makes, beyond its input and parameters.

    Args:
        inference: of a forward pass without gradients.
        training: of a forward and a backward pass, gradients included.
    """

    inference: int
    training: int

    def __str__(self) -> str:
        """Return both in MiB."""
        inference, training = (n / 2**20 for n in (self.inference, self.training))
        return f"{inference:.1f} MiB inference, {training:.1f} MiB training"


class _Peak(TorchDispatchMode):
    """Follow the bytes of all storages from their making to their end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def known(self, tensor: Tensor) -> None:
        """Do not count this tensor."""
        self._seen.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.live)
        return result

    def _count(self, storage: Any) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.live += size
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.live -= size


class _Fused(TorchFunctionMode):
    """Take the fused attention kernel, as the device does: torch sees no device in fake tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        mask = kwargs["attn_mask"]
        if mask is not None:
            kwargs["attn_mask"] = torch.where(mask, 0.0, -torch.inf)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args, **kwargs)[0]


def memory_estimate(
    block: nn.Module, shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> MemoryEstimate:
    """Return the peak memory of a block for an input of a shape.

    The block runs on tensors without contents, so that nothing is computed or allocated and the
    answer comes at once for maps of any size. Working memory inside the kernels, some MiB, is not
    counted: the chunked backward pass of softmax on CPUs has 4 MiB.

    Args:
        block: any module that takes one tensor.
        shape: shape of the input, such as ``(B, C, H, W)``.
        dtype: type of the input.

    Raises:
        ValueError: if the block refuses the shape.
    """
    return MemoryEstimate(
        inference=_peak(block, shape, dtype, training=False),
        training=_peak(block, shape, dtype, training=True),
    )


def _peak(block: nn.Module, shape: Sequence[int], dtype: torch.dtype, *, training: bool) -> int:
    device = next((p.device for p in block.parameters()), torch.device("cpu"))
    with torch.inference_mode(False), FakeTensorMode(allow_non_fake_inputs=True) as fake:
        state: dict[str, Tensor] = {
            name: fake.from_tensor(tensor)
            for name, tensor in (*block.named_parameters(), *block.named_buffers())
        }
        x = torch.empty(*shape, dtype=dtype, device=device, requires_grad=training)
        peak = _Peak()
        for tensor in (x, *state.values()):
            peak.known(tensor)
        with torch.set_grad_enabled(training), peak, _Fused():
            y = torch.func.functional_call(block, state, (x,))
            outputs = [t for t in tree_leaves(y) if isinstance(t, Tensor)]
            if training:
                torch.autograd.backward(outputs, [torch.empty_like(t) for t in outputs])
    return peak.peak
