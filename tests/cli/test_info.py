"""``nlden info`` as a user meets it: real files, wrong input."""

import json
import os
import subprocess
import sys
from subprocess import CompletedProcess

import pytest
import torch
from PIL import Image
from skimage import data as photographs


@pytest.fixture
def info(run_here):
    return lambda *arguments: CompletedProcess(arguments, *run_here("info", *arguments))


def test_it_runs_as_a_program_of_its_own(clip):
    code = "from nlden.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "info", str(clip(frames=2)), "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout)["container"].startswith("mov")
    assert result.stderr == ""


def test_a_video_and_a_picture_are_shown_in_tables(info, clip, tmp_path):
    path = clip(sigma=25, frames=12, size=(130, 194))
    Image.fromarray(photographs.cat()[:60, :80]).save(tmp_path / "cat[1].png")
    result = info(path, tmp_path / "cat[1].png", "--cuts")
    assert (result.returncode, result.stderr) == (0, "")
    video, picture = result.stdout.split(str(tmp_path / "cat[1].png"))
    lines = dict(line.split(maxsplit=1) for line in video.splitlines() if " " in line.strip())
    assert video.startswith(str(path))
    assert lines["duration"].strip() == "0:00:00.480"
    assert lines["picture"].startswith("194x130, yuv420p, 8 bits, 4:2:0")
    assert lines["colour"].startswith("range limited, matrix bt709")
    assert lines["frame"].split(maxsplit=1)[1].strip() == "25 fps, constant"
    assert 12 < float(lines["noise"].split()[0]) < 19
    assert lines["cuts"].strip() == "0"
    (sound,) = (line for line in video.splitlines() if "aac" in line)
    assert "copied" in sound
    assert "encoded: libx264, yuv420p" in video
    assert "80x60, rgb, 8 bits" in picture
    assert "PNG" in picture


def test_json_is_one_object_a_line_for_each_file(info, clip, tmp_path):
    clip("a.mp4", frames=2)
    clip("b.mkv", frames=2, pix_fmt="yuv444p")
    (tmp_path / "bad.mp4").write_text("not a video")
    result = info(tmp_path, "--json")
    assert result.returncode == 1
    assert result.stderr.startswith(f"nlden: {tmp_path / 'bad.mp4'}: not a readable media file")
    assert len(result.stderr.splitlines()) == 1
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["path"], second["path"]) == (str(tmp_path / "a.mp4"), str(tmp_path / "b.mkv"))
    assert [s["codec"] for s in second["streams"]] in (["h264", "aac"], ["aac", "h264"])
    (chroma,) = (s["picture"]["chroma"] for s in second["streams"] if s["picture"])
    assert chroma == "4:4:4"
    assert set(first["noise"]) == {"luma", "chroma"}


def test_a_cut_off_file_is_shown_with_a_warning(info, clip, tmp_path):
    whole = clip(frames=40, container_options={"movflags": "faststart"}, sigma=10)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    result = info(broken, "--cuts", "--json")
    assert result.returncode == 0
    assert "damaged or cut off" in result.stderr
    assert "Traceback" not in result.stderr
    (facts,) = map(json.loads, result.stdout.splitlines())
    assert facts["cuts"] == []
    assert len(facts["warnings"]) == 1


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("missing.mp4", "no such file"),
        ("emptyfolder", "no videos or pictures"),
        ("zero.mp4", "0 bytes"),
        ("text.mp4", "not a readable media file"),
        ("text.png", ""),
        ("stub.mp4", "not a readable media file"),
    ],
)
def test_unusable_files_are_told_in_one_line_and_others_shown(info, clip, tmp_path, name, word):
    path = tmp_path / name
    good = clip("good.mp4", frames=2)
    if name == "emptyfolder":
        path.mkdir()
    elif name == "zero.mp4":
        path.touch()
    elif name.startswith("text"):
        path.write_text("this is no video\n" * 100)
    elif name == "stub.mp4":
        path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    result = info(path, good)
    assert result.returncode == 1
    assert str(good) in result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(f"nlden: {path}: ")
    assert word in lines[0]


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--nonsense"]])
def test_nothing_to_show_is_a_usage_error(info, arguments):
    result = info(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("nlden: ")
    assert len(result.stderr.splitlines()) == 1


def test_devices_are_listed(info):
    result = info("--devices", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    hardware = json.loads(result.stdout)
    names = [device["name"] for device in hardware["devices"]]
    assert names[-1] == "cpu"
    assert len([n for n in names if n.startswith("cuda")]) == torch.cuda.device_count()
    cpu = hardware["devices"][-1]
    assert cpu["threads"] == torch.get_num_threads()
    assert cpu["precision"] in ("fp32", "bf16")
    assert cpu["model"] == "video-fast"
    assert all(isinstance(opens, bool) for opens in hardware["encoders"].values())
    assert not {"libx264", "h264"} & {*hardware["encoders"], *hardware["decoders"]}
    shown = info("--devices").stdout
    assert "cpu" in shown
    assert all(name in shown for name in hardware["encoders"])
