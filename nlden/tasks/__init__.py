"""LightningModules."""

from nlden.tasks.denoising import ImageDenoising, VideoDenoising

__all__ = ["ImageDenoising", "VideoDenoising"]
