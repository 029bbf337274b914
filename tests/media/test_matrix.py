"""Films of many kinds, copied without loss: pictures, times, sound and colour tags stay."""

from fractions import Fraction

import av
import pytest

from nlden.media import Encoding

NTSC = Fraction(1001, 30000)
VFR = {"pts": (0, 400, 800, 900, 1000, 2600, 2601, 4000), "unit": Fraction(1, 10000)}
MS = {"pts": (0, 40, 80, 95, 160, 233, 300, 301), "unit": Fraction(1, 1000)}
PQ = (9, 1, 9, 16)
HLG = (9, 1, 9, 18)
BT601 = (6, 1, 6, 6)
RGB = (0, 2, 1, 13)

FILMS = [
    # H.264
    (".mp4", {}),
    (".mp4", {"options": {"bf": "3"}}),
    (".mp4", VFR),
    (".mp4", {"unit": NTSC}),
    (".mp4", {"unit": Fraction(1, 60)}),
    (".mp4", {"colour": BT601}),
    (".mp4", {"colour": (1, 2, 1, 1)}),
    (".mp4", {"pix_fmt": "yuv420p10le", "colour": PQ}),
    (".mp4", {"pix_fmt": "yuv422p"}),
    (".mp4", {"pix_fmt": "yuv444p"}),
    (".mp4", {"sound": ("ac3",)}),
    (".mp4", {"sound": ("libmp3lame",)}),
    (".mp4", {"sound": ("libopus",)}),
    (".mp4", {"sound": ("flac",)}),
    (".mp4", {"turn": (270, False), "aspect": Fraction(16, 11)}),
    (".mp4", {"pts": tuple(range(12, 20))}),
    (".mov", {"sound": ("pcm_s16le",)}),
    (".mov", {"sound": ("pcm_s24le",), "timecode": True}),
    (".mov", {**VFR, "sound": ("alac",)}),
    (".mov", {"subtitles": ("mov_text",), "turn": (180, False)}),
    (".mkv", {**MS, "sound": ("flac", "aac", "libmp3lame")}),
    (".mkv", {"options": {"bf": "2"}, "subtitles": ("subrip", "ass", "hdmv_pgs_subtitle")}),
    (".mkv", {"cover": True, "font": True, "chapters": True}),
    (".mkv", {"sound": ()}),
    (".ts", {}),
    (".ts", {"sound": ("mp2", "ac3"), "options": {"bf": "2"}}),
    # HEVC
    (".mp4", {"video": "libx265"}),
    (".mp4", {"video": "libx265", "pix_fmt": "yuv420p10le", "colour": PQ}),
    (".mp4", {"video": "libx265", "pix_fmt": "yuv420p10le", "colour": HLG}),
    (".mkv", {"video": "libx265", "pix_fmt": "yuv422p10le"}),
    (".mov", {"video": "libx265", "turn": (90, False)}),
    # VP9
    (".webm", {"video": "libvpx-vp9", "sound": ("libopus",)}),
    (".webm", {"video": "libvpx-vp9", "sound": ("libopus", "libopus"), **MS}),
    (".webm", {"video": "libvpx-vp9", "sound": (), "subtitles": ("webvtt",)}),
    (".mp4", {"video": "libvpx-vp9", "sound": ("aac",)}),
    # lossless and others
    (".mkv", {"video": "ffv1", "pix_fmt": "yuv420p12le"}),
    (".mkv", {"video": "ffv1", "pix_fmt": "yuv422p10le", **MS}),
    (".mkv", {"video": "ffv1", "pix_fmt": "yuv444p16le"}),
    (".mkv", {"video": "ffv1", "pix_fmt": "gray10le"}),
    (".mkv", {"video": "ffv1", "pix_fmt": "gbrp12le", "colour": RGB}),
    (".avi", {"video": "ffv1", "sound": ("pcm_s16le",)}),
    (".avi", {"video": "mpeg4", "sound": ("libmp3lame",)}),
    (".mkv", {"video": "mpeg2video", "sound": ("mp2",)}),
    (".mkv", {"video": "mjpeg", "pix_fmt": "yuvj420p", "colour": (5, 2, 1, 1)}),
    (".mov", {"video": "prores_ks", "pix_fmt": "yuv422p10le", "sound": ("pcm_s16le",)}),
]
SLOW = {"libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}}


def packets_of(path):
    """Return the bytes and times of the packets of every stream but the first video."""
    with av.open(str(path)) as container:
        found = {s.index: [] for s in container.streams if s.type in ("audio", "subtitle")}
        for packet in container.demux([container.streams[i] for i in found]) if found else ():
            if packet.size:
                found[packet.stream.index].append((bytes(packet), packet.pts * packet.time_base))
    return found


@pytest.mark.parametrize("number", range(len(FILMS)))
def test_a_copy_of_any_kind_of_film_is_the_same(film, transcode, decode, number):
    suffix, parts = FILMS[number]
    options = {**SLOW.get(parts.get("video"), {}), **parts.get("options", {})}
    source = film(f"in{suffix}", **{**parts, "options": options})
    target = source.with_stem("out")
    # HEVC and what has no lossless encoder go into lossless codecs of the same container.
    codec = {".ts": "libx264"}.get(suffix)
    warnings = transcode(source, target, Encoding(codec=codec, lossless=True))
    before, after = decode(source), decode(target)
    assert warnings == []
    assert all((a == b).all() for a, b in zip(before.pictures, after.pictures, strict=True))
    assert after.times == before.times
    assert after.tags == before.tags
    assert after.rotation == before.rotation
    assert after.pix_fmt.replace("yuvj", "yuv") == before.pix_fmt.replace("yuvj", "yuv")
    assert packets_of(target) == packets_of(source)
    assert len(packets_of(target)) == len(parts.get("sound", [1])) + len(parts.get("subtitles", ()))


def test_the_matrix_is_as_large_as_promised():
    assert len(FILMS) >= 40
    assert {suffix for suffix, _ in FILMS} == {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"}
