"""Streaming writer: frames are encoded, sound is copied packet by packet.

The file grows under a temporary name beside the target and takes the target's name when it is
complete; if anything fails nothing is left.
"""

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from nlden.media.probe import Layout, MediaError, VideoInfo
from nlden.media.reader import AudioPacket, Frame, from_planes

_FAMILY = {
    "h264": "libx264",
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "vp8": "libvpx-vp9",
    "ffv1": "ffv1",
    "prores": "prores_ks",
    "mjpeg": "mjpeg",
}
_CRF = {"libx264": 16, "libx264rgb": 16, "libx265": 18, "libsvtav1": 22, "libvpx-vp9": 22}
_LOSSLESS: Mapping[str, Mapping[str, str]] = {
    "ffv1": {},
    "libx264": {"qp": "0"},
    "libx264rgb": {"qp": "0"},
    "libx265": {"x265-params": "lossless=1"},
    "libvpx-vp9": {"lossless": "1"},
}
_BY_CONTAINER = {".webm": "libvpx-vp9", ".y4m": "rawvideo"}
# Containers for which FFmpeg names only its defaults, not all that they hold.
_UNLISTED = (".ts", ".mts", ".m2ts", ".y4m")


@dataclass(frozen=True)
class Encoding:
    """How to encode a video. What is None follows the source.

    Args:
        codec: an encoder or codec of FFmpeg (``libx265``, ``h264``).
        crf: constant rate factor; smaller is better and larger.
        preset: the encoder's speed preset.
        pix_fmt: pixel format.
        lossless: keep every code.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    lossless: bool = False

    def choose(
        self, info: VideoInfo, suffix: str, supported: Collection[str]
    ) -> tuple[str, str, dict[str, str]]:
        """Return encoder, pixel format and options for a source and a container.

        Args:
            info: the source.
            suffix: extension of the target, lower case with its dot.
            supported: names of the codecs that the container holds; empty if any.

        Raises:
            MediaError: for an encoder that is not there or cannot do what is asked.
        """
        layout = info.layout
        if self.pix_fmt is not None:
            try:
                layout = Layout.of(av.VideoFormat(self.pix_fmt))
            except ValueError as error:
                raise MediaError(
                    f"--pix-fmt {self.pix_fmt}: no such pixel format (try yuv420p, yuv420p10le)"
                ) from error
        for name in self._candidates(info, layout, suffix):
            codec = _encoder(name)
            if supported and codec.canonical_name not in supported:
                if self.codec:
                    raise MediaError(f"--codec {self.codec}: {suffix} cannot hold it; use .mkv")
                continue
            pix_fmt = _nearest(layout, [f.name for f in codec.video_formats or []])
            if pix_fmt is not None:
                options = self._options(name)
                if suffix == ".avi" and name == "libx264":
                    options["bf"] = "0"  # AVI has no timestamps to put B-frames right
                return name, pix_fmt, options
            if self.codec:
                raise MediaError(
                    f"--codec {self.codec}: cannot encode {layout.pix_fmt}; "
                    "name another codec or --pix-fmt"
                )
        raise MediaError(f"no encoder for {layout.pix_fmt} in {suffix}; use .mkv or --pix-fmt")

    def _candidates(self, info: VideoInfo, layout: Layout, suffix: str) -> list[str]:
        if self.codec:
            return [_FAMILY.get(self.codec, self.codec)]
        own = _FAMILY.get(info.codec, "libx264")
        first = [own] if own in _LOSSLESS or not self.lossless else []
        if self.lossless and suffix in (".mkv", ".avi", ".nut"):
            first.insert(0, "ffv1")
        if suffix in _BY_CONTAINER:
            first.insert(0, _BY_CONTAINER[suffix])
        if layout == Layout("rgb", 8):
            first.insert(0, "libx264rgb")
        return [*first, "libx264", "libx265", "ffv1"]

    def _options(self, codec: str) -> dict[str, str]:
        options: dict[str, str] = {}
        if self.lossless:
            if codec not in _LOSSLESS:
                raise MediaError(f"--lossless: {codec} cannot; use --codec {', '.join(_LOSSLESS)}")
            options.update(_LOSSLESS[codec])
        elif codec in _CRF or self.crf is not None:
            crf = self.crf if self.crf is not None else _CRF[codec]
            options["crf"] = f"{crf:g}"
            if codec == "libvpx-vp9":
                options["b"] = "0"
        if self.preset is not None:
            options["preset"] = self.preset
        if codec == "mjpeg":
            options["q"] = "2"
        if codec == "libx265":  # it would print to the terminal by itself
            own = options.get("x265-params")
            options["x265-params"] = ":".join(filter(None, [own, "log-level=error"]))
        if codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")
        return options


def _encoder(name: str) -> av.Codec:
    try:
        return av.Codec(name, "w")
    except ValueError as error:
        raise MediaError(f"--codec {name}: no such encoder (try libx264, libx265)") from error


def _nearest(layout: Layout, formats: Sequence[str]) -> str | None:
    """Return the format of a layout, or of the like of it with more bits."""
    if not formats:  # raw video takes anything
        return layout.pix_fmt
    for bits in (8, 10, 12, 16):
        names = [Layout(layout.kind, bits).pix_fmt]
        if names == ["gbrp"]:
            names += ["rgb24", "bgr0"]
        found = [n for n in names if n in formats]
        if bits >= layout.bits and found:
            return found[0]
    return None


@dataclass
class Target:
    """A temporary file beside its target that takes the target's name or vanishes."""

    path: Path
    temporary: Path = field(init=False)

    def __post_init__(self) -> None:
        try:
            handle, name = tempfile.mkstemp(
                prefix=f".{self.path.stem}.",
                suffix=f".part{self.path.suffix}",
                dir=self.path.parent,
            )
        except OSError as error:
            raise MediaError(f"{self.path}: cannot be written ({error.strerror})") from error
        os.close(handle)
        mask = os.umask(0)
        os.umask(mask)
        self.temporary = Path(name)
        self.temporary.chmod(0o666 & ~mask)

    def keep(self) -> None:
        """Give the file its name."""
        self.temporary.replace(self.path)

    def discard(self) -> None:
        """Remove the file."""
        self.temporary.unlink(missing_ok=True)


