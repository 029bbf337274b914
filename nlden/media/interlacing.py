"""Interlaced video: two fields of different moments woven into one frame, and how to undo it."""

from collections import deque
from pathlib import Path

import av
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nlden.media.probe import MediaError

MODES = ("refuse", "auto", "all", "none")
"""What to do with interlaced frames: refuse them, deinterlace those that are flagged, deinterlace
all, or take all as they are."""


def refusal(path: Path) -> MediaError:
    """Return the error for an interlaced frame that nobody said what to do with."""
    return MediaError(
        f"{path}: the video is interlaced; --deinterlace auto makes whole frames of it, "
        "--deinterlace none takes it as progressive"
    )


class Deinterlacer:
    """Make a whole frame of every interlaced one with FFmpeg's bwdif, at the same times.

    Size, pixel format, number of frames and their timestamps stay. The filter looks at the frames
    before and after: what comes out is one frame behind.

    Args:
        stream: where the frames come from.
        every: whether frames count as interlaced that are not flagged so.
    """

    def __init__(self, stream: VideoStream, *, every: bool) -> None:
        self._time_base = stream.time_base
        self._frames = "all" if every else "interlaced"
        self._graph: Graph | None = None
        self._times: deque[tuple[int | None, int]] = deque()

    def _build(self, frame: VideoFrame) -> Graph:
        # Of a frame, since a stream that is decoded on hardware tells the format of the device.
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        graph.link_nodes(
            source,
            graph.add("bwdif", f"mode=send_frame:parity=auto:deint={self._frames}"),
            graph.add("buffersink"),
        ).configure()
        return graph

    def push(self, frame: VideoFrame) -> list[VideoFrame]:
        """Take a frame; return the frames that are ready."""
        self._graph = self._graph or self._build(frame)
        self._times.append((frame.pts, frame.duration))
        self._graph.vpush(frame)
        return self._ready(self._graph)

    def flush(self) -> list[VideoFrame]:
        """Return the frames that are still held."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        return self._ready(self._graph)

    def _ready(self, graph: Graph) -> list[VideoFrame]:
        frames = []
        while self._times:
            try:
                frame = graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                break
            # The filter counts in halves of the stream's unit, and guesses the last time.
            frame.pts, frame.duration = self._times.popleft()
            frames.append(frame)
        return frames
