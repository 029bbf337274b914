import math

import pytest
import torch
from skimage import data as photographs
from skimage.io import imsave
from torch import Generator

from nlden.data.camera_motion import camera_motion
from nlden.data.clips import list_clips
from nlden.evaluation.clip_peers import frame_by_frame
from nlden.evaluation.clips import evaluate, mean_rows, network
from nlden.models import video_denoiser_base
from nlden.models.pretrained import Description, WeightsError, load_weights, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips of 3 frames, of 48 x 40 and 41 x 56 pixels."""
    root = tmp_path_factory.mktemp("clips")
    for name, size in (("coffee", (48, 40)), ("astronaut", (41, 56))):
        picture = torch.from_numpy(getattr(photographs, name)()).permute(2, 0, 1) / 255
        (root / name).mkdir()
        for i, frame in enumerate(camera_motion(picture, 3, size)):
            pixels = (frame * 255).round().byte().permute(1, 2, 0).numpy()
            imsave(root / name / f"{i}.png", pixels, check_contrast=False)
    return root


@pytest.fixture(scope="module")
def video_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "video.safetensors"
    net = video_denoiser_base()
    load_weights(net.spatial, "image-fast")
    load_weights(net.fusion, "image-base")
    save(net, path, Description("video_denoiser_base"))
    return str(path)


def test_noise_is_that_of_the_protocol_and_figures_are_means_over_frames(folder):
    rows = list(evaluate(list_clips(folder), [25.0], {"nothing": lambda clip, sigma: clip}))
    assert [(r.clip, r.method) for r in rows] == [
        (clip, method) for clip in ("astronaut", "coffee") for method in ("noisy input", "nothing")
    ]
    noisy = rows[0]
    assert noisy.psnr == pytest.approx(20 * math.log10(255 / 25), abs=0.3)
    # Of independent errors: the mean of |a - b| is 2 sigma / sqrt(pi).
    assert noisy.flicker == pytest.approx(2 * 25 / math.sqrt(math.pi), rel=0.02)
    assert noisy.seconds is None
    assert rows[1].psnr > noisy.psnr  # clamped
    mean = mean_rows(rows)
    assert mean[0].psnr == pytest.approx((rows[0].psnr + rows[2].psnr) / 2)


def test_a_video_denoiser_runs_as_a_stream(folder, video_weights):
    method = network(video_weights, torch.device("cpu"), torch.float32)
    rows = list(evaluate(list_clips(folder), [30.0], {"video": method}))
    for noisy, video in zip(rows[::2], rows[1::2], strict=True):
        assert video.psnr > noisy.psnr + 5
        assert video.flicker < 0.5 * noisy.flicker


def test_pictures_are_handed_over_one_by_one():
    seen = []

    def method(frame, sigma):
        seen.append(frame)
        return frame * sigma

    clip = torch.rand(3, 4, 5, 6, generator=Generator().manual_seed(0))
    assert torch.equal(frame_by_frame(method)(clip, 0.5), clip * 0.5)
    assert torch.equal(torch.stack(seen, dim=1), clip)


def test_clips_are_halved_and_shortened(folder):
    sizes = []

    def watch(clip, sigma):
        sizes.append(tuple(clip.shape))
        return clip

    list(evaluate(list_clips(folder), [9.0], {"watch": watch}, halved=["coffee"], limit=2))
    assert sizes == [(3, 2, 41, 56), (3, 2, 24, 20)]


def test_what_is_no_clip_or_no_denoiser_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="one frame is no clip"):
        list(evaluate(list_clips(folder), [9.0], {}, limit=1))
    with pytest.raises(WeightsError, match="no weights"):
        network("nothing", torch.device("cpu"), torch.float32)
