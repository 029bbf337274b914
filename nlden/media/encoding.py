"""How to encode a video: encoder, pixel format and options for a source and a container."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import av
from av.container import OutputContainer

from nlden.media.chroma_location import location_options
from nlden.media.encoder_options import check, is_lossless, lossless, merged, quality, speed
from nlden.media.pipes import FORMAT
from nlden.media.probe import DEPTHS, SUBSAMPLING, Layout, MediaError, VideoInfo
from nlden.media.remux import MPEGTS
from nlden.media.sequences import ENCODERS

_ALWAYS_LOSSLESS = ("ffv1", "utvideo", "huffyuv", "ffvhuff", "magicyuv", "qtrle", "png")
# FFmpeg's encoders by the codec of the source. What is not here becomes H.264.
_FAMILY = {
    "h264": "libx264",
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "vp8": "libvpx-vp9",
    "prores": "prores_ks",
    **{name: name for name in (*_ALWAYS_LOSSLESS, "mjpeg", "dnxhd", "cfhd")},
}
_BY_CONTAINER = {
    ".webm": ("libvpx-vp9", "libsvtav1"),
    **dict.fromkeys((".y4m", ".rgb"), ("rawvideo",)),
    ".ogv": ("libvpx",),
    **dict.fromkeys((".mpg", ".mpeg", ".vob"), ("mpeg2video",)),
}
# FFmpeg names only the defaults of these formats, not all that they hold; any: an empty set.
_UNLISTED: Mapping[str, set[str]] = {
    **{key: set[str]() for key in ("yuv4mpegpipe", "image2")},
    "mpegts": MPEGTS,
    **{key: {"mpeg1video", "mpeg2video"} for key in ("mpeg", "svcd", "vob")},
    "mxf": {"mpeg2video", "h264", "prores", "dnxhd", "ffv1"},
}
# What FFmpeg names, as it can read it, but refuses to write.
_READ_ONLY: Mapping[str, set[str]] = {"mov": {"vp8", "vp9", "av1"}}
# These encoders refuse a chroma sample that reaches beyond the edge of the picture.
_WHOLE_CHROMA = ("libx264", "libx265", "utvideo", "huffyuv")
# libx265 as PyAV ships it writes beyond its memory on smaller pictures, and then even a lossless
# copy differs; DNxHR has no smaller ones.
_SMALLEST = {"libx265": (66, 66), "dnxhd": (256, 120)}
_DNXHR = {"yuv422p": "dnxhr_hq", "yuv422p10le": "dnxhr_hqx"}
# Profiles by FFmpeg's names: of H.264 those that say what simple players can do, of ProRes the
# grade, each with the start of the pixel formats that it is for. The depth decides on all others.
_PROFILES = {
    ("libx264", "Baseline"): ("baseline", "yuv420p"),
    ("libx264", "Constrained Baseline"): ("baseline", "yuv420p"),
    ("libx264", "Main"): ("main", "yuv420p"),
    **{("prores_ks", n): (n.lower(), "yuv422p10") for n in ("Proxy", "LT", "Standard", "HQ")},
    ("prores_ks", "XQ"): ("4444xq", "yuva444p10"),
}
# Formats with the same codes in another order.
_ALIKE: Mapping[str, Sequence[str]] = {
    **{"yuv420p": ("yuvj420p", "nv12"), "yuv422p": ("yuvj422p", "nv16"), "yuv444p": ("yuvj444p",)},
    **{"yuv420p10le": ("p010le",), "yuv422p10le": ("p210le",)},
    **{"gray16le": ("gray16be",), "ya16le": ("ya16be",)},
    **{"gbrp": ("rgb24", "bgr24", "bgr0"), "gbrp16le": ("rgb48be", "rgb48le")},
    **{"gbrap": ("rgba", "bgra", "argb"), "gbrap16le": ("rgba64be", "rgba64le")},
}


class Choice(NamedTuple):
    """How a video will be encoded.

    Args:
        codec: FFmpeg's encoder.
        pix_fmt: pixel format.
        options: the encoder's options.
        remarks: lines for the user: what is not kept, which encoder stands in for another.
    """

    codec: str
    pix_fmt: str
    options: dict[str, str]
    remarks: tuple[str, ...] = ()


def supported_codecs(container: OutputContainer) -> set[str]:
    """Return the codecs that a container's format holds; empty if any."""
    form = container.format.name
    return _UNLISTED.get(form, container.supported_codecs) - _READ_ONLY.get(form, set())


