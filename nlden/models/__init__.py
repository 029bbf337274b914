"""Whole networks."""

from nlden.models.image_denoiser import ImageDenoiser, image_denoiser_base, image_denoiser_fast

__all__ = ["ImageDenoiser", "image_denoiser_base", "image_denoiser_fast"]
