"""Streaming writer: frames are encoded, all other streams are copied packet by packet.

The file grows under a temporary name beside the target and takes the target's name when it is
complete; if anything fails nothing is left.
"""

import io
import math
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Stream

from nlden.media.encoder import VideoEncoder
from nlden.media.encoding import Encoding, supported_codecs
from nlden.media.frames import Frame
from nlden.media.pipes import is_pipe, suffix_of
from nlden.media.probe import MediaError, VideoInfo
from nlden.media.remux import StreamCopier, kept_tags, passing
from nlden.media.sequences import is_sequence, numbers
from nlden.media.target import Target, TargetError, Unfinished
from nlden.media.trim import Packet
from nlden.media.verify import differences

__all__ = ["Encoding", "Target", "VideoWriter"]

_CONSTANT_RATE = ("avi", "yuv4mpegpipe", "image2", "mpeg1video", "mpeg2video")


class VideoWriter(Unfinished):
    """Encode frames into a file and copy the other streams of their source.

    Metadata, chapters, dispositions, sample aspect ratio and rotation go along. What the
    container cannot hold is left out; ``warnings`` then says so, part of it before the first
    frame and part of it after closing. Use it as a context manager: leaving it without an error
    completes the file.

    Args:
        path: target; its extension chooses the container. A pattern of numbered pictures
            (``frames/%06d.png``) writes a picture for each frame, under the number that it has
            in a source that is such a pattern, too; ``-`` is standard output.
        info: the source's video stream, whose timing, shape and colour tags the target keeps.
        streams: the source's other streams.
        encoding: how to encode.
        shift: seconds that are taken off every timestamp.
        folder: where the file grows; None is beside the target.

    Raises:
        MediaError: if the target cannot be written.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        streams: Sequence[Stream] = (),
        encoding: Encoding | None = None,
        shift: Fraction = Fraction(0),
        folder: Path | None = None,
    ) -> None:
        self.path = path
        self.info = info
        encoding = encoding or Encoding()
        self._target = Target(path, folder)
        try:
            self._suffix = suffix_of(encoding.container) if is_pipe(path) else path.suffix.lower()
            self._container = self._open(encoding, shift)
            form = self._container.format.name
            supported = supported_codecs(self._container)
            self._choice = choice = encoding.choose(info, self._suffix, supported)
            self.codec, self.pix_fmt = choice.codec, choice.pix_fmt
            self._constant = form in _CONSTANT_RATE or self.codec in _CONSTANT_RATE
            # Such formats begin at zero, whatever the time of the first frame.
            self._shift = shift if shift or not self._constant else info.start
            self._rate = info.rate or Fraction(25)
            self.time_base = 1 / self._rate if self._constant else info.time_base
            self._last_pts: int | None = None
            self._uneven, self._phase = False, Fraction(0)
            self._copier = StreamCopier(self._container, str(path))
            self._add_streams(streams)
            self._describe(form, streams)
            self._index = self._encoder.stream.index
            self._copies = [(a, b.index) for a, b in self._copier.streams.values()]
            self._container.start_encoding()
            self._mux(self._copier.pictures())
        except (av.FFmpegError, OSError, ValueError) as error:
            self._target.discard()
            raise MediaError(f"{path}: cannot be written ({reason(error)})") from error
        except MediaError:
            self._target.discard()
            raise
        self.warnings = [*choice.remarks, *self._copier.warnings]

    def _open(self, encoding: Encoding, shift: Fraction) -> OutputContainer:
        try:
            options = {"strict": "-1"} if self._suffix == ".y4m" else {}
            form = "image2" if is_sequence(self.path) else None
            if form and is_sequence(self.info.path):  # a picture keeps its number
                passed = math.ceil(shift * (self.info.rate or 25))
                options["start_number"] = str(numbers(self.info.path)[0] + passed)
            form = encoding.container if is_pipe(self.path) else form
            return av.open(str(self._target.temporary), "w", format=form, options=options)
        except ValueError as error:
            raise MediaError(
                f"{self.path}: unknown extension {self.path.suffix or '(none)'}; "
                "use .mp4, .mkv, .mov, .webm or .avi"
            ) from error

    def _add_streams(self, streams: Sequence[Stream]) -> None:
        """Add all streams in the order of the source."""
        for stream in streams:
            if stream.index < self.info.index:
                self._copier.add(stream)
        self._encoder = self._make_encoder(self._container)
        for stream in streams:
            if stream.index > self.info.index:
                self._copier.add(stream)

    def _make_encoder(self, container: OutputContainer) -> VideoEncoder:
        return VideoEncoder(container, self.info, self._choice, self.time_base, self._rate)

    def new_encoder(self) -> VideoEncoder:
        """Return another encoder with all the settings of the file's own.

        Its packets go into the file through :meth:`write_encoded`.
        """
        scratch = av.open(io.BytesIO(), "w", format=self._container.format.name)
        return self._make_encoder(scratch)

    @property
    def extradata(self) -> bytes:
        """Return the head of the coded video that the file's own head holds."""
        return bytes(self._encoder.stream.codec_context.extradata or b"")

    def _describe(self, form: str, streams: Sequence[Stream]) -> None:
        """Hand over the tags and chapters of the file."""
        container, tags = self._container, passing(self.info.file_metadata)
        if "timecode" in self.info.metadata:
            tags.pop("timecode", None)  # that of the video stream says it
        container.metadata.update(tags)
        container.set_chapters(list(self.info.chapters))
        if form in ("mov", "mp4", "ipod") and tags:
            # QuickTime's own list of tags holds any, but a cover picture only the other list.
            covers = any(s.disposition & s.disposition.attached_pic for s in streams)
            lost = {key.lower() for key in tags} - kept_tags(form, tags)
            if lost and not covers:
                container.container_options["movflags"] = "use_metadata_tags"

    def write(self, frame: Frame) -> None:
        """Encode one frame under its own timestamp."""
        self._mux(self._encoder.encode(frame, *self.timing(frame)))

    def write_encoded(self, packet: Packet) -> None:
        """Write a packet of another encoder into the video's stream."""
        packet.stream, packet.time_base = self._encoder.stream, self.time_base
        self._mux([packet])

    def timing(self, frame: Frame) -> tuple[int, int]:
        """Return time and duration of the next frame in units of ``time_base``.

        A duration of 0 leaves it open. To be called once for each frame, in order.
        """
        if self._constant:
            return self._number(frame.pts), 0
        return frame.pts - round(self._shift / self.info.time_base), frame.duration

    def _number(self, pts: int) -> int:
        """Return the place of a frame in a file of constant rate."""
        ticks = pts - round(self._shift / self.info.time_base)
        exact = ticks * self.info.time_base * self._rate
        last, number = self._last_pts, round(exact - self._phase)
        if last is None:
            self._phase = exact - number
        elif number <= last:
            number = last + 1
        self._uneven |= abs(number + self._phase - exact) > Fraction(1, 20)
        # AVI shows a frame until the next; the others have no place for a frame that is not there.
        self._uneven |= self._suffix != ".avi" and last is not None and number != last + 1
        self._last_pts = number
        return number

    def write_packet(self, packet: Packet) -> None:
        """Copy one packet of another stream, its bytes untouched."""
        if self._shift:
            ticks = round(self._shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - ticks
            packet.dts = None if packet.dts is None else packet.dts - ticks
        self._mux(self._copier.copy(packet))

    def _mux(self, packets: Sequence[Packet]) -> None:
        try:
            self._container.mux(packets)
        except (av.FFmpegError, OSError) as error:
            raise TargetError(f"{self.path}: writing failed ({reason(error)})") from error

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            self._mux(self._encoder.flush())
            self._container.close()
            self._warn()
            self._target.keep()
        except (av.FFmpegError, OSError) as error:
            self.discard()
            raise TargetError(f"{self.path}: writing failed ({reason(error)})") from error
        except BaseException:
            self.discard()
            raise

    def _warn(self) -> None:
        self.warnings += self._encoder.warnings
        if self._uneven:
            self.warnings.append(
                f"{self.path}: {self._suffix} holds a constant frame rate only; "
                "the frames lie as near to their times as it allows; .mkv or .mp4 keep them"
            )
        if is_pipe(self.path):
            return
        if is_sequence(self.path):
            # A part of a film may be done anew: what else is there is not ours to remove.
            old = set(numbers(self.path)) - set(numbers(self._target.temporary))
            if old:
                self.warnings.append(
                    f"{self.path}: {len(old)} older pictures of this pattern ({min(old)} to "
                    f"{max(old)}) are not of this run and stay; remove them if they are not wanted"
                )
        self.warnings += differences(
            self._target.temporary, str(self.path), self.info, self._index, self._copies
        )

    def discard(self) -> None:
        """Give the file up: nothing of it is left."""
        with suppress(av.FFmpegError, OSError):  # the file goes, whatever its trailer says
            self._encoder.flush()  # some encoders complain if they are left without
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        self._target.discard()


def reason(error: Exception) -> str:
    """Return what went wrong, without the names and numbers of an exception's text."""
    return getattr(error, "strerror", None) or str(error)
