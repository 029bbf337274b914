import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color as reference
from skimage import data as photographs

from nlden.media.color import NEUTRAL, YCbCr, halve, pack_yuv420, unpack_yuv420

ALL = [YCbCr(m, full_range=f) for m in ("bt601", "bt709", "bt2020") for f in (False, True)]
IDS = [f"{c.matrix}-{'full' if c.full_range else 'limited'}" for c in ALL]


@pytest.fixture(scope="module")
def photograph():
    return torch.from_numpy(photographs.astronaut()[:64, 200:280]).permute(2, 0, 1).double() / 255


def test_full_range_bt601_is_that_of_kornia(photograph):
    ours = YCbCr("bt601", full_range=True).from_rgb(photograph)
    theirs = kornia.color.rgb_to_ycbcr(photograph[None])[0]
    theirs[1:] += NEUTRAL - 0.5  # kornia's neutral lies between two codes
    assert torch.allclose(ours, theirs, atol=1e-3)  # its constants have three digits


def test_limited_range_bt601_is_that_of_scikit_image(photograph):
    theirs = reference.rgb2ycbcr(photograph.permute(1, 2, 0).numpy()) / 255
    ours = YCbCr("bt601").from_rgb(photograph).permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1e-5


# The rows as the recommendations print them, in four digits.
RECOMMENDED = {
    "bt601": [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]],
    "bt709": [[0.2126, 0.7152, 0.0722], [-0.1146, -0.3854, 0.5], [0.5, -0.4542, -0.0458]],
    "bt2020": [[0.2627, 0.6780, 0.0593], [-0.1396, -0.3604, 0.5], [0.5, -0.4598, -0.0402]],
}


@pytest.mark.parametrize("matrix", RECOMMENDED)
def test_matrices_have_the_constants_of_their_recommendations(matrix):
    expected = torch.tensor(RECOMMENDED[matrix], dtype=torch.float64)
    assert torch.allclose(YCbCr(matrix, full_range=True).weights(), expected, atol=6e-5)


@pytest.mark.parametrize("color", ALL, ids=IDS)
def test_white_black_and_the_purest_colours_take_the_codes_of_the_standard(color):
    black, white, span = (0, 255, 255) if color.full_range else (16, 235, 224)
    rgb = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]], dtype=torch.float64)
    codes = 255 * color.from_rgb(rgb.T[:, :, None])[:, :, 0].T
    assert codes[0].tolist() == pytest.approx([black, 128, 128], abs=1e-4)
    assert codes[1].tolist() == pytest.approx([white, 128, 128], abs=1e-4)
    assert codes[2, 1].item() == pytest.approx(128 + span / 2, abs=1e-4)  # blue has the largest Cb
    assert codes[3, 2].item() == pytest.approx(128 + span / 2, abs=1e-4)  # red the largest Cr


@pytest.mark.parametrize("color", ALL, ids=IDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-7)])
def test_conversion_and_back_is_the_identity(color, dtype, tolerance):
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert (color.to_rgb(color.from_rgb(x)) - x).abs().max() < tolerance
    assert color.from_rgb(x).dtype == dtype
    assert torch.allclose(color.from_rgb(x)[1], color.from_rgb(x[1]))


def test_another_matrix_is_named():
    with pytest.raises(ValueError, match="bt470"):
        YCbCr("bt470")


def test_the_levels_of_video_are_the_known_ones():
    luma, chroma = YCbCr("bt709").plane_levels(25, averaged=4)
    assert luma == pytest.approx(16.1, abs=0.05)
    assert chroma == pytest.approx(7.2, abs=0.05)


@pytest.mark.parametrize("color", ALL, ids=IDS)
def test_noise_comes_through_the_matrix_at_the_told_levels(color):
    noise = torch.randn(1, 3, 400, 400, generator=torch.Generator().manual_seed(0))
    planes = color.from_rgb(noise) - color.offsets()[:, None, None]
    wide, halved = color.plane_levels(1.0), color.plane_levels(1.0, averaged=4)
    assert planes[:, 0].std().item() == pytest.approx(wide[0], rel=0.01)
    root = planes[:, 1:].square().mean().sqrt().item()
    assert root == pytest.approx(wide[1], rel=0.01)
    assert halve(planes[:, 1:]).square().mean().sqrt().item() == pytest.approx(halved[1], rel=0.02)
    assert halved[1] == pytest.approx(wide[1] / 2)


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    seed=st.integers(0, 9),
)
def test_packed_planes_come_back(batch, size, seed):
    generator = torch.Generator().manual_seed(seed)
    half = tuple(-(-s // 2) for s in size)
    luma = torch.rand(batch, 1, *size, generator=generator)
    chroma = torch.rand(batch, 2, *half, generator=generator)
    packed = pack_yuv420(luma, chroma)
    assert packed.shape == (batch, 6, *half)
    back = unpack_yuv420(packed, size)
    assert torch.equal(back[0], luma)
    assert torch.equal(back[1], chroma)


def test_the_phases_lie_in_reading_order_and_the_border_is_repeated():
    luma = torch.arange(15.0).view(1, 1, 3, 5)
    packed = pack_yuv420(luma, torch.zeros(1, 2, 2, 3))
    rows, columns = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 3, 4, 4])
    even = luma[0, 0][rows][:, columns]
    for phase in range(4):
        assert torch.equal(packed[0, phase], even[phase // 2 :: 2, phase % 2 :: 2])
