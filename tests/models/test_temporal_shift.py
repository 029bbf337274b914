import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlden.attention import NonLocal3d
from nlden.models import image_denoiser_fast, temporal_shift_denoiser_fast
from nlden.models.pretrained import load, load_weights
from nlden.models.temporal_shift import ClipNonLocal, temporal_shift


def clip(frames: int, size: tuple[int, int] = (24, 32)) -> torch.Tensor:
    return torch.rand(2, 3, frames, *size, generator=torch.Generator().manual_seed(0))


def trained(shift: bool, non_local: bool):
    network = temporal_shift_denoiser_fast(shift, non_local).eval().requires_grad_(False)
    load_weights(network, "image-fast")
    return network


@given(batch=st.integers(1, 3), frames=st.integers(1, 5), channels=st.integers(1, 40))
def test_an_eighth_of_the_channels_comes_from_each_neighbour(batch, frames, channels):
    x = torch.rand(batch * frames, channels, 2, 3)
    moved = temporal_shift(x, frames)
    share = channels // 8
    for b in range(batch):
        for t in range(frames):
            for c in range(channels):
                source = t - 1 if c < share else t + 1 if c < 2 * share else t
                inside = 0 <= source < frames
                expected = x[b * frames + source, c] if inside else torch.zeros(2, 3)
                assert torch.equal(moved[b * frames + t, c], expected)


def test_without_its_paths_it_is_the_image_denoiser_frame_by_frame():
    network, image = trained(shift=False, non_local=False), load("image-fast")
    sigma = torch.tensor([[0.1, 0.1], [0.2, 0.15]])
    x = clip(3)
    with torch.no_grad():
        clean = network(x, sigma)
        for t in range(3):
            assert torch.allclose(clean[:, :, t], image(x[:, :, t], sigma), atol=1e-6)
        assert torch.allclose(network(x[:, :, 0], sigma), image(x[:, :, 0], sigma), atol=1e-6)


@pytest.mark.parametrize(
    ("shift", "non_local", "reach"), [(True, False, 6), (False, True, 3), (False, False, 0)]
)
def test_each_path_reaches_other_frames(shift, non_local, reach):
    """Eight shifted blocks reach a frame each, past the ends; the block over seven frames three."""
    x = clip(13, (16, 16))[:1].requires_grad_()
    (gradient,) = torch.autograd.grad(trained(shift, non_local)(x, 0.1)[:, :, 6].sum(), x)
    touched = gradient.abs().amax((0, 1, 3, 4)).nonzero().flatten()
    assert touched.tolist() == list(range(6 - reach, 7 + reach))


def test_the_block_over_clips_is_the_non_local_block():
    torch.manual_seed(0)
    extents = {"window": (3, 6, 6), "block": (1, 2, 2)}
    whole = NonLocal3d(8, scale="inner", bias=False, norm=None, clip=True, **extents).double()
    torch.nn.init.normal_(whole.out.weight)
    block = ClipNonLocal(8, **extents).double()
    block.load_state_dict({k: v.flatten(3) for k, v in whole.state_dict().items()})
    block.frames = 4
    x = torch.randn(2, 8, 4, 7, 9, dtype=torch.float64)
    y = block(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 4)).transpose(1, 2)
    assert torch.allclose(y, whole(x), rtol=1e-9)


def test_tiles_are_cut_where_windows_are():
    assert temporal_shift_denoiser_fast().grid == image_denoiser_fast().grid
