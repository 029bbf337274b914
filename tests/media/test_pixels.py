"""Films of every pixel format, of random codes, copied without loss: the codes stay."""

from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from nlden.media import Encoding, Frame, VideoReader, VideoWriter
from nlden.media.frames import from_planes, to_alpha, to_planes
from nlden.media.probe import Layout

FAST = {"preset": "ultrafast", "x265-params": "lossless=1:log-level=none"}
KINDS = ("yuv420p", "yuv422p", "yuv444p")
DEPTHS = ("", "9le", "10le", "12le", "14le", "16le")
PLANAR = [
    *(kind + depth for kind in (*KINDS, "gray", "gbrp") for depth in DEPTHS),
    *("yuv440p", "yuv440p10le", "yuv440p12le", "yuv411p", "yuv410p"),
    *(kind.replace("yuv", "yuva") + d for kind in KINDS for d in ("", "9le", "10le", "16le")),
    *("yuva422p12le", "yuva444p12le", "ya8", "gbrap10le", "gbrap12le", "gbrap14le", "gbrap16le"),
]
FILMS = [
    # FFV1 holds nearly everything.
    *(("ffv1", name, ".mkv", ".mkv") for name in PLANAR if name != "gbrp"),
    *(("ffv1", name, ".mkv", ".mkv") for name in ("bgr0", "bgra", "rgb48le", "rgba64le")),
    # H.264 and H.265
    *(("libx264", k + d, ".mp4", ".mp4") for k in KINDS for d in ("", "10le")),
    *(("libx264", name, ".mp4", ".mp4") for name in ("yuvj420p", "yuvj444p", "nv12", "gray")),
    *(("libx264rgb", name, ".mp4", ".mp4") for name in ("rgb24", "bgr0")),
    *(("libx265", k + d, ".mp4", ".mp4") for k in KINDS for d in ("", "10le", "12le")),
    *(("libx265", name, ".mp4", ".mp4") for name in ("gbrp", "gbrp10le", "gray10le")),
    # VP9
    *(("libvpx-vp9", name, ".webm", ".webm") for name in (*KINDS, "yuv440p", "gbrp")),
    # uncompressed, packed in many ways
    *(("rawvideo", name, ".avi", ".mkv") for name in ("nv12", "uyvy422", "yuyv422", "bgra")),
    *(("rawvideo", name, ".nut", ".mkv") for name in ("rgb24", "argb", "rgb48le", "yuv420p9le")),
    *(("rawvideo", name, ".y4m", ".y4m") for name in (*KINDS, "yuv420p10le", "yuv411p", "gray")),
    # pictures and intermediate codecs
    *(("png", name, ".mov", ".mov") for name in ("rgb24", "rgba", "rgb48be", "rgba64be")),
    *(("png", name, ".mov", ".mov") for name in ("gray", "ya8", "gray16be", "ya16be")),
    *(("qtrle", name, ".mov", ".mov") for name in ("rgb24", "argb")),
    *(("utvideo", name, ".avi", ".avi") for name in ("gbrp", "gbrap", "yuv422p")),
    *(("magicyuv", name, ".avi", ".avi") for name in ("gbrap", "yuva444p", "gray")),
    *(("ffvhuff", name, ".avi", ".avi") for name in ("yuv410p", "gbrp14le", "yuva420p10le")),
    ("mjpeg", "yuvj420p", ".avi", ".avi"),
]


def noise(name, size=96, seed=0):
    """Fill a frame of a pixel format with random codes."""
    rng = np.random.default_rng(seed)
    rgb = Layout.of(av.VideoFormat(name)).kind == "rgb"
    frame = av.VideoFrame(size, size, "gbrap16le" if rgb else "yuva444p16le")
    for plane in frame.planes:
        codes = np.frombuffer(plane, np.uint16)
        codes[:] = rng.integers(0, 65536, len(codes))
    return frame.reformat(format=name)


