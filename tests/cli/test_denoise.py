"""The command for long runs and many files: what it refuses, skips, tells and shows."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product

import av
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

FAST = ("--sigma", 10, "--strength", 0, "--device", "cpu", "--precision", "fp32")


def one_line(err):
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("nlden: ")
    return lines[0]


@pytest.fixture
def folder(clip, tmp_path):
    """A folder with a video, a picture below it and a broken video."""
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    clip("in/a.mp4", frames=6)
    Image.fromarray(photographs.cat()[:60, :80]).save(root / "sub" / "b.png")
    (root / "bad.mp4").write_text("no video")
    return root


def test_a_folder_is_mirrored_and_a_second_run_does_what_is_missing(commands, folder, tmp_path):
    out = tmp_path / "out"
    status, _, err = commands.run("denoise", folder, "-o", out, *FAST)
    assert status == 1
    assert "2 of 3 files denoised, 1 failed" in err.splitlines()[-1]
    files = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    assert {str(p.relative_to(out)) for p in files} == {"a.mp4", "sub/b.png"}
    (folder / "bad.mp4").write_bytes((folder / "a.mp4").read_bytes())
    status, said, err = commands.run(
        "denoise", folder, "-o", out, *FAST, "--skip-existing", "--json"
    )
    assert status == 0, err
    results = [json.loads(line) for line in said.splitlines()]
    told = {r["source"].removeprefix(f"{folder}/"): r["status"] for r in results}
    assert told == {"a.mp4": "skipped", "bad.mp4": "denoised", "sub/b.png": "skipped"}
    assert {p: p.stat().st_mtime_ns for p in files} == files
    assert "1 of 3 files denoised, 2 skipped" in err


def test_a_pattern_that_no_shell_expanded(commands, folder, tmp_path):
    status, _, err = commands.run("denoise", folder / "[ab].mp4", "-o", tmp_path / "o.mp4", *FAST)
    assert status == 0, err
    assert (tmp_path / "o.mp4").exists()
    status, _, err = commands.run("denoise", folder / "*.mkv", "-o", tmp_path / "p.mp4", *FAST)
    assert status == 2
    assert "*.mkv: no such files" in one_line(err)


def test_json_tells_progress_and_result(commands, clip, tmp_path):
    source, target = clip(frames=200), tmp_path / "out.mp4"
    status, said, err = commands.run(
        "denoise", source, "-o", target, *FAST[:2], *FAST[4:], "--frames", 20, "--json"
    )
    assert status == 0, err
    *progress, result = map(json.loads, said.splitlines())
    assert (result["event"], result["status"], result["frames"]) == ("result", "denoised", 20)
    assert result["target"] == str(target)
    assert all(p["event"] == "progress" and 0 < p["frames"] <= p["total"] == 20 for p in progress)
    assert len(progress) <= 2 * result["seconds"] + 1
    assert "20 frames" in err


def test_a_stopped_batch_does_not_begin_the_next_and_is_resumed(commands, clip, tmp_path):
    (tmp_path / "in").mkdir()
    # Denoised in earnest, this takes some seconds: the signal comes in the middle.
    clip("in/a.mp4", frames=30, size=(64, 80))
    Image.fromarray(photographs.cat()[:60, :80]).save(tmp_path / "in" / "b.png")
    out = tmp_path / "out"
    arguments = ("denoise", tmp_path / "in", "-o", out, "--sigma", 10, "--device", "cpu")
    arguments += ("--precision", "fp32", "--segment", 5)
    process = commands.start(*arguments)
    folder = out / ".a.mp4.segments"
    deadline = time.monotonic() + 60
    while not (folder / "000000.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process, signal.SIGINT)
    status, _, err = commands.wait()
    assert status == 130
    assert "--resume" in err
    assert "0 of 2 files denoised, 1 interrupted, 1 not begun" in err.splitlines()[-1]
    assert list(out.iterdir()) == [folder]
    status, _, err = commands.run(*arguments)
    assert status == 2
    assert "interrupted run" in one_line(err)
    assert "--resume goes on" in err
    status, _, err = commands.run(
        *arguments[:-4], "--precision", "auto", *arguments[-2:], "--resume"
    )
    assert status == 0, err
    assert {p.name for p in out.iterdir()} == {"a.mp4", "b.png"}
    assert "of an interrupted run" in err
    status, _, err = commands.run(*arguments, "--resume")
    assert status == 0
    assert "0 of 2 files denoised, 2 skipped" in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-y", "--skip-existing"], "--skip-existing"),
        (["--segment", 0], "--segment"),
        (["--sample", 0], "--sample"),
        (["--preview", "x"], "--preview"),
        (["--preview", 1, "--dry-run"], "--preview"),
        (["--preview", 1], "extension"),
    ],
)
def test_impossible_options_are_usage_errors(commands, clip, tmp_path, options, word):
    source = clip(frames=1)
    status, _, err = commands.run("denoise", source, "-o", tmp_path / "out.mp4", *options)
    assert status == 2
    assert word in one_line(err)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def peak_of(*arguments):
    """Run the command in a fresh process; return stdout and the peak of its memory in bytes."""
    program = [sys.executable, "-c", "from nlden.cli.main import main; main()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    process = subprocess.Popen(
        [*program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return said, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_a_dry_run_tells_the_plan_and_a_bound_that_holds(clip, tmp_path):
    source, target = clip(frames=40, size=(96, 128), sigma=20), tmp_path / "out.mkv"
    arguments = ("denoise", source, "-o", target, "--device", "cpu", "--precision", "fp32")
    said, _ = peak_of(*arguments, "--dry-run", "--json")
    plan = json.loads(said)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]
    assert [fate for _, fate in plan["streams"]] == ["encoded: libx264, yuv420p", "copied"]
    assert (plan["model"], plan["device"], plan["precision"]) == ("video-fast", "cpu", "fp32")
    assert (plan["frames"], plan["size"], plan["pieces"]) == (40, [128, 96], 1)
    assert plan["seconds"] == pytest.approx(40 * plan["seconds_per_frame"])
    said, peak = peak_of(*arguments, "--json")
    assert peak < plan["memory"] < 2 * peak
    result = json.loads(said.splitlines()[-1])
    assert result["noise"] == plan["levels"]


def test_a_dry_run_names_what_is_left_out(commands, clip, tmp_path):
    source = clip(frames=3)
    status, said, err = commands.run(
        "denoise", source, "-o", tmp_path / "out.webm", *FAST, "--dry-run"
    )
    assert status == 0, err
    assert "left out" in said
    assert "memory" in said
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("rotation", [0, 90])
def test_a_preview_shows_the_frame_before_and_after(commands, clip, decode, tmp_path, rotation):
    source = clip(frames=10, size=(96, 160), sigma=25, rotation=rotation)
    target = tmp_path / "sheet.png"
    status, _, err = commands.run(
        "denoise", source, "-o", target, "--preview", 0.2, "--device", "cpu"
    )
    assert status == 0, err
    sheet = np.asarray(Image.open(target)).astype(float)
    wide, tall = (160, 96) if rotation == 0 else (96, 160)
    assert sheet.shape[1] == 2 * wide + 24
    with av.open(str(source)) as container:
        frame = list(container.decode(video=0))[5].to_ndarray(format="rgb24")
    shown = np.rot90(frame, rotation // 90).astype(float)
    top = next(i for i in range(100) if np.abs(sheet[i, 8 : 8 + wide] - shown[0]).mean() < 20)
    left = sheet[top : top + tall, 8 : 8 + wide]
    right = sheet[top : top + tall, 16 + wide : 16 + 2 * wide]
    assert np.median(np.abs(left - shown)) <= 2  # all but the frame of the detail
    change = (right - left).std()
    assert 5 < change < 30
    assert np.abs(np.diff(right, axis=1)).mean() < 0.7 * np.abs(np.diff(left, axis=1)).mean()


def test_a_part_of_a_transport_stream_begins_where_it_is_said_to(commands, clip, tmp_path):
    late = {"output_ts_offset": "3600"}
    source = clip("in.ts", frames=60, options={"g": "100"}, container_options=late)
    target, sheet = tmp_path / "out.mp4", tmp_path / "sheet.png"
    status, _, err = commands.run(
        "denoise", source, "-o", target, *FAST, "--start", "1.0", "--end", "2.0"
    )
    assert status == 0, err
    with av.open(str(source)) as container:
        sources = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    with av.open(str(target)) as container:
        written = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(written) == 25
    # The tone begins before the picture: the first frame at or after 1.0 s is the 25th or near.
    distances = [np.abs(written[0].astype(int) - s).mean() for s in sources]
    assert abs(int(np.argmin(distances)) - 25) <= 1
    status, _, err = commands.run("denoise", source, "-o", sheet, *FAST, "--preview", "1.0")
    assert status == 0, err


def test_a_preview_beyond_the_end_is_one_line(commands, clip, tmp_path):
    source = clip(frames=5)
    status, _, err = commands.run("denoise", source, "-o", tmp_path / "p.png", "--preview", 9)
    assert status == 1
    assert "in.mp4" in one_line(err)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("rotation", [0, 180, 90])
def test_a_sample_has_both_sides_and_the_sound(commands, clip, decode, tmp_path, rotation):
    size = (64, 96)
    source = clip("in.mkv", codec="ffv1", frames=50, size=size, sigma=25, rotation=rotation)
    target = tmp_path / "s.mkv"
    status, _, err = commands.run(
        "denoise", source, "-o", target, "--sample", 0.4, "--device", "cpu", "--lossless"
    )
    assert status == 0, err
    whole, part = decode(source), decode(target)
    assert len(part.times) == 10
    assert 15 <= len(part.sound) <= 19
    assert "".join(map(bytes.hex, part.sound)) in "".join(map(bytes.hex, whole.sound))
    height, width = size
    shape = (2 * height, width) if rotation == 90 else (height, 2 * width)
    luma = part.pictures[0][: shape[0] * shape[1]].reshape(shape).astype(float)
    halves = np.split(luma, 2, axis=0 if rotation == 90 else 1)
    if rotation == 180:
        halves.reverse()
    middle = [p[: height * width].reshape(height, width) for p in whole.pictures[19:23]]
    assert any((halves[0] == before).all() for before in middle)
    assert np.abs(np.diff(halves[1])).mean() < 0.8 * np.abs(np.diff(halves[0])).mean()


def test_a_picture_that_changes_in_mid_stream(commands, clip, tmp_path):
    first = clip("a.ts", audio=None).read_bytes()
    others = {
        "size": clip("b.ts", size=(50, 82), audio=None),
        "format": clip("c.ts", pix_fmt="yuv420p10le", audio=None),
    }
    for name, other in others.items():
        (tmp_path / f"{name}.ts").write_bytes(first + other.read_bytes())
    target = tmp_path / "out" / "size.mp4"
    target.parent.mkdir()
    # The noise is measured, too, across the change.
    arguments = ("-o", target, "--model", "image-fast", *FAST[4:])
    status, _, err = commands.run("denoise", tmp_path / "size.ts", *arguments)
    assert status == 1
    assert "the picture changes its size at frame 8 (98x66 to 82x50); split" in one_line(err)
    assert list(target.parent.iterdir()) == []
    status, _, err = commands.run("denoise", tmp_path / "format.ts", *arguments)
    assert status == 0, err
    with av.open(str(target)) as container:
        shown = [f.format.name for f in container.decode(video=0)]
    assert shown == ["yuv420p"] * 16


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        *product(("yuv444p", "still"), [(), ("--dry-run",), ("--preview", 0)]),
        ("yuv444p", ("--sample", 1)),  # a still has none
    ],
)
def test_colours_that_weights_do_not_take_are_refused(commands, clip, tmp_path, way, kind):
    if kind == "still":
        source = tmp_path / "in.png"
        Image.fromarray(photographs.cat()[:60, :80]).save(source)
    else:
        source = clip("in.mkv", pix_fmt=kind, audio=None)
    target = tmp_path / "out" / (source.name if way[:1] != ("--preview",) else "p.png")
    target.parent.mkdir()
    arguments = ("-o", target, "--model", "image-gray", *FAST[:2], *FAST[4:], *way)
    status, _, err = commands.run("denoise", source, *arguments)
    assert status == 1
    line = one_line(err)
    assert f"{source}: these weights take 4:2:0 and grey pictures, not" in line
    assert "--model auto" in line
    assert list(target.parent.iterdir()) == []
