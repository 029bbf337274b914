"""Attention blocks for one, two and three dimensions, exact without an N x N map."""

from nlden.attention.block_matching import copy_blocks, match_blocks, smooth_displacement
from nlden.attention.cbam import CBAM, ChannelGate, SpatialGate
from nlden.attention.dual_attention import (
    ChannelAttention,
    DualAttention,
    DualAttentionHead,
    PositionAttention,
    dual_attention_loss,
)
from nlden.attention.global_context import GlobalContext
from nlden.attention.interop import from_reference
from nlden.attention.memory import MemoryEstimate, memory_estimate
from nlden.attention.non_local import NonLocal, NonLocal1d, NonLocal2d, NonLocal3d
from nlden.attention.squeeze_excitation import SqueezeExcitation

__all__ = [
    "CBAM",
    "ChannelAttention",
    "ChannelGate",
    "DualAttention",
    "DualAttentionHead",
    "GlobalContext",
    "MemoryEstimate",
    "NonLocal",
    "NonLocal1d",
    "NonLocal2d",
    "NonLocal3d",
    "PositionAttention",
    "SpatialGate",
    "SqueezeExcitation",
    "copy_blocks",
    "dual_attention_loss",
    "from_reference",
    "match_blocks",
    "memory_estimate",
    "smooth_displacement",
]