def noise_film(path, codec, name, frames=3):
    """Encode random codes."""
    rgb, full = Layout.of(av.VideoFormat(name)).kind == "rgb", name.startswith("yuvj")
    options = {"strict": "-1"} if path.suffix == ".y4m" else {}
    known = {o.name for o in av.CodecContext.create(codec, "w").supported_options.private}
    lossless = {"libx264": {"qp": "0"}, "libx264rgb": {"qp": "0"}, "libvpx-vp9": {"lossless": "1"}}
    lossless["libvpx"] = {"auto-alt-ref": "0"}  # or alpha is refused
    chosen = {k: v for k, v in FAST.items() if k in known} | lossless.get(codec, {})
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options=chosen)
        stream.width = stream.height = 96
        stream.pix_fmt = name
        context = stream.codec_context
        context.colorspace, context.color_range = 0 if rgb else 6, 2 if rgb or full else 1
        context.color_primaries, context.color_trc = 6, 6
        for i in range(frames):
            frame = noise(name, seed=i)
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path):
    """Decode with PyAV alone; return format, colour tags and frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        tags = (context.colorspace, context.color_range)
        tags += (context.color_primaries, context.color_trc)
        return context.pix_fmt, tuple(map(int, tags)), list(container.decode(stream))


def rows(frame):
    """Return the bytes of the planes of a frame without the padding of their rows."""
    found = []
    for i, plane in enumerate(frame.planes):
        components = [c for c in frame.format.components if c.plane == i]
        deep = max(c.bits for c in components) > 8
        width = len(components) * components[0].width * (2 if deep else 1)
        if frame.format.name in ("bgr0", "0rgb"):
            codes = np.frombuffer(plane, np.uint8).reshape(plane.height, -1, 4)[..., :3]
            found.append(codes[:, : frame.width])
            continue
        found.append(np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, :width])
    return found


@pytest.mark.parametrize(("codec", "name", "suffix", "target"), FILMS)
def test_a_lossless_copy_has_the_very_codes(tmp_path, transcode, codec, name, suffix, target):
    source = noise_film(tmp_path / f"in{suffix}", codec, name)
    copy = tmp_path / f"out{target}"
    warnings = transcode(source, copy)
    before, tags, pictures = decoded(source)
    after, tags_after, copies = decoded(copy)
    assert warnings == []
    assert len(pictures) == 3
    for picture, again in zip(pictures, copies, strict=True):
        # Other orders of the same codes are brought into the source's order.
        same = after.replace("yuvj", "yuv") == before.replace("yuvj", "yuv")
        back = again if same else again.reformat(format=before)
        assert all((a == b).all() for a, b in zip(rows(picture), rows(back), strict=True))
    if (suffix, target) in ((".mkv", ".mkv"), (".mp4", ".mp4"), (".webm", ".webm")):
        assert tags_after == tags


@pytest.mark.parametrize(
    "name",
    [
        *("nv12", "nv21", "nv16", "nv24", "p010le", "p012le", "p016le", "p210le", "p216le"),
        *("y210le", "y212le", "uyvy422", "yuyv422", "yvyu422", "vuyx", "vuya", "xv30le"),
        *("xv36le", "x2rgb10le", "x2bgr10le", "rgb24", "bgra", "argb", "rgb48be", "ya16be"),
        *("gray10be", "yuv420p10be", "yuva444p12le", "gbrap14le", "rgb8"),
    ],
)
def test_the_planes_of_what_decoders_give_hold_all_its_codes(name):
    frame = noise(name)
    layout = Layout.of(frame.format)
    planes, alpha = to_planes(frame, layout), to_alpha(frame, layout)
    back = from_planes(planes, layout, alpha).reformat(format=name)
    assert all(bytes(a) == bytes(b) for a, b in zip(frame.planes, back.planes, strict=True))


# Where the format must change: pixel format asked for, or all that the target takes.
CONVERTED = [
    ("ffv1", "yuv420p9le", ".mp4", "libx264", "yuv420p10le"),
    ("ffv1", "yuv420p", ".mkv", "libx264", "yuv420p10le"),
    ("ffv1", "yuv422p12le", ".mkv", "ffv1", "yuv422p16le"),
    ("ffv1", "gray10le", ".mkv", "ffv1", "gray16le"),
    ("ffv1", "gray", ".mkv", "libx264", "yuv420p"),
    ("ffv1", "gbrp10le", ".mkv", "ffv1", "gbrp16le"),
    ("ffv1", "gbrp10le", ".mov", "png", "rgb48be"),
    ("ffv1", "yuv440p", ".mkv", "libvpx-vp9", "yuv440p"),
]


@pytest.mark.parametrize(("codec", "name", "suffix", "encoder", "wanted"), CONVERTED)
def test_a_conversion_stays_within_one_code(
    tmp_path, transcode, codec, name, suffix, encoder, wanted
):
    source = noise_film(tmp_path / "in.mkv", codec, name)
    target = tmp_path / f"out{suffix}"
    assert transcode(source, target, Encoding(encoder, pix_fmt=wanted, lossless=True)) == []
    before, tags, pictures = decoded(source)
    after, tags_after, copies = decoded(target)
    layout = Layout.of(av.VideoFormat(before))
    assert Layout.of(av.VideoFormat(after)) == Layout.of(av.VideoFormat(wanted))
    for picture, again in zip(pictures, copies, strict=True):
        back = to_planes(again.reformat(format=before), layout)
        for a, b in zip(to_planes(picture, layout), back, strict=True):
            assert (a.int() - b.int()).abs().max() <= 1
    if suffix == ".mkv":
        assert tags_after[0] == tags[0]


@pytest.mark.parametrize(
    ("name", "target", "encoding", "codec", "pix_fmt"),
    [
        ("yuva420p", "out.mkv", Encoding(), "ffv1", "yuva420p"),
        ("gbrap12le", "out.mkv", Encoding(), "ffv1", "gbrap12le"),
        ("ya8", "out/%03d.png", Encoding(), "png", "ya8"),
        ("bgra", "out/%03d.png", Encoding(), "png", "rgba"),
        ("yuva444p10le", "out.mov", Encoding("prores_ks"), "prores_ks", "yuva444p12le"),
    ],
)
def test_alpha_is_kept_as_it_is(tmp_path, transcode, name, target, encoding, codec, pix_fmt):
    source = noise_film(tmp_path / "in.mkv", "ffv1", name)
    assert transcode(source, tmp_path / target, encoding) == []
    chosen = tmp_path / (target % 1 if "%" in target else target)
    after, _, (copy, *_) = decoded(chosen)
    assert after == pix_fmt
    before, _, (picture, *_) = decoded(source)
    kind = Layout.of(av.VideoFormat(before))
    same = to_alpha(picture, kind), to_alpha(copy.reformat(format=kind.pix_fmt), kind)
    assert (same[0] == same[1]).all()


@pytest.mark.parametrize(("opaque", "warned"), [(True, 0), (False, 1)])
def test_only_alpha_that_shows_something_is_missed(tmp_path, opaque, warned):
    source = noise_film(tmp_path / "in.mkv", "ffv1", "yuva420p")
    target = tmp_path / "out.mp4"
    with (
        VideoReader(source) as reader,
        VideoWriter(target, reader.info, (), Encoding("libx264")) as writer,
    ):
        for item in reader:
            assert isinstance(item, Frame)
            if opaque:
                item = replace(item, alpha=item.alpha.new_full(item.alpha.shape, 255))
            writer.write(item)
    found = [w for w in writer.warnings if "does not keep alpha" in w]
    assert (len(writer.warnings), len(found)) == (warned, warned)
    assert decoded(target)[0] == "yuv420p"


def test_the_palette_and_transparency_of_a_gif(tmp_path, transcode):
    views = [photographs.astronaut()[:96, i : i + 96] for i in range(3)]
    holes = np.where(np.arange(96) < 40, 0, 255).astype(np.uint8)
    for name, alpha in (("opaque", 255 + 0 * holes), ("pierced", holes)):
        shown = np.broadcast_to(alpha, (96, 96)).astype(np.uint8)
        pictures = [Image.fromarray(np.dstack([view, shown])) for view in views]
        source = tmp_path / f"{name}.gif"
        pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=40, disposal=2)
        assert transcode(source, tmp_path / f"{name}.mkv") == []
        for before, after in zip(
            decoded(source)[2], decoded(tmp_path / f"{name}.mkv")[2], strict=True
        ):
            assert (before.to_ndarray(format="rgba") == after.to_ndarray(format="rgba")).all()
        warnings = transcode(source, tmp_path / f"{name}.mp4", Encoding())
        assert len(warnings) == (name == "pierced")
        assert all("does not keep alpha" in w for w in warnings)
        assert decoded(tmp_path / f"{name}.mp4")[0] == "gbrp"


def decoded_by_libvpx(path, codec):
    """Decode with the decoder that knows alpha."""
    decoder = av.CodecContext.create(codec, "r")
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        return [f for p in [*packets, None] for f in decoder.decode(p)]


@pytest.mark.parametrize(("codec", "suffix"), [("libvpx-vp9", ".webm"), ("libvpx", ".mkv")])
def test_the_alpha_of_vp8_and_vp9_is_read_and_written(tmp_path, transcode, codec, suffix):
    source = noise_film(tmp_path / f"in{suffix}", codec, "yuva420p")
    before = decoded_by_libvpx(source, codec)
    with VideoReader(source) as reader:
        frames = [item for item in reader if isinstance(item, Frame)]
    assert len(frames) == len(before) == 3
    for frame, picture in zip(frames, before, strict=True):
        layout = Layout.of(picture.format)
        assert frame.layout == layout == Layout("yuv420", 8, alpha=True)
        assert (frame.alpha == to_alpha(picture, layout)).all()
        assert all(
            (a == b).all() for a, b in zip(frame.planes, to_planes(picture, layout), strict=True)
        )
    assert [f.pts for f in frames] == [f.pts for f in decoded(source)[2]]
    copy = tmp_path / "out.webm"
    assert transcode(source, copy) == []
    for a, b in zip(before, decoded_by_libvpx(copy, "libvpx-vp9"), strict=True):
        assert a.format.name == b.format.name == "yuva420p"
        assert all((x == y).all() for x, y in zip(rows(a), rows(b), strict=True))
    for name in ("libvpx", "libvpx-vp9"):  # at their usual quality
        assert transcode(source, copy, Encoding(name)) == []
        assert decoded_by_libvpx(copy, name)[0].format.name == "yuva420p"
    warnings = transcode(source, tmp_path / "out.mp4", Encoding("libvpx-vp9"))
    assert ["does not keep alpha" in w for w in warnings] == [True]
