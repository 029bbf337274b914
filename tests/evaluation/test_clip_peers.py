from importlib.util import find_spec

import numpy as np
import pytest
import torch
from skimage import data as photographs
from torch import Generator

from nlden.data.camera_motion import camera_motion
from nlden.evaluation.clip_peers import CLIP_PEERS, frame_by_frame
from nlden.evaluation.peers import PEERS, missing_package


def pair(frames, sigma=0.1):
    """A clean clip of a moving camera and the noisy one."""
    picture = torch.from_numpy(photographs.astronaut()[60:108, 180:236]).permute(2, 0, 1) / 255
    clean = camera_motion(picture, frames, (48, 56)).transpose(0, 1)
    noise = torch.randn(clean.shape, generator=Generator().manual_seed(0))
    return clean + sigma * noise, clean


def error(clip, clean):
    return float((clip - clean).square().mean())


@pytest.mark.parametrize("frames", [1, 2, 6])
@pytest.mark.parametrize("name", ["opencv", "nlm3d"])
def test_a_peer_of_clips_removes_noise_and_keeps_its_input(name, frames):
    if package := missing_package(name):
        pytest.skip(f"{package} is not installed")
    noisy, clean = pair(frames)
    given = noisy.clone()
    output = CLIP_PEERS[name](noisy, 0.1)
    assert (output.shape, output.dtype) == (noisy.shape, torch.float32)
    assert noisy.equal(given)
    assert error(output, clean) < error(noisy, clean) / 3


@pytest.mark.parametrize("name", ["opencv", "nlm3d"])
def test_a_peer_of_clips_looks_at_neighbours(name):
    if package := missing_package(name):
        pytest.skip(f"{package} is not installed")
    noisy, _ = pair(5)
    changed = noisy.clone()
    changed[:, 2] = changed[:, 2].flip(-1)
    before, after = (CLIP_PEERS[name](clip, 0.1) for clip in (noisy, changed))
    differs = ((before - after).abs() > 1e-3).transpose(0, 1).flatten(1).any(1).tolist()
    assert all(differs[1:4])


@pytest.mark.skipif(not find_spec("cv2"), reason="opencv-python-headless is not installed")
def test_opencv_gives_what_its_own_call_gives():
    import cv2

    noisy, _ = pair(6)
    codes = (noisy.clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    blue_first = [np.ascontiguousarray(codes[::-1, t].transpose(1, 2, 0)) for t in range(6)]
    h = 0.55 * 25.5
    got = (CLIP_PEERS["opencv"](noisy, 0.1) * 255).round().byte().numpy()
    for t, window in ((0, 1), (1, 3), (2, 5), (3, 5), (4, 3), (5, 1)):
        expected = cv2.fastNlMeansDenoisingColoredMulti(blue_first, t, window, None, h, h, 7, 21)
        assert np.array_equal(got[::-1, t].transpose(1, 2, 0), expected), t


def test_peers_of_pictures_are_handed_frames_one_by_one():
    seen = []

    def method(frame, sigma):
        seen.append(frame)
        return frame * sigma

    clip = torch.rand(3, 4, 5, 6, generator=Generator().manual_seed(0))
    assert torch.equal(frame_by_frame(method)(clip, 0.5), clip * 0.5)
    assert torch.equal(torch.stack(seen, dim=1), clip)
    noisy, _ = pair(2)
    expected = torch.stack([PEERS["wavelet"](f, 0.1) for f in noisy.unbind(1)], dim=1)
    assert torch.equal(CLIP_PEERS["wavelet"](noisy, 0.1), expected)
