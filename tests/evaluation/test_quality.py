import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Generator, nn
from torch.nn import functional as F
from torchmetrics.functional.image import lpips as lpips_of_torchmetrics

import nlden
from nlden.evaluation.quality import (
    NOISY,
    Row,
    evaluate,
    network,
    pairs,
    summarise,
    synthetic,
)
from nlden.evaluation.report import Sample, most_detail, write_report
from nlden.jobs.denoise import open_denoiser
from nlden.metrics import compare_pictures, open_lpips

NAMES = ("coffee", "astronaut", "cat")


def view(name, top=40, left=60, size=(48, 64)):
    return getattr(photographs, name)()[top : top + size[0], left : left + size[1]]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "clean"
    path.mkdir()
    for name in NAMES:
        Image.fromarray(view(name)).save(path / f"{name}.png")
    return path


def blur(noisy, sigma):
    return torch.from_numpy(gaussian(noisy.numpy(), 1, channel_axis=0))


def ssim(picture, clean):
    return structural_similarity(
        clean,
        picture,
        channel_axis=0,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def test_the_protocol_is_that_of_the_literature(folder):
    measured = list(evaluate(synthetic(folder, [15 / 255, 50 / 255], 7, None), {"blur": blur}))
    rows = [row for m in measured for row in m.rows]
    expected = []
    for sigma in (15, 50):
        for i, name in enumerate(sorted(NAMES)):
            clean = view(name).transpose(2, 0, 1).astype(np.float32) / 255
            noise = torch.randn(3, 48, 64, generator=Generator().manual_seed(7 + i)).numpy()
            noisy = clean + noise * np.float32(sigma / 255)
            smooth = gaussian(noisy, 1, channel_axis=0).clip(0, 1)
            for method, picture in ((NOISY, noisy), ("blur", smooth)):
                psnr = peak_signal_noise_ratio(clean, picture, data_range=1)
                key = (f"{name}.png", f"{sigma}", method)
                expected.append((key, psnr, ssim(picture, clean)))
    assert [(r.image, r.noise, r.method) for r in rows] == [key for key, *_ in expected]
    assert [r.psnr for r in rows] == pytest.approx([p for _, p, _ in expected], abs=1e-3)
    assert [r.ssim for r in rows] == pytest.approx([s for *_, s in expected], abs=1e-4)
    assert [r.sigma for r in rows] == pytest.approx([float(r.noise) for r in rows])


def test_every_method_gets_the_same_picture_and_is_clipped(folder):
    seen = []

    def note(noisy, sigma):
        seen.append((noisy.clone(), sigma))
        return noisy

    (measured,) = evaluate(synthetic(folder, [0.4], 0, 1), {"a": note, "b": note})
    (first, told), (second, _) = seen
    assert told == 0.4
    assert first.equal(second)
    assert first.equal(measured.outputs[NOISY])
    assert first.min() < 0  # the noisy picture is not
    assert measured.outputs["a"].equal(first.clamp(0, 1))


@pytest.mark.parametrize("gray", [False, True])
def test_a_network_runs_as_it_does_for_users(gray, folder):
    denoiser = open_denoiser("image-fast", torch.device("cpu"), "fp32", None)
    cases = synthetic(folder, [25 / 255], 0, 1)
    (measured,) = evaluate(cases, {"net": network(denoiser)}, gray=gray)
    noisy = measured.outputs[NOISY]
    assert len(noisy) == (1 if gray else 3)
    user = nlden.denoise(noisy, 25 / 255, model="image-fast", device="cpu", precision="fp32")
    torch.testing.assert_close(measured.outputs["net"], user.clamp(0, 1), atol=1e-5, rtol=0)
    before, after = measured.rows
    assert after.psnr > before.psnr + 5


def test_grey_is_the_luma_in_8_bits_with_noise_of_its_own(folder):
    (case,) = synthetic(folder, [0.1], 3, 1)
    clean, noisy, _ = case.read(gray=True)
    rgb = view("astronaut").astype(np.float64)
    luma = rgb @ [0.299, 0.587, 0.114]
    assert clean.shape == (1, 48, 64)
    assert np.abs(255 * clean[0].numpy() - luma).max() < 0.501
    noise = 0.1 * torch.randn(1, 48, 64, generator=Generator().manual_seed(3))
    torch.testing.assert_close(noisy, clean + noise)


def test_real_pairs_are_matched_in_order_and_their_noise_estimated(folder, tmp_path):
    other = tmp_path / "noisy"
    other.mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        noisy = view(name) + 20 * rng.standard_normal((48, 64, 3))
        codes = noisy.round().clip(0, 255).astype(np.uint8)
        Image.fromarray(codes).save(other / f"{name}_real.png")
    told = [case.read(gray=False)[2] for case in pairs(folder, other, None, None)]
    assert [255 * sigma for sigma in told] == pytest.approx([20] * 3, rel=0.25)
    cases = pairs(folder, other, 12 / 255, 2)
    measured = list(evaluate(cases, {"blur": blur}))
    assert [r.sigma for m in measured for r in m.rows] == pytest.approx([12] * 4)
    for m, name in zip(measured, sorted(NAMES), strict=False):
        stored = np.asarray(Image.open(other / f"{name}_real.png"))
        row = m.rows[0]
        assert (row.noise, row.method, row.image) == ("real", NOISY, f"{name}.png")
        assert row.psnr == pytest.approx(peak_signal_noise_ratio(view(name), stored), abs=1e-3)

    with pytest.raises(ValueError, match="the same pixels"):
        pairs(folder, folder, None, None)[0].read(gray=False)
    Image.fromarray(view("cat")[:40]).save(other / "cat_real.png")
    with pytest.raises(ValueError, match=r"cat_real\.png: not of the size"):
        pairs(folder, other, None, None)[1].read(gray=False)
    (other / "cat_real.png").unlink()
    with pytest.raises(ValueError, match="2 pictures for the 3"):
        pairs(folder, other, None, None)


def test_small_pictures_are_refused(tmp_path):
    Image.fromarray(view("cat", size=(31, 50))).save(tmp_path / "small.png")
    (case,) = synthetic(tmp_path, [0.1], 0, None)
    with pytest.raises(ValueError, match=r"small\.png: 50x31 pixels; 32 a side are needed"):
        case.read(gray=False)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 999),
    channels=st.sampled_from([1, 3]),
    height=st.integers(32, 50),
    width=st.integers(32, 50),
    contrast=st.floats(0.05, 1),
)
def test_psnr_and_ssim_are_what_scikit_image_computes(seed, channels, height, width, contrast):
    draw = torch.rand((2, channels, height, width), generator=Generator().manual_seed(seed))
    clean = F.avg_pool2d(draw[0], 5, 1, 2)
    picture = clean + contrast * (draw[1] - 0.5)
    psnr, similarity, distance = compare_pictures(picture, clean)
    a, b = clean.double().numpy(), picture.double().numpy()
    assert psnr == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-3)
    assert similarity == pytest.approx(ssim(b, a), abs=2e-4)
    assert distance is None


