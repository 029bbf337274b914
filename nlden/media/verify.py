"""What a container did not keep: the finished file is opened and compared with its source."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from av.stream import Disposition, Stream

from nlden.media.probe import VideoInfo, first_frame, open_video
from nlden.media.remux import label, passing
from nlden.media.side_data import display_matrix

# Given by FFmpeg to every file of a kind, or the same for all streams.
_OF_NO_INTEREST = ("handler_name", "vendor_id", "creation_time", "language", "filename", "mimetype")


def differences(
    path: Path, name: str, info: VideoInfo, index: int, copies: Iterable[tuple[Stream, int]]
) -> list[str]:
    """Compare a written file with its source; return a line if something is lost.

    Args:
        path: the written file.
        name: what to call it.
        info: the source's video.
        index: place of the video in the written file.
        copies: the other streams of the source, with their places in the written file.
    """
    losses: list[str] = []
    written, _ = open_video(path)
    with written:
        tags = {k: v for k, v in info.file_metadata.items() if k not in info.metadata}
        if gone := _missing(tags, written.metadata):
            losses.append(f"the tags {', '.join(gone)}")
        if len(written.chapters()) < len(info.chapters):
            losses.append("the chapters")
        streams = list(written.streams)
        video = streams[index]
        aspect = getattr(video, "sample_aspect_ratio", None)
        if info.aspect is not None and aspect != info.aspect:
            ratio = f"{info.aspect.numerator}:{info.aspect.denominator}"
            hint = "H.264, HEVC and .mp4 carry it"
            losses.append(f"the sample aspect ratio {ratio} of this codec ({hint})")
        pairs = [("the video", info.metadata, info.disposition, video)]
        pairs += [
            (label(source), source.metadata, int(source.disposition), streams[place])
            for source, place in copies
            if place < len(streams) and streams[place].type == source.type
        ]
        for kind, metadata, disposition, stream in pairs:
            losses += _of_stream(kind, metadata, disposition, stream)
    first = None if info.matrix is None else first_frame(path)
    if info.matrix is not None and (first is None or display_matrix(first) != info.matrix):
        losses.append(f"the rotation by {info.rotation} degrees")
    if not losses:
        return []
    advice = "" if path.suffix.lower() == ".mkv" else " (.mkv keeps the most)"
    return [f"{name}: {path.suffix} does not keep {'; '.join(losses)}{advice}"]


def _of_stream(
    kind: str, metadata: Mapping[str, str], disposition: int, stream: Stream
) -> list[str]:
    losses = []
    language = metadata.get("language", "und")
    # Some give the default language where they know none.
    if language not in ("und", stream.language or "und"):
        losses.append(f"the language {language} of {kind}")
    if gone := _missing(metadata, stream.metadata):
        losses.append(f"the tags {', '.join(gone)} of {kind}")
    # MP4 marks a first stream as default, and captions beside what helps the hard of hearing.
    free = Disposition.default | Disposition.captions
    flags = Disposition(disposition & ~stream.disposition & ~free)
    if flags:
        losses.append(f"the disposition {flags.name} of {kind}".replace("|", ", "))
    return losses


def _missing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    there = {key.lower() for key in passing(after)}
    return sorted(
        key
        for key in passing(before)
        if key.lower() not in there and key.lower() not in _OF_NO_INTEREST
    )
