from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from nlden.jobs.batch import PlanError, plan
from nlden.media import Encoding, Layout, MediaError, VideoReader
from nlden.media.sequences import is_sequence, numbers


@pytest.fixture
def pictures(tmp_path):
    """Write eight numbered pictures that begin at 1001, as a film's shots do."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(8):
        view = photographs.astronaut()[60 + i : 124 + i, 120:184]
        Image.fromarray(view).save(folder / f"{1001 + i:06d}.png")
    return folder / "%06d.png"


def arrays(pattern):
    return [np.asarray(Image.open(p)) for p in sorted(pattern.parent.glob("*.*"))]


def test_a_pattern_is_one_video(pictures):
    assert is_sequence(pictures)
    assert not is_sequence(Path("100%.mp4"))
    assert not is_sequence(Path("picture.png"))
    assert numbers(pictures) == list(range(1001, 1009))
    with VideoReader(pictures) as reader:
        assert reader.info.layout == Layout("rgb", 8)
        assert len(list(reader)) == 8


def test_pictures_through_a_video_are_the_same_pictures(pictures, transcode, tmp_path):
    transcode(pictures, tmp_path / "film.mkv")
    target = tmp_path / "out" / "%06d.png"
    transcode(tmp_path / "film.mkv", target)
    assert numbers(target) == list(range(1, 9))
    assert all((a == b).all() for a, b in zip(arrays(pictures), arrays(target), strict=True))


@pytest.mark.parametrize(("suffix", "closest"), [("png", 3), ("tif", 3), ("bmp", 3), ("jpg", 12)])
def test_video_becomes_pictures_of_the_right_colours(film, transcode, tmp_path, suffix, closest):
    source = film("in.mkv", video="ffv1", pix_fmt="yuv444p", sound=())
    target = tmp_path / "out" / f"%03d.{suffix}"
    transcode(source, target, Encoding())
    with av.open(str(source)) as container:
        expected = [
            f.to_ndarray(format="rgb24", src_colorspace=1, dst_color_range=2)
            for f in container.decode(video=0)
        ]
    for ours, theirs in zip(arrays(target), expected, strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < closest


def test_ten_bits_are_kept_in_pictures_of_sixteen(film, transcode, tmp_path):
    source = film("in.mkv", video="ffv1", pix_fmt="gbrp10le", sound=(), colour=(0, 2, 1, 1))
    target = tmp_path / "out" / "%03d.png"
    transcode(source, target)
    with VideoReader(source) as a, VideoReader(target) as b:
        assert b.info.layout == Layout("rgb", 16)
        for x, y in zip(a, b, strict=True):
            assert (x.planes[0] / 1023 - y.planes[0] / 65535).abs().max() < 1 / 1023


def test_nothing_is_left_of_a_sequence_that_failed(pictures, tmp_path, transcode):
    (tmp_path / "in" / "001005.png").write_bytes(b"")
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "001005.png")
    with pytest.raises(MediaError, match="changes its size"):
        transcode(pictures, tmp_path / "out" / "%06d.png")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"])
def test_y4m_keeps_every_code(film, transcode, decode, tmp_path, pix_fmt):
    source = film("in.mkv", video="ffv1", pix_fmt=pix_fmt, sound=())
    transcode(source, tmp_path / "a.y4m", Encoding())
    transcode(tmp_path / "a.y4m", tmp_path / "b.mkv")
    a, b = decode(source), decode(tmp_path / "b.mkv")
    assert all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))
    assert a.times == b.times
    assert a.pix_fmt == b.pix_fmt


def test_y4m_tells_that_it_holds_no_sound(film, transcode, tmp_path):
    warnings = transcode(film("in.mkv"), tmp_path / "out.y4m", Encoding())
    assert len([w for w in warnings if "(audio aac" in w and "left out" in w]) == 1


@pytest.mark.parametrize(
    ("part", "kept"), [({}, range(1001, 1009)), ({"start": 0.12}, range(1004, 1009))]
)
def test_pictures_keep_their_numbers(pictures, tmp_path, transcode, part, kept):
    target = tmp_path / "out" / "%04d.png"
    transcode(pictures, target, **part)
    assert numbers(target) == list(kept)
    for n in numbers(target):
        before, after = pictures.with_name(f"{n:06d}.png"), target.with_name(f"{n}.png")
        assert (np.asarray(Image.open(before)) == np.asarray(Image.open(after))).all()


def test_older_pictures_of_the_pattern_stay_and_are_told(pictures, tmp_path, transcode):
    target = tmp_path / "out" / "%06d.png"
    assert transcode(pictures, target) == []
    assert transcode(pictures, target) == []
    older = {n: target.with_name(f"{n:06d}.png").read_bytes() for n in (1007, 1008)}
    told = transcode(pictures, target, frames=6)
    assert [w for w in told if "2 older pictures of this pattern (1007 to 1008)" in w] == told != []
    assert numbers(target) == list(range(1001, 1009))
    assert all(target.with_name(f"{n:06d}.png").read_bytes() == b for n, b in older.items())


def test_a_missing_picture_is_told(pictures):
    (pictures.parent / "001004.png").unlink()
    with pytest.raises(MediaError, match="picture 1004 is missing"):
        VideoReader(pictures)


def test_a_pattern_never_overwrites_pictures_of_another(pictures):
    with pytest.raises(PlanError, match="never overwritten"):
        plan([pictures], pictures.with_name("00%d.png"), overwrite=True)


def test_plans_know_patterns(pictures, tmp_path):
    assert plan([pictures], tmp_path / "o.mkv")[0].source == pictures
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "%04d.png"
    assert plan([pictures], target)[0].target == target
    (tmp_path / "out" / "0001.png").write_bytes(b"x")
    with pytest.raises(PlanError, match="-y"):
        plan([pictures], target)
    with pytest.raises(PlanError, match="no such file"):
        plan([tmp_path / "out" / "%03d.jpg"], tmp_path / "o.mkv")
    with pytest.raises(PlanError, match="never overwritten"):
        plan([pictures], pictures)
    with pytest.raises(PlanError, match="a picture cannot be written"):
        plan([pictures.parent / "001001.png"], tmp_path / "out" / "new%03d.png")
