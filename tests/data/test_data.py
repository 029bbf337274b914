import numpy as np
import pytest
import torch
from lightning import Trainer
from skimage import data as photographs
from skimage.io import imsave

from nlden.data import ImageDataModule
from nlden.data.augment import dihedral, draw_sigma, noisy_rgb, noisy_yuv420
from nlden.data.camera_motion import camera_motion
from nlden.data.images import ImageBank, list_images, read_rgb
from nlden.tasks import ImageDenoising


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty views of a photograph, each of its own."""
    path = tmp_path_factory.mktemp("photographs")
    for i in range(30):
        imsave(
            path / f"{i:02}.png", photographs.astronaut()[i * 8 : i * 8 + 48, i * 9 : i * 9 + 64]
        )
    return path


def test_crops_are_crops_and_follow_the_area():
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in ((8, 9), (24, 27))]
    crops = ImageBank(images).crops(300, 8, generator())
    views = [i.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4) for i in images]
    views = [v.reshape(-1, 3, 8, 8).float() / 255 for v in views]
    found = [sum(int((v == c).flatten(1).all(1).sum()) for c in crops) for v in views]
    assert sum(found) == 300
    assert found[0] / 300 == pytest.approx(1 / 10, abs=0.06)


def test_dihedral_makes_the_eight_ways():
    x = torch.arange(9.0).view(1, 1, 3, 3).expand(400, 1, 3, 3)
    turned = {tuple(t.flatten().tolist()) for t in dihedral(x, generator())}
    square = x[0, 0]
    expected = {
        tuple(torch.rot90(s, k).flatten().tolist())
        for s in (square, square.flip(0))
        for k in range(4)
    }
    assert turned == expected


def test_levels_lie_in_their_range_and_favour_the_middle():
    levels = draw_sigma(20_000, generator()) * 255
    assert 0 <= levels.min() < 2
    assert 75 < levels.max() <= 80
    assert ((levels > 5) & (levels < 55)).float().mean() > 0.9


def test_rgb_pairs_have_the_told_levels():
    clean = torch.full((64, 3, 64, 64), 0.5)
    pair = noisy_rgb(clean, generator())
    residual = pair["noisy"] - pair["clean"]
    mild = pair["sigma"].amax(1) < 0.15  # above, clipping takes a part of the noise
    luma = (residual * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1).std((1, 2))
    unit = (0.299**2 + 0.587**2 + 0.114**2) ** 0.5
    ratio = (luma / unit / pair["sigma"][:, 0])[mild & (pair["sigma"][:, 0] > 0.03)]
    # Noise made in another YCbCr leaks a little of its chroma into this luma.
    assert ((ratio - 1).abs() < 0.06).float().mean() > 0.8
    assert 0.85 < ratio.min() <= ratio.max() < 1.3
    assert torch.equal(pair["noisy"], noisy_rgb(clean, generator())["noisy"])


def test_packed_pairs_have_the_told_levels():
    clean = torch.full((64, 3, 64, 64), 0.5)
    pair = noisy_yuv420(clean, generator())
    residual = pair["noisy"] - pair["clean"]
    told = pair["sigma"]
    for channels, level in ((slice(0, 4), told[:, 0]), (slice(4, 6), told[:, 1])):
        measured = residual[:, channels].std((1, 2, 3))
        use = (level > 0.02) & (told[:, 0] < 0.12)
        assert (measured / level)[use].sub(1).abs().max() < 0.15
    grey = told[:, 1] == 0
    assert grey.any()
    assert residual[grey][:, 4:].abs().max() == 0


def test_batches_alternate_and_repeat_for_a_seed(folder):
    def batches(seed):
        seen = []

        class Watch(ImageDenoising):
            def training_step(self, batch, batch_idx):
                seen.append(batch["noisy"].clone())
                return super().training_step(batch, batch_idx)

        from nlden.encoders import UNet
        from nlden.models import ImageDenoiser

        module = ImageDataModule([folder], crop=32, batch_size=2, batches_per_epoch=4, seed=seed)
        trainer = Trainer(
            max_steps=4,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(Watch(ImageDenoiser(UNet((8, 8), (1, 1)))), module)
        return seen

    first, again, other = batches(1), batches(1), batches(2)
    assert [b.shape[1:] for b in first] == [(3, 32, 32), (6, 16, 16)] * 2
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[2])


def test_validation_is_held_out_and_fixed(folder):
    module = ImageDataModule([folder], crop=32)
    module.setup("fit")
    held_out = read_rgb(folder / "12.png")
    pairs = list(module.val_dataloader())
    assert [p["name"] for p in pairs] == [
        f"{k}/{s}" for s in (15, 25, 50) for k in ("rgb", "yuv420")
    ]
    assert torch.equal(pairs[0]["clean"][0], held_out[:, :48, :64].float() / 255)
    assert len(module._bank.sizes) == 29
    again = list(module.val_dataloader())
    assert all(torch.equal(a["noisy"], b["noisy"]) for a, b in zip(pairs, again, strict=True))


def test_tests_follow_the_protocol_of_the_literature(folder):
    module = ImageDataModule([], test_folders=[folder], test_sigmas=[25])
    module.setup("test")
    for i, (batch, path) in enumerate(
        zip(module.test_dataloader(), list_images(folder), strict=True)
    ):
        noise = torch.randn(3, 48, 64, generator=generator(i))
        expected = read_rgb(path).float() / 255 + noise * 25 / 255
        assert torch.equal(batch["noisy"][0], expected)


def test_grey_and_alpha_become_rgb(tmp_path):
    gray = photographs.camera()[:20, :30]
    imsave(tmp_path / "gray.png", gray)
    imsave(tmp_path / "alpha.png", np.dstack([gray] * 4))
    for name in ("gray.png", "alpha.png"):
        assert torch.equal(read_rgb(tmp_path / name), torch.from_numpy(gray).expand(3, -1, -1))


def test_missing_and_small_pictures_are_told(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="crop=256"):
        ImageDataModule([folder], crop=256).setup("fit")


def test_a_camera_that_stands_still_shows_one_frame():
    photograph = torch.from_numpy(photographs.cat()).permute(2, 0, 1) / 255
    still = camera_motion(photograph, 3, (64, 96), path=((0.0, 0.0), (0.0, 0.0)))
    assert still.shape == (3, 3, 64, 96)
    assert torch.allclose(still[0], photograph[:, :64, :96], atol=1e-3)
    assert torch.equal(still[0], still[2])
    moving = camera_motion(photograph, 3, (64, 96))
    assert not torch.allclose(moving[0], moving[1], atol=0.01)
    with pytest.raises(ValueError, match="size"):
        camera_motion(photograph, 3, (640, 96))
