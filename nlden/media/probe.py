"""What a media file holds: pixel layout, colour tags, timing."""

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nlden.media.color import YCbCr
from nlden.media.pipes import STDIN, is_pipe
from nlden.media.sequences import is_sequence, numbers

if TYPE_CHECKING:
    from av.container.core import Chapter

_DEPTHS = (8, 10, 12, 16)
_MATRIX_TAGS = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2


class MediaError(Exception):
    """A file cannot be read or written. The message is one line for the user."""


@dataclass(frozen=True)
class Layout:
    """How the pixels of a picture lie in memory.

    Args:
        kind: ``yuv420``, ``yuv422``, ``yuv444``, ``gray`` or ``rgb``.
        bits: 8, 10, 12 or 16.
    """

    kind: str
    bits: int

    @classmethod
    def of(cls, pixel_format: VideoFormat) -> "Layout":
        """Return the layout that holds a pixel format of FFmpeg without loss (but for alpha)."""
        components = [c for c in pixel_format.components if not c.is_alpha]
        widest = 8 if pixel_format.has_palette else max(c.bits for c in components)
        bits = next((d for d in _DEPTHS if d >= widest), 16)
        if pixel_format.is_rgb or pixel_format.has_palette or pixel_format.is_bayer:
            return cls("rgb", bits)
        if len(components) < 3:
            return cls("gray", bits)
        # Extents of the chroma planes of a picture of 16 x 16 pixels tell the subsampling.
        width, height = pixel_format.chroma_width(16), pixel_format.chroma_height(16)
        kinds = {(8, 8): "yuv420", (8, 16): "yuv422"}
        return cls(kinds.get((width, height), "yuv444"), bits)

    @property
    def pix_fmt(self) -> str:
        """Return FFmpeg's name of the planar format."""
        name = {"gray": "gray", "rgb": "gbrp"}.get(self.kind, f"{self.kind}p")
        return name if self.bits == 8 else f"{name}{self.bits}le"

    @property
    def white(self) -> int:
        """Return the code that stands for 1.0: see :mod:`nlden.media.color`."""
        return 2**self.bits - 1 if self.kind == "rgb" else 255 << (self.bits - 8)

    @property
    def largest(self) -> int:
        """Return the largest code."""
        return 2**self.bits - 1

    @property
    def averaged(self) -> int:
        """Return how many pixels share one chroma sample."""
        return {"yuv420": 4, "yuv422": 2}.get(self.kind, 1)


@dataclass(frozen=True)
class ColorTags:
    """The four colour tags of a stream, as FFmpeg's numbers (2 or 0 is unspecified)."""

    colorspace: int
    color_range: int
    primaries: int
    transfer: int

    def ycbcr(self, height: int) -> YCbCr:
        """Return the matrix and range; untagged material is taken as players take it."""
        guess = "bt709" if height >= 720 else "bt601"
        matrix = _MATRIX_TAGS.get(self.colorspace, guess)
        return YCbCr(matrix, full_range=self.color_range == _FULL_RANGE)


@dataclass(frozen=True)
class VideoInfo:
    """The video stream of a file.

    Args:
        path: the file.
        width: width in pixels.
        height: height in pixels.
        layout: layout of its pixels.
        tags: its colour tags.
        codec: name of its codec (``h264``).
        time_base: unit of its timestamps, in seconds.
        rate: average frames per second, if known.
        frames: number of frames that the file promises; 0 if it does not say.
        duration: seconds that the file promises, if it does.
        aspect: sample aspect ratio, if it is not square.
        rotation: degrees by which a player turns the picture, counter-clockwise.
        matrix: the nine numbers of FFmpeg's display matrix (turns and mirrors), if there is one.
        index: place of the stream in the file.
        disposition: its flags (default, forced...), as FFmpeg's number.
        metadata: its own tags.
        file_metadata: the tags of the file.
        chapters: the chapters of the file.
        start: earliest time of any stream, in seconds.
    """

    path: Path
    width: int
    height: int
    layout: Layout
    tags: ColorTags
    codec: str
    time_base: Fraction
    rate: Fraction | None
    frames: int
    duration: float | None
    aspect: Fraction | None
    rotation: int
    matrix: tuple[int, ...] | None = None
    index: int = 0
    disposition: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    file_metadata: Mapping[str, str] = field(default_factory=dict)
    chapters: "tuple[Chapter, ...]" = ()
    start: Fraction = Fraction(0)

    @property
    def color(self) -> YCbCr:
        """Return the matrix and range of its planes."""
        return self.tags.ycbcr(self.height)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file into one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file") from error
    except PermissionError as error:
        raise MediaError(f"{path}: no permission to read it") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{path}: not a readable media file ({reason})") from error


