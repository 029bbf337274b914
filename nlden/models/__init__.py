"""Whole networks."""

from nlden.models.image_denoiser import (
    ImageDenoiser,
    image_denoiser,
    image_denoiser_base,
    image_denoiser_fast,
    image_denoiser_tiny,
)
from nlden.models.video_denoiser import VideoDenoiser, video_denoiser_base, video_denoiser_fast

__all__ = [
    "ImageDenoiser",
    "VideoDenoiser",
    "image_denoiser",
    "image_denoiser_base",
    "image_denoiser_fast",
    "image_denoiser_tiny",
    "video_denoiser_base",
    "video_denoiser_fast",
]
