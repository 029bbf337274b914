"""Pictures of 16 bits through FFmpeg, by PyAV."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from nlden.media.frames import plane_codes
from nlden.media.probe import open_video

_FORMATS = {1: "gray16", 2: "ya16", 3: "rgb48", 4: "rgba64"}  # by channels, less the byte order


def decode_deep(path: Path) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the 16-bit codes ``(H, W, C)`` of a picture: grey or RGB, and alpha where C is even.

    Raises:
        MediaError: if the file cannot be opened.
        ValueError: if FFmpeg takes it for a picture of 8 bits.
    """
    container, stream = open_video(path)
    with container:
        frame = next(container.decode(stream))
        if max(c.bits for c in frame.format.components) <= 8:
            raise ValueError(f"FFmpeg reads it as {frame.format.name}")
        channels = len(frame.format.components)
        frame = frame.reformat(format=_FORMATS[channels] + "le")
        codes = plane_codes(frame.planes[0], 16, frame.width * channels)
        return codes.reshape(frame.height, frame.width, channels).astype(np.int32)


def encode_deep_png(codes: np.ndarray[Any, Any]) -> bytes:
    """Return 16-bit codes ``(H, W, C)`` as a PNG file."""
    height, width, channels = codes.shape
    name = _FORMATS[channels] + "be"
    frame = av.VideoFrame(width, height, name)
    plane_codes(frame.planes[0], 16, width * channels)[:] = codes.reshape(height, -1).byteswap()
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, name
    encoder.time_base = Fraction(1, 25)
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
