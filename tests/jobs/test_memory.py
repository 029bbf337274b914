"""Memory does not grow with the length of a clip."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest

PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from nlden.inference.engines import keep_freed_memory
from nlden.jobs.denoise import Request, denoise_file, open_denoiser
from nlden.jobs.levels import Noise
torch.set_num_threads(1)
keep_freed_memory()
denoiser = open_denoiser("image-fast", torch.device("cpu"), "fp32", None)
request = Request(Noise(sigma=0.1))
result = denoise_file(Path(sys.argv[1]), Path(sys.argv[2]), denoiser, request)
print(result.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(source, target, frames):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-c", PROGRAM, str(source), str(target)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    done, kilobytes = map(int, output.stdout.split())
    assert done == frames
    return kilobytes


def test_memory_is_the_same_for_three_and_for_thirty_seconds(clip, tmp_path):
    short = clip("short.mp4", frames=75, size=(64, 64), sigma=10)
    long = clip("long.mp4", frames=750, size=(64, 64), sigma=10)
    peaks = [peak(p, tmp_path / "out.mp4", n) for p, n in ((short, 75), (long, 750))]
    (tmp_path / "out.mp4").unlink()
    assert peaks[1] < 1.05 * peaks[0], peaks  # kilobytes


def raw(path, frames):
    """Write noise as y4m, 64x48; nothing is encoded, so that length costs little."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            codes = rng.integers(100, 156, (72, 64), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(codes, "yuv420p")))
        container.mux(stream.encode(None))
    return path


def peak_of_command(source, *options):
    """Run the command between two pipes; return its peak resident memory and its output."""
    program = (
        "import resource, sys\nfrom nlden.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    arguments = ("denoise", "-", "-o", "-", "--sigma", "20", "--precision", "fp32", *options)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    with subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE) as cat:
        result = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdin=cat.stdout,
            env=environment,
            capture_output=True,
            check=True,
        )
    return int(result.stderr.split()[-1]), result.stdout


@pytest.mark.parametrize("options", [("--strength", "0"), ("--model", "image-fast")])
@pytest.mark.parametrize("most", [1000, pytest.param(3000, marks=pytest.mark.slow)])
def test_memory_of_the_command_is_the_same_for_100_frames_and_for_more(tmp_path, options, most):
    peaks = []
    for frames in (100, most):
        peak, output = peak_of_command(raw(tmp_path / f"{frames}.y4m", frames), *options)
        assert output.count(b"FRAME\n") == frames
        peaks.append(peak)
    assert peaks[1] < 1.05 * peaks[0], peaks  # kilobytes
