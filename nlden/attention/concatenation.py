"""The concatenation form of the pairwise function, exactly, in O(N log N).

``f(x_i, x_j) = relu(w . [theta(x_i), phi(x_j)]) = relu(a_i + b_j)`` (equation 5 of X. Wang et
al., CVPR 2018) is zero unless ``b_j > -a_i``: once the keys are sorted by falling ``b``, those
that count for a query are the first ``k_i`` of them, and

    ``sum_j relu(a_i + b_j) v_j = a_i * sum_{j <= k_i} v_j + sum_{j <= k_i} b_j v_j``

takes two prefix sums. Autograd's backward of prefix sums and gathers is of the same order.
"""

import torch
from torch import Tensor

from nlden.attention.affinity import tracing


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
    count = _active_by_rank(a, b) if tracing() else _active(a, falling)
    sorted_value = value.gather(1, order.unsqueeze(2).expand_as(value))
    plain = _prefix(sorted_value, count)
    weighted = _prefix(falling.unsqueeze(2) * sorted_value, count)
    return (a.unsqueeze(2) * plain + weighted).to(value.dtype)


def _active(a: Tensor, falling: Tensor) -> Tensor:
    """Count, for each query, the keys with ``b > -a``."""
    # Of -b, which rises, those below a; equal ones add nothing and have no gradient.
    return torch.searchsorted(-falling.detach().contiguous(), a.detach().contiguous())


def _active_by_rank(a: Tensor, b: Tensor) -> Tensor:
    """Count as :func:`_active` does, with sorts alone: ONNX knows no binary search."""
    keys = b.shape[1]
    # Queries stand first, so that a stable sort puts them before keys of equal value.
    joint = torch.cat([-a.detach(), b.detach()], dim=1)
    rank = joint.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    own = (-a.detach()).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank[:, : joint.shape[1] - keys] - own).clamp(0, keys)


def _prefix(x: Tensor, count: Tensor) -> Tensor:
    """Return the sums ``(B, N, E)`` of the first ``count`` ``(B, N)`` of ``x`` ``(B, M, E)``."""
    sums = x.double().cumsum(dim=1)
    index = (count - 1).clamp(min=0).unsqueeze(2).expand(-1, -1, x.shape[2])
    return sums.gather(1, index) * (count > 0).unsqueeze(2)
