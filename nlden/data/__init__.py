"""Data sets and LightningDataModules."""

from nlden.data.images import ImageDataModule

__all__ = ["ImageDataModule"]
