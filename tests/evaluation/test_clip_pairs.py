import math

import av
import numpy as np
import pytest
import torch
from skimage import data as photographs
from skimage.io import imsave
from torch.nn import functional as F

from nlden.evaluation.clip_pairs import (
    NOISES,
    estimated_levels,
    levels,
    list_stills,
    make_pair,
    psnr,
    read_still,
    restore,
    store,
    through_rgb,
)


def pixels(height=48, width=56, frames=2):
    picture = photographs.astronaut()[60 : 60 + height, 180 : 180 + width]
    return torch.from_numpy(picture).permute(2, 0, 1).expand(frames, -1, -1, -1)


def planes(packed):
    """The planes of a stored frame ``(6, h, w)`` as codes."""
    codes = (packed * 255).round().byte().numpy()
    luma = codes[:4].reshape(2, 2, *codes.shape[1:]).transpose(2, 0, 3, 1)
    return luma.reshape(2 * codes.shape[1], -1), codes[4], codes[5]


def test_a_clip_is_stored_as_ffmpeg_stores_it():
    """Their chroma is subsampled otherwise, which shows where colours meet only."""
    rgb = pixels()[0].permute(1, 2, 0).contiguous().numpy()
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)
    stored = planes(store(pixels().transpose(0, 1) / 255)[:, 0])
    for ours, theirs in zip(stored, frame.planes, strict=True):
        rows = np.frombuffer(theirs, np.uint8).reshape(theirs.height, theirs.line_size)
        difference = ours.astype(int) - rows[:, : theirs.width]
        assert np.abs(difference).mean() < 1


def test_the_noise_is_the_same_and_odd_sizes_lose_a_row_and_a_column():
    rgb, clean = make_pair(pixels(47, 55), 25, 3, stored=False)
    noisy, stored = make_pair(pixels(47, 55), 25, 3, stored=True)
    assert (rgb.shape, noisy.shape) == ((3, 2, 47, 55), (6, 2, 23, 27))
    assert torch.equal(noisy, store(rgb.clamp(0, 1).mul(255).round() / 255))
    assert torch.equal(stored, store(clean))
    assert not torch.equal(noisy[:, 0], noisy[:, 1])
    assert float((stored * 255 - (stored * 255).round()).abs().max()) < 1e-4


def test_the_told_levels_are_those_of_the_planes():
    grey = torch.full((2, 3, 256, 256), 128, dtype=torch.uint8)
    noisy, clean = make_pair(grey, 20, 0, stored=True)
    ((luma, chroma),) = levels(noisy, 20 / 255).tolist()
    measured = (
        (noisy - clean)[:4].square().mean().sqrt(),
        (noisy - clean)[4:].square().mean().sqrt(),
    )
    assert luma == pytest.approx(float(measured[0]), rel=0.02)
    assert chroma == pytest.approx(float(measured[1]), rel=0.02)
    assert levels(grey.transpose(0, 1), 0.1).tolist() == [pytest.approx([0.1, 0.1])]


def test_psnr_is_over_the_planes_or_the_mean_of_the_frames():
    noisy, clean = make_pair(pixels(), 25, 0, stored=True)
    errors = [
        (a.astype(float) - b) ** 2
        for t in range(2)
        for a, b in zip(planes(noisy[:, t]), planes(clean[:, t]), strict=True)
    ]
    mean = np.concatenate([e.ravel() for e in errors]).mean()
    assert psnr(noisy, clean) == pytest.approx(10 * math.log10(255**2 / mean))
    noisy, clean = make_pair(pixels(), 25, 0, stored=False)
    noisy[:, 1] = clean[:, 1] + 0.1
    first = float((noisy[:, 0] - clean[:, 0]).square().mean())
    assert psnr(noisy, clean) == pytest.approx((20 - 10 * math.log10(first)) / 2, rel=1e-4)


def test_a_method_of_rgb_is_handed_rgb_and_its_output_stored():
    _, clean = make_pair(pixels(), 25, 0, stored=True)
    seen = {}

    def method(clip, sigma):
        seen[sigma] = clip
        return clip

    again = through_rgb(method)(clean, 0.1)
    assert seen[0.1].shape == (3, 2, 48, 56)
    assert float((seen[0.1] - pixels().transpose(0, 1) / 255).abs().mean()) < 0.02
    assert again.shape == clean.shape
    assert psnr(again, clean) > 40
    grey = torch.full((3, 2, 8, 8), 0.3)
    assert torch.allclose(restore(store(grey)), grey, atol=0.003)


def test_photographs_and_first_frames_are_filmed(tmp_path):
    (tmp_path / "clip").mkdir()
    first = pixels()[0].permute(1, 2, 0).numpy()
    for i in range(2):
        imsave(tmp_path / "clip" / f"{i}.png", np.roll(first, i), check_contrast=False)
    assert list_stills(tmp_path) == [tmp_path / "clip"]
    still = read_still(tmp_path / "clip", 1, 5)
    assert torch.equal(still, pixels(frames=5))
    imsave(tmp_path / "photograph.png", first, check_contrast=False)
    assert list_stills(tmp_path) == [tmp_path / "photograph.png"]
    assert torch.equal(read_still(tmp_path / "photograph.png", 1, 5), still)
    noisy, clean = make_pair(still, 25, 0, stored=False)
    assert torch.equal(clean[:, 0], clean[:, 4])
    assert not torch.equal(noisy[:, 0], noisy[:, 4])
    with pytest.raises(FileNotFoundError, match="no clip"):
        list_stills(tmp_path / "nothing")


@pytest.mark.parametrize("noise", NOISES)
def test_noise_of_files_is_what_its_name_says(noise):
    """On grey of two lightnesses: level, neighbours, independence of the frames."""
    clip = torch.full((4, 3, 128, 128), 128, dtype=torch.uint8)
    clip[..., 64:] = 51
    noisy, clean = make_pair(clip, 20, 0, stored=True, noise=noise)
    luma = 255 / 219 * F.pixel_shuffle((noisy - clean)[:4].transpose(0, 1), 2)[:, 0]
    bright, dark = luma[..., :60], luma[..., 68:]
    neighbours = float((bright[..., 1:] * bright[..., :-1]).mean() / bright.square().mean())
    white = 20 / 255 * (0.2126**2 + 0.7152**2 + 0.0722**2) ** 0.5
    if noise == "poisson":
        assert float(bright.std()) == pytest.approx(white, rel=0.05)
        assert float(dark.std()) == pytest.approx(white * (0.25 + 1.5 * 0.2) ** 0.5, rel=0.05)
        assert abs(neighbours) < 0.05
    elif noise == "correlated":
        assert float(bright.std()) == pytest.approx(white, rel=0.05)
        assert neighbours == pytest.approx(np.exp(-1 / (4 * 0.6**2)), abs=0.05)
    else:
        assert 0.3 * white < float(bright.std()) < 0.97 * white
    if noise != "compressed":
        ((found, _),) = estimated_levels(noisy).tolist()
        assert found < 1.1 * white
        assert abs(float((bright[1:] * bright[:-1]).mean() / bright.square().mean())) < 0.05
