"""Video encoder: frames in, packets of one stream out."""

from dataclasses import replace
from fractions import Fraction

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from nlden.media.color import MATRIX_TAGS
from nlden.media.encoding import Choice
from nlden.media.frames import Frame, from_planes
from nlden.media.probe import Layout, MediaError, VideoInfo
from nlden.media.remux import passing
from nlden.media.trim import Packet

_RGB, _LIMITED, _FULL = 0, 1, 2


class VideoEncoder:
    """Add a video stream to a container and encode frames for it.

    Shape, colour tags, sample aspect ratio, display matrix, disposition and metadata are those of
    the source.

    Args:
        container: where to; its header must not be written yet.
        info: the source.
        choice: what :meth:`nlden.media.encoding.Encoding.choose` returned.
        time_base: unit of the timestamps.
        rate: frames per second, for the encoder's rate control.
    """

    def __init__(
        self,
        container: OutputContainer,
        info: VideoInfo,
        choice: Choice,
        time_base: Fraction,
        rate: Fraction,
    ) -> None:
        self.info, self.time_base = info, time_base
        self.codec, self.pix_fmt = choice.codec, choice.pix_fmt
        self._frames, self._alpha_lost = 0, False
        self._durations: dict[int, int] = {}  # by time, of what libsvtav1 still holds
        stream = container.add_stream(self.codec, rate=rate, options=choice.options)
        assert isinstance(stream, VideoStream)
        self.stream: VideoStream = stream
        context = stream.codec_context
        stream.width, stream.height = info.width, info.height
        stream.pix_fmt = self.pix_fmt
        stream.time_base = context.time_base = time_base
        context.colorspace, context.color_range = self._colorspace, self._range
        context.color_primaries = info.tags.primaries
        context.color_trc = info.tags.transfer
        context.thread_type = "AUTO"
        context.flags |= Flags.frame_duration  # else the last frame has the usual one
        if info.aspect is not None:
            context.sample_aspect_ratio = info.aspect
        if info.matrix is not None:
            stream.set_display_matrix(info.matrix)
        # PyAV takes an int here, though its stubs want the flag.
        stream.disposition = info.disposition  # type: ignore[assignment]
        stream.metadata.update(passing(info.metadata))
        if container.format.name in ("mp4", "mov") and context.codec.canonical_name == "hevc":
            context.codec_tag = "hvc1"  # players of Apple want it
        try:
            context.open()
        except av.FFmpegError as error:
            raise MediaError(
                f"--codec {self.codec}: the encoder cannot be opened ({error.strerror}); "
                "its options may not go together, or its hardware is not there"
            ) from error

    @property
    def warnings(self) -> list[str]:
        """What the pictures have lost so far, for the user."""
        if not self._alpha_lost:
            return []
        return [
            f"{self.info.path}: {self.codec} ({self.pix_fmt}) does not keep alpha; ffv1 in .mkv, "
            "prores_ks in .mov and .png pictures do"
        ]

    @property
    def _to_rgb(self) -> bool:
        return av.VideoFormat(self.pix_fmt).is_rgb

    @property
    def _colorspace(self) -> int:
        """The matrix tag of the target."""
        if self._to_rgb:
            return _RGB
        if self.info.layout.kind == "rgb":
            return MATRIX_TAGS[self.info.color.matrix]
        return self.info.tags.colorspace

    @property
    def _range(self) -> int:
        """The range tag of the target."""
        if self.codec == "mjpeg":
            return _FULL
        from_rgb = self.info.layout.kind == "rgb"
        if from_rgb != self._to_rgb:
            return _LIMITED if from_rgb else _FULL
        return self.info.tags.color_range

    def encode(self, frame: Frame, pts: int, duration: int = 0) -> list[Packet]:
        """Encode one frame; return the packets that are ready.

        Args:
            frame: the picture.
            pts: its time in units of ``time_base``.
            duration: how long it is shown, likewise; 0 leaves it open.
        """
        self._frames += 1
        layout, alpha = frame.layout, frame.alpha
        if layout.alpha and not Layout.of(av.VideoFormat(self.pix_fmt)).alpha:
            layout = replace(layout, alpha=False)
            self._alpha_lost |= alpha is not None and int(alpha.min()) < layout.largest
        picture = from_planes(frame.planes, layout, alpha)
        tags, color = self.info.tags, self.info.color
        picture.colorspace, picture.color_range = self._colorspace, self._range
        picture.color_primaries = tags.primaries
        picture.color_trc = tags.transfer
        if picture.format.name != self.pix_fmt:
            full = color.full_range or frame.layout.kind == "rgb"
            span = _FULL if full else _LIMITED
            same = (frame.layout.kind == "rgb") == self._to_rgb and self.codec != "mjpeg"
            picture = picture.reformat(
                format=self.pix_fmt,
                src_colorspace=MATRIX_TAGS[color.matrix],
                dst_colorspace=MATRIX_TAGS[color.matrix],
                src_color_range=span,
                dst_color_range=span if same else self._range,
                interpolation=Interpolation.BICUBIC,
            )
        picture.pts = pts
        picture.time_base = self.time_base
        if duration:
            picture.duration = duration
            if self.codec == "libsvtav1":
                self._durations[pts] = duration
        return self._lasting(list(self.stream.encode(picture)))

    def _lasting(self, packets: list[Packet]) -> list[Packet]:
        """Give packets the durations of their frames where the encoder forgets them."""
        for packet in packets:
            if packet.pts in self._durations:
                packet.duration = self._durations.pop(packet.pts)
        return packets

    def flush(self) -> list[Packet]:
        """Return the packets that the encoder still holds; it takes no more frames."""
        packets = self._lasting(list(self.stream.encode(None)))
        if self.codec == "libx265" and self._frames < 3:
            for packet in packets:  # its decoding times of so few frames are memory at random
                packet.dts = packet.pts
        return packets
