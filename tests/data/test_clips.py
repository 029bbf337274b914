from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from skimage import data as photographs
from skimage.io import imsave
from torch import Generator
from torch.nn import functional as F

from nlden.data import ClipDataModule
from nlden.data.augment import noisy_real_clips, noisy_rgb, noisy_yuv420
from nlden.data.camera_motion import camera_motion
from nlden.data.clips import gaussian_clip, list_clips, pair_frames, read_clip


def frames(count: int, size: tuple[int, int], turn: float = 0.0) -> np.ndarray:
    picture = torch.from_numpy(photographs.coffee()).permute(2, 0, 1) / 255
    clip = camera_motion(picture, count, size, turn=turn)
    return (clip * 255).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A lossless video, a folder of frames, a folder with another video; and photographs."""
    root = tmp_path_factory.mktemp("sets")
    (root / "clips" / "b_frames").mkdir(parents=True)
    (root / "clips" / "c_more").mkdir()
    for i, frame in enumerate(frames(12, (96, 112))):
        imsave(root / "clips" / "b_frames" / f"{i:03d}.png", frame)
    for name, count in (("a.mkv", 14), ("c_more/d.mkv", 9), ("e.mkv", 9), ("f.mkv", 9)):
        with av.open(str(root / "clips" / name), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 80, "bgr0"
            stream.time_base = Fraction(1, 25)
            for i, array in enumerate(frames(count, (80, 96), turn=4)):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    (root / "clips" / "notes.txt").write_text("no clip")
    (root / "photographs").mkdir()
    for name in ("astronaut", "cat"):
        imsave(root / "photographs" / f"{name}.png", getattr(photographs, name)())
    return root


def module(sets, **arguments) -> ClipDataModule:
    defaults = {"reduce": 2, "frames": 4, "crop": 32, "batch_size": 3}
    data = ClipDataModule([sets / "clips"], [sets / "photographs"], **(defaults | arguments))
    data.setup("fit")
    return data


def test_clips_are_files_and_folders_of_frames(sets):
    names = [p.name for p in list_clips(sets / "clips")]
    assert names == ["a.mkv", "b_frames", "d.mkv", "e.mkv", "f.mkv"]
    with pytest.raises(FileNotFoundError, match="no clip"):
        list_clips(sets / "photographs" / "nothing")


def test_clips_are_read_as_they_are_and_reduced(sets):
    video = read_clip(sets / "clips" / "a.mkv")
    expected = torch.from_numpy(frames(14, (80, 96), turn=4)).permute(0, 3, 1, 2)
    assert torch.equal(video, expected)
    folder = read_clip(sets / "clips" / "b_frames", 2, 5)
    assert folder.shape == (5, 3, 48, 56)
    whole = torch.from_numpy(frames(12, (96, 112))[:5]).permute(0, 3, 1, 2).float()
    assert torch.equal(folder, F.avg_pool2d(whole, 2).round().byte())


def test_frames_of_several_sizes_are_refused(tmp_path):
    for i, size in enumerate(((40, 40), (40, 48))):
        imsave(tmp_path / f"{i}.png", frames(1, size)[0])
    with pytest.raises(ValueError, match="differs from the first in size"):
        read_clip(tmp_path)


def test_a_batch_depends_on_seed_and_number_alone(sets):
    first, second = module(sets), module(sets)
    device = torch.device("cpu")
    for number in (7, 0):
        a, b = first.make(number, device), second.make(number, device)
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(first.make(0, device)["clean"], first.make(2, device)["clean"])
    other = module(sets, seed=1).make(0, device)
    assert not torch.equal(other["clean"], first.make(0, device)["clean"])


@pytest.mark.parametrize("synthetic", [0.0, 1.0])
def test_batches_take_turns_between_planes_and_rgb(sets, synthetic):
    data = module(sets, synthetic=synthetic)
    rgb, planes = (data.make(i, torch.device("cpu")) for i in range(2))
    assert rgb["noisy"].shape == rgb["clean"].shape == (3, 3, 4, 32, 32)
    assert planes["noisy"].shape == planes["clean"].shape == (3, 6, 4, 16, 16)
    assert rgb["sigma"].shape == (3, 2)


def coded_clip(frames: int, number: int) -> torch.Tensor:
    """A clip whose pixels tell their row, their column, and their frame and clip."""
    rows, columns = torch.meshgrid(torch.arange(50), torch.arange(60), indexing="ij")
    time = (torch.arange(frames) + 20 * number).view(-1, 1, 1).expand(-1, 50, 60)
    planes = [rows.expand(frames, -1, -1), columns.expand(frames, -1, -1), time]
    return torch.stack(planes, dim=1).byte()


def test_clips_are_cropped_in_their_order_without_change(sets):
    data = module(sets, synthetic=0.0, batch_size=4)
    data._clips = [coded_clip(14, 0), coded_clip(6, 1)]
    cuts = 0
    for number in range(0, 40, 2):
        clean = data.make(number, torch.device("cpu"))["clean"] * 255
        for clip in clean.round().int():
            rows, columns, time = clip
            # Turned or not: one step along one axis, none along the other.
            for place in (rows, columns):
                steps = [place.diff(dim=d).abs().unique().tolist() for d in (1, 2)]
                assert sorted(steps) == [[0], [1]]
            (numbers,) = time.flatten(1).unique(dim=1).T
            same = (numbers // 20).unique().numel() == 1 and (rows == rows[0]).all()
            cuts += not same
            if same:
                assert numbers.diff().unique().tolist() in ([1], [2], [-1], [-2])
    assert 0 < cuts < 16


def test_drawings_are_filmed_like_photographs(sets):
    """Alone, and beside photographs: what is drawn has areas that are flat, which cats have not."""

    def flat(folders, drawings: int) -> float:
        data = ClipDataModule(
            [sets / "clips"], folders, drawings=drawings, frames=4, crop=32, synthetic=1.0
        )
        data.setup("fit")
        clean = torch.cat([data.make(i, torch.device("cpu"))["clean"] for i in (0, 2, 4, 6)])
        return float((clean.diff(dim=4).abs() < 1e-6).float().mean())

    photographs = [sets / "photographs"]
    alone, none, both = flat([], 9), flat(photographs, 0), flat(photographs, 9)
    assert alone > both > none
    assert alone > 0.3 > 0.1 > none


def test_drawings_are_validated_on_apart(sets):
    """Others than those of training, the same for every seed; without drawings none."""

    def validation(**arguments) -> list:
        data = ClipDataModule([sets / "clips"], test_sigmas=(30,), **arguments)
        data.setup("validate")
        return list(data.val_dataloader())

    none, some, again = validation(), validation(drawings=1), validation(drawings=5, seed=7)
    assert [b["name"] for b in none] == ["rgb/30", "yuv420/30"]
    names = [b["name"] for b in some]
    assert names == ["rgb/30", "yuv420/30", *["drawn/rgb/30", "drawn/yuv420/30"] * 3]
    for a, b in zip(some, again, strict=True):
        assert torch.equal(a["noisy"], b["noisy"])
    clean = [b["clean"] for b in some if b["name"] == "drawn/rgb/30"]
    assert [c.shape for c in clean] == [(1, 3, 8, 160, 160)] * 3
    assert all(float(c.diff(dim=2).abs().mean()) > 0 for c in clean)
    other = validation(drawings=1, val_pairs=[noisy_rgb])
    assert [b["name"] for b in other] == ["noisy_rgb", *["drawn/noisy_rgb"] * 3]


@pytest.mark.parametrize("pairs", [noisy_rgb, noisy_yuv420])
def test_frames_have_one_level_and_noise_of_their_own(pairs):
    clip = torch.full((2, 5, 3, 64, 64), 0.5)
    made = pair_frames(pairs, clip, Generator().manual_seed(3))
    noise = made["noisy"] - made["clean"]
    luma = noise[:, :4] if noise.shape[1] == 6 else noise
    levels = luma.std((1, 3, 4))
    assert (levels / levels.mean(1, keepdim=True) - 1).abs().max() < 0.1
    a, b = luma[:, :, 0].flatten(1), luma[:, :, 1].flatten(1)
    both = torch.stack([a, b], dim=1)
    correlation = torch.stack([torch.corrcoef(pair)[0, 1] for pair in both])
    assert correlation.abs().max() < 0.06


def test_validation_is_fixed_and_kept_out_of_training(sets):
    data = module(sets, synthetic=0.0)
    a, b = list(data.val_dataloader()), list(data.val_dataloader())
    assert [x["name"] for x in a] == ["rgb/30", "yuv420/30", "rgb/50", "yuv420/50"] * (len(a) // 4)
    assert all(torch.equal(x["noisy"], y["noisy"]) for x, y in zip(a, b, strict=True))
    assert a[0]["noisy"].shape == (1, 3, 8, *a[0]["clean"].shape[3:])


def test_a_training_may_follow_a_validation(sets):
    data = ClipDataModule([sets / "clips"], reduce=2, frames=4, crop=32, batch_size=3)
    data.setup("validate")
    data.setup("fit")
    assert data.make(0, torch.device("cpu"))["clean"].shape[0] == 3


@pytest.mark.parametrize("size", [(96, 64), (64, 96)])
def test_clips_of_any_form_are_validated_on(tmp_path, size):
    (tmp_path / "a").mkdir()
    for i, frame in enumerate(frames(3, size)):
        imsave(tmp_path / "a" / f"{i}.png", frame)
    for name in "bcdef":
        (tmp_path / name).symlink_to(tmp_path / "a")
    data = ClipDataModule([tmp_path], reduce=1, val_pairs=[noisy_real_clips])
    data.setup("validate")
    (batch,) = data.val_dataloader()
    assert batch["clean"].shape == (1, 3, 3, 64, 64)


def test_noise_of_tests_follows_the_protocol():
    clip = torch.full((3, 3, 8, 8), 128, dtype=torch.uint8)
    made = gaussian_clip(clip, 50, 4)
    noise = torch.randn(1, 3, 3, 8, 8, generator=Generator().manual_seed(4)) * 50 / 255
    assert torch.allclose(made["noisy"] - made["clean"], noise, atol=1e-6)
    assert made["noisy"].min() < 0.2


def test_impossible_arguments_are_refused(sets):
    with pytest.raises(ValueError, match="synthetic=2"):
        ClipDataModule([sets / "clips"], synthetic=2)
    with pytest.raises(ValueError, match="drawings=-1"):
        ClipDataModule([sets / "clips"], drawings=-1)
    with pytest.raises(ValueError, match="crop=512"):
        module(sets, crop=512, synthetic=0.5)
