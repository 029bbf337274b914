"""Interlaced films: refused, deinterlaced at their own times, or taken as they are."""

import av
import numpy as np
import pytest
from skimage import data as photographs

from nlden.media import Encoding, Frame, MediaError, VideoReader, VideoWriter
from nlden.media.frames import to_planes

# FFmpeg flags what PyAV hands over as bottom field first.
FIELDS = {"flags": "+ildct+ilme", "qp": "0", "preset": "ultrafast"}
STEP = 6  # pixels that the view moves within a frame


def view(moment):
    """Return the view at a moment, in units of a field: it moves sidewards."""
    left = 100 + STEP * moment // 2
    return photographs.astronaut()[60:156, left : left + 96].copy()


def woven_film(
    path, frames=12, codec="libx264", options=FIELDS, pts=None, woven=None, pix="yuv420p"
):
    """Encode frames whose lines are of two moments in turn, the top line of the second."""
    woven = range(frames) if woven is None else woven
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width = stream.height = 96
        stream.pix_fmt = pix
        stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for i in range(frames):
            picture = view(2 * i)
            if i in woven:
                picture[::2] = view(2 * i + 1)[::2]
            # Each field is brought to the pixel format by itself, as a camera does.
            frame = av.VideoFrame(96, 96, pix)
            for parity in (0, 1):
                field = av.VideoFrame.from_ndarray(picture[parity::2].copy(), "rgb24")
                field = field.reformat(format=pix, dst_colorspace=5, dst_color_range=1)
                for plane, half in zip(frame.planes, field.planes, strict=True):
                    whole = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
                    lines = np.frombuffer(half, np.uint8).reshape(half.height, -1)
                    whole[parity::2, : plane.width] = lines[:, : plane.width]
            frame.pts = pts[i] if pts else i
            container.mux(stream.encode(frame))
            wave = np.sin(np.arange(1920)[None] / 9).astype(np.float32) * 0.1
            piece = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            piece.sample_rate, piece.pts = 48000, 1920 * i
            container.mux(sound.encode(piece))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    return path


def copied(source, target, deinterlace, encoding=None, **part):
    with (
        VideoReader(source, deinterlace=deinterlace, **part) as reader,
        VideoWriter(
            target, reader.info, reader.streams, encoding or Encoding(lossless=True)
        ) as writer,
    ):
        for item in reader:
            if isinstance(item, Frame):
                writer.write(item)
            else:
                writer.write_packet(item)
    return reader.warnings + writer.warnings


def lumas(path):
    """Decode luma with PyAV alone; return it with times and flags."""
    with av.open(str(path)) as container:
        found = list(container.decode(video=0))
        pictures = [f.reformat(format="gray").to_ndarray() for f in found]
        flags = [f.interlaced_frame for f in found]
        return np.stack(pictures).astype(float), [f.pts * f.time_base for f in found], flags


def combing(pictures):
    """Measure how much more neighbouring lines differ than every second one."""
    one = np.abs(np.diff(pictures, axis=1)).mean()
    two = np.abs(pictures[:, 2:] - pictures[:, :-2]).mean()
    return one / two


def test_interlaced_video_is_refused_with_advice(tmp_path):
    source = woven_film(tmp_path / "in.mp4")
    with pytest.raises(MediaError, match=r"in\.mp4: the video is interlaced; --deinterlace auto"):
        copied(source, tmp_path / "out.mp4", "refuse")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("codec", "options", "suffix", "pix"),
    [
        ("libx264", FIELDS, ".mp4", "yuv420p"),
        ("libx264", FIELDS, ".mkv", "yuv422p"),
        ("mpeg2video", {"flags": "+ildct+ilme", "b": "4M"}, ".ts", "yuv420p"),
    ],
)
def test_deinterlacing_gives_whole_frames_at_the_same_times(tmp_path, codec, options, suffix, pix):
    source = woven_film(tmp_path / f"in{suffix}", codec=codec, options=options, pix=pix)
    target = tmp_path / "out.mkv"
    assert copied(source, target, "auto") == []
    before, times, flags = lumas(source)
    after, times_after, flags_after = lumas(target)
    assert all(flags)
    assert not any(flags_after)
    assert len(times_after) == 12
    # Matroska rounds to milliseconds, and moves all streams behind the start of the sound.
    steps, steps_after = (np.diff([float(t) for t in x]) for x in (times, times_after))
    assert steps_after == pytest.approx(steps, abs=1.1e-3)
    assert combing(after) < 0.8 * combing(before)
    # The first field is of the frame's own time: its lines stay.
    assert (after[:, 1::2] == before[:, 1::2]).all()
    whole = np.stack([photograph(view(2 * i)) for i in range(12)])
    assert np.abs(after - whole)[:, 4:-4].mean() < 0.75 * np.abs(before - whole)[:, 4:-4].mean()


