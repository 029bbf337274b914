"""Where the chroma samples of 4:2:0 lie between those of luma.

PyAV has no attribute for it. FFmpeg's bitstream filter ``trace_headers`` writes the fields of the
headers of H.264, H.265 and AV1 into its log, and encoders take the location as an option.
"""

import re
from pathlib import Path

import av
from av import logging
from av.bitstream import BitStreamFilterContext

from nlden.media.probe import open_video

# FFmpeg's names, by the numbers of H.264 and H.265, and of AV1 (0: unknown).
_H26X = ("left", "center", "topleft", "top", "bottomleft", "bottom")
_AV1 = (None, "left", "topleft")
_FIELD = re.compile(r"(chroma_sample_loc_type_top_field|chroma_sample_position) .* = (\d+)$")
_TRACED = ("h264", "hevc", "av1")
_SETTABLE = {"libx264": _H26X, "libx265": _H26X, "libsvtav1": _AV1}


def chroma_location(path: Path) -> str | None:
    """Return FFmpeg's name of the chroma location of a video; None where its headers tell none."""
    container, stream = open_video(path)
    with container:
        if stream.codec_context.codec.canonical_name not in _TRACED:
            return None
        level = logging.get_level()
        logging.set_level(logging.INFO)
        try:
            with logging.Capture() as lines:
                trace = BitStreamFilterContext("trace_headers", stream)
                packet = next(container.demux(stream), None)
                if packet is not None and packet.size:
                    trace.filter(packet)
        except av.FFmpegError:
            return None
        finally:
            logging.set_level(level)
    for _, _, message in lines:
        if found := _FIELD.search(message.strip()):
            names = _AV1 if found[1] == "chroma_sample_position" else _H26X
            return names[int(found[2])] if int(found[2]) < len(names) else None
    return None


def location_options(encoder: str, pix_fmt: str, location: str | None) -> dict[str, str]:
    """Return the options that make an encoder tag its 4:2:0 pictures with a chroma location."""
    if location is None or "420" not in pix_fmt or location not in _SETTABLE.get(encoder, ()):
        return {}
    return {"chroma_sample_location": location}
