"""Stream copy: everything but the denoised video goes into the new file packet by packet.

Whether a container holds a stream is asked of FFmpeg's muxer itself, by writing the head of an
empty file into memory.
"""

import io
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction

import av
from av.container import OutputContainer
from av.stream import AttachmentStream, Disposition, Stream
from av.subtitles.stream import SubtitleStream

from nlden.media.pipes import STDIN
from nlden.media.trim import Packet

_TIMES_MAY_STAND = 0x20000  # AVFMT_TS_NONSTRICT
# Formats of FFmpeg and the extension to suggest, the most widely capable first.
_ELSEWHERE = {"matroska": ".mkv", "mov": ".mov", "mp4": ".mp4", "mpegts": ".ts"}
_PLAIN_TEXT = ("subrip", "text", "webvtt", "mov_text")
_TEXT_OF = {
    "matroska": "subrip",
    "webm": "webvtt",
    "mp4": "mov_text",
    "mov": "mov_text",
    "ipod": "mov_text",
}
_PICTURES = {"mjpeg": "image/jpeg", "png": "image/png", "bmp": "image/bmp"}
# MP4 fills the time between two texts with empty ones; its muxer makes them anew.
_GAP = b"\0\0"
MPEGTS = {
    *("h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4"),
    *("mp2", "mp3", "aac", "aac_latm", "ac3", "eac3", "dts", "truehd", "opus", "s302m"),
    *("dvb_subtitle", "dvb_teletext", "klv", "timed_id3", "smpte_2038"),
}
"""What MPEG-TS knows: it takes anything, but the rest is not found again."""

# What describes the stream as it was encoded, or the program that wrote it.
_STALE = (
    *("encoder", "software", "major_brand", "minor_version", "compatible_brands", "duration"),
    "alpha_mode",
)
_STATISTICS = ("bps", "number_of_", "_statistics_")


def codec_name(stream: Stream) -> str:
    """Return FFmpeg's name of a stream's codec."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return getattr(stream, "name", None) or "unknown"


def label(stream: Stream) -> str:
    """Name a stream for the user: ``stream #2 (subtitle ass, ger)``."""
    kind = "cover picture" if is_picture(stream) else stream.type
    language = f", {stream.language}" if stream.language else ""
    return f"stream #{stream.index} ({kind} {codec_name(stream)}{language})"


def is_picture(stream: Stream) -> bool:
    """Tell whether a stream is a cover picture."""
    return bool(stream.disposition & Disposition.attached_pic)


