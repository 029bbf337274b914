"""Standard input and output: real processes with real pipes between them."""

import os
import shutil
import signal
import subprocess
import sys

import av
import numpy as np
import pytest

NLDEN = [sys.executable, "-c", "from nlden.cli.main import main; main()", "denoise"]
# A decoder and an encoder that are not ours, at the ends of a pipeline.
PRODUCER = """
import av, sys
with av.open(sys.argv[1]) as source:
    frames = list(source.decode(video=0))
options = {"strict": "-1"}
with av.open("pipe:1", "w", format="yuv4mpegpipe", options=options) as target:
    stream = target.add_stream("rawvideo", rate=25)
    stream.width, stream.height = frames[0].width, frames[0].height
    stream.pix_fmt = frames[0].format.name
    for i, frame in enumerate(frames):
        frame.pts, frame.time_base = i, stream.time_base
        target.mux(stream.encode(frame))
    target.mux(stream.encode(None))
"""
CONSUMER = """
import av, hashlib
with av.open("pipe:0") as source:
    for frame in source.decode(video=0):
        print(frame.format.name, hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest())
"""


def nlden(*arguments):
    return [*NLDEN, *map(str, arguments)]


def script(text, *arguments):
    return [sys.executable, "-c", text, *map(str, arguments)]


