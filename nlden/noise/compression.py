"""Storage and compression by the real codecs, on the CPU: for the workers of a data loader.

Pictures go in and come out as RGB in [0, 1], of the type and on the device that they had.
"""

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nlden.media.color import YCbCr, pack_yuv420, unpack_yuv420
from nlden.media.frames import from_planes, to_planes
from nlden.media.probe import Layout
from nlden.noise.synthesis import quantize, store_yuv420

_LAYOUT = Layout("yuv420", 8)
_SMALLEST = 96  # of smaller clips libx265 reads and overwrites foreign memory
_ENCODERS: Mapping[str, Literal["libx264", "libx265"]] = {"h264": "libx264", "hevc": "libx265"}
_FEW, _WIDE = 6, 128  # in clips of fewer frames libx264 reads beyond rows of macroblocks (AVX-512)
_OPTIONS = {"h264": {}, "hevc": {"x265-params": "log-level=none:pools=none:frame-threads=1"}}


def store_8bit_yuv420(rgb: Tensor, color: YCbCr | None = None) -> Tensor:
    """Pass pictures through 8-bit 4:2:0 planes, as video stores them, and back.

    Chroma is averaged over 2 x 2 pixels and interpolated bilinearly, all planes are rounded to
    codes. On any device. The planes themselves are ``quantize(store_yuv420(rgb, color))``.

    Args:
        rgb: ``(B, 3, H, W)`` of any size.
        color: matrix and range; None is BT.709 of limited range.

    Returns:
        RGB ``(B, 3, H, W)`` in [0, 1].
    """
    color = color or YCbCr()
    packed = quantize(store_yuv420(_even(rgb), color))
    return _to_rgb(packed, color, rgb.shape[2], rgb.shape[3])


def compress_jpeg(
    x: Tensor, quality: int, subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
) -> Tensor:
    """Compress pictures as JPEG files, and decode them.

    Args:
        x: RGB or grey, ``(B, 3, H, W)`` or ``(B, 1, H, W)``, of any size.
        quality: 1 to 95, as libjpeg counts it.
        subsampling: of chroma.

    Returns:
        The decoded pictures, of the same shape.

    Raises:
        ValueError: if the quality or the number of channels is another.
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"quality={quality} must be in [1, 95]")
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"x has shape {tuple(x.shape)}, must be (B, 3, H, W) or (B, 1, H, W)")
    decoded = []
    for codes in _codes(x):
        picture = Image.fromarray(codes.permute(1, 2, 0).squeeze(2).numpy())
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
        pixels = np.array(Image.open(file))
        decoded.append(torch.from_numpy(pixels).view(*x.shape[2:], -1).permute(2, 0, 1))
    return torch.stack(decoded).to(x) / 255


def compress_video(
    clip: Tensor, crf: float, codec: Literal["h264", "hevc"] = "h264", color: YCbCr | None = None
) -> Tensor:
    """Compress the frames of one clip as H.264 or H.265 (libx264, libx265), and decode them.

    The frames are stored in 8-bit 4:2:0 first. A clip of one frame is a still: an intra frame.

    Args:
        clip: RGB ``(T, 3, H, W)`` of any size.
        crf: constant rate factor, 0 (best) to 51.
        codec: ``h264`` or ``hevc``.
        color: matrix and range of the planes; None is BT.709 of limited range.

    Returns:
        The decoded frames ``(T, 3, H, W)``.

    Raises:
        ValueError: if the rate factor, the codec or the shape is another.
    """
    if not 0 <= crf <= 51:
        raise ValueError(f"crf={crf:g} must be in [0, 51]")
    if codec not in _ENCODERS:
        raise ValueError(f"codec={codec!r} must be one of {', '.join(_ENCODERS)}")
    if clip.ndim != 4 or clip.shape[1] != 3 or len(clip) == 0:
        raise ValueError(f"clip has shape {tuple(clip.shape)}, must be (T, 3, H, W)")
    color = color or YCbCr()
    wide = _even(clip, _SMALLEST, _WIDE if len(clip) < _FEW else 2)
    packed = store_yuv420(wide, color)
    luma, chroma = unpack_yuv420(_codes(packed), (2 * packed.shape[2], 2 * packed.shape[3]))
    frames = _recode([from_planes(p, _LAYOUT) for p in zip(luma, chroma, strict=True)], crf, codec)
    planes = zip(*(to_planes(frame, _LAYOUT) for frame in frames), strict=True)
    luma, chroma = (torch.stack(p).to(clip) / 255 for p in planes)
    return _to_rgb(pack_yuv420(luma, chroma), color, clip.shape[2], clip.shape[3])


def _recode(
    frames: Sequence[av.VideoFrame], crf: float, codec: Literal["h264", "hevc"]
) -> list[av.VideoFrame]:
    encoder = av.CodecContext.create(_ENCODERS[codec], "w")
    encoder.width, encoder.height = frames[0].width, frames[0].height
    encoder.pix_fmt = _LAYOUT.pix_fmt
    encoder.framerate, encoder.time_base = Fraction(25), Fraction(1, 25)
    encoder.options = {"crf": str(crf), **_OPTIONS[codec]}
    decoder = av.CodecContext.create(codec, "r")
    # The workers of a loader share the cores already.
    encoder.thread_count = decoder.thread_count = 1
    packets = []
    for time, frame in enumerate(frames):
        frame.pts, frame.time_base = time, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [frame for packet in [*packets, None] for frame in decoder.decode(packet)]


def _codes(x: Tensor) -> Tensor:
    return (quantize(x.detach().cpu()) * 255).round().to(torch.uint8)


def _even(x: Tensor, smallest: int = 2, multiple: int = 2) -> Tensor:
    """Repeat the last row and column up to an even height and a width that a codec takes."""
    height, width = (max(s, smallest) for s in x.shape[2:])
    more = (0, width + -width % multiple - x.shape[3], 0, height + height % 2 - x.shape[2])
    return F.pad(x, more, mode="replicate")


def _to_rgb(packed: Tensor, color: YCbCr, height: int, width: int) -> Tensor:
    packed = packed[..., : (height + 1) // 2, : (width + 1) // 2]
    luma, chroma = unpack_yuv420(packed, (height, width))
    wide = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    return color.to_rgb(torch.cat([luma, wide[..., :height, :width]], dim=1)).clamp(0, 1)