def test_lpips_is_measured_where_alexnet_lies_and_never_downloaded(tmp_path, monkeypatch):
    from torchvision.models import AlexNet_Weights, alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert open_lpips() is None
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in alexnet().state_dict().items()}
    generator = Generator().manual_seed(0)
    state = {
        # Zeros that take no space where LPIPS does not look.
        k: 0.05 * torch.randn(s, generator=generator)
        if "features" in k
        else torch.zeros(1).expand(s)
        for k, s in shapes.items()
    }
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / AlexNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2])
    lpips = open_lpips()
    clean = torch.from_numpy(view("cat")).permute(2, 0, 1) / 255
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=generator)
    *_, distance = compare_pictures(noisy, clean, lpips)

    path = lpips_of_torchmetrics.__file__.replace("lpips.py", "lpips_models/alex.pth")
    weights = torch.load(path, map_location="cpu")
    x = torch.stack([noisy.clamp(0, 1), clean]) * 2 - 1
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])[..., None, None]
    x = (x - shift) / scale
    conv = lambda x, i, **how: F.conv2d(  # noqa: E731
        x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], **how
    ).relu()
    pool = nn.MaxPool2d(3, 2)
    maps = [conv(x, 0, stride=4, padding=2)]
    maps.append(conv(pool(maps[-1]), 3, padding=2))
    maps.append(conv(pool(maps[-1]), 6, padding=1))
    maps += [y := conv(maps[-1], 8, padding=1), conv(y, 10, padding=1)]
    expected = 0.0
    for i, features in enumerate(maps):
        unit = F.normalize(features, dim=1)
        weight = weights[f"lin{i}.model.1.weight"]
        expected += float(((unit[:1] - unit[1:]).square() * weight).sum(1).mean())
    assert distance == pytest.approx(expected, rel=1e-3)
    assert compare_pictures(clean[:1], clean[:1], lpips)[2] == pytest.approx(0, abs=1e-6)
    small = torch.rand(3, 32, 32, generator=generator)
    assert compare_pictures(1 - small, small, lpips)[2] > 0


def test_summaries_are_means_over_the_pictures():
    rng = np.random.default_rng(0)
    rows = [
        Row("set", f"{i}.png", noise, float(noise), method, *rng.random(3), *rng.random(2))
        for noise in ("15", "50")
        for i in range(4)
        for method in ("a", "b")
    ]
    for summary in summarise(rows):
        group = [r for r in rows if (r.noise, r.method) == (summary.noise, summary.method)]
        assert summary.images == len(group) == 4
        for name in ("psnr", "ssim", "lpips"):
            mean = np.mean([getattr(r, name) for r in group])
            assert getattr(summary, name) == pytest.approx(mean)
        pixels = sum(r.megapixels for r in group)
        assert summary.seconds_per_megapixel == pytest.approx(
            sum(r.seconds for r in group) / pixels
        )


def test_most_detail_is_where_the_texture_is():
    picture = torch.full((3, 300, 400), 0.5)
    picture[:, 190:260, 210:290] = torch.rand(3, 70, 80, generator=Generator().manual_seed(0))
    top, left, side = most_detail(picture)
    assert side == 96
    assert top <= 190
    assert left <= 210
    assert top + side >= 260
    assert left + side >= 290
    assert most_detail(picture[:, :40])[2] == 40


def test_a_report_appears_whole_or_not_at_all(folder, tmp_path):
    (folder / "astronaut.png").rename(folder / "$a_{$.png")  # no formula
    (measured,) = evaluate(synthetic(folder, [0.1], 0, 1), {"$x^$": blur})
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(IndexError):  # fails at the last file
        write_report(target, measured.rows, [], "note")
    assert not list(target.iterdir())
    write_report(target, measured.rows, [Sample.of(measured)], "note")
    names = {"images.csv", "table.csv", "table.md", "psnr.png", "sheet.png"}
    assert {p.name for p in target.iterdir()} == names
