"""Decoding on hardware: where there is none the CPU does it, says so once, and all is the same."""

import pytest

from nlden.media import Frame, VideoReader
from nlden.media.hardware import device_for


def frames_of(path, **arguments):
    with VideoReader(path, **arguments) as reader:
        frames = [item for item in reader if isinstance(item, Frame)]
    return frames, reader.warnings


@pytest.mark.parametrize("hwaccel", ["auto", "cuda", "vaapi", "qsv", "drm"])
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_frames_are_the_same_with_a_device_or_without(film, hwaccel, codec):
    source = film("in.mkv", video=codec)
    expected, none = frames_of(source)
    frames, warnings = frames_of(source, hwaccel=hwaccel)
    assert none == []
    assert len(warnings) == (device_for(source, hwaccel) is None)
    assert all(f"--hwaccel {hwaccel}" in w and "the CPU does" in w for w in warnings)
    for a, b in zip(expected, frames, strict=True):
        assert (a.layout, a.pts, a.duration) == (b.layout, b.pts, b.duration)
        assert all((p == q).all() for p, q in zip(a.planes, b.planes, strict=True))


def test_no_device_decodes_a_codec_of_no_hardware(film):
    assert device_for(film("in.mkv", video="ffv1"), "auto") is None
