"""Which encoder a source gets, with which options, and what is refused."""

import av
import pytest

from nlden.media import Encoding, MediaError, VideoReader, VideoWriter
from nlden.media.encoding import Choice, supported_codecs
from nlden.media.probe import Layout, probe


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("SVT_LOG", "1")


@pytest.fixture
def choose(film, tmp_path):
    """Return a function that chooses how to encode a source into a target's container."""
    known = probe(film("known.mkv", sound=()))

    def run(codec, pix_fmt, suffix, encoding=None, size=(1920, 1080)) -> Choice:
        from dataclasses import replace

        layout = Layout.of(av.VideoFormat(pix_fmt))
        info = replace(known, codec=codec, layout=layout, width=size[0], height=size[1])
        with av.open(str(tmp_path / f"x{suffix}"), "w") as container:
            supported = supported_codecs(container)
        return (encoding or Encoding()).choose(info, suffix, supported)

    return run


# Source, container, encoder, pixel format, and a word of the warning if there is one.
FOLLOWING = [
    ("h264", "yuv420p", ".mp4", "libx264", "yuv420p", None),
    ("h264", "yuv422p10le", ".mov", "libx264", "yuv422p10le", None),
    ("h264", "gbrp", ".mp4", "libx264rgb", "rgb24", None),
    ("hevc", "yuv420p10le", ".mkv", "libx265", "yuv420p10le", None),
    ("hevc", "yuv444p12le", ".mp4", "libx265", "yuv444p12le", None),
    ("hevc", "gbrp10le", ".mp4", "libx265", "gbrp10le", None),
    ("av1", "yuv420p", ".mp4", "libsvtav1", "yuv420p", None),
    ("av1", "yuv420p10le", ".webm", "libsvtav1", "yuv420p10le", None),
    ("vp9", "yuv420p", ".webm", "libvpx-vp9", "yuv420p", None),
    ("prores", "yuv422p10le", ".mov", "prores_ks", "yuv422p10le", None),
    ("prores", "yuva444p12le", ".mov", "prores_ks", "yuva444p10le", "yuva444p10le was used"),
    ("dnxhd", "yuv422p10le", ".mov", "dnxhd", "yuv422p10le", None),
    ("dnxhd", "yuv422p", ".mxf", "dnxhd", "yuv422p", None),
    ("utvideo", "gbrp", ".avi", "utvideo", "gbrp", None),
    ("qtrle", "argb", ".mov", "qtrle", "argb", None),
    ("mpeg2video", "yuv420p", ".mkv", "libx264", "yuv420p", None),
    ("mpeg2video", "yuv420p", ".mpg", "mpeg2video", "yuv420p", None),
    ("mpeg2video", "yuv422p", ".vob", "mpeg2video", "yuv422p", None),
    ("theora", "yuv420p", ".ogv", "libvpx", "yuv420p", None),
    # What the source's codec has no encoder for goes elsewhere, and the depth stays.
    ("vp9", "yuv420p10le", ".webm", "libsvtav1", "yuv420p10le", "libsvtav1 (yuv420p10le) was used"),
    ("vp9", "yuv420p10le", ".mkv", "libx265", "yuv420p10le", "libvpx-vp9 cannot encode"),
    ("vp9", "yuv422p10le", ".mkv", "libx265", "yuv422p10le", "libvpx-vp9 cannot encode"),
    ("vp9", "yuv444p12le", ".mp4", "libx265", "yuv444p12le", "libvpx-vp9 cannot encode"),
    ("av1", "yuv420p12le", ".mp4", "libx265", "yuv420p12le", "libsvtav1 cannot encode"),
    ("av1", "yuv444p", ".mkv", "libx265", "yuv444p", "libsvtav1 cannot encode"),
    ("av1", "yuv444p10le", ".mp4", "libx265", "yuv444p10le", "libsvtav1 cannot encode"),
    ("av1", "gray10le", ".mp4", "libx265", "gray10le", "libsvtav1 cannot encode"),
    ("h264", "yuv420p14le", ".mkv", "ffv1", "yuv420p14le", "libx264 cannot encode"),
    ("jpeg2000", "yuv444p16le", ".mkv", "ffv1", "yuv444p16le", "ffv1 (yuv444p16le) was used"),
    ("dvvideo", "yuv411p", ".avi", "ffv1", "yuv411p", "libx264 cannot encode yuv411p"),
    ("dvvideo", "yuv411p", ".mov", "libx264", "yuv444p", "yuv444p was used"),
    ("prores", "yuv444p12le", ".mov", "libx265", "yuv444p12le", "prores_ks cannot encode"),
    # Likewise what the container does not hold.
    ("vp9", "yuv420p", ".mov", "libx265", "yuv420p", "libvpx-vp9 cannot go into .mov; libx265"),
    ("av1", "yuv420p10le", ".mov", "libx265", "yuv420p10le", "libsvtav1 cannot go into .mov"),
    ("av1", "yuv420p", ".ts", "libx265", "yuv420p", "libsvtav1 cannot go into .ts"),
    ("ffv1", "yuv420p", ".ts", "libx264", "yuv420p", "ffv1 cannot go into .ts"),
]


