"""The concatenation form of the pairwise function, exactly, in O(N log N).

``f(x_i, x_j) = relu(w . [theta(x_i), phi(x_j)]) = relu(a_i + b_j)`` (equation 5 of X. Wang et
al., CVPR 2018) is zero unless ``b_j > -a_i``: once the keys are sorted by falling ``b``, those
that count for a query are the first ``k_i`` of them, and

    ``sum_j relu(a_i + b_j) v_j = a_i * sum_{j <= k_i} v_j + sum_{j <= k_i} b_j v_j``

takes two prefix sums. Autograd's backward of prefix sums and gathers is of the same order.
"""

import torch
from torch import Tensor


def concatenation(a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    """Return ``sum_j relu(a_i + b_j) v_j``.

    Prefix sums are kept in float64: differences of large sums would cost float32 its digits.

    Args:
        a: ``(B, N)``, the queries' terms.
        b: ``(B, M)``, the keys' terms.
        value: ``(B, M, E)``.

    Returns:
        ``(B, N, E)`` in the precision of ``value``.
    """
    falling, order = b.sort(dim=1, descending=True)
    count = _active_by_rank(a, b) if torch.compiler.is_exporting() else _active(a, falling)
    sorted_value = value.mT.gather(2, order.unsqueeze(1).expand(-1, value.shape[2], -1))
    plain = _prefix(sorted_value, count)
    weighted = _prefix(falling.unsqueeze(1) * sorted_value, count)
    return (a.unsqueeze(1) * plain + weighted).to(value.dtype).mT


def _active(a: Tensor, falling: Tensor) -> Tensor:
    """Count, for each query, the keys with ``b > -a``."""
    # Of -b, which rises, those below a; equal ones add nothing and have no gradient.
    return torch.searchsorted(-falling.detach().contiguous(), a.detach().contiguous())


def _active_by_rank(a: Tensor, b: Tensor) -> Tensor:
    """Count as :func:`_active` does, with sorts alone: ONNX knows no binary search."""
    joint = torch.cat([-a.detach(), b.detach()], dim=1)
    order = joint.argsort(dim=1, descending=True)
    keys_so_far = (order >= a.shape[1]).long().cumsum(dim=1)
    rank = order.argsort(dim=1)[:, : a.shape[1]]
    return keys_so_far.gather(1, rank)


def _prefix(x: Tensor, count: Tensor) -> Tensor:
    """Return the sums ``(B, E, N)`` of the first ``count`` ``(B, N)`` of ``x`` ``(B, E, M)``."""
    sums = x.double().cumsum(dim=2)
    index = (count - 1).clamp(min=0).unsqueeze(1).expand(-1, x.shape[1], -1)
    return sums.gather(2, index) * (count > 0).unsqueeze(1)
