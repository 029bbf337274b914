import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs
from torch.nn import functional as F

from nlden.data.camera_motion import camera_motion
from nlden.media.cuts import CutDetector, find_cuts, prediction_residual, thumbnail

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "motorcycle")
VIDEOS = Path(os.environ.get("NLDEN_DATA", Path(__file__).parents[2] / "data")) / "video" / "train"


def photograph(name):
    picture = photographs.stereo_motorcycle()[0] if name == "motorcycle" else None
    picture = getattr(photographs, name)() if picture is None else picture
    return torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255


def shot(name, frames=8, size=(180, 240), **motion):
    """A camera over a photograph, as luma frames; by default it pans slowly."""
    motion.setdefault("path", ((0.3, 0.2), (0.3 + 0.01 * frames, 0.2 + 0.01 * frames)))
    clip = camera_motion(photograph(name), frames, (180, 240), **motion).mean(1, keepdim=True)
    return list(F.interpolate(clip, size, mode="area"))


def noisy(frames, sigma, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = (torch.randn(f.shape, generator=generator) for f in frames)
    return [(f + sigma / 255 * n).clamp(0, 1) for f, n in zip(frames, noise, strict=True)]


@pytest.mark.parametrize("sigma", [0, 25, 50])
@pytest.mark.parametrize("size", [(180, 240), (67, 99), (240, 135)])
def test_spliced_shots_are_told_apart_at_any_size_and_noise(sigma, size):
    frames, places = [], []
    for number, name in enumerate(NAMES * 2):
        frames += shot(name, 3 + number % 4, size)
        places.append(len(frames))
    assert list(find_cuts(noisy(frames, sigma))) == places[:-1]


@pytest.mark.parametrize("sigma", [0, 50])
@pytest.mark.parametrize(
    "motion",
    [
        {"path": ((0.3, 0.3), (0.3, 0.3))},
        {"path": ((0.0, 0.0), (1.0, 1.0))},
        {"path": ((0.0, 1.0), (1.0, 0.0)), "turn": 40.0},
        {"zoom": (1.0, 2.5)},
        {"zoom": (2.5, 1.0), "turn": 30.0},
    ],
    ids=["still", "pan", "pan and turn", "zoom in", "zoom out and turn"],
)
def test_motion_is_no_cut(motion, sigma):
    for name in ("astronaut", "coffee"):
        assert list(find_cuts(noisy(shot(name, 14, **motion), sigma))) == []


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("sigma", [0, 50])
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_a_flash_is_no_cut(length, sigma, part):
    frames = shot("astronaut", 12)
    for i in range(5, 5 + length):
        frames[i] = frames[i].clone()
        frames[i][..., : int(240 * part)] = 0.3 * frames[i][..., : int(240 * part)] + 0.75
    assert list(find_cuts(noisy(frames, sigma))) == []


@pytest.mark.parametrize("sigma", [0, 50])
def test_a_cut_just_after_a_flash_is_found(sigma):
    frames = shot("astronaut", 8) + shot("coffee", 8)
    frames[6] = (frames[6] + 0.6).clamp(0, 1)
    assert list(find_cuts(noisy(frames, sigma))) == [8]


@pytest.mark.parametrize("sigma", [0, 50])
def test_fades_and_dissolves_are_no_cuts(sigma):
    a, b = shot("astronaut", 20), shot("coffee", 20)
    share = torch.linspace(0, 1, 20)
    dissolve = [x * (1 - w) + y * w for x, y, w in zip(a, b, share, strict=True)]
    out = [x * (1 - w) for x, w in zip(a, share, strict=True)]
    into = [y * w for y, w in zip(b, share, strict=True)]
    assert list(find_cuts(noisy(dissolve, sigma))) == []
    assert list(find_cuts(noisy(out + into, sigma))) == []


@pytest.mark.parametrize("sigma", [0, 50])
def test_cuts_to_black_and_back_are_found(sigma):
    frames = shot("coffee", 6) + [torch.full((1, 180, 240), 16 / 255)] * 5 + shot("coffee", 6)
    assert list(find_cuts(noisy(frames, sigma))) == [6, 11]


def test_shots_of_two_frames_are_told_apart():
    frames = [f for name in NAMES for f in shot(name, 2)]
    assert list(find_cuts(frames)) == [2, 4, 6, 8]


@settings(max_examples=12)
@given(lengths=st.lists(st.integers(2, 5), min_size=1, max_size=4), gain=st.floats(0.4, 1.0))
def test_every_frame_gets_one_flag_and_a_change_of_light_changes_none(lengths, gain):
    frames = [
        SHOTS[i % len(SHOTS)][j] * (gain if i % 2 else 1.0)
        for i, length in enumerate(lengths)
        for j in range(length)
    ]
    detector, flags = CutDetector(), []
    for number, frame in enumerate(frames):
        flags += detector.push(frame)
        assert len(flags) == max(0, number - 1)  # two frames behind
    flags += detector.finish()
    assert len(flags) == len(frames)
    ends = np.cumsum(lengths)[:-1].tolist()
    assert [i for i, flag in enumerate(flags) if flag] == ends == list(find_cuts(frames))


SHOTS = [shot(name, 5, (60, 80)) for name in NAMES[:3]]


def test_no_frames_have_no_cuts():
    assert list(find_cuts([])) == []


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    gain=st.floats(0.5, 2.0),
    offset=st.floats(-1, 1),
)
def test_thumbnails_are_small_and_stand_above_the_light(size, gain, offset):
    luma = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    small = thumbnail(luma)
    assert max(small.shape) <= 48
    assert torch.allclose(small.mean(), torch.tensor(0.0), atol=1e-4)
    assert small.std(correction=0) < 1
    again = thumbnail(luma * gain + offset)
    assert (again - small).abs().max() <= 0.6 * small.abs().max() + 1e-3
    assert torch.equal(thumbnail(luma), small)


