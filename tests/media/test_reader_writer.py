from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from nlden.media import Encoding, Frame, Layout, MediaError, VideoReader, VideoWriter
from nlden.media.frames import from_planes, to_planes
from nlden.media.probe import probe
from nlden.media.sampling import sample_frames

LOSSLESS = Encoding(lossless=True)


def transcode(source, target, encoding=LOSSLESS, **arguments):
    with (
        VideoReader(source, **arguments) as reader,
        VideoWriter(target, reader.info, reader.streams, encoding) as writer,
    ):
        for item in reader:
            if isinstance(item, Frame):
                writer.write(item)
            else:
                writer.write_packet(item)
    return reader


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mp4", "libx264", "yuv420p"),
        (".mp4", "libx265", "yuv420p10le"),
        (".mkv", "ffv1", "yuv420p12le"),
        (".mkv", "ffv1", "yuv422p"),
        (".mkv", "ffv1", "yuv444p10le"),
        (".mkv", "ffv1", "gray"),
        (".mkv", "ffv1", "gbrp12le"),
        (".webm", "libvpx-vp9", "yuv420p"),
        (".avi", "mpeg4", "yuv420p"),
        (".ts", "mpeg2video", "yuv420p"),
    ],
)
def test_a_copy_without_loss_is_the_same_in_everything(clip, decode, suffix, codec, pix_fmt):
    audio = None if suffix in (".webm", ".avi") else "aac"
    source = clip(f"in{suffix}", codec=codec, pix_fmt=pix_fmt, audio=audio)
    target = source.with_stem("out")
    reader = transcode(source, target)
    before, after = decode(source), decode(target)
    assert reader.warnings == []
    assert after.sound == before.sound
    assert bool(before.sound) == bool(audio)
    assert after.times == before.times
    assert after.tags == before.tags
    assert after.pix_fmt == before.pix_fmt
    assert all((a == b).all() for a, b in zip(after.pictures, before.pictures, strict=True))


def test_a_variable_frame_rate_is_kept(clip, decode):
    pts = [0, 400, 800, 900, 1000, 2600, 2601, 4000]
    source = clip(pts=pts, time_base=Fraction(1, 10000))
    target = source.with_stem("out")
    transcode(source, target)
    assert decode(target).times == decode(source).times
    assert [t - decode(target).times[0] for t in decode(target).times] == [
        Fraction(p, 10000) for p in pts
    ]


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_last_frame_is_shown_as_long(clip, tmp_path, suffix, codec):
    """Of packets with durations, as screen recordings and slide shows have them."""
    source = tmp_path / f"in{suffix}"
    with av.open(str(clip(audio=None))) as given, av.open(str(source), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.time_base = Fraction(1, 12800)
        packets = [p for p in given.demux(video=0) if p.size]
        last = max(packets, key=lambda p: p.pts)
        for packet in packets:
            packet.stream = stream
            packet.duration = 38400 if packet is last else 512
            container.mux(packet)
    reader = transcode(source, target := source.with_stem("out"), Encoding(codec))
    assert reader.warnings == []
    before, after = probe(source), probe(target)
    assert before.duration > 3
    assert after.duration == pytest.approx(before.duration, abs=0.05)


def test_a_name_with_a_colon_is_no_address(clip, monkeypatch):
    source = clip("12:30 take.mkv")
    monkeypatch.chdir(source.parent)
    transcode(Path(source.name), Path("out.mkv"))
    assert probe(Path("out.mkv")).frames == probe(source).frames


def test_rotation_is_kept(clip, decode):
    source = clip(rotation=90)
    target = source.with_stem("out")
    transcode(source, target)
    assert decode(source).rotation == 90
    assert decode(target).rotation == 90


def test_start_and_end_cut_frames_and_sound(clip, decode):
    source = clip(frames=50, options={"g": "12"})
    target = source.with_stem("out")
    with VideoReader(source, start=0.4, end=1.2) as reader:
        frames = [item for item in reader if isinstance(item, Frame)]
    assert [frame.pts * reader.info.time_base for frame in frames] == [
        Fraction(i, 25) for i in range(10, 30)
    ]
    transcode(source, target, start=0.4, end=1.2)
    assert len(decode(target).times) == 20
    assert 0 < len(decode(target).sound) < len(decode(source).sound)


@pytest.mark.parametrize(
    "name",
    [
        "yuv420p",
        "yuv420p10le",
        "yuv422p12le",
        "yuv444p",
        "gray",
        "gray10le",
        "gray16le",
        "gbrp",
        "gbrp10le",
        "yuv444p16le",
    ],
)
def test_planes_and_frames_are_inverse(name):
    layout = Layout.of(av.VideoFormat(name))
    assert layout.pix_fmt == name
    frame = av.VideoFrame(37, 21, name)
    generator = torch.Generator().manual_seed(0)
    planes = tuple(
        torch.randint(0, layout.largest + 1, p.shape, generator=generator).to(p.dtype)
        for p in to_planes(frame, layout)
    )
    back = to_planes(from_planes(planes, layout), layout)
    assert all(torch.equal(a, b) for a, b in zip(planes, back, strict=True))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("nv12", Layout("yuv420", 8)),
        ("p010le", Layout("yuv420", 10)),
        ("yuyv422", Layout("yuv422", 8)),
        ("yuvj444p", Layout("yuv444", 8)),
        ("yuva420p", Layout("yuv420", 8, alpha=True)),
        ("pal8", Layout("rgb", 8, alpha=True)),
        ("bgr0", Layout("rgb", 8)),
        ("rgb48le", Layout("rgb", 16)),
        ("yuv411p", Layout("yuv411", 8)),
        ("ya8", Layout("gray", 8, alpha=True)),
    ],
)
def test_layouts_hold_other_formats(name, layout):
    assert Layout.of(av.VideoFormat(name)) == layout


