"""The chroma location that a file is tagged with comes back in its copy."""

import av
import pytest

from nlden.media import Encoding, VideoReader
from nlden.media.chroma_location import chroma_location

QUIET = {"libx265": {"x265-params": "log-level=none", "preset": "ultrafast"}}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("SVT_LOG", "1")


def located(film, name, codec, location, **parts):
    options = {**QUIET.get(codec, {}), "chroma_sample_location": location}
    return film(name, video=codec, options=options, sound=(), **parts)


@pytest.mark.parametrize("location", ["left", "center", "topleft", "top", "bottomleft", "bottom"])
@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libx265", ".mkv")])
def test_every_location_is_read_and_written(film, transcode, tmp_path, codec, suffix, location):
    source = located(film, f"in{suffix}", codec, location)
    if (codec, location) == ("libx264", "left"):
        location = None  # what it means where nothing is tagged, and x264 does not tag it
    assert chroma_location(source) == location
    preset = Encoding(preset="ultrafast")
    assert transcode(source, tmp_path / f"out{suffix}", preset) == []
    assert chroma_location(tmp_path / f"out{suffix}") == location


@pytest.mark.parametrize(
    ("source", "target", "suffix"),
    [
        ("libx265", "libx264", ".ts"),
        ("libx265", "libsvtav1", ".mkv"),
        ("libsvtav1", "libsvtav1", ".mp4"),
        ("libsvtav1", "libx265", ".mp4"),
    ],
)
def test_it_goes_from_codec_to_codec(film, transcode, tmp_path, source, target, suffix):
    path = located(film, "in.mkv", source, "topleft")
    transcode(path, tmp_path / f"out{suffix}", Encoding(target))
    assert chroma_location(tmp_path / f"out{suffix}") == "topleft"


def test_what_is_not_tagged_or_cannot_be_stays_so(film, transcode, tmp_path):
    plain = film("plain.mp4")
    assert chroma_location(plain) is None
    assert chroma_location(film("other.mkv", video="ffv1")) is None
    centered = located(film, "center.mp4", "libx264", "center")
    assert transcode(centered, tmp_path / "out.mkv", Encoding("libsvtav1")) == []
    assert chroma_location(tmp_path / "out.mkv") is None
    # 4:4:4 has no such thing.
    assert transcode(centered, tmp_path / "wide.mkv", Encoding(pix_fmt="yuv444p")) == []


def test_reading_it_leaves_the_log_as_it_was(film, capfd):
    path = film("in.mp4")
    before = av.logging.get_level()
    with VideoReader(path) as reader:
        assert reader.info.chroma_location is None
    assert av.logging.get_level() == before
    assert capfd.readouterr() == ("", "")
