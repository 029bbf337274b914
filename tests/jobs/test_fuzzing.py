"""Damaged files: whatever the bytes, the command ends with a file or with one line."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

SECONDS = 20
FOUND = (1590, 2253, 2423, 2689)  # by the larger run, of what is mended now
FILMS = {
    "h264.mp4": {"codec": "libx264"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "fast.mp4": {"codec": "libx264", "container_options": {"movflags": "faststart"}},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "yuv420p10le"},
    "h264.mkv": {"codec": "libx264", "pts": [0, 1, 3, 4, 7, 8]},
    "vp9.webm": {"codec": "libvpx-vp9", "audio": None},
    "mpeg4.avi": {"codec": "mpeg4", "audio": "mp2"},
    "mpeg2.ts": {"codec": "mpeg2video", "audio": "mp2"},
    "raw.nut": {"codec": "rawvideo", "audio": None},
    "raw.y4m": {"codec": "rawvideo", "audio": None},
    "mpeg2.mpg": {"codec": "mpeg2video", "audio": "mp2"},
}
STILLS = ("cat.png", "cat.jpg", "cat.webp", "cat.tif", "cat.bmp")


@pytest.fixture(scope="module")
def samples(tmp_path_factory, encode):
    """Return small real files of every container as ``{name: bytes}``."""
    folder = tmp_path_factory.mktemp("samples")
    for name, film in FILMS.items():
        encode(folder / name, frames=6, size=(64, 80), **film)
    for name in STILLS:
        Image.fromarray(photographs.cat()[:40, :50]).save(folder / name)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mutate(rng, data, other):
    """Damage a file: a few bits, its end, a block, or with the head of another file."""
    damaged = np.frombuffer(data, np.uint8).copy()
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 2 + len(data) // 8))
    kind = rng.choice(["flip", "flip head", "cut", "zero", "repeat", "noise", "splice", "swap"])
    if kind in ("flip", "flip head"):
        reach = min(len(data), 600) if kind == "flip head" else len(data)
        for at in rng.integers(reach, size=rng.integers(1, 20)):
            damaged[at] ^= 1 << rng.integers(8)
    elif kind == "cut":
        damaged = damaged[:start]
    elif kind == "zero":
        damaged[start : start + length] = 0
    elif kind == "noise":
        damaged[start : start + length] = rng.integers(
            256, size=len(damaged[start : start + length])
        )
    elif kind == "repeat":
        block = damaged[start : start + length]
        damaged = np.concatenate([damaged[:start], block, block, damaged[start:]])
    else:
        head = np.frombuffer(other, np.uint8)[: rng.integers(8, 400)]
        rest = damaged if kind == "splice" else damaged[len(head) :]
        damaged = np.concatenate([head, rest])
    return damaged.tobytes()


def wait(process):
    """Return the exit code of a process (negative: the signal), which is killed after a while."""
    code = process.wait(SECONDS)
    if code is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return f"hung for {SECONDS} s"
    return code


def complaint(code, errors, target):
    """Say what is wrong with the end of a run; nothing if it is as it should be."""
    lines = [line for line in errors.splitlines() if line]
    left = sorted(path.name for path in target.parent.iterdir())
    if code == 0:
        kept = all(x.startswith(("nlden: warning: ", f"{target}: ")) for x in lines)
        if left != [target.name] or not kept:
            return f"{left}, {lines}"
    elif code != 1 or len(lines) != 1 or not lines[0].startswith("nlden: ") or left:
        return f"exit {code}, {left}, {lines}"
    return ""


def fuzz(folder, samples, start_nlden, seeds):
    """Run the command on one damaged file for each seed; return exits and complaints."""
    names = list(samples)
    exits, complaints = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        name = names[seed % len(names)]
        source = folder / f"in{seed}{Path(name).suffix}"
        target = folder / f"out{seed}" / f"out{Path(name).suffix}"
        target.parent.mkdir()
        source.write_bytes(mutate(rng, samples[name], samples[str(rng.choice(names))]))
        arguments = ("denoise", source, "-o", target, "--strength", 0, "--precision", "fp32")
        log = folder / f"log{seed}"
        with Path(os.devnull).open("r+") as nowhere, log.open("w") as errors:
            ends = {"stdin": nowhere.fileno(), "stdout": nowhere.fileno()}
            code = wait(start_nlden(*arguments, **ends, stderr=errors.fileno()))
        exits.append(code)
        if words := complaint(code, log.read_text(errors="replace"), target):
            complaints.append(f"seed {seed}, {name}: {words}")
        else:
            source.unlink()
        target.unlink(missing_ok=True)
    return exits, complaints


def test_two_hundred_damaged_files(tmp_path, samples, start_nlden):
    exits, complaints = fuzz(tmp_path, samples, start_nlden, [*FOUND, *range(200 - len(FOUND))])
    assert not complaints, "\n".join(complaints)
    assert exits.count(0) > 40  # most damage is survived, some is not
    assert exits.count(1) > 20


@pytest.mark.slow
def test_two_thousand_damaged_files(tmp_path, samples, start_nlden):
    complaints = fuzz(tmp_path, samples, start_nlden, range(1000, 3000))[1]
    assert not complaints, "\n".join(complaints)
