"""Feature extractors with slots for attention blocks."""

from nlden.encoders.unet import ResidualBlock, UNet

__all__ = ["ResidualBlock", "UNet"]
