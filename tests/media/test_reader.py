"""What the reader takes for damage."""

import struct

import av
import pytest

from nlden.media import Frame, VideoReader
from nlden.media.frame_rate import measure_timing
from nlden.media.probe import open_video


def read(path):
    """Return how many frames a file gives, how many it promises, and the warnings."""
    with VideoReader(path) as reader:
        return sum(isinstance(i, Frame) for i in reader), reader.info.frames, reader.warnings


def cut_off(path, share):
    """Return a copy of a file that ends early."""
    broken = path.with_stem("broken")
    broken.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return broken


def long_sound(clip, suffix):
    """Mux a picture of 30 frames with a sound of 120."""
    target = clip(f"in{suffix}")
    with (
        av.open(str(clip(f"picture{suffix}", frames=30, audio=None))) as picture,
        av.open(str(clip(f"sound{suffix}", frames=120))) as sound,
        av.open(str(target), "w") as container,
    ):
        pairs = [(c, c.streams.best(kind)) for c, kind in ((picture, "video"), (sound, "audio"))]
        streams = [container.add_stream_from_template(stream) for _, stream in pairs]
        for (source, stream), copy in zip(pairs, streams, strict=True):
            for packet in source.demux(stream):
                if packet.size:
                    packet.stream = copy
                    container.mux(packet)
    return target


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".flv"])
def test_a_sound_that_is_longer_than_the_picture_is_no_damage(clip, suffix, tagged):
    path = long_sound(clip, suffix)
    if not tagged:  # Matroska from others may lack the tags
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"ELSEWISE"))
    count, _, warnings = read(path)
    assert (count, warnings) == (30, [])
    with VideoReader(path) as reader:
        known = tagged if suffix == ".mkv" else suffix == ".mp4"
        assert (reader.info.duration < 1.3) == known


@pytest.mark.parametrize("share", [0.3, 0.7])  # in the picture, in the sound that goes on
@pytest.mark.parametrize("suffix", [".mkv", ".flv"])
def test_a_file_with_a_longer_sound_that_is_cut_off_is_told(clip, suffix, share):
    count, _, warnings = read(cut_off(long_sound(clip, suffix), share))
    assert count == 30 or share == 0.3
    assert [w for w in warnings if "cut off" in w]


def edited(path, begin, frames):
    """Let the edit list of the picture, which comes first, show a part of its 100 frames."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # version and flags, and the count of edits go before
    length, media_time = struct.unpack_from(">Ii", data, at)
    assert length == 4000  # milliseconds
    struct.pack_into(">Ii", data, at, 40 * frames, media_time + 512 * begin)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("audio", ["aac", None])
@pytest.mark.parametrize(("begin", "frames"), [(0, 50), (10, 90), (50, 50), (30, 20)])
def test_frames_that_an_edit_list_hides_are_not_missing(clip, audio, begin, frames):
    options = {"g": "40", "bf": "2"}
    path = edited(clip(frames=100, options=options, audio=audio), begin, frames)
    assert read(path) == (frames, frames, [])
    container, stream = open_video(path)
    with container:
        assert measure_timing(path, container, stream)[1] == []


def test_an_edited_file_that_is_cut_off_is_told(clip):
    path = clip(frames=100, container_options={"movflags": "faststart"}, sigma=10)
    count, promised, warnings = read(cut_off(edited(path, 10, 90), 0.6))
    assert 0 < count < promised == 90
    assert [w for w in warnings if "cut off" in w and " of 90 frames" in w]
