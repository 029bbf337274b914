"""Attention blocks: Squeeze-and-Excitation and Non-local."""

from nlden.attention.non_local import NonLocal1d, NonLocal2d, NonLocal3d
from nlden.attention.squeeze_excitation import SqueezeExcitation

__all__ = ["NonLocal1d", "NonLocal2d", "NonLocal3d", "SqueezeExcitation"]
