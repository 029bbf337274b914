import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs
from torch.nn import functional as F

import nlden
from nlden.data.camera_motion import camera_motion
from nlden.metrics import flicker
from nlden.models import video_denoiser_base
from nlden.models.video_denoiser import _luma

# Weights are published; the stages' own are those of the image denoisers.
PROMISED = {
    "besides.rgb.weight": (64, 39, 3, 3),
    "besides.yuv420.weight": (64, 21, 3, 3),
    "mismatch.hidden.bias": (32,),
    "mismatch.hidden.weight": (32, 32, 3, 3),
    "mismatch.stems.rgb.bias": (32,),
    "mismatch.stems.rgb.weight": (32, 30, 3, 3),
    "mismatch.stems.yuv420.bias": (32,),
    "mismatch.stems.yuv420.weight": (32, 18, 3, 3),
    "mismatch.tail.bias": (4,),
    "mismatch.tail.weight": (4, 32, 3, 3),
}


def test_names_and_shapes_of_the_published_weights():
    with torch.device("meta"):
        state = video_denoiser_base().state_dict()
    own = {k: tuple(v.shape) for k, v in state.items() if k.split(".")[0] not in STAGES}
    assert own == PROMISED
    assert {k.split(".")[0] for k in state} - {k.split(".")[0] for k in own} == set(STAGES)


STAGES = ("spatial", "fusion")


def clip(frames: int = 5, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    picture = torch.from_numpy(photographs.coffee()).permute(2, 0, 1)[:, :200, :300] / 255
    return camera_motion(picture, frames, size, path=((0.3, 0.3), (0.4, 0.4))).transpose(0, 1)[None]


def packed(x: torch.Tensor) -> torch.Tensor:
    return F.pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), 2)[None].transpose(1, 2)


@torch.no_grad()
def test_a_single_frame_is_that_of_the_second_stage(small_video_denoiser):
    network = small_video_denoiser(untrained=True)
    x = clip(1)
    alone = network.fusion(x[:, :, 0], 0.1)
    assert torch.allclose(network(x, 0.1)[:, :, 0], alone, atol=1e-6)


@torch.no_grad()
def test_a_still_scene_is_averaged_as_a_kalman_filter_does(small_video_denoiser):
    """Frames that agree: the variance of the average is one over their number."""
    network = small_video_denoiser(untrained=True)
    network.mismatch.tail.bias.fill_(-30.0)  # no mismatch
    scene, sigma = packed(clip(1, (64, 64)))[:, :, 0], 0.02
    level = torch.full((1, 2, *scene.shape[2:]), sigma)
    generator = torch.Generator().manual_seed(0)
    past = None
    for number in range(1, 5):
        noisy = scene + sigma * torch.randn(scene.shape, generator=generator)
        known = type(network.look(noisy, level))(noisy, scene, noisy, torch.ones_like(level))
        past = network.denoise(known, level, past)
        past = type(past)(past.noisy, scene, past.fused, past.variance)
        assert past.variance.mean() == pytest.approx(1 / number, rel=0.01)
        error = (past.fused - scene).square().mean() / sigma**2
        assert error == pytest.approx(1 / number, rel=0.15)


@torch.no_grad()
def test_what_does_not_agree_has_little_weight(small_video_denoiser):
    network = small_video_denoiser(untrained=True)
    scene, level = packed(clip(1, (64, 64)))[:, :, 0], torch.full((1, 2, 32, 32), 0.02)
    first, other = (network.look(x, level) for x in (scene, 1 - scene))
    done = network.denoise(first, level, other)
    assert (done.fused - scene).abs().mean() < 0.1 * 0.02
    assert done.variance.mean() > 0.9


@torch.no_grad()
def test_frames_depend_on_all_of_the_past_and_on_two_frames_ahead(small_video_denoiser):
    network, x = small_video_denoiser(), clip(7)
    before = network(x, 0.1)
    for changed in range(7):
        other = x.clone()
        other[:, :, changed] = torch.rand_like(other[:, :, changed])
        differ = (network(other, 0.1) - before).abs().amax((0, 1, 3, 4)) > 0
        assert differ.tolist() == [i >= changed - 2 for i in range(7)]


