"""Noise: making it (here) and measuring it (:mod:`nlden.noise.estimation`).

The models are functions from pictures to noisy pictures: noise of several kinds is had by calling
one after the other. All are seeded by a generator and, but for the codecs, run on any device.
Levels are standard deviations in units of the picture, whose values lie in [0, 1]. A level is one
number, ``(B,)`` one a picture, ``(1, C, 1, 1)`` one a channel or ``(B, 1, H, W)`` a map
(:func:`white_gaussian` broadcasts as it is told: one a picture is ``(B, 1, 1, 1)``).
"""

from nlden.noise.camera import Camera, draw_camera, poisson_gaussian, through_camera
from nlden.noise.compression import compress_jpeg, compress_video, store_8bit_yuv420
from nlden.noise.gaussian import blurred_gaussian, covariant_gaussian, upscaled_gaussian
from nlden.noise.mixture import draw_developed_noise, draw_real_noise, draw_sigma
from nlden.noise.patterns import banding, film_grain, row_column, salt_and_pepper, speckle
from nlden.noise.synthesis import quantize, store_yuv420, white_gaussian, ycbcr_gaussian

__all__ = [
    "Camera",
    "banding",
    "blurred_gaussian",
    "compress_jpeg",
    "compress_video",
    "covariant_gaussian",
    "draw_camera",
    "draw_developed_noise",
    "draw_real_noise",
    "draw_sigma",
    "film_grain",
    "poisson_gaussian",
    "quantize",
    "row_column",
    "salt_and_pepper",
    "speckle",
    "store_8bit_yuv420",
    "store_yuv420",
    "through_camera",
    "upscaled_gaussian",
    "white_gaussian",
    "ycbcr_gaussian",
]
