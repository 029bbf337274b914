"""What a container keeps, row by row, and that whatever it does not keep is told."""

import re
from fractions import Fraction

import av
import pytest

from nlden.media import Encoding

ALL = {
    "sound": {"sound": ("aac", "aac")},
    "second video": {"second_video": "mpeg4"},
    "text subtitles": {"subtitles": ("subrip",)},
    "styled subtitles": {"subtitles": ("ass",)},
    "bitmap subtitles": {"subtitles": ("hdmv_pgs_subtitle",)},
    "cover picture": {"cover": True},
    "attachments": {"font": True},
    "chapters": {"chapters": True},
    "tags": {"tags": ("title", "artist", "comment")},
    "own tags": {"tags": ("title", "camera_serial")},
    "languages": {"sound": ("aac", "aac")},
    "dispositions": {"sound": ("aac", "aac")},
    "timecode": {"timecode": True},
    "rotation": {"turn": (90, False)},
    "mirror": {"turn": (180, True)},
    "aspect": {"aspect": Fraction(4, 3)},
    "data": {"klv": True},
}
KEPT = {
    ".mkv": set(ALL) - {"data"},
    ".mp4": set(ALL) - {"data", "styled subtitles", "bitmap subtitles", "attachments"},
    ".mov": set(ALL)
    - {"data", "styled subtitles", "bitmap subtitles", "attachments"}
    - {"cover picture", "dispositions"},
    ".webm": {"text subtitles", "chapters", "tags", "own tags", "languages"}
    | {"dispositions", "timecode", "rotation", "mirror", "sound"},
    ".avi": {"sound", "second video", "tags", "aspect"},
    ".ts": {"sound", "second video", "data", "languages", "aspect"},
}


# What a warning says of each thing that is lost.
TOLD = {
    "sound": r"stream #\d+ \(audio .*left out",
    "second video": r"stream #\d+ \(video .*left out",
    "text subtitles": r"stream #\d+ \(subtitle subrip.*left out",
    "styled subtitles": r"stream #\d+ \(subtitle ass.*left out; \.mkv would keep it",
    "bitmap subtitles": r"stream #\d+ \(subtitle hdmv_pgs.*left out; \.mkv would keep it",
    "cover picture": r"stream #\d+ \(cover picture mjpeg\): left out; \.mkv would keep it",
    "attachments": r"stream #\d+ \(attachment font.ttf\): left out; \.mkv would keep it",
    "chapters": "does not keep .*chapters",
    "tags": "does not keep .*the tags artist",
    "own tags": "does not keep .*the tags .*camera_serial",
    "languages": "does not keep .*the language ger of stream",
    "dispositions": "does not keep .*the disposition forced of stream",
    "timecode": "does not keep .*timecode.* of the video",
    "rotation": "does not keep .*the rotation",
    "mirror": "does not keep .*the rotation",
    "aspect": "does not keep .*the sample aspect ratio 4:3",
    "data": r"stream #\d+ \(data klv\): left out; \.ts would keep it",
}


def picture_of(path):
    with av.open(str(path)) as container:
        for stream in container.streams.video:
            if stream.disposition & stream.disposition.attached_pic:
                return next(bytes(p) for p in container.demux(stream) if p.size)
    return None


def facts(path, thing):
    """Read from a file what a row of the table is about."""
    with av.open(str(path)) as container:
        streams = container.streams
        video = streams.video[0]

        def packets(chosen):
            found = {s.index: [] for s in chosen}
            for packet in container.demux(list(chosen)) if found else ():
                data = bytes(packet)
                if path.suffix == ".ts" and data[:2] == b"\xff\xf1":
                    data = data[7:]  # MPEG-TS sets a header of seven bytes before AAC
                if data:
                    found[packet.stream.index].append(data)
            return list(found.values())

        def tag(*names):
            tags = {k.lower(): v for k, v in container.metadata.items()}
            return [tags.get(name) for name in names]

        if thing == "sound":
            return packets(streams.audio)
        if thing == "second video":
            return packets(streams.video[1:])
        if thing.endswith("subtitles"):
            if not streams.subtitles:
                return None
            decoder = streams.subtitles[0].codec_context
            found = []
            for packet in container.demux(streams.subtitles[0]):
                if packet.size and thing == "text subtitles":
                    subtitle = decoder.decode2(packet)
                    if subtitle is not None and (rects := subtitle.rects):
                        when = packet.pts * packet.time_base, packet.duration * packet.time_base
                        found.append((rects[0].dialogue, *when))
                elif packet.size:
                    found.append((bytes(packet), packet.pts * packet.time_base))
            return found
        if thing == "cover picture":
            return picture_of(path)
        if thing == "attachments":
            return [(s.name, s.mimetype, s.data) for s in streams.attachments]
        if thing == "chapters":
            return [
                (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
                for c in container.chapters()
            ]
        if thing == "tags":
            return tag("title", "artist", "comment")
        if thing == "own tags":
            return tag("title", "camera_serial")
        if thing == "languages":
            return [s.language for s in streams.audio]
        if thing == "dispositions":
            return [s.disposition & s.disposition.forced for s in streams.audio]
        if thing == "timecode":
            tags = {k.lower(): v for k, v in video.metadata.items()}
            return tags.get("timecode")
        if thing in ("rotation", "mirror"):
            frame = next(container.decode(video))
            return [bytes(d) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"]
        if thing == "aspect":
            return video.sample_aspect_ratio
        return packets(streams.data)


@pytest.mark.parametrize("suffix", KEPT)
@pytest.mark.parametrize("thing", ALL)
def test_the_table_of_what_is_kept(film, transcode, tmp_path, suffix, thing):
    origin = {"mirror": ".mp4", "data": ".ts"}.get(thing, ".mkv")
    parts = dict(ALL[thing])
    if suffix == ".webm" and "sound" in parts:
        parts["sound"] = ("libopus", "libopus")
    source = film(f"in{origin}", **parts)
    target = tmp_path / f"out{suffix}"
    warnings = transcode(source, target, _encoding(suffix))
    before, after = facts(source, thing), facts(target, thing)
    told = [w for w in warnings if re.search(TOLD[thing], w, re.IGNORECASE)]
    assert before
    assert (after == before) == (thing in KEPT[suffix])
    assert len(told) == (thing not in KEPT[suffix]), warnings


def _encoding(suffix):
    if suffix == ".avi":
        return Encoding(codec="mpeg4")
    return Encoding(codec=None if suffix == ".webm" else "libx264", lossless=True)
