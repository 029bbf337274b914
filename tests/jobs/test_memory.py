"""Memory does not grow with the length of a clip."""

import os
import subprocess
import sys

PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from nlden.inference.engines import keep_freed_memory
from nlden.jobs.denoise import Noise, Request, denoise_file, open_denoiser
torch.set_num_threads(1)
keep_freed_memory()
denoiser = open_denoiser("image-base", torch.device("cpu"), "fp32", None)
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
    short = clip("short.mp4", frames=75, size=(96, 128), sigma=10)
    long = clip("long.mp4", frames=750, size=(96, 128), sigma=10)
    peaks = [peak(p, tmp_path / "out.mp4", n) for p, n in ((short, 75), (long, 750))]
    (tmp_path / "out.mp4").unlink()
    assert peaks[1] < 1.05 * peaks[0], peaks  # kilobytes
