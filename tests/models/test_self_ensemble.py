import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlden.encoders import UNet
from nlden.media.color import pack_yuv420
from nlden.models import ImageDenoiser
from nlden.models.self_ensemble import TURNS, self_ensemble, turned

orientations = st.integers(0, TURNS - 1)


def pictures(kind: str) -> torch.Tensor:
    shape = (2, 3, 12, 20) if kind == "rgb" else (2, 6, 6, 10)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@given(kind=st.sampled_from(["rgb", "yuv420"]), first=orientations, second=orientations)
def test_the_orientations_are_a_group(kind, first, second):
    x = pictures(kind)
    both = turned(turned(x, first), second)
    assert sum(torch.equal(turned(x, turn), both) for turn in range(TURNS)) == 1


@given(turn=orientations)
def test_stored_planes_turn_as_their_picture_does(turn):
    luma, chroma = torch.rand(1, 1, 8, 12), torch.rand(1, 2, 4, 6)
    expected = pack_yuv420(turned(luma.expand(-1, 3, -1, -1), turn)[:, :1], _pair(chroma, turn))
    assert torch.equal(turned(pack_yuv420(luma, chroma), turn), expected)


def _pair(chroma: torch.Tensor, turn: int) -> torch.Tensor:
    return turned(torch.cat([chroma, chroma[:, :1]], dim=1), turn)[:, :2]


@pytest.mark.parametrize("kind", ["rgb", "yuv420"])
def test_the_mean_over_all_orientations_turns_with_the_picture(kind):
    torch.manual_seed(0)
    network = ImageDenoiser(UNet((8, 8), (1, 1))).requires_grad_(False)
    x = pictures(kind).float()
    clean = self_ensemble(network, x, 0.2)
    assert torch.allclose(self_ensemble(network, x, 0.2, [0]), network(x, 0.2))
    assert not torch.allclose(clean, network(x, 0.2), atol=1e-3)
    for turn in range(TURNS):
        again = self_ensemble(network, turned(x, turn), 0.2)
        assert torch.allclose(again, turned(clean, turn), atol=1e-5)
