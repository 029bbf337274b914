"""Data sets and LightningDataModules."""

from nlden.data.augment import noisy_rgb, noisy_yuv420
from nlden.data.images import ImageDataModule

__all__ = ["ImageDataModule", "noisy_rgb", "noisy_yuv420"]
