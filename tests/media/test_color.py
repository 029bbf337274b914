import kornia
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlden.media.color import NEUTRAL, YCbCr, pack_yuv420, unpack_yuv420

COLORS = [YCbCr(m, full_range=f) for m in ("bt601", "bt709", "bt2020") for f in (False, True)]


@pytest.mark.parametrize("color", COLORS, ids=str)
def test_there_and_back(color):
    rgb = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    assert torch.allclose(color.to_rgb(color.from_rgb(rgb)), rgb, atol=1e-6)


@pytest.mark.parametrize("color", COLORS, ids=str)
def test_black_white_and_grey(color):
    luma = color.from_rgb(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    black, white = (0.0, 1.0) if color.full_range else (16 / 255, 235 / 255)
    assert luma[:, 0].flatten().tolist() == pytest.approx([black, white])
    assert luma[:, 1:].flatten().tolist() == pytest.approx([NEUTRAL] * 4)


def test_full_range_bt601_is_that_of_kornia():
    rgb = torch.rand(1, 3, 4, 4)
    ours = YCbCr("bt601", full_range=True).from_rgb(rgb)
    theirs = kornia.color.rgb_to_ycbcr(rgb)
    ours[:, 1:] += 0.5 - NEUTRAL
    assert torch.allclose(ours, theirs, atol=2e-3)  # kornia rounds its constants


def test_levels_of_the_planes():
    luma, chroma = YCbCr("bt709").plane_levels(25, averaged=4)
    assert luma == pytest.approx(16.1, abs=0.05)
    assert chroma == pytest.approx(7.24, abs=0.05)


def test_an_unknown_matrix_is_told():
    with pytest.raises(ValueError, match="bt999"):
        YCbCr("bt999")


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9))
def test_packing_keeps_every_sample(height, width):
    luma = torch.rand(1, 1, height, width)
    chroma = torch.rand(1, 2, (height + 1) // 2, (width + 1) // 2)
    packed = pack_yuv420(luma, chroma)
    assert packed.shape[1] == 6
    back = unpack_yuv420(packed, (height, width))
    assert torch.equal(back[0], luma)
    assert torch.equal(back[1], chroma)