class VideoWriter:
    """Encode frames into a file and copy the sound of their source.

    Use it as a context manager: leaving it without an error completes the file.

    Args:
        path: target; its extension chooses the container.
        info: the source's video stream, whose timing, shape and colour tags the target keeps.
        audio: the source's streams of sound.
        encoding: how to encode.
        shift: seconds that are taken off every timestamp.

    Raises:
        MediaError: if the target cannot be written or the container cannot hold a stream.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        audio: Sequence[AudioStream] = (),
        encoding: Encoding | None = None,
        shift: Fraction = Fraction(0),
    ) -> None:
        self.path = path
        self.info = info
        encoding = encoding or Encoding()
        self._shift = shift
        self._target = Target(path)
        try:
            self._container = self._open()
            suffix = path.suffix.lower()
            supported = set() if suffix in _UNLISTED else self._container.supported_codecs
            self.codec, self.pix_fmt, options = encoding.choose(info, suffix, supported)
            self._audio = {s.index: self._add_audio(s) for s in audio}
            self._video = self._add_video(options)
            self._container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            self._target.discard()
            raise MediaError(f"{path}: cannot be written ({_reason(error)})") from error
        except MediaError:
            self._target.discard()
            raise

    def _open(self) -> OutputContainer:
        try:
            options = {"strict": "-1"} if self.path.suffix == ".y4m" else {}
            return av.open(str(self._target.temporary), "w", options=options)
        except ValueError as error:
            raise MediaError(
                f"{self.path}: unknown extension {self.path.suffix or '(none)'}; "
                "use .mp4, .mkv, .mov, .webm or .avi"
            ) from error

    def _add_audio(self, source: AudioStream) -> AudioStream:
        name = source.codec_context.name
        try:
            stream = self._container.add_stream_from_template(source)
        except (ValueError, av.FFmpegError) as error:
            raise MediaError(
                f"{self.path}: this container cannot hold the sound ({name}); use .mkv or .mov"
            ) from error
        stream.metadata.update(source.metadata)
        return stream

    def _add_video(self, options: dict[str, str]) -> VideoStream:
        info = self.info
        rate = info.rate or Fraction(25)
        stream = self._container.add_stream(self.codec, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        stream.width, stream.height = info.width, info.height
        stream.pix_fmt = self.pix_fmt
        stream.time_base = context.time_base = info.time_base
        context.colorspace = 0 if av.VideoFormat(self.pix_fmt).is_rgb else info.tags.colorspace
        context.color_range = info.tags.color_range
        context.color_primaries = info.tags.primaries
        context.color_trc = info.tags.transfer
        context.thread_type = "AUTO"
        if info.aspect is not None:
            context.sample_aspect_ratio = info.aspect
        if info.rotation:
            stream.set_display_rotation(info.rotation)
        return stream

    def write(self, frame: Frame) -> None:
        """Encode one frame under its own timestamp."""
        picture = from_planes(frame.planes, frame.layout)
        tags = self.info.tags
        picture.colorspace = tags.colorspace if frame.layout.kind != "rgb" else 0
        picture.color_range = tags.color_range
        picture.color_primaries = tags.primaries
        picture.color_trc = tags.transfer
        if picture.format.name != self.pix_fmt:
            matrix = {"bt601": 5, "bt709": 1, "bt2020": 9}[self.info.color.matrix]
            span = 2 if self.info.color.full_range else 1
            picture = picture.reformat(
                format=self.pix_fmt,
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=span,
                dst_color_range=span,
                interpolation=Interpolation.BICUBIC,
            )
        picture.pts = frame.pts - round(self._shift / self.info.time_base)
        picture.time_base = self.info.time_base
        self._mux(self._video.encode(picture))

    def write_audio(self, packet: AudioPacket) -> None:
        """Copy one packet of sound, its bytes untouched."""
        if self._shift:
            ticks = round(self._shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - ticks
            packet.dts = None if packet.dts is None else packet.dts - ticks
        packet.stream = self._audio[packet.stream.index]
        self._mux([packet])

    def _mux(self, packets: "Sequence[av.Packet[Any]]") -> None:
        try:
            self._container.mux(packets)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{self.path}: writing failed ({_reason(error)})") from error

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            self._mux(self._video.encode(None))
            self._container.close()
            self._target.keep()
        except (av.FFmpegError, OSError) as error:
            self.discard()
            raise MediaError(f"{self.path}: writing failed ({_reason(error)})") from error

    def discard(self) -> None:
        """Give the file up: nothing of it is left."""
        with suppress(av.FFmpegError, OSError):  # the file goes, whatever its trailer says
            self._container.close()
        self._target.discard()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
