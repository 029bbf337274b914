"""What a file holds, how noisy it is, where its cuts are, and what a denoise run makes of it."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream
from PIL import Image
from torch import Tensor

from nlden.jobs.batch import VIDEOS
from nlden.jobs.levels import estimate_video
from nlden.media.cuts import find_cuts
from nlden.media.encoding import Encoding, supported_codecs
from nlden.media.facts import (
    Chapter,
    Picture,
    StreamFacts,
    chapter_facts,
    picture_facts,
    stream_facts,
)
from nlden.media.frame_rate import measure_timing
from nlden.media.frames import Frame
from nlden.media.probe import (
    Layout,
    MediaError,
    VideoInfo,
    describe,
    first_frame,
    open_video,
    reading,
)
from nlden.media.reader import VideoReader
from nlden.media.remux import StreamCopier
from nlden.media.sequences import files_of, is_sequence
from nlden.media.stills import SUFFIXES, is_still, read_still
from nlden.noise.estimation import Levels, estimate_levels


@dataclass(frozen=True)
class Cut:
    """A cut: number (from 0) and second of the first frame of the new shot."""

    frame: int
    second: float


@dataclass(frozen=True)
class FileFacts:
    """What a file holds.

    Args:
        path: the file.
        container: FFmpeg's names of the container, or Pillow's of a still picture's format.
        size: bytes.
        duration: seconds, if known.
        streams: its streams.
        chapters: its chapters.
        metadata: its tags.
        noise: estimated levels of luma and chroma, 0 to 255.
        cuts: found cuts, if they were looked for.
        warnings: lines for the user.
    """

    path: str
    container: str
    size: int
    duration: float | None
    streams: list[StreamFacts]
    chapters: list[Chapter]
    metadata: dict[str, str]
    noise: Levels
    cuts: list[Cut] | None = None
    warnings: list[str] = field(default_factory=list)


def inspect_file(path: Path, progress: Callable[[int, int], None] | None = None) -> FileFacts:
    """Describe a video or a still picture.

    The noise is estimated as a denoise run does. Without ``progress`` only a few frames are
    decoded.

    Args:
        path: the file.
        progress: looks for cuts in the whole file; called with the frames done and expected
            (0: unknown).

    Raises:
        MediaError: if the file cannot be read or holds no video.
    """
    return _still(path) if is_still(path) else _video(path, progress)


def media_files(path: Path) -> list[Path]:
    """Return a file, or the videos and pictures in a folder, hidden ones left out, sorted.

    Raises:
        MediaError: if there is none.
    """
    if not path.is_dir():
        return [path]
    found = (p for p in path.rglob("*") if p.suffix.lower() in (*VIDEOS, *SUFFIXES) and p.is_file())
    shown = (p for p in found if not any(n.startswith(".") for n in p.relative_to(path).parts))
    if files := sorted(shown):
        return files
    raise MediaError(f"{path}: no videos or pictures in this folder")


def _scaled(levels: Levels) -> Levels:
    return Levels(round(255 * levels.luma, 2), round(255 * levels.chroma, 2))


def _still(path: Path) -> FileFacts:
    still = read_still(path)
    with reading(path), Image.open(path) as image:
        kind = str(image.format)
    color = "rgb" if len(still.pixels) == 3 else "gray"
    white = Layout(color, still.bits).white
    height, width = still.pixels.shape[1:]
    picture = Picture(width, height, color, still.bits, alpha=still.alpha is not None)
    stream = StreamFacts(0, "video", kind.lower(), None, None, [], picture, None, "denoised")
    kept = {
        k: f"{len(v)} bytes" if isinstance(v, bytes) else str(v)
        for k, v in still.metadata.items()
        if k != "pnginfo"
    }
    if "pnginfo" in still.metadata:
        kept["chunks"] = ", ".join(c[0].decode() for c in still.metadata["pnginfo"].chunks)
    levels = estimate_levels([(still.pixels,)], white)
    size = path.stat().st_size
    return FileFacts(str(path), kind, size, None, [stream], [], kept, _scaled(levels))


def _video(path: Path, progress: Callable[[int, int], None] | None) -> FileFacts:
    container, main = open_video(path)
    with container:
        info = describe(path, container, main)
        timing, warnings = measure_timing(path, container, main)
        kept = fates(info, container, path, Encoding())
        first = first_frame(path)
        streams = []
        for stream in container.streams:
            own, picture = stream.index == main.index, None
            if own:
                picture = picture_facts(info, main, first, timing)
            elif isinstance(stream, VideoStream) and stream.codec_context.format is not None:
                picture = picture_facts(describe(path, container, stream), stream, None, None)
            streams.append(stream_facts(stream, picture, kept.get(stream.index, "left out")))
        chapters = [chapter_facts(c) for c in container.chapters()]
        noise = estimate_video(path, info.layout.white)
        cuts = None
        if progress is not None:
            cuts, warnings = detect_cuts(path, progress)
        return FileFacts(
            path=str(path),
            container=container.format.name,
            size=_size(path),
            duration=info.duration,
            streams=streams,
            chapters=chapters,
            metadata=dict(container.metadata),
            noise=_scaled(noise),
            cuts=cuts,
            warnings=warnings,
        )


def detect_cuts(
    path: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[Cut], list[str]]:
    """Decode a video and find its cuts (see :mod:`nlden.media.cuts`).

    Args:
        path: the file.
        progress: called with the frames done and the frames expected (0: unknown).

    Returns:
        The cuts, and lines for the user about damage.

    Raises:
        MediaError: if the file cannot be read.
    """
    with VideoReader(path) as reader:
        info = reader.info
        seconds: list[float] = []

        def lumas() -> Iterator[Tensor]:
            for item in reader:
                if isinstance(item, Frame):
                    seconds.append(float(item.pts * info.time_base - info.origin))
                    progress(len(seconds), info.frames)
                    yield item.luma

        cuts = [Cut(number, seconds[number]) for number in find_cuts(lumas())]
        return cuts, reader.warnings


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in files_of(path))


def fates(
    info: VideoInfo, container: InputContainer, target: Path, encoding: Encoding
) -> dict[int, str]:
    """Tell for each stream of a source what a denoise run makes of it.

    Args:
        info: the source's video.
        container: the source.
        target: where to write; its extension counts.
        encoding: how to encode.
    """
    suffix = target.suffix.lower()
    if suffix not in VIDEOS and not is_sequence(target):
        return {info.index: f"not written as {suffix or 'a file without extension'}; use .mkv"}
    told: dict[int, str] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        av.open(
            str(Path(folder, target.name if is_sequence(target) else f"out{suffix}")), "w"
        ) as written,
    ):
        supported = supported_codecs(written)
        for stream in container.streams:
            if stream.index != info.index and stream.discard != Discard.all:
                copier = StreamCopier(written, suffix)
                copier.add(stream)
                told[stream.index] = "; ".join(copier.warnings) or "copied"
    try:
        choice = encoding.choose(info, suffix, supported)
    except MediaError as error:
        return told | {info.index: str(error)}
    return told | {info.index: f"encoded: {choice.codec}, {choice.pix_fmt}"}
