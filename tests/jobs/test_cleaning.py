from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from skimage import data as photographs

from nlden.data.camera_motion import camera_motion
from nlden.inference.planes import PlaneDenoiser
from nlden.jobs.cleaning import clean_frames
from nlden.jobs.denoise import Interrupted, Request, denoise_file
from nlden.jobs.dry_run import dry_run
from nlden.jobs.levels import Noise
from nlden.jobs.preview import preview, sample
from nlden.media.encoding import Encoding
from nlden.media.frames import Frame
from nlden.media.probe import probe
from nlden.media.reader import VideoReader
from nlden.noise.estimation import Levels

LEVELS = Levels(0.08, 0.04)
NOISE = Noise(luma=LEVELS.luma, chroma=LEVELS.chroma)
LOSSLESS = Encoding(lossless=True)
HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def denoiser(small_video_denoiser):
    return PlaneDenoiser(small_video_denoiser(), torch.device("cpu"), torch.float32)


def shot(name: str, frames: int) -> torch.Tensor:
    picture = torch.from_numpy(getattr(photographs, name)()).permute(2, 0, 1) / 255
    clip = camera_motion(picture, 40, (HEIGHT, WIDTH), path=((0.4, 0.3), (0.5, 0.45)))[-frames:]
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
    return ((clip + 0.08 * noise).clamp(0, 1) * 255).round().byte()


def write(path: Path, *shots: torch.Tensor, pix_fmt: str = "yuv420p") -> Path:
    """Write shots one after the other, without loss, at uneven times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(torch.cat(shots)):
            frame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).numpy(), "rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = 40 * i + i % 3, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> list[Frame]:
    with VideoReader(path) as reader:
        return [item for item in reader if isinstance(item, Frame)]


def codes(path: Path) -> torch.Tensor:
    return torch.stack([torch.cat([p.flatten() for p in f.planes]) for f in read(path)])


def run(source: Path, target: Path, denoiser, **request) -> torch.Tensor:
    request = Request(NOISE, encoding=LOSSLESS, **request)
    denoise_file(source, target, denoiser, request)
    return codes(target)


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "bgr0", "gray"])
def test_a_file_is_what_the_stream_makes_of_its_frames(denoiser, tmp_path, frames, pix_fmt):
    source = write(tmp_path / "in.mkv", shot("coffee", frames), pix_fmt=pix_fmt)
    info = probe(source)
    stream = denoiser.stream(info.layout, info.color, LEVELS)
    expected = [out for f in read(source) for out in stream.push(f.planes)] + stream.finish()
    clean = run(source, tmp_path / "out.mkv", denoiser)
    assert len(clean) == frames
    for row, (planes, _) in zip(clean, expected, strict=True):
        assert torch.equal(row, torch.cat([p.flatten() for p in planes]))
    assert [f.pts for f in read(tmp_path / "out.mkv")] == [f.pts for f in read(source)]
    assert not torch.equal(clean, codes(source))


def test_neighbours_count(denoiser, tmp_path):
    source = write(tmp_path / "in.mkv", shot("coffee", 4))
    info = probe(source)
    alone = [denoiser(f.planes, info.layout, info.color, LEVELS) for f in read(source)]
    alone = torch.stack([torch.cat([p.flatten() for p in planes]) for planes in alone])
    assert not torch.equal(run(source, tmp_path / "out.mkv", denoiser), alone)


def test_nothing_crosses_a_cut(denoiser, tmp_path):
    shots = shot("coffee", 6), shot("astronaut", 7)
    alone = [
        run(write(tmp_path / f"{i}.mkv", s), tmp_path / f"{i}.out.mkv", denoiser)
        for i, s in enumerate(shots)
    ]
    spliced = run(write(tmp_path / "in.mkv", *shots), tmp_path / "out.mkv", denoiser)
    assert torch.equal(spliced, torch.cat(alone))


@pytest.mark.parametrize("cut", [3, 4, 5, 8])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(denoiser, tmp_path, cut):
    """Segments of four frames; the cut lies before, at and after their borders."""
    source = write(tmp_path / "in.mkv", shot("coffee", cut), shot("astronaut", 11 - cut))
    whole = run(source, tmp_path / "whole.mkv", denoiser)
    target, seen = tmp_path / "out.mkv", []
    for stop in (1, 5):
        with pytest.raises(Interrupted):
            denoise_file(
                source,
                target,
                denoiser,
                Request(NOISE, encoding=LOSSLESS, segment=4, resume=stop > 1),
                lambda done, total: seen.append(done),
                lambda after=stop: bool(seen) and seen[-1] >= after,
            )
        assert seen[-1] in (4, 8)
    assert torch.equal(run(source, target, denoiser, segment=4, resume=True), whole)


def test_frames_that_are_done_come_out_empty_and_first(denoiser, tmp_path):
    source = write(tmp_path / "in.mkv", shot("coffee", 9))
    info = probe(source)
    with VideoReader(source) as reader:
        reader.skip = 1
        stream = denoiser.stream(info.layout, info.color, LEVELS)
        out = [item for item, _ in clean_frames(reader, stream, passed=6)]
    assert [bool(f.planes) for f in out] == [False] * 6 + [True] * 3
    assert [f.pts for f in out] == [f.pts for f in read(source)]


def test_previews_samples_and_trials_look_at_neighbours_too(denoiser, tmp_path):
    source = write(tmp_path / "in.mkv", shot("coffee", 30))
    request = Request(NOISE, encoding=LOSSLESS)
    preview(source, 0.6, tmp_path / "sheet.png", denoiser, request)
    assert (tmp_path / "sheet.png").stat().st_size > 0
    frames, _, _ = sample(source, 0.4, tmp_path / "sample.mkv", denoiser, request)
    pair = read(tmp_path / "sample.mkv")
    assert len(pair) == frames
    assert pair[0].planes[0].shape == (1, HEIGHT, 2 * WIDTH)
    assert not torch.equal(pair[0].planes[0][..., :WIDTH], pair[0].planes[0][..., WIDTH:])
    trial = dry_run(source, tmp_path / "out.mkv", denoiser, request)
    assert trial.frames in (0, 30)
    assert trial.seconds_per_frame > 0