@pytest.mark.parametrize(("codec", "source", "suffix", "encoder", "pix_fmt", "word"), FOLLOWING)
def test_the_encoder_follows_the_source(choose, codec, source, suffix, encoder, pix_fmt, word):
    choice = choose(codec, source, suffix)
    assert (choice.codec, choice.pix_fmt) == (encoder, pix_fmt)
    assert len(choice.remarks) == (0 if word is None else 1)
    assert word is None or word in choice.remarks[0]


def test_containers_that_hold_no_such_thing_say_so(choose):
    for codec, source, suffix in (
        ("vp9", "yuv444p12le", ".webm"),
        ("mpeg2video", "yuv420p10le", ".mpg"),
    ):
        with pytest.raises(MediaError, match=rf"no encoder for {source} in \{suffix}; use .mkv"):
            choose(codec, source, suffix)


def test_the_first_of_smaller_sources_is_none_that_cannot(choose):
    assert choose("dnxhd", "yuv422p10le", ".mov", size=(128, 96)).codec == "libx264"
    with pytest.raises(MediaError, match="256x120"):
        choose("dnxhd", "yuv422p10le", ".mov", Encoding("dnxhd"), size=(128, 96))


@pytest.mark.parametrize(
    ("encoding", "codec", "expected"),
    [
        (Encoding(), "h264", {"crf": "16"}),
        (Encoding(crf=20.5, preset="slow"), "h264", {"crf": "20.5", "preset": "slow"}),
        (Encoding(crf=30), "vp9", {"crf": "30", "b": "0"}),
        (Encoding(preset="4"), "vp9", {"cpu-used": "4", "crf": "22", "b": "0"}),
        (Encoding("mpeg2video"), "h264", {"qmin": "2", "qmax": "2"}),
        (Encoding("h264_nvenc"), "h264", {"rc": "vbr", "cq": "19", "b": "0"}),
        (Encoding("hevc_nvenc", crf=24), "h264", {"rc": "vbr", "cq": "24", "b": "0"}),
        (Encoding("hevc_qsv", crf=24), "h264", {"global_quality": "24"}),
        (Encoding("av1_amf", crf=24), "h264", {"rc": "cqp", "qp_i": "24", "qp_p": "24"}),
        (Encoding(lossless=True, crf=30), "h264", {"qp": "0"}),
        (Encoding(options={"crf": "11", "g": "50"}), "h264", {"crf": "11", "g": "50"}),
        (
            Encoding(options={"x265-params": "aq-mode=3"}),
            "hevc",
            {"crf": "18", "x265-params": "log-level=error:aq-mode=3"},
        ),
        (
            Encoding(options={"x265-params": "aq-mode=3"}, lossless=True),
            "hevc",
            {"x265-params": "lossless=1:log-level=error:aq-mode=3"},
        ),
    ],
)
def test_options_of_the_encoder(choose, encoding, codec, expected):
    assert choose(codec, "yuv420p", ".mp4", encoding).options == expected


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (Encoding(options={"nonsense": "1"}), "-e nonsense=1: the encoder libx264 has no option"),
        (Encoding("prores_ks", crf=3), "--crf: the encoder prores_ks has no option"),
        (Encoding("prores_ks", preset="slow"), "--encoder-preset: the encoder prores_ks"),
        (Encoding("aac"), "--codec aac: no such encoder"),
        (Encoding("mpeg2video", pix_fmt="yuv444p"), "mpeg2video: cannot encode yuv444p"),
        (Encoding("libvpx"), "cannot hold it; use .mkv"),
        (Encoding("h264_nvenc", lossless=True), "--lossless: h264_nvenc cannot"),
    ],
)
def test_what_would_be_ignored_is_refused(choose, encoding, message):
    with pytest.raises(MediaError, match=message):
        choose("h264", "yuv420p", ".mov" if encoding.codec == "prores_ks" else ".mp4", encoding)