@dataclass(frozen=True)
class Encoding:
    """How to encode a video. What is None follows the source.

    Args:
        codec: an encoder or codec of FFmpeg (``libx265``, ``h264``, ``hevc_nvenc``).
        crf: constant rate factor; smaller is better and larger. Encoders without one take it as
            what they have in its place: see :func:`nlden.media.encoder_options.quality`.
        preset: the encoder's speed preset.
        pix_fmt: pixel format.
        lossless: keep every code.
        container: FFmpeg's format of a pipe (``matroska``); files have it by their extension.
        options: more options of the encoder, by FFmpeg's names.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    lossless: bool = False
    container: str = FORMAT
    options: Mapping[str, str] = field(default_factory=dict)

    def choose(self, info: VideoInfo, suffix: str, supported: Collection[str]) -> Choice:
        """Return encoder, pixel format and options for a source and a container.

        The first encoder that holds the source's bits and subsampling is taken, and only if none
        does one that needs another kind of planes.

        Args:
            info: the source.
            suffix: extension of the target, lower case with its dot.
            supported: names of the codecs that the container holds; empty if any.

        Raises:
            MediaError: for an encoder that is not there or cannot do what is asked.
        """
        layout = self._layout(info)
        named = self._candidates(info, layout, suffix)
        names = [n for n in named if not supported or _encoder(n).canonical_name in supported]
        first = named[0]
        described = _described(first, layout, info)
        obstacle = f"cannot encode {described}" if first in names else f"cannot go into {suffix}"
        if self.codec and not names:
            raise MediaError(f"--codec {self.codec}: {suffix} cannot hold it; use .mkv")
        other = {"gray": "yuv420"}.get(layout.kind, "rgb" if suffix in ENCODERS else "yuv444")
        for wanted in (layout, replace(layout, kind=other)):
            for name in names:
                if pix_fmt := _format(name, wanted, info, suffix):
                    options = self._options(name, pix_fmt, info, suffix)
                    remarks = _remarks(info, layout, first, obstacle, name, pix_fmt)
                    return Choice(name, pix_fmt, options, tuple(remarks))
        if self.codec:
            raise MediaError(f"--codec {self.codec}: {obstacle}; name another codec or --pix-fmt")
        raise MediaError(f"no encoder for {layout.pix_fmt} in {suffix}; use .mkv or --pix-fmt")

    def _layout(self, info: VideoInfo) -> Layout:
        if self.pix_fmt is None:
            return info.layout
        try:
            return Layout.of(av.VideoFormat(self.pix_fmt))
        except ValueError as error:
            raise MediaError(
                f"--pix-fmt {self.pix_fmt}: no such pixel format (try yuv420p, yuv420p10le)"
            ) from error

    def _candidates(self, info: VideoInfo, layout: Layout, suffix: str) -> list[str]:
        if suffix in ENCODERS:
            return [ENCODERS[suffix]]
        if self.codec:
            return [_FAMILY.get(self.codec, self.codec)]
        own = _FAMILY.get(info.codec, "libx264")
        first = [own] if is_lossless(own) or not self.lossless else []
        if (layout.kind, layout.bits, own) == ("rgb", 8, "libx264"):
            first.insert(0, "libx264rgb")
        if self.lossless and suffix in (".mkv", ".avi", ".nut") and own not in _ALWAYS_LOSSLESS:
            first.insert(0, "ffv1")
        usual = _BY_CONTAINER.get(suffix, ())
        first = [*first, *usual] if own in usual else [*usual, *first]
        # H.265 rather than H.264 stands in for a codec that is as young.
        young = own in ("libsvtav1", "libvpx-vp9")
        following = ("libx265", "libx264") if young else ("libx264", "libx265")
        return [*first, *following, "ffv1", "mpeg2video"]

    def _options(self, name: str, pix_fmt: str, info: VideoInfo, suffix: str) -> dict[str, str]:
        own: dict[str, str] = {}
        if name == "libx265":  # it would print to the terminal by itself
            own["x265-params"] = "log-level=error"
        if name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")
        if name == "libx264" and suffix == ".avi":
            own["bf"] = "0"  # AVI has no timestamps to put B-frames right
        if name == "libvpx" and pix_fmt == "yuva420p":
            own["auto-alt-ref"] = "0"  # its hidden frames cannot have alpha
        if name == "dnxhd":
            own["profile"] = _DNXHR.get(pix_fmt, "dnxhr_444")
        profile, formats = _PROFILES.get((name, info.profile or ""), ("", ""))
        if profile and pix_fmt.startswith(formats) and not self.lossless:
            own["profile"] = profile
        grade = lossless(name) if self.lossless else quality(name, self.crf)
        source = merged(
            info.hdr.options(name), location_options(name, pix_fmt, info.chroma_location)
        )
        options = merged(grade, speed(name, self.preset), own, source, self.options)
        check(name, options)
        return options


def _encoder(name: str) -> av.Codec:
    with suppress(ValueError):
        codec = av.Codec(name, "w")
        if codec.type == "video":
            return codec
    raise MediaError(f"--codec {name}: no such encoder (try libx264, libx265)")


def _too_small(name: str, info: VideoInfo) -> bool:
    width, height = _SMALLEST.get(name, (0, 0))
    return info.width < width or info.height < height


def _cuts_chroma(name: str, layout: Layout, info: VideoInfo) -> bool:
    """Tell whether an encoder refuses the last chroma samples of a picture of such a size."""
    across, down = SUBSAMPLING.get(layout.kind, (1, 1))
    return name in _WHOLE_CHROMA and (info.width % across, info.height % down) != (0, 0)


def _format(name: str, layout: Layout, info: VideoInfo, suffix: str) -> str | None:
    """Return the pixel format in which an encoder takes a layout; None if it does not."""
    formats = [f.name for f in _encoder(name).video_formats or []]
    if _too_small(name, info):
        return None
    if _cuts_chroma(name, layout, info):  # neither cropping nor padding keeps the picture
        layout = replace(layout, kind="yuv444")
    if name == "prores_ks" and layout.alpha:  # no other encoder of its containers has alpha
        layout = replace(layout, bits=min(layout.bits, 10))
    if name.startswith("libvpx") and suffix not in (".webm", ".mkv"):
        layout = replace(layout, alpha=False)  # Matroska alone has a place for it
    return _nearest(layout, formats)


def _nearest(layout: Layout, formats: Sequence[str]) -> str | None:
    """Return the format of a layout, or of the like of it with more bits, or without alpha."""
    if not formats:  # raw video takes anything
        return layout.pix_fmt
    layouts = [replace(layout, bits=bits) for bits in DEPTHS if bits >= layout.bits]
    if layout.alpha:
        layouts += [replace(one, alpha=False) for one in layouts]
    names = (n for one in layouts for n in (one.pix_fmt, *_ALIKE.get(one.pix_fmt, ())))
    return next((n for n in names if n in formats), None)


def _described(name: str, layout: Layout, info: VideoInfo) -> str:
    """Name what an encoder cannot encode of a source."""
    if _too_small(name, info):
        width, height = _SMALLEST[name]
        return f"{info.width}x{info.height}, only {width}x{height} and more"
    if _cuts_chroma(name, layout, info):
        return f"{layout.pix_fmt} of {info.width}x{info.height}"
    return layout.pix_fmt


def _remarks(
    info: VideoInfo, layout: Layout, first: str, obstacle: str, name: str, pix_fmt: str
) -> Iterator[str]:
    """Say what is not kept: by an encoder, in a pixel format, in place of the ``first`` one."""
    kept = Layout.of(av.VideoFormat(pix_fmt))
    if name != first:
        yield f"{info.path}: {first} {obstacle}; {name} ({pix_fmt}) was used"
    elif kept.kind != layout.kind or kept.bits < layout.bits:
        yield f"{info.path}: {name} {obstacle}; {pix_fmt} was used"
    lost = list(info.hdr.dynamic)
    if info.hdr.static and not info.hdr.options(name):
        lost.append("HDR10 metadata (libx265, libsvtav1 and libx264 keep it)")
    if lost:
        yield f"{info.path}: {name} does not keep {', '.join(lost)}"