def pipeline(*commands, source=subprocess.DEVNULL):
    """Run commands with pipes between them; return all exit codes and stderrs, and the output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    running = []
    for command in commands:
        running.append(
            subprocess.Popen(
                command,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
        )
        if running[:-1]:
            source.close()  # the reader's end is the next command's alone
        source = running[-1].stdout
    output = running[-1].communicate(timeout=120)[0]
    errors = [process.stderr.read().decode() for process in running[:-1]]
    errors.append("" if running[-1].stderr.closed else running[-1].stderr.read().decode())
    return [process.wait(timeout=60) for process in running], errors, output


def hashes(path):
    return subprocess.run(
        script(CONSUMER.replace("pipe:0", str(path))), capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv422p12le", "yuv444p", "gray"])
def test_between_other_programs_at_strength_zero_every_code_stays(clip, pix_fmt):
    source = clip("in.mkv", codec="ffv1", pix_fmt=pix_fmt, audio=None, size=(67, 97))
    middle = nlden("-", "-o", "-", "--strength", 0, "--sigma", 0)
    codes, errors, output = pipeline(script(PRODUCER, source), middle, script(CONSUMER))
    assert codes == [0, 0, 0], errors
    assert len(output.splitlines()) == 8
    assert output == hashes(source)


def test_a_pipe_gives_what_a_file_gives(clip, decode, tmp_path):
    source = clip("in.mkv", codec="ffv1", sigma=20, audio=None)
    same = ("--sigma", 20, "--precision", "fp32", "--model", "image-fast", "--device", "cpu")
    piped = nlden("-", *same, "-o", tmp_path / "piped.mkv", "--codec", "ffv1")
    codes, errors, _ = pipeline(script(PRODUCER, source), piped)
    assert codes == [0, 0], errors
    codes, errors, _ = pipeline(nlden(source, *same, "-o", tmp_path / "file.mkv"))
    assert codes == [0], errors
    a, b = decode(tmp_path / "piped.mkv"), decode(tmp_path / "file.mkv")
    assert all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))
    assert a.times == b.times
    assert np.std(decode(source).pictures[0] - b.pictures[0].astype(float)) > 3


def test_matroska_carries_sound_times_and_rotation(clip, decode, tmp_path):
    pts = [0, 40, 55, 100, 101, 180, 230, 231]
    source = clip("in.mkv", pts=pts, rotation=90)
    target = tmp_path / "out.mkv"
    first = nlden(source, "-o", "-", "-f", "matroska", "--strength", 0, "--lossless")
    second = nlden("-", "-o", target, "--strength", 0, "--lossless")
    codes, errors, _ = pipeline(first, second)
    assert codes == [0, 0], errors
    a, b = decode(source), decode(target)
    assert (a.times, a.sound, a.tags, a.rotation) == (b.times, b.sound, b.tags, b.rotation)
    assert all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))
    assert "warning" not in errors[0]


def test_what_y4m_cannot_carry_is_told_once(clip, tmp_path):
    source = clip("in.mkv", pts=[0, 1, 2, 5, 9, 10, 11, 12])
    codes, errors, output = pipeline(nlden(source, "-o", "-", "--strength", 0))
    assert codes == [0]
    assert output.startswith(b"YUV4MPEG2 W98 H66 ")
    told = [line for line in errors[0].splitlines() if "warning" in line]
    assert len(told) == 2, told
    assert "audio" in told[0]
    assert "constant frame rate" in told[1]


def test_the_noise_of_a_pipe_is_measured_in_its_first_frames(clip, tmp_path):
    source = clip("in.mkv", codec="ffv1", sigma=25, size=(130, 194), frames=12, audio=None)
    target = tmp_path / "out.mkv"
    codes, errors, _ = pipeline(script(PRODUCER, source), nlden("-", "-o", target))
    assert codes == [0, 0]
    assert "first 8 frames" in errors[1]
    level = float(errors[1].split("noise ")[-1].split(" luma")[0])
    assert level == pytest.approx(15.5, rel=0.15)  # 25 in RGB, carried to the planes
    with av.open(str(target)) as written:
        assert sum(1 for _ in written.decode(video=0)) == 12


@pytest.mark.parametrize("part", [("--start", 0.12, "--end", 0.3), ("--frames", 3)])
def test_a_part_of_a_pipe_is_the_part_of_the_file(clip, decode, tmp_path, part):
    source = clip("in.mkv", codec="ffv1", frames=30)
    piped, direct = tmp_path / "piped.mkv", tmp_path / "direct.mkv"
    codes, errors, _ = pipeline(
        ["cat", str(source)], nlden("-", "-o", piped, "--strength", 0, "--lossless", *part)
    )
    assert codes[1] == 0, errors
    pipeline(nlden(source, "-o", direct, "--strength", 0, "--lossless", *part))
    a, b = decode(piped), decode(direct)
    assert (a.times, a.sound) == (b.times, b.sound)
    assert all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))


def test_a_reader_that_goes_ends_it_quietly(clip):
    source = clip("in.mkv", frames=60, size=(240, 320))
    codes, errors, output = pipeline(
        nlden(source, "-o", "-", "--strength", 0, "--sigma", 0), ["head", "-c", "1000"]
    )
    assert len(output) == 1000
    assert codes[0] == -signal.SIGPIPE  # 141 in a shell
    assert errors[0].strip() == ""


def test_a_stream_that_breaks_off_is_kept_up_to_the_break(clip, tmp_path):
    source = clip("in.mkv", audio=None)
    whole = pipeline(script(PRODUCER, source))[2]
    (tmp_path / "part.y4m").write_bytes(whole[: len(whole) - 5000])
    with (tmp_path / "part.y4m").open("rb") as part:
        target = tmp_path / "out.mkv"
        codes, errors, _ = pipeline(nlden("-", "-o", target, "--strength", 0), source=part)
    assert codes == [0]
    assert "7 frames could be read" in errors[0]
    with av.open(str(target)) as written:
        assert sum(1 for _ in written.decode(video=0)) == 7


@pytest.mark.parametrize("content", [b"", b"this is no video\n" * 1000])
def test_no_video_in_the_pipe_is_one_line(tmp_path, content):
    (tmp_path / "in").write_bytes(content)
    with (tmp_path / "in").open("rb") as source:
        codes, errors, _ = pipeline(nlden("-", "-o", tmp_path / "out.mkv"), source=source)
    assert codes == [1]
    assert errors[0].strip().startswith("nlden: -: ")
    assert len(errors[0].strip().splitlines()) == 1
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
def test_impossible_pipes_are_usage_errors(clip, tmp_path, arguments, word):
    clip("in.mkv", frames=1)
    (tmp_path / "cat.png").touch()
    before = sorted(tmp_path.iterdir())
    paths = [tmp_path / a if "." in a else a for a in arguments]
    codes, errors, output = pipeline(nlden(*paths))
    assert codes == [2]
    assert word in errors[0]
    assert len(errors[0].strip().splitlines()) == 1
    assert output == b""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("end", ["stdin", "stdout"])
def test_a_terminal_is_no_video(clip, tmp_path, end):
    source = clip("in.mkv", frames=1)
    ours, theirs = os.openpty()
    arguments = ("-", "-o", tmp_path / "o.mkv") if end == "stdin" else (source, "-o", "-")
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, end: theirs}
    result = subprocess.run(
        nlden(*arguments), **streams, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(ours)
    os.close(theirs)
    assert result.returncode == 2
    assert "is a terminal" in result.stderr


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on this machine")
def test_between_two_ffmpeg(clip, tmp_path):
    source = clip("in.mkv", codec="ffv1", audio=None)
    quiet = ["ffmpeg", "-v", "error", "-y"]
    first = [*quiet, "-i", str(source), "-f", "yuv4mpegpipe", "-"]
    last = [*quiet, "-i", "-", "-c:v", "ffv1", str(tmp_path / "out.mkv")]
    middle = nlden("-", "-o", "-", "--strength", 0, "--sigma", 0)
    codes, errors, _ = pipeline(first, middle, last)
    assert codes == [0, 0, 0], errors
    assert hashes(tmp_path / "out.mkv") == hashes(source)