def passing(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that stay true, under the names that every muxer knows."""
    kept = {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _STALE and not key.lower().startswith(_STATISTICS)
    }
    if "name" in kept:  # what MP4 gives back of a title
        kept.setdefault("title", kept.pop("name"))
    return kept


def holds(form: str, stream: Stream) -> bool:
    """Tell whether a format of FFmpeg (``matroska``) holds a stream as it is."""
    name = codec_name(stream)
    if isinstance(stream, AttachmentStream):
        return form == "matroska"
    if is_picture(stream):
        return form in ("matroska", "mp4", "ipod") and name in _PICTURES
    if form == "mpegts":
        return name in MPEGTS
    if stream.type == "data" and name != "bin_data":
        return False  # MOV would write it under no name that is known when it is read
    try:
        scratch = av.open(io.BytesIO(), "w", format=form)
        _add(scratch, stream)
        scratch.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    with suppress(av.FFmpegError):
        scratch.close()
    return True


def kept_tags(form: str, metadata: Mapping[str, str]) -> set[str]:
    """Return the names of the tags of a file that a format gives back."""
    memory = io.BytesIO()
    with av.open(memory, "w", format=form) as scratch:
        scratch.metadata.update(metadata)
        scratch.add_mux_stream("h264", width=64, height=64).time_base = Fraction(1, 25)
        scratch.start_encoding()
    memory.seek(0)
    with av.open(memory) as written:
        return {key.lower() for key in written.metadata}


def _add(container: OutputContainer, source: Stream) -> Stream:
    # Without its codec context (opaque) a copied video would need an encoder of its codec.
    stream = container.add_stream_from_template(source, opaque=True)
    stream.disposition = source.disposition
    stream.metadata.update(passing(source.metadata))
    if container.format.name == "avi" and source.type == "video" and source.average_rate:
        stream.time_base = 1 / source.average_rate  # AVI counts frames
    return stream


class StreamCopier:
    """Copy streams into a container; what it cannot hold is left out with a warning.

    Args:
        container: where to; its header must not be written yet.
        name: what to call it in warnings.
    """

    def __init__(self, container: OutputContainer, name: str) -> None:
        self.warnings: list[str] = []
        self.streams: dict[int, tuple[Stream, Stream]] = {}
        self._container, self._name = container, name
        self._converters: dict[int, SubtitleStream] = {}
        self._pictures: list[tuple[Stream, bytes]] = []
        self._last: dict[int, int] = {}

    def add(self, source: Stream) -> None:
        """Take a stream of another file along."""
        form = self._container.format.name
        if not holds(form, source):
            self._convert_or_leave(source, form)
        elif is_picture(source) and source.container.name == STDIN:
            self.warnings.append(
                f"{label(source)} is left out: it takes a second look at the input, not a pipe"
            )
        elif isinstance(source, AttachmentStream):
            mime = source.mimetype or "application/octet-stream"
            self._container.add_attachment(source.name or "attachment", mime, source.data)
        elif is_picture(source):
            data = _picture(source)
            if form == "matroska":
                mime = _PICTURES[codec_name(source)]
                name = source.metadata.get("filename", f"cover.{mime[6:].replace('e', '')}")
                self._container.add_attachment(name, mime, data)
            else:
                self._pictures.append((_add(self._container, source), data))
        else:
            self.streams[source.index] = source, _add(self._container, source)

    def _convert_or_leave(self, source: Stream, form: str) -> None:
        codec = _TEXT_OF.get(form)
        if codec and isinstance(source, SubtitleStream) and codec_name(source) in _PLAIN_TEXT:
            self.streams[source.index] = source, self._converter(source, codec)
            self.warnings.append(
                f"{self._name} cannot hold {label(source)}; its text is kept as {codec} subtitles"
            )
            return
        other = next((_ELSEWHERE[f] for f in _ELSEWHERE if holds(f, source)), None)
        advice = f"; {other} would keep it" if other else ""
        self.warnings.append(f"{self._name} cannot hold {label(source)}: left out{advice}")

    def _converter(self, source: SubtitleStream, codec: str) -> SubtitleStream:
        stream = self._container.add_stream(codec)
        assert isinstance(stream, SubtitleStream)
        if not source.codec_context.is_open:
            source.codec_context.open()
        stream.codec_context.subtitle_header = source.codec_context.subtitle_header
        assert source.time_base is not None
        stream.time_base = stream.codec_context.time_base = source.time_base
        stream.disposition = source.disposition
        stream.metadata.update(passing(source.metadata))
        self._converters[source.index] = stream
        return stream

    def pictures(self) -> list[Packet]:
        """Return the packets of the cover pictures, to be written first."""
        packets = []
        for stream, data in self._pictures:
            packet: Packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, 0, 0
            packet.is_keyframe = True
            packets.append(packet)
        return packets

    def copy(self, packet: Packet) -> list[Packet]:
        """Return what to write for a packet of a source: itself as a rule, or nothing."""
        index = packet.stream.index
        if index not in self.streams:
            return []
        if packet.stream.type == "subtitle" and bytes(packet) == _GAP:
            return []
        if converter := self._converters.get(index):
            source = self.streams[index][0]
            assert isinstance(source, SubtitleStream)
            subtitle = source.codec_context.decode2(packet)
            if subtitle is None or not len(subtitle.rects):
                return []
            text = converter.codec_context.encode_subtitle(subtitle)
            text.pts = text.dts = packet.pts
            text.duration, text.time_base = packet.duration, packet.time_base
            packet = text
        last = self._last.get(index)
        if packet.dts is None:
            packet.dts = last if packet.pts is None else packet.pts
        if packet.dts is None:
            return []  # of a damaged file: nobody knows when
        # Muxers refuse to go back in time, and most of them sound that stands still.
        first = 0 if last is None else last + self._step(self.streams[index][0])
        if last is not None and packet.dts < first:
            packet.dts = first
            packet.pts = first if packet.pts is None else max(packet.pts, first)
        self._last[index] = packet.dts
        packet.stream = self.streams[index][1]
        return [packet]

    def _step(self, source: Stream) -> int:
        """Return by how much a packet of a stream must follow the one before, in ticks."""
        loose = self._container.format.flags & _TIMES_MAY_STAND
        return 1 if source.type in ("audio", "video") and not loose else 0


def _picture(stream: Stream) -> bytes:
    """Return the bytes of a cover picture: a muxer of Matroska wants them in its header."""
    with av.open(stream.container.name) as container:
        packets = container.demux(container.streams[stream.index])
        return next(bytes(packet) for packet in packets if packet.size)