def written(source, target, encoding):
    with VideoReader(source) as reader, VideoWriter(target, reader.info, (), encoding) as writer:
        for item in reader:
            if hasattr(item, "planes"):
                writer.write(item)
    return target


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding("h264_nvenc"),
        Encoding("hevc_qsv"),
        Encoding("h264_amf"),
        Encoding(options={"profile": "nonsense"}),
        Encoding(preset="nonsense"),
    ],
)
def test_an_encoder_that_does_not_open_is_one_line(film, tmp_path, encoding):
    source = film("in.mp4")
    try:  # the machine may have the hardware
        context = av.CodecContext.create(encoding.codec or "libx264", "w")
        context.width, context.height, context.pix_fmt, context.rate = 256, 256, "nv12", 25
        context.time_base = av.time_base and 1 / context.rate
        context.options = {"preset": encoding.preset} if encoding.preset else encoding.options
        context.open()
        pytest.skip(f"{encoding.codec} works here")
    except av.FFmpegError:
        pass
    with pytest.raises(MediaError, match="the encoder cannot be opened") as caught:
        written(source, tmp_path / "out.mp4", encoding)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4", "mjpeg", "libx264", "libvpx-vp9"])
def test_quality_is_heard_by_the_encoder(film, tmp_path, codec):
    source = film("in.mkv", sound=())
    fine, coarse = (
        written(source, tmp_path / f"{crf}.mkv", Encoding(codec, crf=crf)).stat().st_size
        for crf in (3, 25)
    )
    assert coarse < 0.6 * fine


