"""LightningModules."""

from nlden.tasks.denoising import ImageDenoising

__all__ = ["ImageDenoising"]