def test_probe_describes_the_stream(clip):
    info = probe(clip(pix_fmt="yuv420p10le", codec="libx265", size=(66, 96)))
    assert (info.height, info.width, info.codec, info.frames) == (66, 96, "hevc", 8)
    assert info.layout == Layout("yuv420", 10)
    assert info.rate == 25
    assert info.color.matrix == "bt709"
    assert not info.color.full_range


def test_samples_are_spread_over_the_file(clip):
    frames = sample_frames(clip(frames=60, options={"g": "5"}), count=4)
    assert len({frame.pts for frame in frames}) == 4


def test_samples_go_on_where_key_frames_are_fewer_than_samples(clip):
    path = clip(frames=600, options={"g": "250", "keyint_min": "250", "sc_threshold": "0"})
    chosen = [f.pts / 512 for f in sample_frames(path, count=8)]  # of 600 frames
    assert len(chosen) >= 6
    assert any(c > 500 for c in chosen)


@pytest.mark.parametrize("frames", [3, 24, 400])
def test_frames_are_sampled_all_over_a_file_with_one_key_frame(clip, frames):
    path = clip(frames=frames, options={"g": "1000", "sc_threshold": "0"})
    chosen = [f.pts for f in sample_frames(path, count=8)]
    assert len(set(chosen)) >= {3: 2, 24: 8, 400: 7}[frames]
    with VideoReader(path) as reader:
        every = [item.pts for item in reader if isinstance(item, Frame)]
    assert set(chosen) <= set(every)
    if frames == 24:  # those of a long file stay near its key frame
        wanted = [every[int((i + 0.5) / 8 * frames)] for i in range(8)]
        assert all(0 <= a - b <= every[1] for a, b in zip(chosen, wanted, strict=True))


def test_a_failed_write_leaves_nothing(clip, tmp_path):
    source = clip()
    target = tmp_path / "sub" / "out.mp4"
    target.parent.mkdir()
    with (
        VideoReader(source) as reader,
        pytest.raises(RuntimeError, match="stop"),
        VideoWriter(target, reader.info, reader.streams) as writer,
    ):
        writer.write(next(item for item in reader if isinstance(item, Frame)))
        raise RuntimeError("stop")
    assert list(target.parent.iterdir()) == []


def test_the_target_appears_only_when_complete(clip, tmp_path):
    source = clip()
    target = tmp_path / "out.mp4"
    with VideoReader(source) as reader, VideoWriter(target, reader.info) as writer:
        for item in reader:
            if isinstance(item, Frame):
                writer.write(item)
        assert not target.exists()
    assert target.exists()


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (Encoding(codec="nonsense"), "no such encoder"),
        (Encoding(pix_fmt="nonsense"), "no such pixel format"),
        (Encoding(codec="libsvtav1", pix_fmt="yuv444p"), "cannot encode"),
        (Encoding(codec="mpeg4", lossless=True), "--lossless"),
    ],
)
def test_impossible_encodings_are_told(clip, tmp_path, encoding, message):
    with VideoReader(clip()) as reader:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(MediaError, match=message):
            VideoWriter(tmp_path / "out.mp4", reader.info, reader.streams, encoding)
    assert sorted(tmp_path.iterdir()) == before


def test_memory_does_not_grow_with_the_frames_read(clip):
    # The reader may hold what it decodes ahead, not what it has handed out.
    import gc
    import weakref

    handed = []
    with VideoReader(clip(frames=40)) as reader:
        for item in reader:
            if isinstance(item, Frame):
                handed.append(weakref.ref(item.planes[0]))
    gc.collect()
    assert len(handed) == 40
    assert sum(reference() is not None for reference in handed) <= 1