def test_hevc_is_tagged_as_apple_wants_it(film, tmp_path):
    source = film("in.mkv", video="libx265", options={"x265-params": "log-level=none"})
    for suffix, tag in ((".mp4", "hvc1"), (".mov", "hvc1"), (".mkv", "")):
        target = written(source, tmp_path / f"out{suffix}", Encoding(preset="ultrafast"))
        with av.open(str(target)) as container:
            context = container.streams.video[0].codec_context
            assert context.name == "hevc"
            assert context.codec_tag.strip("\0 ") == tag
            assert len(list(container.decode(video=0))) == 8


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "profile", "named"),
    [
        ("libx264", "yuv420p", "baseline", "Constrained Baseline"),
        ("libx264", "yuv420p", "main", "Main"),
        ("libx264", "yuv420p", "high", "High"),
        ("prores_ks", "yuv422p10le", "proxy", "Proxy"),
        ("prores_ks", "yuv422p10le", "lt", "LT"),
        ("prores_ks", "yuv422p10le", "hq", "HQ"),
        ("prores_ks", "yuva444p10le", "4444xq", "XQ"),
    ],
)
def test_the_profile_follows_the_source(tmp_path, codec, pix_fmt, profile, named):
    source, target = tmp_path / "in.mov", tmp_path / "out.mov"
    with av.open(str(source), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"profile": profile})
        stream.width, stream.height, stream.pix_fmt = 96, 96, pix_fmt
        for i in range(3):
            frame = av.VideoFrame(96, 96, pix_fmt)
            for plane in frame.planes:
                plane.update(bytes([16 + i]) * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    written(source, target, Encoding())
    for path in (source, target):
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.profile == named


def test_a_profile_that_cannot_be_lossless_is_let_go(choose):
    assert "profile" not in choose("h264", "yuv420p", ".mp4", Encoding(lossless=True)).options


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_shortest_films_can_be_hevc(film, tmp_path, frames):
    source = film("in.mkv", video="ffv1", pts=tuple(range(frames)), sound=())
    for i in range(6):  # the times that libx265 gives so few frames were memory at random
        target = written(source, tmp_path / f"{i}.mp4", Encoding("libx265", preset="ultrafast"))
        with av.open(str(target)) as container:
            assert len(list(container.decode(video=0))) == frames


# Encoding, height and width, and the pixel format that stands in.
ODD = [
    (Encoding("libx264"), "yuv420p", (97, 75), "yuv444p"),
    (Encoding("libx264"), "yuv420p", (97, 76), "yuv444p"),
    (Encoding("libx264"), "yuv420p", (98, 75), "yuv444p"),
    (Encoding("libx264"), "yuv422p", (98, 75), "yuv444p"),
    (Encoding("libx264"), "yuv422p", (97, 76), None),
    (Encoding("libx264"), "yuv420p10le", (97, 75), "yuv444p10le"),
    (Encoding("libx265"), "yuv420p12le", (97, 75), "yuv444p12le"),
    (Encoding("libx264", pix_fmt="yuv420p"), "yuv444p", (97, 75), "yuv444p"),
    (Encoding("libx264"), "gray", (97, 75), None),
    (Encoding("libsvtav1"), "yuv420p", (97, 75), None),
]


@pytest.mark.parametrize(("encoding", "pix_fmt", "size", "instead"), ODD)
def test_pictures_of_odd_sizes_stay_whole(clip, decode, tmp_path, encoding, pix_fmt, size, instead):
    source = clip("in.mkv", codec="ffv1", size=size, frames=2, audio=None, pix_fmt=pix_fmt)
    with VideoReader(source) as reader:
        remarks = encoding.choose(reader.info, ".mkv", set()).remarks
    height, width = size
    told = f"of {width}x{height}; {instead} was used"
    assert [told in line for line in remarks] == ([True] if instead else [])
    before, after = decode(source), decode(written(source, tmp_path / "out.mkv", encoding))
    assert instead in (None, after.pix_fmt)
    most = 3 << Layout.of(av.VideoFormat(pix_fmt)).bits - 8
    for x, y in zip(before.pictures, after.pictures, strict=True):
        luma = slice(height * width)
        assert abs(x[luma].astype(int) - y[luma]).mean() < most


def test_odd_sizes_that_no_format_of_an_encoder_takes_are_told(choose):
    assert choose("utvideo", "yuv420p", ".avi", size=(321, 241)).pix_fmt == "yuv444p"
    with pytest.raises(MediaError, match="huffyuv: cannot encode yuv422p of 321x241; name another"):
        choose("h264", "yuv422p", ".avi", Encoding("huffyuv"), size=(321, 241))


@pytest.mark.parametrize("suffix", [".mpg", ".vob", ".ogv", ".mxf", ".flv", ".3gp", ".m4v", ".wmv"])
def test_every_container_gets_an_encoder_that_it_holds(film, tmp_path, suffix):
    source = film("in.mp4", sound=())
    target = written(source, tmp_path / f"out{suffix}", Encoding())
    with av.open(str(target)) as container:
        assert len(list(container.decode(video=0))) >= 7


@pytest.mark.parametrize("suffix", [".mov", ".ts"])
def test_older_containers_take_younger_codecs_in_place(film, tmp_path, suffix):
    source = film("in.webm", video="libvpx-vp9", sound=())
    target = written(source, tmp_path / f"out{suffix}", Encoding(preset="ultrafast"))
    with av.open(str(target)) as container:
        assert len(list(container.decode(video=0))) == 8
