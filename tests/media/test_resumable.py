"""Files written in segments hold what files written in one go hold."""

from contextlib import suppress
from fractions import Fraction
from itertools import pairwise

import av
import pytest

from nlden.media import Encoding, Frame, VideoReader, VideoWriter
from nlden.media.resumable import ResumableWriter


def write(source, target, encoding, folder=None, stop=None):
    """Copy a film without a network: in segments of 10 frames if there is a folder."""
    with VideoReader(source) as reader:
        info, streams = reader.info, reader.streams
        if folder is None:
            writer = VideoWriter(target, info, streams, encoding)
        else:
            folder.mkdir(exist_ok=True)
            writer = ResumableWriter(target, info, streams, encoding, Fraction(0), folder, 10)
            reader.skip = writer.done
        with suppress(KeyboardInterrupt), writer:
            for number, item in enumerate(reader):
                if number == stop:
                    raise KeyboardInterrupt
                if isinstance(item, Frame):
                    writer.write(item)
                else:
                    writer.write_packet(item)
    return reader.skip, writer.warnings


def video_packets(path):
    with av.open(str(path)) as container:
        return [(p.pts, p.dts, bytes(p)) for p in container.demux(video=0) if p.size]


FORMS = [
    (".mp4", Encoding("libx264", crf=30)),
    (".mp4", Encoding("libx265", crf=30)),
    (".mp4", Encoding("libsvtav1", crf=40, preset="10")),
    (".mov", Encoding("prores_ks", pix_fmt="yuv422p10le")),
    (".mkv", Encoding("libx264", crf=30)),
    (".mkv", Encoding("ffv1")),
    (".mkv", Encoding("mpeg4")),
    (".webm", Encoding(crf=40)),
    (".ts", Encoding("libx264", crf=30)),
    (".avi", Encoding("libx264", crf=30)),
    (".y4m", Encoding()),
]


@pytest.mark.parametrize(("suffix", "encoding"), FORMS, ids=lambda v: getattr(v, "codec", v))
def test_every_form_survives_an_interruption(clip, decode, tmp_path, suffix, encoding):
    # At other widths libx264 with AVX-512 depends on what memory held before.
    source = clip(frames=36, size=(96, 128))
    one, whole, target = (tmp_path / f"{name}{suffix}" for name in ("one", "whole", "out"))
    _, said = write(source, one, encoding)
    _, warnings = write(source, whole, encoding, tmp_path / "w")
    assert [w.replace("whole", "one") for w in warnings] == said
    assert write(source, target, encoding, tmp_path / "r", stop=50)[0] == 0
    assert not target.exists()
    passed, _ = write(source, target, encoding, tmp_path / "r")
    assert passed > 0
    assert passed % 10 == 0
    assert video_packets(target) == video_packets(whole)
    a, b = decode(one), decode(target)
    assert (a.times, a.sound, a.tags, a.pix_fmt) == (b.times, b.sound, b.tags, b.pix_fmt)
    assert len(b.times) == 36
    with av.open(str(one)) as x, av.open(str(target)) as y:
        rates = [c.streams.video[0].average_rate for c in (x, y)]
    assert rates[0] == rates[1]


def test_numbered_pictures_survive_an_interruption(clip, tmp_path):
    source = clip(frames=25, size=(48, 64))
    (tmp_path / "a").mkdir()
    target = tmp_path / "a" / "%03d.png"
    write(source, target, Encoding(), tmp_path / "r", stop=40)
    assert list((tmp_path / "a").iterdir()) == []
    assert write(source, target, Encoding(), tmp_path / "r")[0] > 0
    write(source, tmp_path / "b" / "%03d.png", Encoding())
    pictures = [sorted((tmp_path / name).iterdir()) for name in "ab"]
    assert [p.read_bytes() for p in pictures[0]] == [p.read_bytes() for p in pictures[1]]
    assert len(pictures[0]) == 25


def test_decoding_never_comes_after_presentation(clip, tmp_path):
    pts = [40 * i + i * 7 % 13 for i in range(60)]
    source = clip(
        frames=60, size=(48, 64), pts=pts, time_base=Fraction(1, 1000), options={"bf": "3"}
    )
    write(source, tmp_path / "out.mp4", Encoding("libx264"), tmp_path / "r")
    packets = video_packets(tmp_path / "out.mp4")
    decoding = [dts for _, dts, _ in packets]
    assert all(dts <= pts for pts, dts, _ in packets)
    assert all(a < b for a, b in pairwise(decoding))
    assert any(pts != dts for pts, dts, _ in packets)
