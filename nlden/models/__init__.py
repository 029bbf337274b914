"""Whole networks."""

from nlden.models.image_denoiser import ImageDenoiser, image_denoiser_base, image_denoiser_fast
from nlden.models.video_denoiser import VideoDenoiser, video_denoiser_base

__all__ = [
    "ImageDenoiser",
    "VideoDenoiser",
    "image_denoiser_base",
    "image_denoiser_fast",
    "video_denoiser_base",
]
