import math

import pytest
import torch
from skimage import data as photographs
from skimage.io import imsave

from nlden.data.camera_motion import camera_motion
from nlden.data.clips import list_clips
from nlden.evaluation.clips import evaluate, mean_rows, network
from nlden.models import temporal_shift_denoiser_fast
from nlden.models.pretrained import Description, WeightsError, load, load_weights, save


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


def test_a_video_denoiser_runs_as_a_stream(folder):
    method = network("video-base", torch.device("cpu"), torch.float32)
    rows = list(evaluate(list_clips(folder), [30.0], {"video": method}))
    for noisy, video in zip(rows[::2], rows[1::2], strict=True):
        assert video.psnr > noisy.psnr + 5
        assert video.flicker < 0.5 * noisy.flicker


def test_a_denoiser_with_temporal_shift_sees_whole_clips(tmp_path):
    path = tmp_path / "shift.safetensors"
    net = temporal_shift_denoiser_fast()
    load_weights(net, "image-fast")
    save(net, path, Description("temporal_shift_denoiser_fast"))
    run = network(str(path), torch.device("cpu"), torch.float32)
    clip = torch.rand(3, 4, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load(path)(clip[None], 0.1)[0]
    assert torch.allclose(run(clip, 0.1), expected, atol=1e-5)
    assert not torch.allclose(run(clip[:, :1], 0.1), expected[:, :1], atol=1e-3)


def test_networks_take_stored_clips(folder):
    names = {"image": "image-fast", "video": "video-base"}
    methods = {k: network(w, torch.device("cpu"), torch.float32) for k, w in names.items()}
    rows = list(evaluate(list_clips(folder), [30.0], methods, stored=True))
    for noisy, image, video in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert min(image.psnr, video.psnr) > noisy.psnr + 3
        assert max(image.flicker, video.flicker) < 0.6 * noisy.flicker
        # Told too little, they leave noise.
        half = methods["image"]
        assert image.psnr > _told(folder, half, 0.5, noisy.clip) + 0.5


def _told(folder, method, factor, clip):
    rows = evaluate(
        [p for p in list_clips(folder) if p.stem == clip],
        [30.0],
        {"told": lambda x, sigma: method(x, factor * sigma)},
        stored=True,
    )
    return list(rows)[1].psnr


def test_a_still_stands_still(folder):
    seen = []

    def average(clip, sigma):
        seen.append(clip.shape[1])
        return clip.mean(1, keepdim=True).expand_as(clip)

    rows = list(evaluate(list_clips(folder), [25.0], {"average": average}, stills=True, limit=4))
    assert seen == [4, 4]
    assert rows[0].flicker == pytest.approx(2 * 25 / math.sqrt(math.pi), rel=0.02)
    assert rows[1].flicker == pytest.approx(0, abs=1e-4)
    assert rows[1].psnr == pytest.approx(20 * math.log10(255 / 25) + 10 * math.log10(4), abs=0.5)


def test_the_best_strength_is_found_and_named(folder):
    calls = []

    def shrinks(clip, sigma):
        calls.append(sigma * 255 / 25)
        return clip.mean((2, 3), keepdim=True) + 0 * clip + abs(sigma * 255 / 25 - 1.6)

    clips = list_clips(folder)[:1]
    rows = list(evaluate(clips, [25.0], {"peer": shrinks}, searched=["peer"]))
    assert rows[1].strength == pytest.approx(1.2**3)
    assert rows[1].label == "peer x1.73"
    assert calls == pytest.approx([1.0, 1 / 1.2, 1.2, 1.2**2, 1.2**3, 1.2**4])
    fixed = list(evaluate(clips, [25.0], {"peer": shrinks}))
    assert fixed[1].label == "peer"
    assert fixed[1].psnr < rows[1].psnr
    # What gets better for ever ends where the search does.
    endless = list(evaluate(clips, [25.0], {"p": lambda c, s: c * 0 + s}, searched=["p"]))[1]
    assert 1.2**-6 <= endless.strength <= 1.2**6


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
