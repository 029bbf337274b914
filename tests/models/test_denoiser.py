import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from skimage import data as photographs
from torch.utils.flop_counter import FlopCounterMode

from nlden.encoders import UNet
from nlden.models import ImageDenoiser, image_denoiser_base
from nlden.models.pretrained import (
    Description,
    WeightsError,
    find,
    load,
    load_weights,
    read,
    save,
    shipped,
)

PHOTOGRAPH = torch.from_numpy(photographs.astronaut()[:128, 100:260]).permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module")
def base():
    return load("image-base")


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return ImageDenoiser(UNet((8, 12), (1, 1))).eval()


def psnr(x, y):
    return -10 * torch.log10((x - y).square().mean()).item()


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 3), st.integers(1, 35), st.integers(1, 35))
def test_any_size_is_taken(small, batch, height, width):
    x = torch.rand(batch, 3, height, width)
    assert small(x, 0.1).shape == x.shape
    packed = torch.rand(batch, 6, height, width)
    assert small(packed, 0.1).shape == packed.shape


def test_all_forms_of_a_level_agree(small):
    x = torch.rand(2, 3, 16, 24)
    expected = small(x, 0.1)
    for sigma in (
        torch.full((2,), 0.1),
        torch.full((2, 2), 0.1),
        torch.full((2, 2, 8, 12), 0.1),
        torch.tensor(0.1),
    ):
        assert torch.allclose(small(x, sigma), expected, atol=1e-6)
    assert not torch.allclose(small(x, torch.tensor([[0.1, 0.3]] * 2)), expected, atol=1e-6)


def test_pictures_of_a_batch_do_not_touch_each_other(small):
    x, sigma = torch.rand(3, 3, 16, 16), torch.tensor([0.1, 0.2, 0.3])
    alone = torch.cat([small(x[i : i + 1], sigma[i : i + 1]) for i in range(3)])
    assert torch.allclose(small(x, sigma), alone, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 1, 8, 8)])
def test_other_shapes_are_refused(small, shape):
    with pytest.raises(ValueError, match="expected"):
        small(torch.rand(shape), 0.1)


def test_reach_and_grid_are_the_truth(base):
    torch.manual_seed(0)
    x = torch.rand(1, 6, 320, 32)
    far = 32
    y = x.clone()
    y[:, :, far + base.reach + 1 :] = torch.rand_like(y[:, :, far + base.reach + 1 :])
    assert torch.equal(base(x, 0.1)[:, :, :far], base(y, 0.1)[:, :, :far])
    assert base.grid % base.body.stride == 0
    # A crop whose corner lies on the grid is the whole, beyond the reach of its border.
    crop = base(x[:, :, base.grid :], 0.1)[:, :, base.reach :]
    whole = base(x, 0.1)[:, :, base.grid + base.reach :]
    assert torch.allclose(crop, whole, atol=1e-5)


def test_the_cost_is_within_its_bound():
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        image_denoiser_base()(torch.rand(1, 6, 128, 128), 0.1)
    assert counter.get_total_flops() / 2 / 256**2 <= 160e3


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_shipped_weights_clean_rgb(base, sigma):
    noise = torch.randn(PHOTOGRAPH.shape, generator=torch.Generator().manual_seed(0))
    noisy = PHOTOGRAPH + noise * sigma / 255
    clean = base(noisy, sigma / 255).clamp(0, 1)
    assert psnr(clean, PHOTOGRAPH) > psnr(noisy, PHOTOGRAPH) + (5 if sigma == 15 else 7)


def test_a_clean_picture_stays_clean(base):
    assert psnr(base(PHOTOGRAPH, 0.0), PHOTOGRAPH) > 40


def test_weights_go_through_a_file(tmp_path, base):
    path = tmp_path / "w.safetensors"
    save(base, path, Description("image_denoiser_base", {}, "a card", {"use": "tests"}))
    description, _ = read(path)
    assert (description.card, description.facts) == ("a card", {"use": "tests"})
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(load(path)(x, 0.1), base(x, 0.1))
    other = image_denoiser_base()
    load_weights(other, path)
    assert torch.allclose(other(x, 0.1), base(x, 0.1), atol=1e-6)


@pytest.mark.parametrize("size", ["base", "fast"])
def test_shipped_weights_describe_themselves(size):
    name = f"image-{size}"
    description, tensors = read(name)
    assert name in shipped()
    assert find(name).stat().st_size < 8e6
    assert description.architecture == f"image_denoiser_{size}"
    assert {t.dtype for t in tensors.values()} == {torch.float16}


@pytest.mark.parametrize("case", ["missing", "damaged", "foreign", "unknown", "other"])
def test_unusable_weights_are_told_in_one_line(tmp_path, small, case):
    path = tmp_path / "w.safetensors"
    if case == "damaged":
        path.write_bytes(b"no weights")
    elif case == "foreign":
        save_file({"x": torch.zeros(1)}, path)
    elif case == "unknown":
        facts = {"architecture": "os.system", "arguments": json.dumps({})}
        save_file({"x": torch.zeros(1)}, path, facts)
    elif case == "other":
        save(small, path, Description("image_denoiser_base"))
    with pytest.raises(WeightsError) as caught:
        load(path)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
