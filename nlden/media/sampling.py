"""A few frames spread over a file, without decoding all of it."""

import math
from collections.abc import Iterator
from pathlib import Path

import av
from av.video.frame import VideoFrame

from nlden.media.frames import Frame, to_planes
from nlden.media.reader import VideoReader
from nlden.media.seeking import seek_before
from nlden.media.trim import exact

_NEAR = 1.0  # seconds that are decoded rather than sought
_FORWARD = 6  # frames that are decoded at the most on the way to a chosen one


def sample_frames(
    path: Path, count: int = 8, start: float = 0.0, end: float | None = None
) -> list[Frame]:
    """Decode a few frames spread over a file.

    Args:
        path: the file.
        count: how many at the most.
        start: first second to look at, from the beginning of the file.
        end: last second to look at, likewise; None is the end of the file.

    Returns:
        At least one frame; fewer than ``count`` where the file is short or damaged.

    Raises:
        MediaError: if no frame can be decoded.
    """
    with VideoReader(path) as reader:
        info = reader.info
        length = (end if end is not None else info.duration or 0.0) - start
        begin = float(info.origin) + start
        seconds = [begin + (i + 0.5) / count * length for i in range(count)]
        frames: dict[int, Frame] = {}
        for number, frame in enumerate(_frames_near(reader, seconds, search=length > 0)):
            pts = frame.pts if frame.pts is not None else number
            if (frame.width, frame.height) == (info.width, info.height):
                frames.setdefault(pts, Frame(to_planes(frame, info.layout), info.layout, pts))
    if frames:
        return list(frames.values())
    with VideoReader(path) as reader:  # a file in which nothing can be sought
        return [next(item for item in reader if isinstance(item, Frame))]


def _frames_near(
    reader: VideoReader, seconds: list[float], *, search: bool
) -> Iterator[VideoFrame]:
    """Decode the first frame at or after each time, or one up to ``_FORWARD`` frames before it.

    Every search comes down on a key frame, from which decoding goes on: a time that is near is
    sooner reached by decoding alone. No key frame is gone out from twice.
    """
    container, stream = reader.container, reader.stream
    decoded = container.decode(stream)
    at, key, missing = -math.inf, math.nan, 0

    def forward(second: float, frame: VideoFrame | None = None) -> VideoFrame | None:
        nonlocal at
        for _ in range(_FORWARD):
            if at >= second or (later := next(decoded, None)) is None:
                break
            frame, at = later, reader.seconds(later)
        return frame

    for second in seconds if search else ():
        frame = None
        if at >= second:
            continue
        try:
            if second - at > _NEAR:
                seek_before(container, stream, exact(second))
                decoded = container.decode(stream)
                frame = next(decoded, None)
                before, key = key, math.nan if frame is None else reader.seconds(frame)
                at = key
                if key == before:
                    missing += 1
                    continue
            frame = forward(second, frame)
        except av.FFmpegError:
            continue
        if frame is not None:
            yield frame
    # Without times to look for, or with fewer key frames than times: what follows.
    for _ in range(missing if search else len(seconds)):
        try:
            frame = forward(math.inf)
        except av.FFmpegError:
            return
        if frame is None:
            return
        yield frame
