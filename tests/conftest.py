"""Real files for the tests: photographs of scikit-image, encoded by FFmpeg's encoders."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from skimage import data as photographs

from nlden.attention import NonLocal2d, SqueezeExcitation
from nlden.encoders import UNet
from nlden.media.frames import to_planes
from nlden.media.probe import Layout
from nlden.models import ImageDenoiser, VideoDenoiser

torch.set_num_threads(1)  # two workers share two cores
# A busy machine is no error.
settings.register_profile("nlden", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nlden")


@dataclass(frozen=True)
class Decoded:
    """All that a test compares of a file."""

    sound: list[bytes]
    times: list[Fraction]
    pictures: list[np.ndarray]
    pix_fmt: str
    tags: tuple[int, int, int, int]
    rotation: int


def decode(path: Path) -> Decoded:
    """Read a file back with PyAV alone."""
    with av.open(str(path)) as container:
        packets = container.demux(audio=0) if container.streams.audio else []
        sound = [bytes(p) for p in packets if p.size]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        context = stream.codec_context
        tags = (
            int(context.colorspace),
            int(context.color_range),
            int(context.color_primaries),
            int(context.color_trc),
        )
        pictures = [
            np.concatenate([p.numpy().ravel() for p in to_planes(f, Layout.of(f.format))])
            for f in frames
        ]
        times = [f.pts * f.time_base for f in frames]
        return Decoded(sound, times, pictures, context.pix_fmt, tags, frames[0].rotation)


def encode_clip(
    path: Path,
    *,
    frames: int = 8,
    size: tuple[int, int] = (66, 98),
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    audio: str | None = "aac",
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    sigma: float = 0.0,
    rotation: int = 0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode a view that moves over a photograph, with a tone, as the codec and options say."""
    rng = np.random.default_rng(0)
    photograph = photographs.astronaut()
    with av.open(str(path), "w", options=container_options or {}) as container:
        video = container.add_stream(codec, rate=25, options=options or {})
        video.height, video.width = size
        video.pix_fmt = pix_fmt
        video.time_base = video.codec_context.time_base = time_base
        context = video.codec_context
        rgb = "rgb" in pix_fmt or "gbr" in pix_fmt or "bgr" in pix_fmt
        context.colorspace = 0 if rgb else 1
        context.color_primaries = context.color_trc = context.color_range = 1
        if rotation:
            video.set_display_rotation(rotation)
        sound = container.add_stream(audio, rate=44100, layout="mono") if audio else None
        if sound is not None:
            wave = np.sin(np.arange(int(44100 * frames / 25)) / 20).astype(np.float32) * 0.2
            for start in range(0, len(wave) - 1023, 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
                piece.sample_rate, piece.pts = 44100, start
                piece.time_base = Fraction(1, 44100)
                container.mux(sound.encode(piece))
            container.mux(sound.encode(None))
        for i in range(frames):
            top, left = 60 + i % 60, 120 + i % 60
            view = photograph[top : top + size[0], left : left + size[1]]
            noisy = np.clip(view + sigma * rng.standard_normal(view.shape), 0, 255)
            frame = av.VideoFrame.from_ndarray(noisy.round().astype(np.uint8), "rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=1, dst_color_range=1)
            frame.pts = pts[i] if pts else i
            frame.time_base = time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that encodes a clip in the test's folder: ``clip("in.mp4", ...)``."""

    def make(name: str = "in.mp4", **arguments) -> Path:
        return encode_clip(tmp_path / name, **arguments)

    return make


@pytest.fixture(name="decode")
def decode_fixture() -> Callable[[Path], Decoded]:
    """Return the function that reads a file back."""
    return decode


def _stage(width: int) -> ImageDenoiser:
    bottleneck = partial(NonLocal2d, norm=None, bias=False, window=6, block=4, clip=True)
    gate = partial(SqueezeExcitation, reduction=4, window=3)
    return ImageDenoiser(UNet((width, 16), (1, 1), gate=gate, bottleneck=bottleneck))


@pytest.fixture(scope="session")
def small_video_denoiser() -> Callable[..., VideoDenoiser]:
    """Build small video denoisers; unless ``untrained``, every weight of them says something."""

    def build(untrained: bool = False) -> VideoDenoiser:
        torch.manual_seed(0)
        network = VideoDenoiser(_stage(8), _stage(10), search=8)
        for parameter in network.parameters():
            if not untrained and parameter.abs().max() == 0:
                torch.nn.init.normal_(parameter, std=0.05)
        return network.eval()

    return build


# Loading torch takes seconds: one process has done it and forks for each command.
_SERVER = """
import json, os, resource, sys
import av, torch
import nlden.cli.denoise_run, nlden.jobs.denoise, nlden.models.pretrained
from nlden.cli.main import main
torch.set_num_threads(1)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for number in (1, 2):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(f"{order['log']}.{number}", flags), number)
        if order["largest"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
        sys.argv = ["nlden", *order["arguments"]]
        try:
            main()
        except SystemExit as exit:
            sys.stdout.flush()
            os._exit(exit.code or 0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """Start commands of nlden one after the other; see the fixture."""

    def __init__(self, server: subprocess.Popen, log: Path) -> None:
        self._server, self._log = server, log

    def start(self, *arguments: object, largest: int = 0) -> int:
        """Start a command; return its process.

        Args:
            arguments: of ``nlden``.
            largest: bytes that a file may have: a full disk for one process; 0 is any number.
        """
        order = {"arguments": [*map(str, arguments)], "log": str(self._log), "largest": largest}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def wait(self) -> tuple[int, str, str]:
        """Return the exit status (or minus the signal), stdout and stderr."""
        status = int(self._server.stdout.readline())
        return status, *(Path(f"{self._log}.{n}").read_text() for n in (1, 2))

    def run(self, *arguments: object, **options) -> tuple[int, str, str]:
        """Start a command and wait for it."""
        self.start(*arguments, **options)
        return self.wait()


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Open a server of commands."""
    log = tmp_path_factory.mktemp("commands") / "log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "COLUMNS": "200"},
    ) as server:
        yield Commands(server, log)
        server.stdin.close()


@pytest.fixture(scope="session")
def encode() -> Callable[..., Path]:
    """Return the function that encodes a clip: ``encode(path, ...)``."""
    return encode_clip
