"""Non-local blocks.

X. Wang, R. Girshick, A. Gupta, K. He: "Non-local Neural Networks", CVPR 2018 (arXiv 1711.07971).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from nlden.attention.windows import from_blocks, inside, to_blocks


class NonLocal2d(nn.Module):
    """Non-local block with the embedded Gaussian: every position gathers from those like it.

    ``z_i = x_i + W_z y_i`` with ``y_i = sum_j softmax_j(theta(x_i) . phi(x_j)) g(x_j)``
    (equations 1, 4 and 6 of the paper). The weights are computed piece by piece in fused
    attention; the N x N map is never held.

    With ``window`` the sum runs over a neighbourhood instead of the whole map: the map is cut
    into blocks on an absolute grid and every position of a block looks at the ``window``
    positions square centred on the block, as far as they lie inside the map. The cost per
    position is then constant, and a tile whose corner lies on the grid computes what the whole
    map computes.

    ``out``, the W_z of the paper, starts at zero, so that a new block is the identity.

    Args:
        channels: number of channels C.
        inner: width of theta, phi and g; None is ``channels // 2``, as in the paper.
        scale: divide the logits by the square root of ``inner`` (paper: no).
        bias: whether the four projections have biases (paper: yes).
        window: extent of the neighbourhood in positions; None is the whole map.
        block: extent of a block of queries; ``window - block`` must be even and not negative.

    Shape:
        ``(B, C, H, W)`` to the same.

    Raises:
        ValueError: for an inner width below one or a window and a block that do not fit.
    """

    def __init__(
        self,
        channels: int,
        *,
        inner: int | None = None,
        scale: bool = False,
        bias: bool = True,
        window: int | None = None,
        block: int = 8,
    ) -> None:
        super().__init__()
        inner = channels // 2 if inner is None else inner
        if inner < 1:
            raise ValueError(f"inner={inner} must be at least 1 (channels={channels})")
        if window is not None and (block < 1 or window < block or (window - block) % 2):
            raise ValueError(
                f"window={window} must exceed block={block} by an even number of positions"
            )
        self.window = window
        self.block = block
        self.logit_scale = inner**-0.5 if scale else 1.0
        self.theta = nn.Conv2d(channels, inner, 1, bias=bias)
        self.phi = nn.Conv2d(channels, inner, 1, bias=bias)
        self.g = nn.Conv2d(channels, inner, 1, bias=bias)
        self.out = nn.Conv2d(inner, channels, 1, bias=bias)
        nn.init.zeros_(self.out.weight)
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    @property
    def reach(self) -> int | None:
        """How many positions away an input changes an output; None: any distance."""
        return None if self.window is None else (self.window + self.block) // 2 - 1

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + W_z y``."""
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)
        y = self._whole(theta, phi, g) if self.window is None else self._windowed(theta, phi, g)
        return x + self.out(y)

    def _attend(self, theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (t.unsqueeze(1) for t in (theta, phi, g))  # one head
        y = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.logit_scale
        )
        return y.squeeze(1)

    def _whole(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        query, key, value = (t.flatten(2).transpose(1, 2) for t in (theta, phi, g))
        y = self._attend(query, key, value, None)
        return y.transpose(1, 2).unflatten(2, theta.shape[2:])

    def _windowed(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        assert self.window is not None
        size = (theta.shape[2], theta.shape[3])
        halo = (self.window - self.block) // 2
        query = to_blocks(theta, self.block)
        key, value = (to_blocks(t, self.block, halo) for t in (phi, g))
        mask = inside(size, self.block, halo, theta.device).repeat(theta.shape[0], 1)
        mask = mask[:, None, None, :].expand(-1, 1, query.shape[1], -1)
        return from_blocks(self._attend(query, key, value, mask), self.block, size)
