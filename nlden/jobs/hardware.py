"""What this machine computes, encodes and decodes on."""

import os
import platform
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch
from av.codec.codec import Capabilities, Codec, UnknownCodecError

from nlden.inference.engines import choose_precision
from nlden.jobs.denoise import choose_model
from nlden.models.pretrained import load

_HARDWARE = Capabilities.hardware | Capabilities.hybrid


@dataclass(frozen=True)
class Device:
    """A device for networks.

    Args:
        name: what ``--device`` takes.
        description: processor or card.
        memory: bytes; None if unknown.
        threads: of a CPU; None for other devices.
        precision: the faster of ``fp32`` and ``bf16`` for ``model``, timed now.
        model: the network that ``--model auto`` takes for videos on this device.
    """

    name: str
    description: str
    memory: int | None
    threads: int | None
    precision: str
    model: str


@dataclass(frozen=True)
class Hardware:
    """Devices, and the hardware encoders and decoders that this build of PyAV knows.

    Args:
        devices: for networks.
        encoders: for each name whether it opens on this machine.
        decoders: names; whether they work only a file can tell.
    """

    devices: list[Device]
    encoders: dict[str, bool]
    decoders: list[str]


def find_hardware() -> Hardware:
    """Look for all of it. Takes seconds: precisions are timed, encoders are opened."""
    cards = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return Hardware(
        devices=[_device(name) for name in (*cards, *mps, "cpu")],
        encoders={codec.name: _opens(codec) for codec in _codecs("w")},
        decoders=[codec.name for codec in _codecs("r")],
    )


def _device(name: str) -> Device:
    device = torch.device(name)
    model = choose_model("auto", Path("video.mkv"), device)
    threads, memory = None, None
    description = platform.processor() or platform.machine()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        description, memory = properties.name, properties.total_memory
    elif device.type == "mps":
        memory = torch.mps.recommended_max_memory()
    else:
        threads = torch.get_num_threads()
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    precision = choose_precision(load(model), device)
    return Device(name, description, memory, threads, precision, model)


def _codecs(mode: str) -> list[Codec]:
    found = []
    for name in sorted(av.codecs_available):
        try:
            codec = Codec(name, mode)  # type: ignore[arg-type]  # "r" or "w", not any str
        except UnknownCodecError:  # this name only does the opposite
            continue
        if codec.type == "video" and codec.capabilities & _HARDWARE:
            found.append(codec)
    return found


def _opens(codec: Codec) -> bool:
    encoder = codec.create("video")
    encoder.width = encoder.height = 256
    encoder.pix_fmt = codec.video_formats[0].name if codec.video_formats else "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    try:
        encoder.open()
    except (av.FFmpegError, OSError, ValueError):
        return False
    return True
