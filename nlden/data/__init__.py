"""Data sets and LightningDataModules."""

from nlden.data.augment import (
    noisy_gray,
    noisy_real,
    noisy_real_clips,
    noisy_real_clips_yuv420,
    noisy_rgb,
    noisy_yuv420,
)
from nlden.data.clips import ClipDataModule
from nlden.data.images import ImageDataModule
from nlden.data.pairs import noise2noise, supervised

__all__ = [
    "ClipDataModule",
    "ImageDataModule",
    "noise2noise",
    "noisy_gray",
    "noisy_real",
    "noisy_real_clips",
    "noisy_real_clips_yuv420",
    "noisy_rgb",
    "noisy_yuv420",
    "supervised",
]
