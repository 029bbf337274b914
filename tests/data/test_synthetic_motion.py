import pytest
import torch
from skimage import data as photographs
from torch import Generator
from torch.nn import functional as F

from nlden.data import synthetic_motion
from nlden.data.synthetic_motion import moving_photographs


def photograph(name: str) -> torch.Tensor:
    return torch.from_numpy(getattr(photographs, name)()).permute(2, 0, 1) / 255


def clip(seed: int, frames: int = 4, extent: int = 48) -> torch.Tensor:
    pictures = photograph("astronaut"), photograph("coffee")
    return moving_photographs(*pictures, frames, extent, Generator().manual_seed(seed))


def test_shape_range_and_seed():
    x = clip(3)
    assert x.shape == (4, 3, 48, 48)
    assert 0 <= x.min() < x.max() <= 1
    assert torch.equal(x, clip(3))
    assert not torch.equal(x, clip(4))


def test_frames_move_but_show_the_same(monkeypatch):
    """Neighbouring frames agree somewhere near, and rarely where they are."""
    monkeypatch.setattr(synthetic_motion, "_OBJECTS", 0.0)
    moved = near = 0.0
    for seed in range(8):
        first, second = clip(seed, 2)
        window = first[:, 16:32, 16:32]
        errors = [
            (second[:, 16 + y : 32 + y, 16 + x : 32 + x] - window).square().mean()
            for y in range(-12, 13)
            for x in range(-12, 13)
        ]
        near += min(errors)
        moved += errors[len(errors) // 2]
    assert near < 0.2 * moved


def test_a_camera_at_rest_shows_the_photograph_at_half_its_size(monkeypatch):
    for name in ("_PAN", "_ACCELERATION", "_SHAKE", "_ZOOM", "_TURN", "_OBJECTS"):
        monkeypatch.setattr(synthetic_motion, name, 0.0)
    picture = photograph("cat")[:, :64, :64]
    x = moving_photographs(picture, picture, 2, 32, Generator().manual_seed(0))
    assert torch.allclose(x[0], F.avg_pool2d(picture, 2), atol=1e-5)
    assert torch.equal(x[0], x[1])


def test_something_moves_in_front(monkeypatch):
    ground, figure = torch.zeros(3, 200, 200), torch.ones(3, 200, 200)
    monkeypatch.setattr(synthetic_motion, "_OBJECTS", 1.0)
    clips = [
        moving_photographs(ground, figure, 3, 48, Generator().manual_seed(s)) for s in range(20)
    ]
    shares = torch.stack([c.mean((1, 2, 3)) for c in clips])
    assert (shares > 0.02).any(1).sum() >= 15
    assert (shares < 0.9).all()
    assert any(not torch.allclose(c[0], c[2], atol=0.1) for c in clips)


@pytest.mark.parametrize("extent", [16, 130])
def test_photographs_smaller_than_the_view_are_mirrored(extent):
    picture = photograph("coffee")[:, :100, :120]
    x = moving_photographs(picture, picture, 2, extent, Generator().manual_seed(0))
    assert x.shape == (2, 3, extent, extent)
    assert x.isfinite().all()
