import platform
import subprocess
import sys

import pytest
import torch

from nlden.encoders import UNet
from nlden.inference.engines import (
    DTYPES,
    DeviceError,
    choose_device,
    choose_precision,
    to_device,
)
from nlden.models import ImageDenoiser


def present():
    names = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
    return [name for name, there in names if there] + ["cpu"]


def test_auto_takes_the_best_device_that_there_is():
    assert choose_device("auto") == torch.device(present()[0])
    for name in present():
        assert choose_device(name).type == name


@pytest.mark.parametrize(
    "name", ["abacus", "", "auto:1", "meta", "CPU", "cpu:one", "cuda:77", "mps:9", "cpu:7"]
)
def test_a_device_that_is_not_there_is_told_in_one_line(name):
    with pytest.raises(DeviceError, match=f"--device {name}:") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
    assert "cpu" in str(caught.value)  # what there is


@pytest.mark.parametrize("name", present())
def test_tensors_arrive_unchanged_and_their_source_stays(name):
    device = torch.device(name)
    x = torch.arange(12, dtype=torch.uint8).view(3, 4)
    moved = to_device(x, device)
    assert moved.device.type == name
    assert torch.equal(moved.cpu(), torch.arange(12, dtype=torch.uint8).view(3, 4))
    assert x.device.type == "cpu"


@pytest.mark.parametrize(
    "network", [ImageDenoiser(UNet((8, 16), (1, 1))), torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()]
)
def test_the_chosen_precision_is_one_that_networks_run_in(network):
    name = choose_precision(network, torch.device("cpu"))
    assert name in ("fp32", "bf16")
    assert DTYPES[name] in (torch.float32, torch.bfloat16)


KEPT = """
import sys
import torch
from nlden.inference.engines import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
torch.ones(1)
before = resident()
for size in (3 << 20, 9 << 20):  # 12 and 36 MiB
    pieces = [torch.ones(size) for _ in range(4)]
    del pieces
    print(resident() - before)
"""


# Elsewhere both functions do nothing; with glibc there is /proc, too.
needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="this C library is not glibc"
)

RESIDENT = """
import torch
from nlden.inference.engines import return_freed_memory
return_freed_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
torch.ones(1)
before = resident()
pieces = [torch.ones(9 << 20) for _ in range(4)]  # 36 MiB each
assert resident() - before > 100 << 20
last = pieces.pop()
del pieces  # under a piece that stays
print(resident() - before)
"""


@needs_glibc
def test_freed_memory_is_returned():
    command = [sys.executable, "-c", RESIDENT]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 40 << 20


@needs_glibc
def test_freed_memory_is_kept():
    """That of small maps; large ones go back all the same."""
    left = {}
    for how in ("keep", "return"):
        command = [sys.executable, "-c", KEPT, how]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        left[how] = [int(line) for line in result.stdout.split()]
    assert left["return"][0] < 10 << 20
    assert left["keep"][0] > 40 << 20
    assert left["keep"][1] < 60 << 20
