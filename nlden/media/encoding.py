"""How to encode a video: encoder, pixel format and options for a source and a container."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import av
from av.container import OutputContainer

from nlden.media.pipes import FORMAT
from nlden.media.probe import Layout, MediaError, VideoInfo
from nlden.media.sequences import ENCODERS

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
    "rawvideo": {},
    "png": {},
    "tiff": {},
    "bmp": {},
}
Choice: TypeAlias = tuple[str, str, dict[str, str]]
"""Encoder, pixel format and options."""

# libx265 as PyAV ships it writes beyond its memory on smaller pictures.
_SMALLEST = 64
_BY_CONTAINER = {".webm": "libvpx-vp9", ".y4m": "rawvideo", ".rgb": "rawvideo"}


def supported_codecs(container: OutputContainer) -> set[str]:
    """Return the codecs that a container's format names; empty where it does not name all."""
    # FFmpeg names only the defaults of these formats, not all that they hold.
    unlisted = container.format.name in ("mpegts", "yuv4mpegpipe", "image2")
    return set() if unlisted else container.supported_codecs


@dataclass(frozen=True)
class Encoding:
    """How to encode a video. What is None follows the source.

    Args:
        codec: an encoder or codec of FFmpeg (``libx265``, ``h264``).
        crf: constant rate factor; smaller is better and larger.
        preset: the encoder's speed preset.
        pix_fmt: pixel format.
        lossless: keep every code.
        container: FFmpeg's format of a pipe (``matroska``); files have it by their extension.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    lossless: bool = False
    container: str = FORMAT

    def choose(self, info: VideoInfo, suffix: str, supported: Collection[str]) -> Choice:
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
            if name == "libx265" and _too_small(info):
                if self.codec:
                    raise MediaError(
                        f"--codec {self.codec}: {name} cannot encode {info.width}x{info.height}, "
                        f"only {_SMALLEST}x{_SMALLEST} and more; use libx264"
                    )
                continue
            if supported and codec.canonical_name not in supported:
                if self.codec:
                    raise MediaError(f"--codec {self.codec}: {suffix} cannot hold it; use .mkv")
                continue
            formats = [f.name for f in codec.video_formats or []]
            pix_fmt = _nearest(layout, formats)
            if pix_fmt is None and suffix in ENCODERS:  # pictures are RGB
                pix_fmt = _nearest(Layout("rgb", layout.bits), formats)
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

    def remarks(self, info: VideoInfo, chosen: str) -> list[str]:
        """Return what the user should know of the encoder that was chosen."""
        if self.codec or info.codec != "hevc" or not _too_small(info) or chosen == "libx265":
            return []
        return [f"{info.path}: libx265 cannot encode {info.width}x{info.height}; {chosen} was used"]

    def _candidates(self, info: VideoInfo, layout: Layout, suffix: str) -> list[str]:
        if suffix in ENCODERS:
            return [ENCODERS[suffix]]
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


def _too_small(info: VideoInfo) -> bool:
    return min(info.width, info.height) < _SMALLEST


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
        names += [n.replace("yuv", "yuvj") for n in names if bits == 8]
        if layout.kind == "rgb":
            names += {8: ["rgb24", "bgr24", "bgr0"], 16: ["rgb48be", "rgb48le"]}.get(bits, [])
        if names[0] == "gray16le":
            names.append("gray16be")
        found = [n for n in names if n in formats]
        if bits >= layout.bits and found:
            return found[0]
    return None
