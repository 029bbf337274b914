"""Real files for the tests: photographs of scikit-image, encoded by FFmpeg's encoders."""

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
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

    def build(untrained: bool = False, halve: bool = False) -> VideoDenoiser:
        torch.manual_seed(0)
        network = VideoDenoiser(_stage(8), _stage(10), search=8, halve=halve)
        for parameter in network.parameters():
            if not untrained and parameter.abs().max() == 0:
                torch.nn.init.normal_(parameter, std=0.05)
        return network.eval()

    return build


# Loading torch takes seconds, and a process with threads must not fork: one that has none has
# loaded it and forks for each command. A watcher between the two tells process and exit status.
# The first command, a usage error, loads what only commands load.
_SERVER = """
import contextlib, gc, io, json, os, resource, signal, socket, sys
import av, torch
import nlden.cli.denoise_run, nlden.cli.denoise_try, nlden.jobs.denoise, nlden.models.pretrained
from nlden.cli.main import main
torch.set_num_threads(1)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
orders = socket.socket(fileno=int(sys.argv[1]))
sys.argv = ["nlden", "denoise"]
with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
    main()
gc.freeze()
while True:
    text, ends, _, _ = socket.recv_fds(orders, 1 << 16, 4)
    if not text:
        break
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        order = json.loads(text)
        child = os.fork()
        if child == 0:
            for number in range(3):
                os.dup2(ends[number], number)
            os.closerange(3, 256)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, "rw"[i > 0]) for i in range(3))
            if order["largest"]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
            sys.argv = ["nlden", *order["arguments"]]
            status = 99  # of whatever is no exit: a traceback
            try:
                main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0
            except BaseException as error:
                print(f"Traceback: {error!r}", file=sys.stderr)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        os.write(ends[3], b"%d " % child)
        for end in ends[:3]:
            os.close(end)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(ends[3], b"%d" % code)
        os._exit(0)
    for end in ends:
        os.close(end)
"""


class Running:
    """A command that runs."""

    def __init__(self, report: int) -> None:
        self._report = report
        self.pid = int(self._read(b" "))

    def _read(self, end: bytes) -> bytes:
        read = b""
        while (more := os.read(self._report, 1)) not in (b"", end):
            read += more
        return read

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit status, or minus the signal; None if it still runs after ``timeout``."""
        if not select.select([self._report], [], [], timeout)[0]:
            return None
        status = int(self._read(b""))
        os.close(self._report)
        return status


@pytest.fixture(scope="session")
def start_nlden() -> Iterator[Callable[..., Running]]:
    """Return a function that starts ``nlden`` with three descriptors.

    ``largest`` is how many bytes a file may have: a full disk for one process; 0 is any number.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env={**environment, "COLUMNS": "200"},
    ):
        theirs.close()

        def start(
            *arguments: object, stdin: int, stdout: int, stderr: int, largest: int = 0
        ) -> Running:
            order = json.dumps({"arguments": [*map(str, arguments)], "largest": largest})
            report, told = os.pipe()
            socket.send_fds(ours, [order.encode()], [stdin, stdout, stderr, told])
            os.close(told)
            return Running(report)

        yield start
        ours.close()


class Commands:
    """Start commands of nlden one after the other; see the fixture."""

    def __init__(self, start: Callable[..., Running], log: Path) -> None:
        self._start, self._log = start, log

    def start(self, *arguments: object, largest: int = 0) -> int:
        """Start a command; return its process; ``largest`` as in ``start_nlden``."""
        with (
            Path(os.devnull).open() as nothing,
            Path(f"{self._log}.1").open("w") as out,
            Path(f"{self._log}.2").open("w") as err,
        ):
            ends = {"stdin": nothing.fileno(), "stdout": out.fileno(), "stderr": err.fileno()}
            self._running = self._start(*arguments, **ends, largest=largest)
        return self._running.pid

    def wait(self) -> tuple[int, str, str]:
        """Return the exit status (or minus the signal), stdout and stderr."""
        status = self._running.wait()
        return status, *(Path(f"{self._log}.{n}").read_text() for n in (1, 2))

    def run(self, *arguments: object, **options) -> tuple[int, str, str]:
        """Start a command and wait for it."""
        self.start(*arguments, **options)
        return self.wait()


@pytest.fixture(scope="session")
def commands(start_nlden, tmp_path_factory) -> Commands:
    """Return what runs commands and reads what they say."""
    return Commands(start_nlden, tmp_path_factory.mktemp("commands") / "log")


@pytest.fixture(scope="session")
def encode() -> Callable[..., Path]:
    """Return the function that encodes a clip: ``encode(path, ...)``."""
    return encode_clip
