import pytest
import torch
from lightning import Trainer
from skimage import data as photographs
from skimage.io import imsave

from nlden.data import ImageDataModule, noise2noise, noisy_real, supervised
from nlden.data.pairs import list_pairs
from nlden.encoders import UNet
from nlden.models import ImageDenoiser
from nlden.noise.estimation import estimate_levels
from nlden.tasks import ImageDenoising


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def scenes(tmp_path):
    """Thirty scenes, clean and shot twice with independent noise of level 20."""
    folders = [tmp_path / name for name in ("clean", "first", "second")]
    for folder in folders:
        folder.mkdir()
    for i in range(30):
        view = torch.from_numpy(photographs.astronaut()[i * 9 :][:48, 80:144].copy()).float()
        for k, folder in enumerate(folders):
            noise = torch.randn(view.shape, generator=generator(10 * i + k)) * (20 if k else 0)
            shot = (view + noise).round().clamp(0, 255).byte().numpy()
            imsave(folder / f"{i:02}.png", shot, check_contrast=False)
    return folders


def test_pairs_match_by_name_and_what_does_not_pair_is_named(scenes):
    clean, first, _ = scenes
    ((pairs),) = list_pairs([first], [clean])
    assert len(pairs) == 30
    assert all(a.name == b.name and a.parent == first and b.parent == clean for a, b in pairs)
    (clean / "29.png").unlink()
    with pytest.raises(ValueError, match="30 and 29"):
        list_pairs([first], [clean])
    with pytest.raises(ValueError, match="1 and 2 folders"):
        list_pairs([first], [clean, clean])


def test_shots_of_other_sizes_are_named(scenes):
    clean, first, _ = scenes
    imsave(clean / "03.png", photographs.cat()[:40, :64], check_contrast=False)
    module = ImageDataModule([first], partners=[clean], pairs=[supervised], crop=16)
    with pytest.raises(ValueError, match=r"03\.png 64x40"):
        module.setup("fit")


def test_either_shot_is_the_input():
    shots = torch.rand(200, 6, 8, 8, generator=generator())
    pair = noise2noise(shots, generator(1))
    got = torch.cat([pair["noisy"], pair["clean"]], dim=1)
    kept = (got == shots).flatten(1).all(1)
    turned = (got == torch.cat([shots[:, 3:], shots[:, :3]], dim=1)).flatten(1).all(1)
    assert (kept ^ turned).all()
    assert 70 < kept.sum() < 130


@pytest.mark.parametrize("maker", [supervised, noise2noise])
def test_a_training_on_pairs_sees_both_shots_and_validates_on_the_held_out(scenes, maker):
    clean, first, second = scenes
    seen = []

    class Watching(ImageDenoising):
        def training_step(self, batch, batch_idx):
            seen.append(batch)
            return super().training_step(batch, batch_idx)

    target = clean if maker is supervised else second
    module = ImageDataModule(
        [first], partners=[target], pairs=[maker], crop=32, batch_size=8, batches_per_epoch=4
    )
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Watching(ImageDenoiser(UNet((4, 4), (1, 1)))), module)
    assert trainer.callback_metrics["val/psnr/real"] > 10
    apart = torch.cat([b["noisy"] - b["clean"] for b in seen]).std().item() * 255
    assert apart == pytest.approx(20 if maker is supervised else 20 * 2**0.5, rel=0.1)
    told = torch.cat([b["sigma"] for b in seen]).mean().item() * 255
    assert told == pytest.approx(20, rel=0.15)
    assert len(list(module.val_dataloader())) == 1


def test_real_noise_is_told_as_it_would_be_found():
    clean = torch.from_numpy(photographs.astronaut()[:128, 100:228].copy()).permute(2, 0, 1)
    clean = clean.expand(6, -1, -1, -1) / 255
    kinds = set()
    for seed in range(6):
        pair = noisy_real(clean, generator(seed))
        assert torch.equal(pair["clean"], clean)
        assert torch.equal(pair["noisy"], noisy_real(clean, generator(seed))["noisy"])
        found = [estimate_levels([(x,)]).luma for x in pair["noisy"]]
        assert pair["sigma"][:, 0].tolist() == pytest.approx(found)
        # Blocks of JPEG: steps over their edges are larger than within.
        steps = (pair["noisy"] - clean).diff(dim=-1).abs().mean((0, 1, 2))
        kinds.add(bool(steps[7::8].mean() > 1.02 * steps[3::8].mean()))
    assert kinds == {True, False}
