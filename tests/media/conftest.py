"""Small real films that hold everything a container can hold."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from skimage import data as photographs

from nlden.media import Encoding, Frame, VideoReader, VideoWriter

FONT = b"\0\1\0\0" + bytes(range(200))
PGS = bytes.fromhex(  # a composition, its window, palette, object (2 x 1 pixels) and end
    "16001300400040100001800000000100000000000010001000"[:44]
    + "17000a01000000100010000200011400070000"
    + "01ff808015000d0000c000000a00020001010100008000"
)


@dataclass(frozen=True)
class Film:
    """What a film is made of; see :func:`make_film`."""

    video: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    sound: tuple[str, ...] = ("aac",)
    subtitles: tuple[str, ...] = ()
    second_video: str | None = None
    cover: bool = False
    font: bool = False
    klv: bool = False
    chapters: bool = False
    tags: tuple[str, ...] = ("title", "artist")
    timecode: bool = False
    turn: tuple[int, bool] | None = None
    aspect: Fraction | None = None
    colour: tuple[int, int, int, int] = (1, 1, 1, 1)
    pts: tuple[int, ...] = tuple(range(8))
    unit: Fraction = Fraction(1, 25)
    container: dict[str, str] = field(default_factory=dict)


def jpeg() -> bytes:
    """Encode a small cover picture."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 32, 32, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    view = av.VideoFrame.from_ndarray(photographs.astronaut()[:32, :32].copy(), "rgb24")
    packets = [*encoder.encode(view.reformat(format="yuvj420p")), *encoder.encode(None)]
    return b"".join(bytes(p) for p in packets)


def make_film(path: Path, film: Film) -> Path:
    """Encode and mux a film; the tracks of sound are German and Japanese in turn."""
    with av.open(str(path), "w", options=film.container) as container:
        container.metadata.update({tag: f"the {tag}" for tag in film.tags})
        video = container.add_stream(film.video, rate=1 / film.unit, options=film.options)
        video.width, video.height, video.pix_fmt = 96, 96, film.pix_fmt
        video.time_base = video.codec_context.time_base = film.unit
        context = video.codec_context
        context.colorspace, context.color_range = film.colour[:2]
        context.color_primaries, context.color_trc = film.colour[2:]
        if film.aspect:
            context.sample_aspect_ratio = film.aspect
        if film.turn:
            video.set_display_rotation(film.turn[0], hflip=film.turn[1])
        video.metadata.update(language="spa", title="Main")
        if film.timecode:
            video.metadata["timecode"] = "01:02:03:04"
        sounds = [container.add_stream(c, rate=48000, layout="mono") for c in film.sound]
        for i, sound in enumerate(sounds):
            sound.metadata.update(language=("ger", "jpn")[i % 2], title=f"Sound {i}")
            sound.disposition = Disposition.forced if i else Disposition.default
        second = None
        if film.second_video:
            second = container.add_stream(film.second_video, rate=25)
            second.width, second.height, second.pix_fmt = 96, 96, "yuv420p"
            second.metadata["title"] = "Second"
        texts = [container.add_mux_stream(codec) for codec in film.subtitles]
        for text in texts:
            text.time_base = Fraction(1, 1000)
            text.metadata.update(language="ita", title="Text")
        klv = container.add_data_stream("klv") if film.klv else None
        picture = None
        if film.cover and path.suffix == ".mkv":
            container.add_attachment("cover.jpg", "image/jpeg", jpeg())
        elif film.cover:
            picture = container.add_mux_stream("mjpeg", width=32, height=32)
            picture.disposition = Disposition.attached_pic
        if film.font:
            container.add_attachment("font.ttf", "application/x-truetype-font", FONT)
        if film.chapters:
            times = {"One": (0, 100), "Two": (100, 320)}
            container.set_chapters(
                [
                    {
                        "id": i + 1,
                        "start": a,
                        "end": b,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": t},
                    }
                    for i, (t, (a, b)) in enumerate(times.items())
                ]
            )
        container.start_encoding()

        def put(stream, data, ticks, unit=Fraction(1, 1000), duration=0):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, ticks, ticks
            packet.time_base, packet.duration, packet.is_keyframe = unit, duration, True
            container.mux(packet)

        if picture:
            put(picture, jpeg(), 0)
        for sound in sounds:
            size = sound.codec_context.frame_size or 1024
            for at in range(0, 14400, size):
                wave = 0.1 * np.sin((at + np.arange(size))[None] / (9 + sound.index))
                piece = av.AudioFrame.from_ndarray(wave.astype(np.float32), "fltp", "mono")
                piece.sample_rate, piece.pts, piece.time_base = 48000, at, Fraction(1, 48000)
                resampler = av.AudioResampler(sound.codec_context.format.name, "mono", 48000)
                for ready in resampler.resample(piece):
                    container.mux(sound.encode(ready))
            container.mux(sound.encode(None))
        for i, ticks in enumerate(film.pts):
            view = photographs.astronaut()[60 + i : 156 + i, 120:216].copy()
            frame = av.VideoFrame.from_ndarray(view, "rgb24")
            for stream, pts, unit in ((video, ticks, film.unit), (second, i, Fraction(1, 25))):
                if stream is not None:
                    ready = frame.reformat(format=stream.pix_fmt)
                    ready.pts, ready.time_base = pts, unit
                    if stream is video:
                        ready.colorspace, ready.color_range = film.colour[:2]
                        ready.color_primaries, ready.color_trc = film.colour[2:]
                    container.mux(stream.encode(ready))
        for stream in filter(None, (video, second)):
            container.mux(stream.encode(None))
        for text, codec in zip(texts, film.subtitles, strict=True):
            for ticks in (40, 160):
                if codec == "hdmv_pgs_subtitle":
                    put(text, PGS, ticks)
                else:
                    data = b"\0\x05Hello" if codec == "mov_text" else b"Hello"
                    if codec == "ass":
                        data = b"0,0,Default,,0,0,0,,{\\b1}Hello"
                    put(text, data, ticks, duration=80)
        if klv:
            for ticks in (0, 9000):
                put(klv, b"\x06\x0e\x2b\x34klv", ticks, Fraction(1, 90000))
    return path


def insert_units(source: Path, target: Path, units: Sequence[bytes], first: int = 0) -> Path:
    """Copy a film of H.264 or H.265; put NAL units before the slices of its frames from one on."""
    before = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    with av.open(str(source)) as plain, av.open(str(target), "w") as written:
        stream = written.add_stream_from_template(plain.streams.video[0])
        packets = (packet for packet in plain.demux(video=0) if packet.size)
        for i, packet in enumerate(packets):
            new = av.Packet((before if i >= first else b"") + bytes(packet))
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe, new.stream = packet.is_keyframe, stream
            written.mux(new)
    return target


@pytest.fixture
def film(tmp_path):
    """Return a function that makes a film in the test's folder."""
    return lambda name, **parts: make_film(tmp_path / name, Film(**parts))


@pytest.fixture
def inserted():
    """Return the function that copies a film with messages in it."""
    return insert_units


@pytest.fixture
def transcode():
    """Return a function that copies a film without loss and returns the warnings."""

    def run(source: Path, target: Path, encoding: Encoding | None = None, **part) -> list[str]:
        encoding = encoding or Encoding(lossless=True)
        with VideoReader(source, **part) as reader:
            shape = (reader.info, reader.streams, encoding, reader.shift)
            with VideoWriter(target, *shape) as writer:
                for item in reader:
                    if isinstance(item, Frame):
                        writer.write(item)
                    else:
                        writer.write_packet(item)
        return reader.warnings + writer.warnings

    return run
