import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from skimage import data as photographs
from skimage.io import imsave

from nlden.data import ImageDataModule, noisy_rgb, noisy_yuv420
from nlden.data.crops import list_images, read_rgb
from nlden.encoders import UNet
from nlden.media.color import YCbCr
from nlden.models import ImageDenoiser
from nlden.tasks import ImageDenoising

EXTENT = 32


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of views, each as large as a training crop: 30 and 12 of them."""
    paths = []
    for picture, count in ((photographs.astronaut(), 30), (photographs.cat(), 12)):
        path = tmp_path_factory.mktemp("photographs")
        for i in range(count):
            view = picture[i * 7 :][:EXTENT, 60 + i * 8 :][:, :EXTENT]
            imsave(path / f"{i:02}.png", view, check_contrast=False)
        paths.append(path)
    return paths


class Watching(ImageDenoising):
    def __init__(self):
        super().__init__(ImageDenoiser(UNet((4, 4), (1, 1))))
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append({k: v.clone() for k, v in batch.items()})
        return super().training_step(batch, batch_idx)


@pytest.fixture
def train():
    """Return a function that trains on a data module and returns its batches."""

    def run(module, steps, **arguments):
        task = Watching()
        trainer = Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **arguments,
        )
        trainer.fit(task, module)
        return task.batches

    return run


def test_pairs_take_turns_and_batches_repeat_for_a_seed(folders, train):
    def batches(**arguments):
        module = ImageDataModule(folders, crop=16, batch_size=3, batches_per_epoch=2, **arguments)
        return train(module, 5, limit_val_batches=0)

    first, again, other = batches(seed=1), batches(seed=1), batches(seed=2)
    assert [b["noisy"].shape for b in first] == [(3, 3, 16, 16), (3, 6, 8, 8)] * 2 + [
        (3, 3, 16, 16)
    ]
    assert all(torch.equal(a[k], b[k]) for a, b in zip(first, again, strict=True) for k in a)
    assert not torch.equal(first[0]["clean"], other[0]["clean"])
    assert not torch.equal(first[0]["clean"], first[2]["clean"])


def test_a_maker_named_twice_has_twice_the_share(folders, train):
    makers = [noisy_rgb, noisy_yuv420, noisy_rgb]
    module = ImageDataModule(folders, crop=16, batch_size=1, pairs=makers)
    shapes = [b["noisy"].shape[1] for b in train(module, 6, limit_val_batches=0)]
    assert shapes == [3, 6, 3] * 2


# Each worker loads torch and Lightning.
@pytest.mark.parametrize(
    ("hold", "workers"),
    [
        ("memory", 0),
        ("disk", 0),
        ("disk", 1),
        pytest.param("disk", 2, marks=pytest.mark.slow),
    ],
)
def test_batches_do_not_depend_on_where_pictures_are_held(folders, train, tmp_path, hold, workers):
    def batches(**arguments):
        module = ImageDataModule(
            folders,
            drawings=1,  # as large as 256 of the photographs
            crop=16,
            batch_size=2,
            batches_per_epoch=2,
            rescale=1.5,
            jitter=0.2,
            **arguments,
        )
        return train(module, 4, limit_val_batches=0)

    expected = batches()
    got = batches(hold=hold, workers=workers, cache=tmp_path)
    for a, b in zip(expected, got, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_resumed_training_goes_on_with_the_next_batch(folders, tmp_path):
    def run(folder, steps, **arguments):
        task = Watching()
        trainer = Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[ModelCheckpoint(tmp_path / folder, save_last=True, every_n_train_steps=1)],
        )
        module = ImageDataModule(folders, crop=16, batch_size=2, batches_per_epoch=3)
        trainer.fit(task, module, **arguments)
        return task.batches

    whole = run("whole", 7)
    parts = run("first", 4) + run("then", 7, ckpt_path=tmp_path / "first" / "last.ckpt")
    assert len(parts) == 7
    assert all(torch.equal(a["noisy"], b["noisy"]) for a, b in zip(whole, parts, strict=True))


def test_accumulated_batches_differ(folders, train):
    # The step does not advance between the batches whose gradients are added up.
    module = ImageDataModule(folders, crop=16, batch_size=2, batches_per_epoch=4)
    first, second, *_ = train(module, 2, accumulate_grad_batches=2, limit_val_batches=0)
    assert not torch.equal(first["noisy"], second["noisy"])


def fingerprints(crops):
    """What turning and mirroring keep of whole pictures: their sorted codes."""
    codes = (crops * 255).round().long().flatten(1).sort(1).values
    return {tuple(c.tolist()) for c in codes}


def test_what_is_held_out_is_never_trained_on(folders, train):
    files = [list_images(f) for f in folders]
    held_out = [folder[12] for folder in files if len(folder) > 12]
    assert len(held_out) == 1  # the smaller folder has nothing to spare
    pictures = {p: read_rgb(p)[None].float() / 255 for folder in files for p in folder}
    module = ImageDataModule(folders, crop=EXTENT, batch_size=64, batches_per_epoch=5)
    batches = train(module, 5)
    seen = set().union(*(fingerprints(b["clean"]) for b in batches[::2]))
    marks = {p: fingerprints(x) for p, x in pictures.items()}
    assert all(marks[p].isdisjoint(seen) for p in held_out)
    trained = set().union(*(m for p, m in marks.items() if p not in held_out))
    assert seen <= trained
    assert len(seen) > 0.9 * len(trained)


def test_validation_shows_the_held_out_at_each_level_with_fixed_noise(folders):
    module = ImageDataModule(folders, crop=EXTENT, test_sigmas=[10, 40.5])
    module.setup("validate")
    pairs, again = list(module.val_dataloader()), list(module.val_dataloader())
    assert [p["name"] for p in pairs] == ["rgb/10", "yuv420/10", "rgb/40.5", "yuv420/40.5"]
    assert all(torch.equal(p["noisy"], q["noisy"]) for p, q in zip(pairs, again, strict=True))
    for sigma, rgb, stored in ((10, *pairs[:2]), (40.5, *pairs[2:])):
        residual = rgb["noisy"] - rgb["clean"]
        assert residual.std().item() == pytest.approx(sigma / 255, rel=0.04)
        assert rgb["sigma"].tolist() == [[pytest.approx(sigma / 255)] * 2]
        told = YCbCr("bt709").plane_levels(sigma / 255, averaged=4)
        assert stored["sigma"][0].tolist() == pytest.approx(told)
        for planes in (stored["noisy"], stored["clean"]):
            codes = planes * 255
            assert torch.allclose(codes, codes.round(), atol=1e-3)
    assert (pairs[1]["noisy"] - pairs[1]["clean"])[:, :4].std().item() == pytest.approx(
        pairs[1]["sigma"][0, 0].item(), rel=0.06
    )


def test_drawings_are_trained_and_validated_on_apart(folders):
    """What is drawn has areas that are flat, which photographs have not; others are held out."""

    def flat(**arguments):
        module = ImageDataModule(
            folders, crop=EXTENT, batch_size=32, pairs=[noisy_rgb], **arguments
        )
        module.setup("fit")
        clean = module.make(0, torch.device("cpu"))["clean"]
        return float((clean.diff(dim=3).abs() < 1e-6).float().mean())

    assert flat(drawings=2) > 0.3 > 0.2 > flat()

    def validation(**arguments):
        module = ImageDataModule(folders, crop=EXTENT, test_sigmas=[25], **arguments)
        module.setup("validate")
        return list(module.val_dataloader())

    some, again = validation(drawings=1), validation(drawings=3, seed=5)
    names = [b["name"] for b in some]
    assert names == ["rgb/25", "yuv420/25", *["drawn/rgb/25", "drawn/yuv420/25"] * 4]
    assert all(torch.equal(a["noisy"], b["noisy"]) for a, b in zip(some, again, strict=True))
    assert [b["name"] for b in validation()] == names[:2]
    other = validation(drawings=1, val_pairs=[noisy_rgb])
    assert [b["name"] for b in other] == ["noisy_rgb", *["drawn/noisy_rgb"] * 4]
    shots = {"val_folders": folders[1:], "val_partners": folders[1:]}
    names = [b["name"] for b in validation(drawings=1, val_pairs=[noisy_rgb], **shots)]
    assert names == [*["real"] * 12, *["drawn/noisy_rgb"] * 4]


def test_test_batches_follow_the_protocol(folders):
    module = ImageDataModule([], test_folders=folders, test_sigmas=[15, 50])
    module.setup("test")
    batches = list(module.test_dataloader())
    expected = [
        (f"{folder.name}/{sigma}", sigma, i, path)
        for folder in folders
        for sigma in (15, 50)
        for i, path in enumerate(sorted(folder.iterdir()))
    ]
    assert len(batches) == len(expected)
    for batch, (name, sigma, i, path) in zip(batches, expected, strict=True):
        clean = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1) / 255
        noise = torch.randn(clean.shape, generator=generator(i))
        assert batch["name"] == name
        assert torch.equal(batch["clean"][0], clean)
        assert torch.allclose(batch["noisy"][0], clean + noise * (sigma / 255), atol=1e-6)


def test_pictures_that_are_smaller_than_a_crop_are_passed_over(tmp_path, folders):
    imsave(tmp_path / "small.png", photographs.cat()[: EXTENT - 1, :200])
    imsave(tmp_path / "large.png", photographs.cat()[:EXTENT, :40])
    module = ImageDataModule([tmp_path], crop=EXTENT)
    module.setup("fit")
    assert module._crops.pictures.sizes.tolist() == [[EXTENT, 40]]
    with pytest.raises(ValueError, match=f"crop={EXTENT + 8}"):
        ImageDataModule([tmp_path], crop=EXTENT + 8).setup("fit")


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_missing_folder_is_named(tmp_path, stage):
    module = ImageDataModule([tmp_path / "gone"], test_folders=[tmp_path / "gone"])
    with pytest.raises(FileNotFoundError, match="gone"):
        module.setup(stage)
        list(module.test_dataloader())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"rescale": 0.5}, "rescale=0.5"),
        ({"jitter": 1.0}, "jitter=1.0"),
        ({"pairs": []}, "pairs"),
        ({"workers": 2}, "workers=2"),
        ({"drawings": -1}, "drawings=-1"),
        ({"drawings": 1, "partners": ["shots"]}, "drawings=1"),
    ],
)
def test_impossible_arguments_are_named(folders, arguments, word):
    with pytest.raises(ValueError, match=word):
        ImageDataModule(folders, **arguments)
