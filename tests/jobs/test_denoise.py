from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from nlden.jobs.denoise import Request, choose_model, denoise_file, open_denoiser
from nlden.jobs.levels import Noise
from nlden.media.color import YCbCr
from nlden.media.probe import Layout
from nlden.media.reader import VideoReader
from nlden.media.stills import read_still
from nlden.media.writer import Encoding
from nlden.models.pretrained import WeightsError
from nlden.noise.estimation import Levels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def denoiser():
    return open_denoiser("image-base", CPU, "fp32", None)


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "options"),
    [
        (".mp4", "libx264", "yuv420p", {}),
        (".mp4", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
        (".mkv", "ffv1", "yuv420p12le", {}),
        (".mkv", "ffv1", "yuv422p10le", {}),
        (".mkv", "ffv1", "yuv444p", {}),
        (".mkv", "ffv1", "gray", {}),
    ],
)
def test_strength_zero_gives_the_very_planes(
    clip, decode, denoiser, suffix, codec, pix_fmt, options
):
    source = clip(f"in{suffix}", codec=codec, pix_fmt=pix_fmt, options=options, sigma=20)
    target = source.with_stem("out")
    before = source.read_bytes()
    request = Request(strength=0.0, encoding=Encoding(lossless=True))
    denoise_file(source, target, denoiser, request)
    a, b = decode(source), decode(target)
    assert all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))
    assert (a.times, a.sound, a.tags, a.pix_fmt) == (b.times, b.sound, b.tags, b.pix_fmt)
    assert source.read_bytes() == before


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv422p", "yuv444p10le", "gray"])
def test_noise_goes_and_everything_else_stays(clip, decode, denoiser, pix_fmt):
    clean = clip("clean.mkv", codec="ffv1", pix_fmt=pix_fmt, frames=3)
    source = clip("noisy.mkv", codec="ffv1", pix_fmt=pix_fmt, frames=3, sigma=25)
    target = source.with_stem("out")
    result = denoise_file(source, target, denoiser, Request())
    a, b, c = decode(source), decode(target), decode(clean)

    def error(x):
        return np.mean([(p.astype(float) - q) ** 2 for p, q in zip(x, c.pictures, strict=True)])

    assert 10 * np.log10(error(a.pictures) / error(b.pictures)) > 5
    assert (a.times, a.sound, a.tags, a.pix_fmt) == (b.times, b.sound, b.tags, b.pix_fmt)
    assert result.frames == 3


@pytest.mark.parametrize(
    ("luma", "chroma", "changed"), [(0.0, None, (False, True)), (None, 0.0, (True, False))]
)
def test_luma_and_chroma_are_denoised_apart(clip, denoiser, tmp_path, luma, chroma, changed):
    source = clip("in.mkv", codec="ffv1", sigma=20, frames=2, audio=None)
    request = Request(luma_strength=luma, chroma_strength=chroma)
    denoise_file(source, tmp_path / "out.mkv", denoiser, request)
    planes = []
    for path in (source, tmp_path / "out.mkv"):
        with VideoReader(path) as reader:
            planes.append([item.planes for item in reader])
    for before, after in zip(*planes, strict=True):
        assert tuple(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == changed


def test_alpha_travels_beside_the_picture(clip, denoiser, tmp_path):
    source = clip("in.mkv", codec="ffv1", pix_fmt="yuva420p", sigma=20, frames=2, audio=None)
    result = denoise_file(source, tmp_path / "out.mkv", denoiser, Request())
    assert result.warnings == []
    found = []
    for path in (source, tmp_path / "out.mkv"):
        with VideoReader(path) as reader:
            found.append(list(reader))
    for before, after in zip(*found, strict=True):
        assert torch.equal(before.alpha, after.alpha)
        assert not torch.equal(before.planes[0], after.planes[0])


def test_progress_counts_every_frame(clip, denoiser, tmp_path):
    seen = []
    request = Request(strength=0.0)
    denoise_file(clip(), tmp_path / "o.mp4", denoiser, request, lambda *x: seen.append(x))
    assert seen == [(i + 1, 8) for i in range(8)]


@pytest.mark.parametrize("cut", [0.6, 0.8])
def test_a_truncated_video_is_denoised_up_to_the_break(clip, decode, denoiser, tmp_path, cut):
    whole = clip(frames=40, container_options={"movflags": "faststart"}, sigma=10)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * cut)])
    target = tmp_path / "out.mp4"
    result = denoise_file(broken, target, denoiser, Request(strength=0.0))
    assert 0 < result.frames < 40
    assert len(decode(target).times) == result.frames
    assert any("broken.mp4" in w and "cut off" in w for w in result.warnings)


