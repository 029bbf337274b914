"""Where and in which precision a network runs."""

import ctypes
import os
import platform
import time

import torch
from torch import nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DeviceError(ValueError):
    """A device is not there. The message is one line for the user."""


# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT = 16 << 20  # bytes; maps of features of 540 lines


def keep_freed_memory() -> None:
    """Let the C library keep the memory of one layer's output for the next layer's.

    glibc gives large buffers back to the system at once and fetches new ones page by page, which
    takes up to a quarter of a network's time on CPUs. Above 16 MiB it still does: what is kept of
    many such sizes does not fit the next. This changes the whole process, so that only programs
    call it, not libraries. Without glibc nothing happens.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_ARENA_MAX, 1)  # what one thread has freed serves the others
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Let the C library give large buffers back to the system as soon as they are freed.

    The contrary of :func:`keep_freed_memory`, for large pictures: where buffers of many sizes of
    hundreds of megabytes follow each other, those that are kept do not fit each other. Where no
    tensor has been made yet, PyTorch then asks Linux for huge pages, which are fetched faster.
    Without glibc nothing happens.
    """
    if (libc := _glibc()) is not None:
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)  # strips of maps follow each other


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given, for the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; the host does not wait for a copy to CUDA.

    It goes through page-locked memory, so that the copy runs beside what the device computes.
    """
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: if the machine has no such device.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name == "auto":
        return torch.device(present[0])
    absent = DeviceError(f"--device {name}: not on this machine (there is: {', '.join(present)})")
    if name.split(":")[0] not in present:
        raise absent
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name}: not a device; give {', '.join(present)}") from error
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.index is not None and device.index >= count:
        raise absent
    return device


def choose_precision(network: nn.Module, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16``, whichever runs the network's widest convolution faster.

    Which one that is cannot be told from the processor's flags: of two server CPUs with
    bfloat16 instructions one gained a factor of 2.5 by them, the other lost as much.
    """
    kernels = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    widths = [m.in_channels for m in kernels if m.in_channels == m.out_channels]
    channels = widths[0] if widths else 64
    times = {}
    for name in ("fp32", "bf16"):
        kind = {"device": device, "dtype": DTYPES[name]}
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False, **kind)  # type: ignore[arg-type]
        x = torch.randn(1, channels, 128, 240, **kind)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last)
        conv = conv.to(memory_format=torch.channels_last)
        times[name] = min(_time(conv, x) for _ in range(6))
    return min(times, key=lambda name: times[name])


@torch.inference_mode()
def _time(conv: nn.Conv2d, x: torch.Tensor) -> float:
    start = time.perf_counter()
    float(conv(x)[0, 0, 0, 0])  # reading a number waits for the device
    return time.perf_counter() - start
