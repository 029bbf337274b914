"""Aggregation by softmax and by dot product, without the N x N map.

Both compute ``y_i = sum_j w_ij v_j`` over ``(B, N, D)`` queries, ``(B, M, D)`` keys and
``(B, M, E)`` values; the weights are made and used piece by piece. The choice of algorithm
changes time and memory, never the result.
"""

from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from nlden.attention.precision import at_least_float32

_MAX_HEAD = 256  # the widest head that CUDA's flash kernel takes
_LONG = 1 << 24  # weights from which the chunked backward is the faster on CPUs
_CHUNK = 1 << 19  # weights of a chunk: 2 MiB in float32, which caches hold
_ROWS = 32  # queries of a chunk at the least


def tracing() -> bool:
    """Tell whether the program is being compiled or exported: sizes must not decide then."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def softmax_algorithm(query: Tensor, key: Tensor) -> str:
    """Return ``fused`` or ``fused+chunked``, as :func:`attend` takes for these tensors.

    The backward pass of the fused kernel is slow on CPUs: long sequences go back in chunks there.
    (On tensors without contents time is no matter, and the chunks would only be counted.)
    """
    training = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    if tracing() or query.device.type != "cpu" or not training or detect_fake_mode() is not None:
        return "fused"
    return "fused+chunked" if query.shape[1] * key.shape[1] >= _LONG else "fused"


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    """Return ``sum_j softmax_j(scale * q_i . k_j) v_j`` as ``(B, N, E)``, in float32 or more."""
    query, key, value = (at_least_float32(t) for t in (query, key, value))
    if softmax_algorithm(query, key) == "fused":
        return fused(query, key, value, scale)
    return chunked(query, key, value, scale)


def fused(
    query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Aggregate by softmax in the fused kernel of torch.

    The kernels want heads of one width for queries, keys and values, a multiple of eight, whose
    numbers lie side by side, and otherwise hold the N x N map: narrow sides are filled up with
    zeros, wide values split into heads, and all copied where need be.

    Args:
        query: ``(B, N, D)``.
        key: ``(B, M, D)``.
        value: ``(B, M, E)``.
        scale: factor of the energies.
        mask: boolean ``(B, M)``, False where a key does not count.

    Returns:
        ``(B, N, E)``.
    """
    width = max(query.shape[2], min(value.shape[2], _MAX_HEAD))
    width += -width % 8
    heads = -(-value.shape[2] // width)
    query, key = (_widened(t, width).unsqueeze(1) for t in (query, key))
    split = _widened(value, heads * width).unflatten(2, (heads, width)).transpose(1, 2)
    query, key = (t.contiguous().expand(-1, heads, -1, -1) for t in (query, key))
    if split.stride(-1) != 1:
        split = split.contiguous()
    attn_mask = None if mask is None else mask[:, None, None, :]
    y = F.scaled_dot_product_attention(query, key, split, attn_mask=attn_mask, scale=scale)
    return y.transpose(1, 2).flatten(2)[..., : value.shape[2]]


def _widened(x: Tensor, width: int) -> Tensor:
    # Padding by nothing would copy.
    return x if x.shape[2] == width else F.pad(x, (0, width - x.shape[2]))


def chunked(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    """Aggregate by softmax; the backward pass makes the weights anew, some queries at a time."""
    y: Tensor = _ChunkedBackward.apply(query, key, value, scale)
    return y


class _ChunkedBackward(Function):
    """Softmax attention whose gradient follows from the weights p of one chunk of queries.

    With ``dp = dy v^T``: ``dv = p^T dy``, ``ds = p (dp - sum_j p dp)`` where the last sum is
    ``dy . y``, ``dq = ds k`` and ``dk = ds^T q``, with q times the scale.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        y = fused(query, key, value, scale)
        ctx.save_for_backward(query, key, value, y)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, y = ctx.saved_tensors
        dquery, dkey, dvalue = (torch.zeros_like(t) for t in (query, key, value))
        mean = (dy * y).sum(dim=2, keepdim=True)
        rows = max(_ROWS, _CHUNK // key.shape[1])
        # Two buffers for all chunks: fresh ones would be fetched page by page each time.
        buffers = query.new_empty(2, min(rows, query.shape[1]), key.shape[1])
        for b in range(query.shape[0]):
            for start in range(0, query.shape[1], rows):
                here = slice(start, start + rows)
                q, g = query[b, here] * ctx.scale, dy[b, here]
                p, ds = buffers[:, : q.shape[0]]
                torch.mm(q, key[b].mT, out=p)
                torch.softmax(p, dim=1, out=p)
                torch.mm(g, value[b].mT, out=ds)
                ds.sub_(mean[b, here]).mul_(p)
                dvalue[b].addmm_(p.mT, g)
                torch.mm(ds, key[b], out=dquery[b, here])
                dkey[b].addmm_(ds.mT, q)
        return dquery.mul_(ctx.scale), dkey, dvalue, None


def dot_product_algorithm(query: Tensor, key: Tensor, value: Tensor) -> str:
    """Return ``associative`` or ``direct``, whichever takes fewer operations."""
    if tracing():
        return "associative"
    queries, keys = query.shape[1], key.shape[1]
    inner, outer = query.shape[2], value.shape[2]
    direct = queries * keys * (inner + outer)
    return "associative" if (queries + keys) * inner * outer <= direct else "direct"


def dot_product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return ``sum_j (q_i . k_j) v_j`` as ``(B, N, E)``, in float32 or more.

    Matrix products associate: ``Q (K^T V)`` never makes the N x N map, and ``(Q K^T) V`` is
    taken only for maps so small that it takes fewer operations.
    """
    query, key, value = (at_least_float32(t) for t in (query, key, value))
    if dot_product_algorithm(query, key, value) == "associative":
        return torch.bmm(query, torch.bmm(key.mT, value))
    return torch.bmm(torch.bmm(query, key.mT), value)
