"""Whole networks."""

from nlden.models.image_denoiser import (
    ImageDenoiser,
    image_denoiser,
    image_denoiser_base,
    image_denoiser_fast,
    image_denoiser_tiny,
)
from nlden.models.temporal_shift import TemporalShiftDenoiser, temporal_shift_denoiser_fast
from nlden.models.video_denoiser import (
    VideoDenoiser,
    video_denoiser_base,
    video_denoiser_fast,
    video_denoiser_real,
)

__all__ = [
    "ImageDenoiser",
    "TemporalShiftDenoiser",
    "VideoDenoiser",
    "image_denoiser",
    "image_denoiser_base",
    "image_denoiser_fast",
    "image_denoiser_tiny",
    "temporal_shift_denoiser_fast",
    "video_denoiser_base",
    "video_denoiser_fast",
    "video_denoiser_real",
]