def test_a_moved_picture_is_predicted_and_another_is_not():
    wide = thumbnail(photograph("astronaut").mean(0, keepdim=True))
    a, b = wide[:, 4:36, 4:36], wide[:, 1:33, 6:38]
    # What moves in from outside cannot be known: the border alone is left over.
    plain = (a - b).square().mean()
    assert prediction_residual(a, b) < 0.25 * plain
    assert prediction_residual(a, a) == 0
    coffee = thumbnail(photograph("coffee").mean(0, keepdim=True))[:, :32, :32]
    assert prediction_residual(a, coffee) > 3 * prediction_residual(a, b)


@pytest.mark.parametrize("shape", [(3, 40, 50), (40, 50), (1, 0, 50)])
def test_what_is_no_luma_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape .* must be \(1, H, W\)"):
        CutDetector().push(torch.zeros(shape))


def test_a_change_of_size_is_refused():
    detector = CutDetector()
    detector.push(torch.zeros(1, 40, 50))
    with pytest.raises(ValueError, match=r"\(1, 50, 40\) after frames of \(1, 40, 50\)"):
        detector.push(torch.zeros(1, 50, 40))


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"no clips in {VIDEOS} (NLDEN_DATA names data)")
@pytest.mark.parametrize("sigma", [0, 50])
def test_real_clips_spliced_together_are_told_apart(sigma):
    # The folders of pictures that the thresholds were not chosen on.
    folders = [f for f in sorted(VIDEOS.iterdir())[1::2] if next(f.glob("*.jpg"), None)]
    frames, places = [], []
    for folder in folders:
        for path in sorted(folder.glob("*.jpg"))[:8]:
            with Image.open(path) as image:
                frames.append(torch.from_numpy(np.array(image.convert("L")))[None] / 255)
        places.append(len(frames))
    assert len(places) >= 5
    assert list(find_cuts(noisy(frames, sigma))) == places[:-1]
