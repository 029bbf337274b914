"""Media files as tensors: video through PyAV, stills through Pillow and PyAV."""

from nlden.media.frames import Frame
from nlden.media.probe import Layout, MediaError, VideoInfo
from nlden.media.reader import VideoReader
from nlden.media.writer import Encoding, VideoWriter

__all__ = [
    "Encoding",
    "Frame",
    "Layout",
    "MediaError",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
]
