"""Non-local blocks.

X. Wang, R. Girshick, A. Gupta, K. He: "Non-local Neural Networks", CVPR 2018 (arXiv 1711.07971).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nlden.attention.affinity import (
    attend,
    dot_product,
    dot_product_algorithm,
    fused,
    softmax_algorithm,
    tracing,
)
from nlden.attention.concatenation import concatenation
from nlden.attention.layers import (
    BATCH_NORMS,
    CONVOLUTIONS,
    batch_norm,
    check_map,
    inner_width,
)
from nlden.attention.precision import at_least_float32, full_precision, project
from nlden.attention.windows import cut, from_blocks, inside, neighbourhoods, pieces, rows, strips

Pairwise = Literal["gaussian", "embedded_gaussian", "dot_product", "concatenation"]
"""The pairwise functions of the paper (equations 2 to 5)."""

_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_STRIP = 1 << 24  # numbers of a map that are looked at together
_PIECE = 1 << 22  # numbers in the copied neighbourhoods of a piece: 16 MiB in float32


def _presets(pool: int | tuple[int, ...]) -> Mapping[str, Mapping[str, Any]]:
    return {
        "paper": {},
        "facebook": {"scale": "inner", "subsample": pool},
        "slowfast": {"scale": "inner"},
        "mmcv": {"scale": "inner", "norm": None, "subsample_at": "projections"},
        "alexhex7": {"subsample": pool, "subsample_at": "projections"},
        "timm": {"scale": "channels", "reduction": 8},
    }


class NonLocal(nn.Module):
    """Non-local block: every position gathers from those like it.

    ``z_i = W_z y_i + x_i`` (equation 6) with ``y_i = sum_j f(x_i, x_j) g(x_j) / C(x)``
    (equation 1). The pairwise function f is one of

    - ``gaussian``: ``exp(x_i . x_j)`` (equation 2),
    - ``embedded_gaussian``: ``exp(theta(x_i) . phi(x_j))`` (equation 3),
    - ``dot_product``: ``theta(x_i) . phi(x_j)`` (equation 4),
    - ``concatenation``: ``relu(w_f . [theta(x_i), phi(x_j)])`` (equation 5);

    C is the sum of f for the first two, which is a softmax, and the number of positions for the
    others. No N x N map is ever held, the sums are exact, and energies, softmax and sums run in
    float32 or more. ``algorithm`` names the way that the last call took.

    A new block is the identity: gamma of its norm, or else ``out`` (W_z), is zero.

    With ``window`` the sum runs over a neighbourhood: the map is cut into blocks on an absolute
    grid, and every position of a block looks at the ``window`` positions centred on the block,
    as far as they lie inside the map. The cost per position is then constant, and a tile whose
    corner lies on the grid computes what the whole map computes.

    ``presets`` holds the arguments in which public implementations differ from the paper:
    ``NonLocal2d(64, **NonLocal2d.presets["mmcv"])``.

    Use :class:`NonLocal1d`, :class:`NonLocal2d` or :class:`NonLocal3d`.

    Args:
        channels: number of channels C.
        inner: width of theta, phi and g; None is ``channels // reduction``.
        reduction: see ``inner`` (paper: 2).
        pairwise: the pairwise function f.
        scale: divide the energies of the Gaussians by the root of ``"inner"`` (the width of theta
            and phi) or of ``"channels"``; None leaves them (paper).
        bias: whether the projections have biases (paper: yes).
        out_bias: the same for W_z alone; None is ``bias`` (mmcv: none before a norm).
        norm: norm after W_z, its affine parameters zero at the start: ``"batch"`` (paper), a
            callable from channels to a module, or None, which makes W_z zero instead.
        subsample: extent of a maximum pooling of the keys, or one per dimension; never larger
            than the map. The paper uses 2 in space.
        subsample_at: pool the ``"input"`` of phi and g (the paper's formula) or their outputs,
            the ``"projections"`` (the paper's text).
        window: extent of the neighbourhood in positions, or one per dimension; None is the whole
            map.
        block: extent of a block of queries, or one per dimension; ``window - block`` must be even
            and not negative.
        clip: accept maps smaller than ``window``, which is then clipped as it is at borders.

    Shape:
        ``(B, C, *size)`` to the same; an empty batch gives an empty result. When exporting with
        dynamic sizes, maps must be at least as large as ``window`` and twice ``subsample``.

    Raises:
        ValueError: for arguments out of range or inputs of another shape.
    """

    dims: ClassVar[int]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]

    def __init__(
        self,
        channels: int,
        *,
        inner: int | None = None,
        reduction: int = 2,
        pairwise: Pairwise = "embedded_gaussian",
        scale: Literal["inner", "channels"] | None = None,
        bias: bool = True,
        out_bias: bool | None = None,
        norm: Literal["batch"] | Callable[[int], nn.Module] | None = "batch",
        subsample: int | Sequence[int] | None = None,
        subsample_at: Literal["input", "projections"] = "input",
        window: int | Sequence[int] | None = None,
        block: int | Sequence[int] = 8,
        clip: bool = False,
    ) -> None:
        super().__init__()
        inner = inner_width(channels, inner, reduction)
        _one_of("pairwise", pairwise, get_args(Pairwise))
        if isinstance(norm, str):
            _one_of("norm", norm, ("batch",))
        _one_of("subsample_at", subsample_at, ("input", "projections"))
        if window is not None and subsample is not None:
            raise ValueError(f"window={window} and subsample={subsample} exclude each other")
        self.channels = channels
        self.pairwise = pairwise
        _one_of("scale", scale, (None, "inner", "channels"))
        width = inner if scale == "inner" and pairwise != "gaussian" else channels
        self.logit_scale = width**-0.5 if scale else 1.0
        self.subsample = None if subsample is None else self._extents("subsample", subsample)
        self.subsample_at = subsample_at
        self.window = None if window is None else self._extents("window", window)
        self.block = self._extents("block", block)
        self.clip = clip
        if self.window and any(
            w < b or (w - b) % 2 for w, b in zip(self.window, self.block, strict=True)
        ):
            raise ValueError(
                f"window={window} must exceed block={block} by an even number of positions"
            )
        self.algorithm = ""

        def projection(into: int, out_of: int = channels, bias: bool = bias) -> nn.Module:
            return CONVOLUTIONS[self.dims](out_of, into, 1, bias=bias)

        self.theta = projection(inner) if pairwise != "gaussian" else None
        self.phi = projection(inner) if pairwise != "gaussian" else None
        self.g = projection(inner)
        self.concat = nn.Linear(2 * inner, 1, bias=False) if pairwise == "concatenation" else None
        self.out = projection(channels, inner, bias if out_bias is None else out_bias)
        build = BATCH_NORMS[self.dims] if norm == "batch" else norm
        self.norm = build(channels) if build else None
        # Either way a new block is the identity.
        for parameter in (self.norm or self.out).parameters():
            nn.init.zeros_(parameter)

    def _extents(self, name: str, given: int | Sequence[int]) -> tuple[int, ...]:
        extents = (given,) * self.dims if isinstance(given, int) else tuple(given)
        if len(extents) != self.dims or min(extents) < 1:
            raise ValueError(f"{name}={given} must be {self.dims} numbers of at least 1, or one")
        return extents

    @property
    def reach(self) -> int | None:
        """How many positions away an input changes an output; None: any distance."""
        if self.window is None:
            return None
        return max((w + b) // 2 - 1 for w, b in zip(self.window, self.block, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + W_z y``."""
        self._check(x)
        if x.shape[0] == 0:
            return x.clone()
        if self.window is None:
            with full_precision(x):
                query, key, value = (_flat(t) for t in self._projections(x))
                y = self._aggregate(query, key, value, key.shape[1], None)
                return self._sum(x, y.mT.unflatten(2, x.shape[2:]))
        block, halo = self._cuts(x.shape[2:])
        step = height = x.shape[2]
        # A norm may look at the whole map.
        if self.norm is None and not (torch.is_grad_enabled() or tracing()):
            rows = max(block[0], 2 * halo[0], height * _STRIP // x.numel())
            step = rows // block[0] * block[0]
        if step >= height:
            return self._windowed(x, block, halo)
        # The projections, in float32 and cut into blocks, are many times a large map.
        result = torch.empty_like(x)
        for strip, seen, held in strips(height, step, halo[0]):
            result[:, :, strip] = self._windowed(x[:, :, seen], block, halo, held)
        return result

    def _sum(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``x + W_z y``."""
        y = project(self.out, y)
        if self.norm is not None:
            y = batch_norm(self.norm, y) if isinstance(self.norm, _BatchNorm) else self.norm(y)
        return (x + y).to(x.dtype)

    def attention(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return the rows of weights ``f(x_i, x_j) / C(x)`` of chosen query positions.

        Args:
            x: ``(B, C, *size)``.
            positions: integers ``(P,)``, the positions i in reading order.

        Returns:
            ``(B, P, M)``, with M the positions of the (sub-sampled) map; with a window those
            outside the neighbourhood of i are zero.

        Raises:
            ValueError: for positions outside the map.
        """
        self._check(x)
        positions = positions.to(x.device)
        last = math.prod(x.shape[2:]) - 1
        if positions.numel() and not 0 <= positions.min() <= positions.max() <= last:
            raise ValueError(f"positions={positions.tolist()} must lie in 0..{last}")
        with full_precision(x):
            theta, phi, _ = self._projections(x)
            query, key = _flat(theta)[:, positions], _flat(phi)
            if self.concat is not None:
                a, b = self._terms(query, key)
                weights = F.relu(a.unsqueeze(2) + b.unsqueeze(1))
            else:
                weights = torch.bmm(query, key.mT)
            near = weights.new_ones(())
            if self.window is not None:
                near = neighbourhoods(positions, x.shape[2:], self.block, self.window)
            if self.pairwise.endswith("gaussian"):
                energies = (weights * self.logit_scale).masked_fill(near == 0, -math.inf)
                return energies.softmax(dim=-1)
            count = near.sum(-1, keepdim=True) if self.window else key.shape[1]
            return weights * near / count

    def extra_repr(self) -> str:
        """Return what the submodules do not show."""
        shown = ("channels", "pairwise", "logit_scale", "subsample", "window")
        return ", ".join(f"{n}={getattr(self, n)}" for n in shown if getattr(self, n) is not None)

    def _check(self, x: Tensor) -> None:
        check_map(x, self.channels, self.dims)
        if self.window is None or self.clip or tracing():
            return
        if any(w > s for w, s in zip(self.window, x.shape[2:], strict=True)):
            raise ValueError(
                f"window={self.window} must not exceed the map {tuple(x.shape[2:])}; "
                "clip=True clips it"
            )

    def _projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return theta, phi and g as maps, in float32 or more."""
        x = at_least_float32(x)
        keys = self._pool(x) if self.subsample_at == "input" else x
        theta = x if self.theta is None else project(self.theta, x)
        phi = keys if self.phi is None else project(self.phi, keys)
        g = project(self.g, keys)
        if self.subsample_at == "projections":
            phi, g = self._pool(phi), self._pool(g)
        return theta, phi, g

    def _pool(self, x: Tensor) -> Tensor:
        if self.subsample is None:
            return x
        kernel = [min(k, s) for k, s in zip(self.subsample, x.shape[2:], strict=True)]
        pooled: Tensor = _POOLS[self.dims](x, kernel)
        return pooled

    def _terms(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``a`` and ``b`` of ``relu(a_i + b_j)``: the halves of w_f with theta and phi."""
        assert self.concat is not None
        of_query, of_key = self.concat.weight.to(query.dtype).view(2, -1, 1)
        return (query @ of_query).squeeze(2), (key @ of_key).squeeze(2)

    def _aggregate(
        self, query: Tensor, key: Tensor, value: Tensor, count: Tensor | int, mask: Tensor | None
    ) -> Tensor:
        """Return ``sum_j f(x_i, x_j) g(x_j) / C(x)`` of ``(B, N, D)`` rows."""
        if self.concat is not None:
            self._ran("sorted")
            a, b = self._terms(query, key)
            return concatenation(a, b, value) / count
        if self.pairwise == "dot_product":
            self._ran(dot_product_algorithm(query, key, value))
            return dot_product(query, key, value) / count
        if mask is not None:
            self._ran("fused")
            return fused(query, key, value, self.logit_scale, mask)
        self._ran(softmax_algorithm(query, key))
        return attend(query, key, value, self.logit_scale)

    def _ran(self, algorithm: str) -> None:
        if not tracing():
            self.algorithm = algorithm

    def _cuts(self, size: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the extents of the blocks of a map, and of their halos."""
        assert self.window is not None
        block = list(self.block)
        halo = [(w - b) // 2 for w, b in zip(self.window, block, strict=True)]
        if not tracing():
            # Along an axis that one block covers there is nothing more to see.
            covered = [s <= b for s, b in zip(size, block, strict=True)]
            block = [s if c else b for c, s, b in zip(covered, size, block, strict=True)]
            halo = [0 if c else h for c, h in zip(covered, halo, strict=True)]
        return block, halo

    def _windowed(
        self, x: Tensor, block: Sequence[int], halo: Sequence[int], held: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """Return ``x + W_z y`` of a map, but for the rows that belong to the halo."""
        with full_precision(x):
            y = self._gather(x, block, halo, held)
            x = x.narrow(2, held[0], x.shape[2] - sum(held))
            return self._sum(x, from_blocks(y, block, x.shape[2:]))

    def _gather(
        self, x: Tensor, block: Sequence[int], halo: Sequence[int], held: tuple[int, int]
    ) -> Tensor:
        """Return what the positions of each block gather, ``(B * blocks, N, inner)``."""
        batch, size = x.shape[0], x.shape[2:]
        none = [0] * self.dims
        # A list that shrinks: the projections go as soon as they are cut.
        maps = list(self._projections(x))[::-1]
        query = cut(maps.pop().narrow(2, held[0], size[0] - sum(held)), block, none)
        key, value = (cut(maps.pop(), block, halo, held) for _ in range(2))
        valid = inside(size, block, halo, x.device, held)
        boxes = [(slice(None),) * self.dims]
        if not (torch.is_grad_enabled() or tracing()):
            # Neighbourhoods overlap: copies of all at once would be many times the map.
            extent = math.prod(b + 2 * h for b, h in zip(block, halo, strict=True))
            numbers = batch * extent * (key.shape[1] + value.shape[1])
            boxes = list(pieces(query.shape[2 : 2 + self.dims], max(1, _PIECE // numbers)))

        def aggregate(box: tuple[slice, ...]) -> Tensor:
            here = (slice(None), slice(None), *box)
            mask = rows(valid[here])[..., 0].repeat(batch, 1)
            count = mask.sum(1)[:, None, None]
            y = self._aggregate(rows(query[here]), rows(key[here]), rows(value[here]), count, mask)
            return y.unflatten(0, (batch, -1))

        if len(boxes) == 1:
            y = aggregate(boxes[0])
        else:
            # Into one tensor: many small ones between large passing ones would tear the heap.
            blocks = math.prod(query.shape[2 : 2 + self.dims])
            y = value.new_empty(batch, blocks, math.prod(block), value.shape[1])
            done = 0
            for box in boxes:
                piece = aggregate(box)
                y[:, done : done + piece.shape[1]] = piece
                done += piece.shape[1]
        return y.flatten(0, 1)


def _flat(x: Tensor) -> Tensor:
    return x.flatten(2).mT


def _one_of(name: str, given: str | None, allowed: Sequence[str | None]) -> None:
    if given not in allowed:
        raise ValueError(f"{name}={given!r} must be one of {', '.join(map(str, allowed))}")


class NonLocal1d(NonLocal):
    """Non-local block over sequences ``(B, C, L)``; see :class:`NonLocal`."""

    dims = 1
    presets = _presets(2)


class NonLocal2d(NonLocal):
    """Non-local block over images ``(B, C, H, W)``; see :class:`NonLocal`."""

    dims = 2
    presets = _presets(2)


class NonLocal3d(NonLocal):
    """Non-local block over clips ``(B, C, T, H, W)``; see :class:`NonLocal`."""

    dims = 3
    presets = _presets((1, 2, 2))