@torch.no_grad()
def test_a_still_clip_is_laid_over_itself(small_video_denoiser):
    network = small_video_denoiser()
    frame = packed(clip(1))[:, :, 0]
    shot = network.look(frame, torch.full((1, 2, *frame.shape[2:]), 1 / 255))
    laid = network._lay_over(_luma(shot.clean), shot)
    for name, tensor in shot.tensors().items():
        assert torch.equal(laid.tensors()[name], tensor), name


@torch.no_grad()
@pytest.mark.parametrize("channels", [12, 6])
def test_a_moving_clip_is_laid_over_the_frame(channels, small_video_denoiser):
    """A camera that moves by whole pixels: every neighbour becomes the frame."""
    scene = torch.from_numpy(photographs.astronaut()).permute(2, 0, 1)[:, :160, :200] / 255
    views = [scene[None, :, 20 + y : 116 + y, 30 + x : 126 + x] for y, x in ((0, 0), (4, -6))]
    network = small_video_denoiser()
    shots = []
    for view in views:
        frame = F.pixel_unshuffle(view, 2)
        if channels == 6:
            frame = torch.cat([frame[:, :4], frame[:, 4::4]], dim=1)
        looked = network.look(frame, frame[:, :2])
        shots.append(type(looked)(frame, frame, frame, looked.variance))
    laid = network._lay_over(_luma(shots[0].clean), shots[1]).fused
    inner = (..., slice(8, -8), slice(8, -8))
    assert (laid - shots[0].noisy)[inner].abs().mean() < 0.008
    assert (shots[1].noisy - shots[0].noisy)[inner].abs().mean() > 0.05


@settings(max_examples=8)
@given(
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    frames=st.integers(1, 3),
    rgb=st.booleans(),
    halve=st.booleans(),
)
@torch.no_grad()
def test_any_size_and_length(height, width, frames, rgb, halve, small_video_denoiser):
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, frames, height, width) if rgb else (1, 6, frames, height, width)
    x = torch.rand(shape, generator=generator)
    y = small_video_denoiser(halve=halve)(x, 0.1)
    assert y.shape == x.shape
    assert y.isfinite().all()


@torch.no_grad()
def test_a_clip_of_a_batch_knows_nothing_of_the_others(small_video_denoiser):
    network = small_video_denoiser()
    x = torch.cat([clip(3), clip(3).flip(-1)])
    sigma = torch.tensor([0.05, 0.1])
    together = network(x, sigma)
    for i in range(2):
        alone = network(x[i : i + 1], sigma[i : i + 1])
        # Two places that a block is as like as the other may be told apart by rounding alone.
        assert ((together[i : i + 1] - alone).abs() > 1e-4).double().mean() < 0.005


def test_every_weight_learns_and_the_stages_learn_apart(small_video_denoiser):
    network = small_video_denoiser().train()
    x = clip(4)
    names = {n for n, _ in network.named_parameters()}
    first = {n for n in names if n.startswith("spatial.")}
    for stage, expected in ((0, first), (1, names - first)):
        network.zero_grad()
        for form in (x, torch.cat([packed(x)[:, :4], packed(x)[:, 4::4]], dim=1)):
            noisy = form + 0.05 * torch.randn_like(form)
            network.stages(noisy, 0.05)[stage].square().mean().backward()
        learning = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert learning == expected


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (1, 4, 2, 8, 8), (1, 3, 0, 8, 8), (0, 3, 2, 8, 8)])
def test_other_shapes_are_refused(shape, small_video_denoiser):
    with pytest.raises(ValueError, match="expected"):
        small_video_denoiser()(torch.zeros(shape), 0.1)


@torch.no_grad()
@pytest.mark.parametrize("sigma", [30 / 255, 50 / 255])
def test_what_stands_still_hardly_flickers(sigma):
    scene = torch.from_numpy(photographs.astronaut()[100:228, 100:228]).permute(2, 0, 1)
    clean = (scene / 255)[:, None].expand(-1, 8, -1, -1)
    generator = torch.Generator().manual_seed(0)
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
    alone = nlden.load("image-base")(noisy.transpose(0, 1), sigma).transpose(0, 1)
    together = nlden.load("video-base")(noisy[None], sigma)[0]
    assert flicker(together, clean) < 0.4 * flicker(alone, clean)