def photograph(rgb):
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=5, dst_color_range=1)
    return np.frombuffer(frame.planes[0], np.uint8).reshape(96, -1)[:, :96].astype(float)


def test_uneven_times_and_sound_are_kept_exactly(tmp_path):
    pts = [0, 1, 3, 4, 5, 9, 10, 11, 13, 20, 21, 22]
    source, target = woven_film(tmp_path / "in.mp4", pts=pts), tmp_path / "out.mp4"
    assert copied(source, target, "auto") == []
    assert lumas(target)[1] == lumas(source)[1]
    packets = []
    for path in (source, target):
        with av.open(str(path)) as container:
            packets.append([bytes(p) for p in container.demux(audio=0) if p.size])
    assert packets[0] == packets[1]


def test_a_part_of_an_interlaced_film(tmp_path):
    source = woven_film(tmp_path / "in.mp4", frames=20)
    with VideoReader(source, start=0.2, frames=5, deinterlace="auto") as reader:
        frames = [item for item in reader if isinstance(item, Frame)]
    assert [float(f.pts * reader.info.time_base) for f in frames] == pytest.approx(
        [0.2, 0.24, 0.28, 0.32, 0.36]
    )


def test_frames_that_are_not_flagged_stay_as_they_are(tmp_path):
    progressive = {"qp": "0", "preset": "ultrafast"}
    source = woven_film(tmp_path / "in.mp4", options=progressive, woven=())
    for mode, same in (("refuse", True), ("auto", True), ("none", True), ("all", False)):
        copied(source, tmp_path / f"{mode}.mp4", mode)
        after, before = lumas(tmp_path / f"{mode}.mp4")[0], lumas(source)[0]
        assert (after == before).all() == same


def test_none_takes_flagged_frames_as_progressive(tmp_path):
    source = woven_film(tmp_path / "in.mp4")
    copied(source, tmp_path / "out.mp4", "none")
    before, after = lumas(source), lumas(tmp_path / "out.mp4")
    assert (before[0] == after[0]).all()
    assert not any(after[2])


def test_layout_and_depth_are_kept(tmp_path):
    source = tmp_path / "deep.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=FIELDS)
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv422p10le"
        for i in range(4):
            frame = av.VideoFrame.from_ndarray(view(i), "rgb24").reformat(format="yuv422p10le")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(source, deinterlace="auto") as reader:
        frames = [item for item in reader if isinstance(item, Frame)]
    assert {f.layout for f in frames} == {reader.info.layout}
    assert frames[0].layout.bits == 10
    with av.open(str(source)) as container:
        first = next(container.decode(video=0))
    luma = to_planes(first, frames[0].layout)[0]
    assert (frames[0].planes[0][:, 1::2] == luma[:, 1::2]).all()


def test_the_reader_holds_a_few_frames_only(tmp_path):
    import gc
    import weakref

    handed = []
    with VideoReader(woven_film(tmp_path / "in.mp4", frames=30), deinterlace="all") as reader:
        for item in reader:
            if isinstance(item, Frame):
                handed.append(weakref.ref(item.planes[0]))
                waiting = len(reader._deinterlacer._times)
                assert waiting <= 2
    gc.collect()
    assert len(handed) == 30
