"""A demonstration on real photographs: make a noisy clip, denoise it, measure, show."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from skimage import data as photographs
from torch import Generator, Tensor

from nlden.data.camera_motion import camera_motion
from nlden.evaluation.report import before_after_sheet
from nlden.inference.planes import PlaneDenoiser
from nlden.jobs.denoise import Request, Result, denoise_file
from nlden.media.color import YCbCr
from nlden.media.frames import Frame, from_planes
from nlden.media.probe import Layout
from nlden.media.reader import VideoReader
from nlden.metrics import PlanePSNR
from nlden.noise.synthesis import quantize, store_yuv420, white_gaussian

SIZE = (256, 384)
RATE = 24
_COLOR = YCbCr("bt709")
_LAYOUT = Layout("yuv420", 8)


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration measured.

    Args:
        before: PSNR over the planes of the noisy clip, in dB.
        after: PSNR over the planes of the denoised clip, in dB.
        result: what the denoiser reported.
        files: the files that were written.
    """

    before: float
    after: float
    result: Result
    files: dict[str, Path]


def make_clip(frames_per_shot: int) -> Tensor:
    """Move a camera over three photographs of scikit-image; returns ``(T, 3, H, W)``."""
    shots = (
        (photographs.astronaut(), {"path": ((0.1, 0.2), (0.4, 0.9)), "zoom": (1.0, 1.25)}),
        (photographs.coffee(), {"path": ((0.9, 0.9), (0.2, 0.3)), "turn": 4.0}),
        (photographs.cat(), {"path": ((0.3, 0.1), (0.6, 0.9)), "zoom": (1.3, 1.1)}),
    )
    clips = []
    for photograph, motion in shots:
        picture = torch.from_numpy(photograph).permute(2, 0, 1) / 255
        clips.append(camera_motion(picture, frames_per_shot, SIZE, **motion))
    return torch.cat(clips)


def to_frames(clip: Tensor) -> list[Frame]:
    """Store RGB ``(T, 3, H, W)`` as 8-bit 4:2:0, limited-range BT.709."""
    frames = []
    for i, rgb in enumerate(clip):
        planes = _COLOR.from_rgb(rgb)
        chroma = store_yuv420(rgb[None], _COLOR)[0, 4:]
        codes = tuple((quantize(p) * 255).to(torch.uint8) for p in (planes[:1], chroma))
        frames.append(Frame(codes, _LAYOUT, i))
    return frames


def encode(path: Path, frames: list[Frame]) -> None:
    """Encode frames without loss, with a chord that swells and fades."""
    seconds = len(frames) / RATE
    with av.open(str(path), "w") as container:
        video = container.add_stream(
            "libx264", rate=RATE, options={"qp": "0", "preset": "ultrafast"}
        )
        height, width = frames[0].size
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for number, frame in enumerate(frames):  # frames of a file count in its own time base
            picture = from_planes(frame.planes, frame.layout)
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        time = np.arange(int(seconds * 48000)) / 48000
        chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 277.2, 329.6))
        wave = (0.1 * chord * np.sin(np.pi * time / seconds)).astype(np.float32)
        for start in range(0, len(wave), 1024):
            piece = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
            piece.sample_rate, piece.pts = 48000, start
            piece.time_base = Fraction(1, 48000)
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))


def _read(path: Path) -> list[Frame]:
    with VideoReader(path) as reader:
        return [item for item in reader if isinstance(item, Frame)]


def _beside(left: Frame, right: Frame) -> Frame:
    """Left half of one frame, right half of the other, a white line between."""
    planes = []
    for a, b in zip(left.planes, right.planes, strict=True):
        middle = a.shape[-1] // 2
        joined = torch.cat([a[..., :middle], b[..., middle:]], dim=-1)
        joined[..., middle] = 235 if len(joined) == 1 else 128
        planes.append(joined)
    return Frame(tuple(planes), left.layout, left.pts)


def to_rgb(frame: Frame) -> Tensor:
    """Convert a frame of the demonstration to RGB ``(3, H, W)`` in [0, 1]."""
    luma, chroma = (p.float() / 255 for p in frame.planes)
    wide = torch.nn.functional.interpolate(chroma[None], size=luma.shape[1:], mode="bilinear")[0]
    return _COLOR.to_rgb(torch.cat([luma, wide])).clamp(0, 1)


def run(
    folder: Path,
    denoiser: PlaneDenoiser,
    *,
    sigma: float = 25,
    frames_per_shot: int = 24,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DemoResult:
    """Make, denoise and measure the clip.

    Args:
        folder: where the files are written.
        denoiser: the network.
        sigma: level of the noise that is added in RGB, 0 to 255.
        frames_per_shot: frames of each of the three shots.
        seed: source of the noise.
        progress: called with frames done and frames expected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ("original.mp4", "noisy.mp4", "denoised.mp4", "side_by_side.mp4", "before_after.png")
    files = {name: folder / name for name in names}
    clip = make_clip(frames_per_shot)
    generator = Generator().manual_seed(seed)
    noisy = white_gaussian(clip, torch.tensor(sigma / 255), generator)
    encode(files["original.mp4"], to_frames(clip))
    encode(files["noisy.mp4"], to_frames(quantize(noisy)))
    source, target = files["noisy.mp4"], files["denoised.mp4"]
    result = denoise_file(source, target, denoiser, Request(), progress)

    clean, noise, denoised = (_read(files[name]) for name in names[:3])
    before, after = PlanePSNR(), PlanePSNR()
    for c, n, d in zip(clean, noise, denoised, strict=True):
        before.update(n.planes, c.planes)
        after.update(d.planes, c.planes)
    encode(files["side_by_side.mp4"], [_beside(n, d) for n, d in zip(noise, denoised, strict=True)])
    middle = range(frames_per_shot // 2, len(clean), frames_per_shot)
    rows = [[to_rgb(frames[i]) for frames in (noise, denoised, clean)] for i in middle]
    before_after_sheet(rows, ("noisy", "denoised", "original"), files["before_after.png"])
    return DemoResult(before.compute(), after.compute(), result, files)
