"""Attention blocks: Squeeze-and-Excitation and Non-local."""

from nlden.attention.non_local import NonLocal2d
from nlden.attention.squeeze_excitation import SqueezeExcitation

__all__ = ["NonLocal2d", "SqueezeExcitation"]
