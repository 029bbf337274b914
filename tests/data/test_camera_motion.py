from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs

from nlden.data.camera_motion import camera_motion

PHOTOGRAPH = torch.from_numpy(photographs.cat()[:90, 100:240]).permute(2, 0, 1) / 255
CORNERS = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]


def stay(at):
    return (at, at)


@settings(deadline=None, max_examples=15)
@given(
    frames=st.integers(1, 4),
    size=st.tuples(st.integers(1, 90), st.integers(1, 140)),
    zoom=st.floats(1, 3),
    turn=st.floats(-30, 30),
)
def test_frames_have_their_number_size_and_range(frames, size, zoom, turn):
    clip = camera_motion(PHOTOGRAPH, frames, size, zoom=(1.0, zoom), turn=turn)
    assert clip.shape == (frames, 3, *size)
    assert 0 <= clip.min() <= clip.max() <= 1


@pytest.mark.parametrize("corner", CORNERS)
def test_a_view_that_stays_in_a_corner_is_a_crop(corner):
    clip = camera_motion(PHOTOGRAPH, 3, (31, 47), path=stay(corner))
    top, left = int(corner[0] * (90 - 31)), int(corner[1] * (140 - 47))
    crop = PHOTOGRAPH[:, top : top + 31, left : left + 47]
    assert torch.allclose(clip[0], crop, atol=1e-3)
    assert torch.equal(clip[0], clip[1])
    assert torch.equal(clip[0], clip[2])


def test_the_view_starts_and_ends_where_the_path_does():
    clip = camera_motion(PHOTOGRAPH, 5, (31, 47), path=((1.0, 0.0), (0.0, 1.0)))
    for frame, corner in ((clip[0], (1.0, 0.0)), (clip[-1], (0.0, 1.0)), (clip[2], (0.5, 0.5))):
        expected = camera_motion(PHOTOGRAPH, 1, (31, 47), path=stay(corner))[0]
        assert torch.allclose(frame, expected, atol=1e-5)
    steps = [(a - b).abs().mean() for a, b in pairwise(clip)]
    assert all(s > 0.005 for s in steps)


def test_half_a_turn_to_either_side_is_a_turned_picture():
    square = PHOTOGRAPH[:, :80, :80]
    clip = camera_motion(square, 2, (80, 80), turn=180.0)
    assert torch.allclose(clip[0], torch.rot90(square, -1, (1, 2)), atol=2e-3)
    assert torch.allclose(clip[1], torch.rot90(square, 1, (1, 2)), atol=2e-3)


def test_a_turn_keeps_the_shape_of_things_in_a_wide_picture():
    # Something round stays round: a rotation that forgot the aspect ratio would stretch it.
    rows, columns = torch.meshgrid(torch.arange(81.0), torch.arange(161.0), indexing="ij")
    spot = torch.exp(-((rows - 40) ** 2 + (columns - 80) ** 2) / 150).expand(3, -1, -1)
    clip = camera_motion(spot, 3, (61, 61), turn=70.0, path=stay((0.5, 0.5)))
    assert (clip - clip[1]).abs().max() < 0.01


def test_zoom_magnifies():
    clip = camera_motion(PHOTOGRAPH, 2, (40, 60), zoom=(1.0, 2.0), path=stay((0.5, 0.5)))
    middle = clip[0][None, :, 10:30, 15:45]
    wide = torch.nn.functional.interpolate(
        middle, scale_factor=2, mode="bicubic", align_corners=False
    )[0]
    assert (wide - clip[1])[:, 6:-6, 6:-6].abs().max() < 0.02


@pytest.mark.parametrize("size", [(91, 140), (90, 141)])
def test_frames_larger_than_the_photograph_are_refused(size):
    with pytest.raises(ValueError, match=r"size=.*\(90, 140\)"):
        camera_motion(PHOTOGRAPH, 1, size)
