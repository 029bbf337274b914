"""What a media file holds: pixel layout, colour tags, timing."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nlden.media.color import YCbCr
from nlden.media.hdr import Hdr
from nlden.media.pipes import STDIN, is_pipe
from nlden.media.sequences import is_sequence, numbers

if TYPE_CHECKING:
    from av.container.core import Chapter

DEPTHS = (8, 9, 10, 12, 14, 16)
"""Bits of a component that planes may have."""

SUBSAMPLING = {
    **{"yuv420": (2, 2), "yuv422": (2, 1), "yuv444": (1, 1)},
    **{"yuv440": (1, 2), "yuv411": (4, 1), "yuv410": (4, 4)},
}
"""Pixels, across and down, that share a chroma sample."""

_MATRIX_TAGS = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2


class MediaError(Exception):
    """A file cannot be read or written. The message is one line for the user."""


@dataclass(frozen=True)
class Layout:
    """How the pixels of a picture lie in memory.

    Args:
        kind: ``yuv420``, ``yuv422``, ``yuv444``, ``yuv440``, ``yuv411``, ``yuv410``, ``gray`` or
            ``rgb``.
        bits: 8, 9, 10, 12, 14 or 16.
        alpha: whether there is a plane of opacity.
    """

    kind: str
    bits: int
    alpha: bool = False

    @classmethod
    def of(cls, pixel_format: VideoFormat) -> "Layout":
        """Return the layout that holds a pixel format of FFmpeg without loss."""
        components = [c for c in pixel_format.components if not c.is_alpha]
        alpha = pixel_format.has_palette or len(components) < len(pixel_format.components)
        widest = 8 if pixel_format.has_palette else max(c.bits for c in components)
        # Extents of the chroma planes of a picture of 16 x 16 pixels tell the subsampling.
        ratio = (16 // pixel_format.chroma_width(16), 16 // pixel_format.chroma_height(16))
        other = pixel_format.has_palette or pixel_format.is_bayer
        if pixel_format.is_rgb or other or pixel_format.name.startswith("xyz"):
            kind = "rgb"
        elif len(components) < 3:
            kind = "gray"
        else:
            kind = next((k for k, shared in SUBSAMPLING.items() if shared == ratio), "yuv444")
        layouts = [cls(kind, bits, alpha) for bits in DEPTHS if bits >= widest]
        return next((layout for layout in layouts if layout.exists), cls(kind, 16, alpha))

    @property
    def pix_fmt(self) -> str:
        """Return FFmpeg's name of the planar format."""
        kind = self.kind.replace("yuv", "yuva") if self.alpha else self.kind
        names = {"gray": "ya" if self.alpha else "gray", "rgb": "gbrap" if self.alpha else "gbrp"}
        name = names.get(kind, f"{kind}p")
        if self.bits == 8:
            return "ya8" if name == "ya" else name
        return f"{name}{self.bits}le"

    @property
    def exists(self) -> bool:
        """Whether FFmpeg knows such a format."""
        try:
            VideoFormat(self.pix_fmt)
        except ValueError:
            return False
        return True

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
        across, down = SUBSAMPLING.get(self.kind, (1, 1))
        return across * down


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
        frames: number of frames that the file promises to show; 0 if it does not say.
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
        hdr: HDR metadata that its first frame carries.
        chroma_location: where 4:2:0 chroma lies, by FFmpeg's name, if it is tagged.
        profile: FFmpeg's name of the codec's profile (``High``, ``HQ``), if it is known.
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
    hdr: Hdr = field(default_factory=Hdr)
    chroma_location: str | None = None
    profile: str | None = None

    @property
    def color(self) -> YCbCr:
        """Return the matrix and range of its planes."""
        return self.tags.ycbcr(self.height)

    @property
    def origin(self) -> Fraction:
        """Return the timestamp, in seconds, that ``--start`` and ``--end`` count from."""
        return max(self.start, Fraction(0))  # what lies before zero primes the decoder of sound


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


def open_video(path: Path, hwaccel: HWAccel | None = None) -> tuple[InputContainer, VideoStream]:
    """Open a file and choose its video stream.

    Args:
        path: the file, or a pattern of numbered pictures.
        hwaccel: where to decode, if not on the CPU.

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
        for number, following in pairwise(found):
            if following > number + 1:
                raise MediaError(
                    f"{path}: picture {number + 1} is missing; number the pictures without gaps"
                )
        options["start_number"] = str(found[0])
    with reading(path):
        # Relative, a name with a colon is taken for an address.
        name = STDIN if is_pipe(path) else str(path.absolute())
        container = av.open(name, options=options, metadata_errors="replace", hwaccel=hwaccel)
    videos = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not videos or videos[0].codec_context is None or not videos[0].codec_context.width:
        container.close()
        raise MediaError(f"{path}: no video in this file; name a video or a picture")
    return container, videos[0]


def promised_frames(container: InputContainer, stream: VideoStream) -> int:
    """Return how many frames the file says that it shows; 0 if it does not say.

    The count of MP4 holds those that its edit list hides; FFmpeg's index tells them apart.
    """
    if stream.frames and container.format.name.startswith("mov"):
        return sum(not entry.is_discard for entry in stream.index_entries)
    return stream.frames


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Return how many seconds a video lasts; that of its file where nothing is said of it."""
    assert stream.time_base is not None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska says in a tag when a track ends.
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if tag is not None:
        hours, minutes, seconds = map(float, tag.groups())
        begin = float((stream.start_time or 0) * stream.time_base)
        if (lasts := 3600 * hours + 60 * minutes + seconds - begin) > 0:
            return lasts
    return container.duration / av.time_base if container.duration else None


def describe(path: Path, container: InputContainer, stream: VideoStream) -> VideoInfo:
    """Gather what is known of a video stream before it is decoded."""
    context = stream.codec_context
    assert stream.time_base is not None
    pixel_format = context.format
    if pixel_format is None:
        raise MediaError(f"{path}: the video's pixel format is unknown; is the file damaged?")
    full = pixel_format.name.startswith("yuvj")
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
        codec=context.codec.canonical_name,  # not libdav1d, which decodes av1
        profile=context.profile,
        time_base=stream.time_base,
        rate=stream.average_rate or stream.guessed_rate,
        # AVI counts gaps, too.
        frames=0 if container.format.name == "avi" else promised_frames(container, stream),
        duration=_duration(container, stream),
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


def first_frame(path: Path) -> VideoFrame | None:
    """Decode the first frame, which tells what a stream does not; None if it cannot be."""
    container, stream = open_video(path)
    with container:
        try:
            return next(container.decode(stream), None)
        except av.FFmpegError:
            return None
