"""HDR10: what the encoders are told of a film is read back as it was."""

import struct
from fractions import Fraction

import av
import pytest

from nlden.media import Encoding, VideoReader
from nlden.media.facts import picture_facts
from nlden.media.hdr import Hdr
from nlden.media.probe import first_frame, open_video

DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
X265 = f"log-level=error:master-display={DISPLAY}:max-cll=1000,400"
EXACT = "G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000,0.005):content-light=1000,400"
PQ, HLG = (9, 1, 9, 16), (9, 1, 9, 18)
POINTS = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450)


def metadata(path):
    """Read mastering display and content light of the first frame as plain numbers."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        carried = {d.type.name: bytes(d) for d in next(container.decode(stream)).side_data}
        context = stream.codec_context
        tags = (context.colorspace, context.color_range)
        tags += (context.color_primaries, context.color_trc)
    display, light = (
        carried.get(name) for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
    )
    ratios = struct.unpack("=20i", display[:80]) if display else ()
    numbers = [a / b for a, b in zip(ratios[::2], ratios[1::2], strict=True)]
    return numbers, struct.unpack("=2I", light[:8]) if light else None, tuple(map(int, tags))


@pytest.fixture
def hdr_film(film):
    """Return a function that encodes an HDR10 film."""

    def make(name="in.mp4", video="libx265", colour=PQ, **parts):
        options = {"x265-params": X265, "preset": "ultrafast"}
        if video == "libsvtav1":
            options = {"svtav1-params": f"mastering-display={EXACT}", "preset": "12"}
        parts = {"pix_fmt": "yuv420p10le", "options": options, "colour": colour, **parts}
        return film(name, video=video, **parts)

    return make


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("SVT_LOG", "1")


@pytest.mark.parametrize("colour", [PQ, HLG])
@pytest.mark.parametrize(
    ("source", "target", "codec"),
    [
        ("libx265", "out.mp4", None),
        ("libx265", "out.mkv", None),
        ("libx265", "out.mov", "libx265"),
        ("libx265", "out.ts", None),
        ("libx265", "out.mp4", "libx264"),
        ("libx265", "out.mkv", "libsvtav1"),
        ("libsvtav1", "out.mp4", None),
        ("libsvtav1", "out.mp4", "libx265"),
    ],
)
def test_mastering_display_and_light_are_kept(
    hdr_film, transcode, tmp_path, colour, source, target, codec
):
    path = hdr_film(video=source, colour=colour)
    preset = "12" if "libsvtav1" in (codec, source) and codec != "libx265" else "ultrafast"
    warnings = transcode(path, tmp_path / target, Encoding(codec, preset=preset))
    assert [w for w in warnings if ".ts does not keep the tags" not in w] == []
    (display, light, tags), (before, light_before, tags_before) = map(
        metadata, (tmp_path / target, path)
    )
    expected = [n / 50_000 for n in POINTS] + [0.005, 1000]
    # AV1 counts in 1/65536, and luminances in 1/16384 and 1/256.
    tolerance = 3e-5 if "libsvtav1" in (source, codec) else 1e-9
    assert before == pytest.approx(expected, abs=tolerance)
    assert display == pytest.approx(before, abs=tolerance)
    assert light == light_before == (1000, 400)
    assert tags == tags_before == colour


def test_the_user_s_own_parameters_join_ours(hdr_film, transcode, tmp_path):
    encoding = Encoding(preset="ultrafast", options={"x265-params": "max-cll=500,200"})
    assert transcode(hdr_film(), tmp_path / "out.mp4", encoding) == []
    display, light, _ = metadata(tmp_path / "out.mp4")
    assert light == (500, 200)
    assert display[-1] == 1000


@pytest.mark.parametrize(
    ("target", "codec"), [("out.mkv", "ffv1"), ("out.mov", "prores_ks"), ("out.mkv", "libvpx-vp9")]
)
def test_encoders_that_cannot_keep_it_are_named(hdr_film, transcode, tmp_path, target, codec):
    encoding = Encoding(codec, pix_fmt="yuv420p" if codec == "libvpx-vp9" else None)
    found = [w for w in transcode(hdr_film(), tmp_path / target, encoding) if "HDR10" in w]
    assert len(found) == 1
    assert codec in found[0]
    assert "libx265" in found[0]
    assert metadata(tmp_path / target)[:2] == ([], None)


def test_films_without_it_get_none(film, transcode, tmp_path):
    source = film("in.mp4", video="libx265", options={"x265-params": "log-level=error"})
    assert transcode(source, tmp_path / "out.mp4") == []
    assert metadata(tmp_path / "out.mp4")[:2] == ([], None)
    assert Hdr.of(first_frame(source)) == Hdr()


def test_a_display_is_handed_over_whole_or_not_at_all():
    points = tuple(Fraction(n, 50_000) for n in POINTS)
    assert Hdr(chromaticities=points).options("libx265") == {}
    assert not Hdr(chromaticities=points).static
    whole = Hdr(points, (Fraction(5, 1000), Fraction(1000)), (1000, 400))
    assert whole.options("libx265") == {"x265-params": X265.removeprefix("log-level=error:")}
    assert whole.options("ffv1") == {}


def hdr10plus():
    """Build a message of SMPTE ST 2094-40 with one window and no curve, as an H.265 SEI NAL."""
    fields = [(1, 2), (400 * 10, 27), (0, 1)]  # windows; luminance of the target; no grid
    fields += [(n, 17) for n in (900, 800, 700, 300)] + [(0, 4), (10, 10)]  # maxscl, average
    fields += [(0, 1), (0, 1), (0, 1)]
    bits = "".join(f"{value:0{width}b}" for value, width in fields)
    body = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    message = bytes.fromhex("b5003c00010401") + body
    sei = bytes([4, len(message)]) + message + b"\x80"
    nal = b"\x4e\x01"
    for byte in sei:  # three bytes that look like a start code are parted
        nal += b"\x03" if nal.endswith(b"\0\0") and byte <= 3 else b""
        nal += bytes([byte])
    return nal


@pytest.fixture
def hdr10plus_film(hdr_film, inserted, tmp_path):
    """Put HDR10+ before the slices of every picture of an HDR10 film."""
    source, target = hdr_film("plain.mkv", sound=()), tmp_path / "plus.mkv"
    return inserted(source, target, [hdr10plus()])


def test_dynamic_metadata_is_dropped_with_one_warning(hdr10plus_film, transcode, tmp_path):
    with av.open(str(hdr10plus_film)) as container:
        kinds = {d.type.name for f in container.decode(video=0) for d in f.side_data}
    assert "DYNAMIC_HDR_PLUS" in kinds
    warnings = transcode(hdr10plus_film, tmp_path / "out.mkv", Encoding(preset="ultrafast"))
    assert len(warnings) == 1
    assert "HDR10+" in warnings[0]
    assert metadata(tmp_path / "out.mkv")[1] == (1000, 400)
    with VideoReader(hdr10plus_film) as reader:
        assert reader.info.hdr.dynamic == ("HDR10+",)
    container, stream = open_video(hdr10plus_film)
    with container:
        facts = picture_facts(reader.info, stream, first_frame(hdr10plus_film), None)
    assert facts.hdr["hdr10plus"] is True
    assert facts.hdr["max_luminance"] == 1000
