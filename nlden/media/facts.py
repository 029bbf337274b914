"""What a video file says of itself: its streams, their pictures, colour and HDR, its chapters."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from av.stream import AttachmentStream, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from av.video.stream import VideoStream

from nlden.media.frame_rate import Timing
from nlden.media.hdr import Hdr
from nlden.media.probe import VideoInfo

if TYPE_CHECKING:
    import av.container.core

_MATRICES = {
    **{0: "rgb", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m"},
    **{8: "ycgco", 9: "bt2020nc", 10: "bt2020c", 14: "ictcp"},
}
_RANGES = {1: "limited", 2: "full"}
_CHROMA = {
    **{"yuv420": "4:2:0", "yuv422": "4:2:2", "yuv444": "4:4:4"},
    **{"yuv440": "4:4:0", "yuv411": "4:1:1", "yuv410": "4:1:0"},
}
_FIELDS = {1: "progressive", 2: "top first", 3: "bottom first", 4: "top first", 5: "bottom first"}
_DYNAMIC = {"HDR10+": "hdr10plus", "Dolby Vision": "dolby_vision"}


@dataclass(frozen=True)
class Picture:
    """The pictures of a stream, or a still picture.

    Args:
        width: in pixels.
        height: in pixels.
        pixel_format: FFmpeg's name, or ``rgb`` and ``gray`` for stills.
        bits: of a component.
        chroma: ``4:2:0``, ``4:2:2``, ``4:4:4``, or None where there are no chroma planes.
        range: ``limited``, ``full`` or None: not said.
        matrix: FFmpeg's name of the YCbCr matrix, or None.
        primaries: FFmpeg's name, or None.
        transfer: FFmpeg's name, or None.
        taken_as: matrix and range with which untagged material is read, such as
            ``bt601, limited``; None for RGB and grey.
        aspect: sample aspect ratio, such as ``64:45``; None if square.
        rotation: degrees by which a player turns the picture.
        fields: ``progressive``, ``top first``, ``bottom first``, as flagged; None: not said.
        alpha: whether there is opacity.
        hdr: mastering display (chromaticities, cd/m2), content light level (cd/m2) and dynamic
            metadata that the first frame carries.
        timing: frames per second and their kind, of the video.
    """

    width: int
    height: int
    pixel_format: str
    bits: int
    chroma: str | None = None
    range: str | None = None
    matrix: str | None = None
    primaries: str | None = None
    transfer: str | None = None
    taken_as: str | None = None
    aspect: str | None = None
    rotation: int = 0
    fields: str | None = None
    alpha: bool = False
    hdr: dict[str, Any] = field(default_factory=dict)
    timing: Timing | None = None


@dataclass(frozen=True)
class StreamFacts:
    """One stream of a file.

    Args:
        index: its place.
        kind: ``video``, ``audio``, ``subtitle``, ``data`` or ``attachment``.
        codec: FFmpeg's name, or None.
        language: as tagged.
        title: as tagged; for attachments the name of the file.
        dispositions: ``default``, ``forced``...
        picture: for video.
        sound: sample rate in hertz and channel layout, for audio.
        denoised: what a denoise run into the same container does with it.
    """

    index: int
    kind: str
    codec: str | None
    language: str | None
    title: str | None
    dispositions: list[str]
    picture: Picture | None
    sound: tuple[int, str] | None
    denoised: str


@dataclass(frozen=True)
class Chapter:
    """A chapter: seconds and title."""

    start: float
    end: float
    title: str


def stream_facts(stream: Stream, picture: Picture | None, denoised: str) -> StreamFacts:
    """Describe a stream; ``picture`` and ``denoised`` go into it as they are."""
    context = stream.codec_context
    sound = None
    if stream.type == "audio" and context is not None:
        # The type of the stream tells that this is an AudioCodecContext.
        sound = (context.sample_rate, context.layout.name)  # type: ignore[attr-defined]
    attached = isinstance(stream, AttachmentStream)
    return StreamFacts(
        index=stream.index,
        kind=stream.type,
        codec=None if context is None else context.name,
        language=stream.metadata.get("language"),
        title=stream.metadata.get("filename" if attached else "title"),
        dispositions=[d.name for d in Disposition if d.name and stream.disposition & d],
        picture=picture,
        sound=sound,
        denoised=denoised,
    )


def picture_facts(
    info: VideoInfo, stream: VideoStream, first: VideoFrame | None, timing: Timing | None
) -> Picture:
    """Describe the pictures of a stream.

    Args:
        info: what :func:`nlden.media.probe.describe` says of it.
        stream: the stream.
        first: its first frame, which carries rotation, fields and HDR; None: left out.
        timing: its timing, if it was measured.
    """
    context = stream.codec_context
    assert context.format is not None  # describe() has seen to it
    tags, color = info.tags, info.color
    planar = info.layout.kind in _CHROMA
    fields = _FIELDS.get(int(context.field_order))
    if first is not None and first.interlaced_frame and fields in (None, "progressive"):
        fields = "interlaced"
    return Picture(
        width=info.width,
        height=info.height,
        pixel_format=context.format.name,
        bits=max(c.bits for c in context.format.components),
        chroma=_CHROMA.get(info.layout.kind),
        range=_RANGES.get(tags.color_range),
        matrix=_MATRICES.get(tags.colorspace),
        primaries=_name(ColorPrimaries, tags.primaries),
        transfer=_name(ColorTrc, tags.transfer),
        taken_as=f"{color.matrix}, {'full' if color.full_range else 'limited'}" if planar else None,
        aspect=f"{info.aspect.numerator}:{info.aspect.denominator}" if info.aspect else None,
        rotation=first.rotation if first is not None else 0,
        fields=fields,
        alpha=info.layout.alpha,
        hdr=_hdr(Hdr.of(first)) if first is not None else {},
        timing=timing,
    )


def _name(names: type[ColorPrimaries] | type[ColorTrc], number: int) -> str | None:
    if number in (0, names.UNSPECIFIED):
        return None
    return next((n.name.lower() for n in names if n.value == number), str(number))


def _hdr(hdr: Hdr) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if hdr.chromaticities is not None:
        numbers = [float(n) for n in hdr.chromaticities]
        points = [(numbers[i], numbers[i + 1]) for i in range(0, 8, 2)]
        found |= dict(zip(("red", "green", "blue", "white_point"), points, strict=True))
    if hdr.luminances is not None:
        low, high = hdr.luminances
        found |= {"min_luminance": float(low), "max_luminance": float(high)}
    if hdr.light is not None:
        found |= {"max_content_light": hdr.light[0], "max_frame_average_light": hdr.light[1]}
    return found | {_DYNAMIC[name]: True for name in hdr.dynamic}


def chapter_facts(chapter: "av.container.core.Chapter") -> Chapter:
    """Describe a chapter."""
    unit = Fraction(chapter["time_base"] or Fraction(1, 1000))
    start, end = float(chapter["start"] * unit), float(chapter["end"] * unit)
    return Chapter(start, end, chapter["metadata"].get("title", ""))
