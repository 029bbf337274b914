"""Standard input and output: processes with pipes between them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

CONSUMER = """
import av
with av.open("pipe:0") as source:
    for frame in source.decode(video=0):
        print(frame.format.name, frame.width, frame.height)
"""


def y4m(source):
    """Write the frames of a file as y4m by PyAV alone."""
    target = source.with_suffix(".y4m")
    with (
        av.open(str(source)) as reader,
        av.open(str(target), "w", options={"strict": "-1"}) as writer,
    ):
        decoded = reader.streams.video[0]
        stream = writer.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = decoded.width, decoded.height, decoded.pix_fmt
        for i, frame in enumerate(reader.decode(decoded)):
            frame.pts, frame.time_base = i, Fraction(1, 25)
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    return target


def codes(path):
    """Read the formats and codes of all frames, without the padding of their rows."""
    with av.open(str(path)) as reader:
        frames = list(reader.decode(video=0))
    size = 2 if frames[0].format.components[0].bits > 8 else 1
    planes = [(f.format.name, p) for f in frames for p in f.planes]
    return [
        (name, np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : size * p.width].tobytes())
        for name, p in planes
    ]


def nlden(*arguments):
    return ["nlden", "denoise", "--precision", "fp32", "--device", "cpu", *map(str, arguments)]


@pytest.fixture
def pipeline(start_nlden, tmp_path_factory):
    """Return a function that runs commands with pipes between them.

    It returns the exit codes (negative: the signal), the lines of stderr and the last output.
    """

    def run(*commands, stdin=None):
        folder = tmp_path_factory.mktemp("pipeline")
        errors = [folder / f"stderr{i}" for i in range(len(commands))]
        source = os.open(stdin or os.devnull, os.O_RDONLY)
        processes = []
        for command, log in zip(commands, errors, strict=True):
            after, target = os.pipe()
            with log.open("wb") as stderr:
                if command[0] == "nlden":
                    ends = {"stdin": source, "stdout": target, "stderr": stderr.fileno()}
                    processes.append(start_nlden(*command[1:], **ends))
                else:
                    other = subprocess.Popen(command, stdin=source, stdout=target, stderr=stderr)
                    processes.append(other)
            os.close(source)
            os.close(target)
            source = after
        with os.fdopen(source, "rb") as last:
            output = last.read()
        codes = [p.wait() for p in processes]
        return codes, [log.read_text() for log in errors], output

    return run


def test_the_command_stands_between_other_programs(clip, tmp_path):
    source = y4m(clip("in.mkv", codec="ffv1", audio=None))
    command = [sys.executable, "-c", "from nlden.cli.main import main; main()", *nlden("-")[1:]]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(["cat", source], stdout=pipe) as first,
        subprocess.Popen([*command, "-o", "-"], stdin=first.stdout, stdout=pipe) as middle,
        subprocess.Popen(
            [sys.executable, "-c", CONSUMER], stdin=middle.stdout, stdout=pipe
        ) as last,
    ):
        assert last.communicate(timeout=100)[0] == b"yuv420p 98 66\n" * 8
        assert (first.wait(), middle.wait()) == (0, 0)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv422p12le", "yuv444p", "gray"])
def test_at_strength_zero_every_code_stays(pipeline, clip, tmp_path, pix_fmt):
    source = clip("in.mkv", codec="ffv1", pix_fmt=pix_fmt, audio=None, size=(67, 97))
    middle = nlden("-", "-o", "-", "--strength", 0, "--sigma", 0)
    exits, errors, output = pipeline(["cat", y4m(source)], middle)
    assert exits == [0, 0], errors
    (tmp_path / "out.y4m").write_bytes(output)
    assert codes(tmp_path / "out.y4m") == codes(source)


def test_a_pipe_gives_what_a_file_gives(pipeline, clip, decode, tmp_path):
    source = clip("in.mkv", codec="ffv1", sigma=20, audio=None)
    same = ("--sigma-luma", 13, "--sigma-chroma", 6, "--model", "image-fast", "--codec", "ffv1")
    last = nlden("-", *same, "-o", tmp_path / "piped.mkv")
    exits, errors, _ = pipeline(["cat", y4m(source)], last)
    assert exits == [0, 0], errors
    exits, errors, _ = pipeline(nlden(source, *same, "-o", tmp_path / "file.mkv"))
    assert exits == [0], errors
    a, b = decode(tmp_path / "piped.mkv"), decode(tmp_path / "file.mkv")
    assert all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))
    assert a.times == b.times
    assert np.std(decode(source).pictures[0] - b.pictures[0].astype(float)) > 3


def test_matroska_carries_sound_times_and_rotation(pipeline, clip, decode, tmp_path):
    pts = [0, 40, 55, 100, 101, 180, 230, 231]
    source = clip("in.mkv", pts=pts, rotation=90)
    target = tmp_path / "out.mkv"
    first = nlden(source, "-o", "-", "-f", "matroska", "--strength", 0, "--lossless")
    second = nlden("-", "-o", target, "--strength", 0, "--lossless")
    exits, errors, _ = pipeline(first, second)
    assert exits == [0, 0], errors
    a, b = decode(source), decode(target)
    assert (a.times, a.sound, a.tags, a.rotation) == (b.times, b.sound, b.tags, b.rotation)
    assert all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))
    assert "warning" not in errors[0]


def test_what_y4m_cannot_carry_is_told_once(pipeline, clip):
    source = clip("in.mkv", pts=[0, 1, 2, 5, 9, 10, 11, 12])
    exits, errors, output = pipeline(nlden(source, "-o", "-", "--strength", 0))
    assert exits == [0]
    assert output.startswith(b"YUV4MPEG2 W98 H66 ")
    told = [line for line in errors[0].splitlines() if "warning" in line]
    assert len(told) == 2, told
    assert "audio" in told[0]
    assert "constant frame rate" in told[1]


def test_the_noise_of_a_pipe_is_measured_in_its_first_frames(pipeline, clip, tmp_path):
    source = clip("in.mkv", codec="ffv1", sigma=25, size=(130, 194), frames=12, audio=None)
    target = tmp_path / "out.mkv"
    exits, errors, _ = pipeline(["cat", y4m(source)], nlden("-", "-o", target))
    assert exits == [0, 0]
    assert "first 8 frames" in errors[1]
    level = float(errors[1].split("noise ")[-1].split(" luma")[0])
    assert level == pytest.approx(15.5, rel=0.15)  # 25 in RGB, carried to the planes
    with av.open(str(target)) as written:
        assert sum(1 for _ in written.decode(video=0)) == 12


@pytest.mark.parametrize("part", [("--start", 0.12, "--end", 0.3), ("--frames", 3)])
def test_a_part_of_a_pipe_is_the_part_of_the_file(pipeline, clip, decode, tmp_path, part):
    source = clip("in.mkv", codec="ffv1", frames=30)
    piped, direct = tmp_path / "piped.mkv", tmp_path / "direct.mkv"
    exits, errors, _ = pipeline(
        ["cat", source], nlden("-", "-o", piped, "--strength", 0, "--lossless", *part)
    )
    assert exits[1] == 0, errors
    pipeline(nlden(source, "-o", direct, "--strength", 0, "--lossless", *part))
    a, b = decode(piped), decode(direct)
    assert (a.times, a.sound) == (b.times, b.sound)
    assert all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))


def test_a_reader_that_goes_ends_it_quietly(pipeline, clip):
    source = clip("in.mkv", frames=60, size=(240, 320))
    exits, errors, output = pipeline(
        nlden(source, "-o", "-", "--strength", 0, "--sigma", 0), ["head", "-c", "1000"]
    )
    assert len(output) == 1000
    assert exits[0] == -signal.SIGPIPE  # 141 in a shell
    assert errors[0].strip() == ""


def test_a_signal_ends_it_while_the_pipe_stands_still(start_nlden, clip, tmp_path):
    whole = y4m(clip("in.mkv", audio=None, frames=40)).read_bytes()
    (tmp_path / "out").mkdir()
    arguments = nlden("-", "-o", tmp_path / "out" / "out.mkv", "--strength", 0, "--sigma", 0)
    read, write = os.pipe()
    with (tmp_path / "log").open("w") as log, Path(os.devnull).open("w") as nowhere:
        ends = {"stdin": read, "stdout": nowhere.fileno(), "stderr": log.fileno()}
        process = start_nlden(*arguments[1:], **ends)
        os.close(read)
        with os.fdopen(write, "wb") as stalled:
            stalled.write(whole)
            stalled.flush()
            while not list((tmp_path / "out").iterdir()):
                time.sleep(0.05)
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait() == 128 + signal.SIGTERM
    assert not list((tmp_path / "out").iterdir())


def test_a_stream_that_breaks_off_is_kept_up_to_the_break(pipeline, clip, tmp_path):
    source = clip("in.mkv", audio=None)
    whole = y4m(source).read_bytes()
    part, target = tmp_path / "part.y4m", tmp_path / "out.mkv"
    part.write_bytes(whole[: len(whole) - 5000])
    exits, errors, _ = pipeline(["cat", part], nlden("-", "-o", target, "--strength", 0))
    assert exits == [0, 0], errors
    with av.open(str(target)) as written:
        assert sum(1 for _ in written.decode(video=0)) == 7


@pytest.mark.parametrize("content", [b"", b"this is no video\n" * 1000])
def test_no_video_in_the_pipe_is_one_line(pipeline, tmp_path, content):
    (tmp_path / "in").write_bytes(content)
    target = tmp_path / "out.mkv"
    exits, errors, _ = pipeline(["cat", tmp_path / "in"], nlden("-", "-o", target))
    assert exits == [0, 1]
    assert errors[1].strip().startswith("nlden: -: ")
    assert len(errors[1].strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("in.mkv", "-o", "-", "-f", "nonsense"), "no such output format"),
        (("in.mkv", "-o", "-", "-f", "mp4"), "go back"),
        (("in.mkv", "-o", "out.mkv", "-f", "nut"), "only for -o -"),
        (("in.mkv", "in.mkv", "-o", "-"), "one video"),
        (("-", "in.mkv", "-o", "folder"), "one video"),
        (("cat.png", "-o", "-"), "picture"),
    ],
)
def test_impossible_pipes_are_usage_errors(pipeline, clip, tmp_path, arguments, word):
    clip("in.mkv", frames=1)
    (tmp_path / "cat.png").touch()
    before = sorted(tmp_path.iterdir())
    paths = [tmp_path / a if "." in a else a for a in arguments]
    exits, errors, output = pipeline(nlden(*paths))
    assert exits == [2]
    assert word in errors[0]
    assert len(errors[0].strip().splitlines()) == 1
    assert output == b""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("end", ["stdin", "stdout"])
def test_a_terminal_is_no_video(start_nlden, clip, tmp_path, end):
    source = clip("in.mkv", frames=1)
    ours, theirs = os.openpty()
    arguments = ("-", "-o", tmp_path / "o.mkv") if end == "stdin" else (source, "-o", "-")
    with (tmp_path / "log").open("w") as log, Path(os.devnull).open("r+") as nowhere:
        ends = {"stdin": nowhere.fileno(), "stdout": nowhere.fileno(), end: theirs}
        process = start_nlden(*nlden(*arguments)[1:], **ends, stderr=log.fileno())
        assert process.wait() == 2
    os.close(ours)
    os.close(theirs)
    assert "is a terminal" in (tmp_path / "log").read_text()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on this machine")
def test_between_two_ffmpeg(pipeline, clip, tmp_path):
    source = clip("in.mkv", codec="ffv1", audio=None)
    quiet = ["ffmpeg", "-v", "error", "-y"]
    first = [*quiet, "-i", str(source), "-f", "yuv4mpegpipe", "-"]
    last = [*quiet, "-i", "-", "-c:v", "ffv1", str(tmp_path / "out.mkv")]
    middle = nlden("-", "-o", "-", "--strength", 0, "--sigma", 0)
    exits, errors, _ = pipeline(first, middle, last)
    assert exits == [0, 0, 0], errors
    assert codes(tmp_path / "out.mkv") == codes(source)