def open_video(path: Path) -> tuple[InputContainer, VideoStream]:
    """Open a file and choose its video stream.

    Raises:
        MediaError: if it cannot be read or holds no video.
    """
    if not is_pipe(path) and path.is_file() and path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    options = {}
    if is_sequence(path):
        found = numbers(path)
        if not found:
            raise MediaError(f"{path}: no pictures of this pattern")
        options["start_number"] = str(found[0])
    with reading(path):
        name = STDIN if is_pipe(path) else str(path)
        container = av.open(name, options=options, metadata_errors="replace")
    videos = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not videos or videos[0].codec_context is None or not videos[0].codec_context.width:
        container.close()
        raise MediaError(f"{path}: no video in this file; name a video or a picture")
    return container, videos[0]


def describe(path: Path, container: InputContainer, stream: VideoStream) -> VideoInfo:
    """Gather what is known of a video stream before it is decoded."""
    context = stream.codec_context
    assert stream.time_base is not None
    pixel_format = context.format
    if pixel_format is None:
        raise MediaError(f"{path}: the video's pixel format is unknown; is the file damaged?")
    full = pixel_format.name.startswith("yuvj")
    duration = container.duration / av.time_base if container.duration else None
    if stream.duration:
        duration = float(stream.duration * stream.time_base)
    aspect = stream.sample_aspect_ratio
    return VideoInfo(
        path=path,
        width=context.width,
        height=context.height,
        layout=Layout.of(pixel_format),
        tags=ColorTags(
            int(context.colorspace),
            _FULL_RANGE if full else int(context.color_range),
            int(context.color_primaries),
            int(context.color_trc),
        ),
        codec=context.codec.name,
        time_base=stream.time_base,
        rate=stream.average_rate or stream.guessed_rate,
        frames=0 if container.format.name == "avi" else stream.frames,  # AVI counts gaps, too
        duration=duration,
        aspect=aspect if aspect and aspect != 1 else None,
        rotation=0,
        index=stream.index,
        disposition=int(stream.disposition),
        metadata=dict(stream.metadata),
        file_metadata=dict(container.metadata),
        chapters=tuple(container.chapters()),
        start=Fraction(container.start_time or 0, av.time_base),
    )


def probe(path: Path) -> VideoInfo:
    """Describe the video of a file.

    Raises:
        MediaError: if it cannot be read or holds no video.
    """
    container, stream = open_video(path)
    with container:
        return describe(path, container, stream)


def orientation(path: Path) -> tuple[int, tuple[int, ...] | None]:
    """Return rotation and display matrix of the first frame (a stream does not tell them)."""
    container, stream = open_video(path)
    with container:
        try:
            frame = next(container.decode(stream))
        except (av.FFmpegError, StopIteration):
            return 0, None
        return orientation_of(frame)


def orientation_of(frame: VideoFrame) -> tuple[int, tuple[int, ...] | None]:
    """Return rotation and display matrix of a decoded frame."""
    if SideData.DISPLAYMATRIX in (carried := side_data(frame)):
        return frame.rotation, struct.unpack("=9i", bytes(carried[SideData.DISPLAYMATRIX]))
    return frame.rotation, _rotation_matrix(frame.rotation) if frame.rotation else None


def side_data(frame: VideoFrame) -> Mapping[SideData, Any]:
    """Return what a frame carries beside its picture; nothing if part of it is of unknown type."""
    try:
        carried: Any = frame.side_data  # PyAV's annotation describes something else
    except ValueError:  # PyAV names fewer types than its FFmpeg knows (EXIF is one)
        return {}
    return carried


def _rotation_matrix(degrees: int) -> tuple[int, ...]:
    """Return the display matrix of a counter-clockwise turn, in FFmpeg's fixed point."""
    cos, sin = (round(f(math.radians(degrees)) * 2**16) for f in (math.cos, math.sin))
    return cos, -sin, 0, sin, cos, 0, 0, 0, 2**30
