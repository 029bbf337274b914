"""Files that were not made for these tests: those of installed packages, and clips of cameras."""

import os
import site
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from nlden.jobs.denoise import Request, denoise_file, open_denoiser
from nlden.jobs.levels import Noise
from nlden.media import Encoding, MediaError

PACKAGES = Path(site.getsitepackages()[0])
MOVING = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".gif", ".y4m", ".ts")
SOUND = (".wav", ".mp3", ".ogg", ".flac")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
CLIPS = Path(os.environ.get("NLDEN_DATA", Path(__file__).parents[2] / "data")) / "video"
FRAMES = 6


def files(folder, suffixes):
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())


def name(path):
    return path.name


@pytest.fixture(scope="module")
def untouched():
    """Return a function that denoises at strength 0."""
    denoiser = open_denoiser("image-fast", torch.device("cpu"), "fp32", None)

    def run(source, target, preset=None, **part):
        encoding = Encoding(lossless=True, preset=preset)
        request = Request(Noise(luma=0.0, chroma=0.0), strength=0.0, encoding=encoding, **part)
        return denoise_file(source, target, denoiser, request)

    return run


def read(path, frames):
    """Read times and codes of the first frames, and what lies before their end beside them.

    Times count from the first frame: Matroska has none before zero, and moves all streams alike.
    """
    with av.open(str(path)) as container:
        index = container.streams.video[0].index
        decoded = list(islice(container.decode(video=0), frames + 1))
    seconds = [float(f.pts * f.time_base) for f in decoded]
    end = seconds[frames] if len(seconds) > frames else float("inf")
    with av.open(str(path)) as container:
        others = [s for s in container.streams if s.index != index and s.type != "data"]
        packets = [p for p in container.demux(others) if p.size] if others else []
        copied = [
            (others.index(p.stream), float(p.pts * p.time_base) - seconds[0], bytes(p))
            for p in packets
            if p.pts is not None and p.pts * p.time_base < end
        ]
    copied.sort()
    return [s - seconds[0] for s in seconds[:frames]], decoded[:frames], copied


def compare(source, target):
    times, pictures, packets = read(source, FRAMES)
    new_times, new_pictures, new_packets = read(target, FRAMES)
    assert new_times == pytest.approx(times, abs=0.0011)  # Matroska counts milliseconds
    for a, b in zip(pictures, new_pictures, strict=True):
        form = "rgb24" if a.format.is_rgb or a.format.has_palette else a.format.name
        assert (a.reformat(format=form).to_ndarray() == b.reformat(format=form).to_ndarray()).all()
    assert [(a, data) for a, _, data in new_packets] == [(a, data) for a, _, data in packets]
    assert [t for _, t, _ in new_packets] == pytest.approx([t for _, t, _ in packets], abs=0.0011)


@pytest.mark.parametrize("source", files(PACKAGES, MOVING), ids=name)
def test_films_of_packages(untouched, tmp_path, source):
    target = tmp_path / "out.mkv"
    result = untouched(source, target, frames=FRAMES)
    assert result.warnings == []
    compare(source, target)


@pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no clips in {CLIPS} (NLDEN_DATA names data)")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_clips_of_cameras(untouched, tmp_path, suffix):
    clips = files(CLIPS, MOVING)
    assert clips
    for source in clips:
        target = tmp_path / f"{source.stem}{suffix}"
        preset = "ultrafast" if suffix == ".mp4" else None
        result = untouched(source, target, preset, frames=FRAMES)
        assert [w for w in result.warnings if "does not keep" not in w] == []
        compare(source, target)
        target.unlink()


@pytest.mark.parametrize("source", files(PACKAGES, SOUND), ids=name)
def test_sound_is_refused_in_one_line(untouched, tmp_path, source):
    with pytest.raises(MediaError) as error:
        untouched(source, tmp_path / "out.mkv")
    assert str(error.value).startswith(f"{source}: ")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "source", [p for p in files(PACKAGES, PICTURES) if p.stat().st_size < 250_000], ids=name
)
def test_pictures_of_packages(untouched, tmp_path, source):
    target = tmp_path / "out.png"
    try:
        with Image.open(source) as image:
            several = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
            deep = image.mode in ("I", "F")
    except UnidentifiedImageError:
        with pytest.raises(MediaError, match=r"not a readable media file|holds \d+ p"):
            untouched(source, target)
        return
    if several or deep:
        with pytest.raises(MediaError, match=r"holds \d+ p|not supported"):
            untouched(source, target)
        return
    untouched(source, target)
    with Image.open(source) as before, Image.open(target) as after:
        assert after.size == before.size
        if before.mode in ("1", "L", "LA", "RGB", "RGBA", "P"):
            both = (np.asarray(x.convert("RGBA")) for x in (before, after))
            assert (next(both) == next(both)).all()
