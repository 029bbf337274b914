"""Going to a time in a file so that no frame from there on is missing."""

from contextlib import suppress
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from nlden.media.trim import packet_seconds

_BACK = 2 * av.time_base


def seek_before(container: InputContainer, stream: VideoStream, second: Fraction) -> None:
    """Go to a key frame at or before a time, or to the beginning of the file.

    Where a format has no index (MPEG-TS), FFmpeg comes down on any packet near the time. If the
    next key frame lies behind the time, this goes 2, 4, 8... seconds further back.

    Args:
        container: the opened file.
        stream: the video to decode from there.
        second: the time, as the file's timestamps count it.
    """
    at, back, first = round(second * av.time_base), _BACK, container.start_time or 0
    with suppress(av.FFmpegError):  # some formats refuse to go to before their first frame
        container.seek(at)
        # Decoding begins before the first frame is shown.
        while at > first - _BACK and not _key_frame_follows(container, stream, second):
            at, back = at - back, 2 * back
            container.seek(at)
        container.seek(at)
        return
    container.seek(first)


def _key_frame_follows(container: InputContainer, stream: VideoStream, second: Fraction) -> bool:
    """Tell whether a key frame comes before all that is shown after a time."""
    for packet in container.demux(stream):
        seconds = packet_seconds(packet)
        if seconds is not None and (packet.is_keyframe or seconds > second):
            return seconds <= second
    return False