def test_a_still_of_sixteen_bits_keeps_its_depth_and_alpha(denoiser, tmp_path):
    rng = np.random.default_rng(0)
    frame = av.VideoFrame.from_ndarray(
        np.clip(rng.normal(30000, 3000, (40, 50, 4)), 0, 65535).astype(np.uint16), "rgba64le"
    )
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 50, 40, "rgba64be"
    encoder.time_base = Fraction(1, 25)
    packets = encoder.encode(frame.reformat(format="rgba64be"))
    (tmp_path / "in.png").write_bytes(b"".join(bytes(p) for p in packets))
    denoise_file(tmp_path / "in.png", tmp_path / "out.png", denoiser, Request())
    before, after = read_still(tmp_path / "in.png"), read_still(tmp_path / "out.png")
    assert after.bits == 16
    assert torch.equal(before.alpha, after.alpha)
    assert after.pixels.float().std() < 0.3 * before.pixels.float().std()


def test_levels_follow_the_request():
    layout, color = Layout("yuv420", 8), YCbCr("bt709")

    def never():
        raise AssertionError("nothing is to be estimated")

    told = Noise(sigma=25 / 255).levels(layout, color, never)
    # The figures of limited-range BT.709 4:2:0: 16.1 in luma, 7.0 and 7.4 in chroma.
    assert 255 * told.luma == pytest.approx(16.1, abs=0.05)
    assert 255 * told.chroma == pytest.approx(7.2, abs=0.1)
    assert Noise(luma=0.1, chroma=0.2).levels(layout, color, never) == Levels(0.1, 0.2)
    assert Noise(luma=0.1).levels(layout, color, lambda: Levels(0.3, 0.4)) == Levels(0.1, 0.4)
    assert Noise(sigma=0.1).levels(Layout("rgb", 8), color, never) == Levels(0.1, 0.1)


def test_the_level_is_found_in_the_file(clip, denoiser, tmp_path):
    source = clip(codec="ffv1", name="in.mkv", sigma=25, size=(130, 194))
    result = denoise_file(source, tmp_path / "o.mkv", denoiser, Request())
    assert 255 * result.levels.luma == pytest.approx(15.5, rel=0.15)
    assert 255 * result.levels.chroma == pytest.approx(6.0, rel=0.25)


def test_weights_of_no_denoiser_are_refused():
    with pytest.raises(WeightsError, match="no weights of this name"):
        open_denoiser("nonsense", CPU, "fp32", None)


def test_reading_is_closed_after_an_error(clip, denoiser, tmp_path):
    with pytest.raises(Exception, match="no such encoder"):
        denoise_file(clip(), tmp_path / "o.mp4", denoiser, Request(encoding=Encoding("nonsense")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]
    with VideoReader(tmp_path / "in.mp4") as reader:
        assert sum(1 for _ in reader) > 8


@pytest.mark.parametrize(
    ("model", "source", "device", "expected"),
    [
        ("auto", "a.mp4", "cpu", "video-fast"),
        ("auto", "a.png", "cpu", "image-base"),
        ("auto", "a.mp4", "cuda", "video-base"),
        ("image-base", "a.mp4", "cpu", "image-base"),
        ("my.safetensors", "a.png", "cuda", "my.safetensors"),
    ],
)
def test_videos_on_a_cpu_take_the_fast_network(model, source, device, expected):
    assert choose_model(model, Path(source), torch.device(device)) == expected


@pytest.mark.parametrize(
    ("suffix", "modes"),
    [
        (".png", ["L", "LA", "1", "I;16", "RGB", "RGBA", "P"]),
        (".tif", ["L", "LA", "1", "I;16", "RGB", "RGBA", "P"]),
        (".bmp", ["L", "1", "RGB"]),
        (".jpg", ["L", "RGB"]),
        (".webp", ["RGB", "RGBA"]),
    ],
)
def test_grey_pictures_take_the_grey_network(suffix, modes, tmp_path):
    for mode in modes:
        path = tmp_path / f"in{suffix}"
        Image.new(mode, (16, 16)).save(path)
        expected = "image-gray" if len(read_still(path).pixels) == 1 else "image-base"
        assert choose_model("auto", path, CPU) == expected
        assert (expected == "image-gray") == (mode in ("L", "LA", "1", "I;16"))
