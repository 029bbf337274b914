"""Timestamps and cutting."""

from fractions import Fraction

import av
import pytest

from nlden.media import Encoding, Frame, MediaError, VideoReader


def times_of(path, kind="video"):
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        if kind == "video":
            return [f.pts * f.time_base for f in container.decode(stream)]
        packets = [p for p in container.demux(stream) if p.size]
        return [(p.pts * p.time_base, bytes(p)) for p in packets]


def test_b_frames_and_missing_packets_of_the_head_keep_their_order(film, transcode, decode):
    source = film("in.mp4", options={"bf": "3"}, pts=(0, 1, 2, 3, 5, 8, 13, 21))
    target = source.with_stem("out")
    assert transcode(source, target) == []
    assert decode(target).times == decode(source).times
    assert all(
        (a == b).all() for a, b in zip(*(decode(p).pictures for p in (source, target)), strict=True)
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
def test_an_offset_between_picture_and_sound_is_kept(film, transcode, suffix):
    source = film(f"in{suffix}", pts=tuple(range(12, 20)))
    target = source.with_stem("out")
    assert transcode(source, target, Encoding(codec="libx264", lossless=True)) == []
    assert times_of(target) == times_of(source)
    assert times_of(target, "audio") == times_of(source, "audio")
    assert times_of(source)[0] - times_of(source, "audio")[0][0] > Fraction(2, 5)


def test_frames_that_an_edit_list_hides_stay_hidden(film, transcode):
    # Frames before zero are hidden by an edit list; bf=0 keeps FFmpeg from moving them.
    source = film("in.mp4", pts=tuple(range(-3, 5)), options={"bf": "0"})
    target = source.with_stem("out")
    transcode(source, target)
    assert times_of(target) == times_of(source)
    assert times_of(target, "audio") == times_of(source, "audio")


def test_frames_without_timestamps_follow_at_the_frame_rate(film, transcode, tmp_path):
    whole = film("whole.mp4", sound=(), options={"bf": "2"})
    raw = tmp_path / "in.h264"
    with av.open(str(whole)) as source, av.open(str(raw), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    warnings = transcode(raw, tmp_path / "out.mkv")
    assert [w for w in warnings if "8 frames have no timestamp" in w]
    assert times_of(tmp_path / "out.mkv") == times_of(whole)
    transcode(raw, tmp_path / "cut.mkv", start=0.08, end=0.2)
    assert len(times_of(tmp_path / "cut.mkv")) == 3


def test_a_timestamp_that_comes_twice_is_put_right(film, transcode, tmp_path):
    source = film(
        "in.mkv", video="ffv1", pts=(0, 40, 80, 80, 80, 120, 160, 200), unit=Fraction(1, 1000)
    )
    target = tmp_path / "out.mkv"
    warnings = transcode(source, target)
    assert [w for w in warnings if "2 frames have the timestamp of an earlier one" in w]
    milliseconds = [1000 * t for t in times_of(target)]
    assert milliseconds == [0, 40, 80, 81, 82, 120, 160, 200]


@pytest.mark.parametrize("part", [{"start": 0.4, "end": 1.2}, {"start": 0.4, "frames": 20}])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_part_has_the_sound_and_subtitles_of_its_frames(clip, transcode, part, suffix):
    source = clip(f"in{suffix}", frames=50, options={"g": "12"})
    target = source.with_stem("out")
    transcode(source, target, **part)
    inside = [t for t in times_of(source) if Fraction(2, 5) <= t < Fraction(6, 5)]
    assert len(inside) == 20
    assert times_of(target) == [t - Fraction(2, 5) for t in inside]
    wanted = [data for t, data in times_of(source, "audio") if Fraction(2, 5) <= t < Fraction(6, 5)]
    assert [data for _, data in times_of(target, "audio")] == wanted
    shift = [
        a - b
        for (a, _), (b, _) in zip(
            [x for x in times_of(source, "audio") if Fraction(2, 5) <= x[0] < Fraction(6, 5)],
            times_of(target, "audio"),
            strict=True,
        )
    ]
    assert all(abs(s - Fraction(2, 5)) <= Fraction(1, 1000) for s in shift)


def test_the_sound_of_the_last_frames_comes_even_if_it_lies_behind_them(clip, transcode, tmp_path):
    plain = clip("plain.mkv", frames=50)
    source = tmp_path / "in.mkv"
    with av.open(str(plain)) as a, av.open(str(source), "w") as b:
        pairs = {s.index: b.add_stream_from_template(s, opaque=True) for s in a.streams}
        packets = sorted((p for p in a.demux() if p.size), key=lambda p: p.stream.type == "audio")
        b.start_encoding()
        for packet in packets:
            packet.stream = pairs[packet.stream.index]
            b.mux(packet)
    transcode(source, tmp_path / "out.mkv", end=1.0)
    sound = times_of(tmp_path / "out.mkv", "audio")
    assert sound == [x for x in times_of(source, "audio") if x[0] < 1]


def test_subtitles_and_chapters_are_cut_and_shifted(film, transcode, tmp_path):
    source = film("in.mkv", subtitles=("subrip",), chapters=True)
    target = tmp_path / "out.mkv"
    transcode(source, target, start=0.08, end=0.2)
    with av.open(str(target)) as container:
        titles = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]
        texts = [(p.pts, p.duration) for p in container.demux(subtitles=0) if p.size]
    assert titles == [
        (0, Fraction(1, 50), "One"),
        (Fraction(1, 50), Fraction(3, 25), "Two"),
    ]
    # Shown from 40 to 120 and from 160 to 240 ms before; the part is 80 to 200 ms.
    assert texts[-1] == (80, 40)


def test_a_copied_video_begins_with_a_key_frame(film, transcode, tmp_path):
    source = film("in.mkv", second_video="mpeg4")
    with av.open(str(source)) as container:
        keys = [p.pts for p in container.demux(video=1) if p.size and p.is_keyframe]
    assert keys == [0]
    transcode(source, tmp_path / "out.mkv", start=0.12)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [p for p in container.demux(video=1) if p.size] == []


def test_avi_tells_that_it_holds_no_variable_frame_rate(film, clip, transcode, tmp_path):
    pts = [0, 400, 800, 950, 1600, 2000, 2400, 2800]
    source = clip("in.mp4", audio=None, pts=pts, time_base=Fraction(1, 10000))
    warnings = transcode(source, tmp_path / "out.avi")
    assert len(times_of(tmp_path / "out.avi")) == 8
    assert [w for w in warnings if "constant frame rate only" in w and ".mkv" in w]
    steady = film("steady.mkv", sound=())
    assert "constant" not in str(transcode(steady, tmp_path / "steady.avi"))
    assert times_of(tmp_path / "steady.avi") == times_of(steady)


@pytest.mark.parametrize("size", [(32, 48), (48, 64), (98, 64)])
def test_no_picture_that_libx265_cannot_take_is_given_to_it(clip, transcode, size):
    from nlden.media.encoding import Encoding

    source = clip("in.mkv", codec="ffv1", size=size, frames=2, audio=None)
    with VideoReader(source) as reader:
        with pytest.raises(MediaError, match="66x66"):
            Encoding(codec="libx265").choose(reader.info, ".mkv", set())
        from dataclasses import replace

        info = replace(reader.info, codec="hevc")
        choice = Encoding().choose(info, ".mkv", set())
        assert choice.codec == "libx264"
        assert any("66x66" in line for line in choice.remarks)
        assert isinstance(next(iter(reader)), Frame)
