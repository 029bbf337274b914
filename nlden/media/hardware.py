"""Decoding on hardware, where it is there."""

from pathlib import Path

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from nlden.media.probe import MediaError, open_video


def device_for(path: Path, hwaccel: str) -> HWAccel | None:
    """Return a device that decodes a video, or None.

    Whether one does is found out by decoding a frame: FFmpeg knows devices of kinds that are not
    there, and those that are there do not decode everything.

    Args:
        path: the video.
        hwaccel: a kind of device (``cuda``, ``videotoolbox``), or ``auto`` for any.
    """
    for name in hwdevices_available() if hwaccel == "auto" else [hwaccel]:
        try:
            trial = HWAccel(name, allow_software_fallback=False)
            container, stream = open_video(path, trial)
            with container:
                if stream.codec_context.is_hwaccel:
                    next(container.decode(stream))
                    return HWAccel(name, allow_software_fallback=True)
        except (MediaError, av.FFmpegError, RuntimeError, StopIteration):
            continue
    return None
