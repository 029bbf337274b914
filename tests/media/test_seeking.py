from fractions import Fraction

import av
import pytest

from nlden.media.probe import open_video, probe
from nlden.media.sampling import sample_frames
from nlden.media.seeking import seek_before

FILM = {"frames": 100, "options": {"g": "40", "sc_threshold": "0"}}  # key frames at 0, 40, 80


def shown(path, kind):
    """Return the times of the packets of a kind, from the beginning of the file."""
    with av.open(str(path)) as container:
        start = Fraction(container.start_time, av.time_base)
        stream = next(s for s in container.streams if s.type == kind)
        return sorted(p.pts * p.time_base - start for p in container.demux(stream) if p.size)


@pytest.mark.parametrize("offset", [0, 3600])
@pytest.mark.parametrize("start", [0.1, 1.0, 1.6, 3.0])
def test_a_part_of_a_transport_stream_is_all_there(clip, transcode, offset, start):
    source = clip("in.ts", container_options={"output_ts_offset": str(offset)}, **FILM)
    target = source.with_name("out.mkv")
    assert transcode(source, target, start=start, end=start + 0.8) == []
    for kind, least in (("video", 20), ("audio", 30)):
        inside = [t for t in shown(source, kind) if start <= t < start + 0.8]
        assert len(shown(target, kind)) == len(inside) >= least
        with av.open(str(target)) as container:
            stream = next(s for s in container.streams if s.type == kind)
            first = min(p.pts * p.time_base for p in container.demux(stream) if p.size)
        assert abs(first - (inside[0] - Fraction(start))) < Fraction(1, 500)


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4", ".flv", ".avi"])
@pytest.mark.parametrize("frame", [0, 1, 39, 40, 41, 79, 99])
def test_the_key_frame_before_a_time_is_found(clip, suffix, frame):
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    path = clip(f"in{suffix}", codec=codec, audio=None, **FILM)
    container, stream = open_video(path)
    with container:
        times = [f.pts * stream.time_base for f in container.decode(stream)]
        seek_before(container, stream, times[frame])
        first = next(container.decode(stream))
        assert times[0] <= first.pts * stream.time_base <= times[frame]


@pytest.mark.parametrize("distance", ["40", "1000"])  # of key frames
def test_samples_of_a_transport_stream_lie_where_they_are_looked_for(clip, distance):
    late, options = {"output_ts_offset": "3600"}, {"g": distance, "sc_threshold": "0"}
    path = clip("in.ts", frames=100, audio=None, options=options, container_options=late)
    info = probe(path)

    def places(**part):
        return [25 * (f.pts * info.time_base - info.start) for f in sample_frames(path, **part)]

    assert len(places()) >= 5
    if distance == "40":
        assert max(places()) > 80
        assert min(places(start=3.0, end=4.0)) >= 40
