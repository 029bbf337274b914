"""What frames carry beside their pictures and no encoder can be handed."""

import av
import pytest

from nlden.media import Encoding


def message(provider, body):
    """Build a message of ITU-T T.35 as an H.264 SEI NAL."""
    content = bytes.fromhex("b50031") + provider + body
    return bytes([6, 4, len(content)]) + content + b"\x80"


CAPTIONS = message(b"GA94", bytes.fromhex("0341fffc9420ff"))
FORMAT = message(b"DTG1", bytes.fromhex("41fa"))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_what_is_not_kept_is_told_in_one_line(film, inserted, transcode, tmp_path, suffix):
    options = {"x264-params": "frame-packing=3", "bf": "0"}
    plain = film("plain.mkv", sound=(), options=options)
    source = inserted(plain, tmp_path / f"in{suffix}", [CAPTIONS, FORMAT], first=3)
    with av.open(str(source)) as container:
        kinds = [{d.type.name for d in f.side_data} for f in container.decode(video=0)]
    assert "A53_CC" not in kinds[0] >= {"STEREO3D"}
    assert kinds[-1] >= {"A53_CC", "AFD"}
    warnings = transcode(source, tmp_path / f"out{suffix}", Encoding())
    assert warnings == [
        f"{source}: the frames carry the packing of stereo 3D, closed captions, "
        "the active format description: not kept"
    ]
    assert transcode(source, tmp_path / f"part{suffix}", Encoding(), frames=3) == [
        f"{source}: the frames carry the packing of stereo 3D: not kept"
    ]


def test_what_carries_nothing_is_told_nothing(film, transcode, tmp_path):
    assert transcode(film("in.mkv", sound=()), tmp_path / "out.mkv", Encoding()) == []
