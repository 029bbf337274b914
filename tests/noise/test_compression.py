import pytest
import torch
from PIL import Image
from skimage import data as photographs

from nlden.media.color import YCbCr
from nlden.noise import (
    compress_jpeg,
    compress_video,
    quantize,
    store_8bit_yuv420,
    store_yuv420,
    white_gaussian,
)

CODECS = ("h264", "hevc")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def crop(height=128, width=160, top=20, left=150):
    pixels = torch.from_numpy(photographs.astronaut()[top : top + height, left : left + width])
    return pixels.permute(2, 0, 1)[None] / 255


def psnr(x, y):
    return -10 * torch.log10((x - y).square().mean()).item()


def chroma(x):
    return YCbCr("bt601", full_range=True).from_rgb(x)[:, 1:]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(40, 56), (33, 47), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jpeg_keeps_size_type_and_range(channels, size, dtype):
    x = crop(*size).repeat(2, 1, 1, 1)[:, :channels].to(dtype)
    decoded = compress_jpeg(x, 50)
    assert decoded.shape == x.shape
    assert decoded.dtype == dtype
    codes = decoded * 255
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert 0 <= decoded.min() <= decoded.max() <= 1
    assert torch.equal(compress_jpeg(x, 50), decoded)
    assert torch.equal(compress_jpeg(x[1:], 50), decoded[1:])


def test_jpeg_gets_better_with_its_quality():
    x = crop()
    quality = [psnr(compress_jpeg(x, q), x) for q in (5, 20, 50, 80, 95)]
    assert quality == sorted(quality)
    assert quality[0] < 28
    assert quality[-1] > 36


def test_jpeg_has_blocks_of_eight():
    x = crop(160, 160)
    error = compress_jpeg(x, 10, "4:4:4") - x
    steps = (error[..., 1:] - error[..., :-1]).abs().mean((0, 1, 2))
    borders = torch.arange(159) % 8 == 7
    assert steps[borders].mean() > 1.2 * steps[~borders].mean()


def test_jpeg_is_the_file_that_pillow_writes(tmp_path):
    pixels = photographs.coffee()[100:164, 100:180]
    path = tmp_path / "coffee.jpg"
    Image.fromarray(pixels).save(path, quality=30, subsampling=2)
    with Image.open(path) as image:
        theirs = torch.tensor(list(image.tobytes()), dtype=torch.float32).view(64, 80, 3) / 255
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    assert torch.allclose(compress_jpeg(x, 30)[0].permute(1, 2, 0), theirs, atol=1e-6)


def test_chroma_is_halved_as_is_told():
    x = torch.zeros(1, 3, 64, 64)
    x[:, 0, :, ::2] = 1  # red columns: their chroma is gone where it is halved across
    full, half, both = (compress_jpeg(x, 95, s) for s in ("4:4:4", "4:2:2", "4:2:0"))
    across = [chroma(y)[:, 1].var(-1).mean().item() for y in (x, full, half, both)]
    assert across[1] > 0.8 * across[0]
    assert max(across[2:]) < 0.05 * across[0]
    rows = compress_jpeg(x.mT.contiguous(), 95, "4:2:2")  # halved across, not down
    assert chroma(rows)[:, 1].var(-2).mean() > 0.8 * across[0]
    stored = store_8bit_yuv420(x)
    assert chroma(stored)[:, 1].var(-1).mean() < 0.05 * across[0]


@pytest.mark.parametrize("color", [None, YCbCr("bt601", full_range=True)], ids=str)
@pytest.mark.parametrize("size", [(32, 48), (31, 47), (1, 1)])
def test_storage_keeps_size_and_loses_at_most_its_rounding_on_flat_pictures(color, size):
    values = torch.rand(20, 3, 1, 1, generator=generator())
    x = values.expand(20, 3, *size).contiguous()
    stored = store_8bit_yuv420(x, color)
    assert stored.shape == x.shape
    # Half a code in each plane, through the matrix: at most 0.5 (1 + 1.772) codes and the range.
    assert (stored - x).abs().max() < 0.5 / 255 * (255 / 219 + 1.9 * 255 / 224)
    assert torch.allclose(store_8bit_yuv420(stored, color), stored, atol=1e-4)
    assert 0 <= stored.min() <= stored.max() <= 1


def test_limited_range_has_fewer_codes():
    gray = torch.linspace(0, 1, 2000).expand(1, 3, 2, 2000)
    counts = [
        len(store_8bit_yuv420(gray, YCbCr(full_range=f))[0, 1, 0].mul(1e4).round().unique())
        for f in (False, True)
    ]
    assert counts == [220, 256]


def test_stored_noise_has_the_levels_of_the_planes():
    color = YCbCr()
    x = torch.full((1, 3, 512, 512), 0.5)
    stored = store_8bit_yuv420(white_gaussian(x, 0.1, generator()), color)
    planes = color.from_rgb(stored) - color.from_rgb(x)
    luma, both = color.plane_levels(0.1, averaged=4)
    assert planes[:, 0].std().item() == pytest.approx(luma, rel=0.02)
    # Interpolation to twice the size keeps 5/8 of the variance along each axis.
    assert planes[:, 1:].std().item() == pytest.approx(both * 5 / 8, rel=0.03)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(1, 3, 64, 80), (3, 3, 33, 47), (2, 3, 5, 2)])
def test_video_keeps_frames_size_type_and_range(codec, size):
    clip = torch.cat([crop(*size[2:], top=20 + 2 * t) for t in range(size[0])]).double()
    decoded = compress_video(clip, 30, codec)
    assert decoded.shape == clip.shape
    assert decoded.dtype == clip.dtype
    assert 0 <= decoded.min() <= decoded.max() <= 1
    assert torch.equal(compress_video(clip, 30, codec), decoded)


@pytest.mark.parametrize("codec", CODECS)
def test_video_gets_better_with_a_lower_rate_factor(codec):
    x = crop()
    quality = [psnr(compress_video(x, crf, codec), x) for crf in (45, 35, 25, 15, 4)]
    assert quality == sorted(quality)
    assert quality[0] < 30
    # At best it is what the storage leaves.
    assert psnr(store_8bit_yuv420(x), x) - 2 < quality[-1] < psnr(store_8bit_yuv420(x), x) + 0.1


def test_without_quantisation_the_codec_returns_the_stored_planes():
    clip = torch.cat([crop(48, 64, top=20 + 3 * t) for t in range(4)])
    assert torch.allclose(compress_video(clip, 0), store_8bit_yuv420(clip), atol=1e-5)
    color = YCbCr("bt601", full_range=True)
    kept = compress_video(clip, 0, color=color)
    assert torch.allclose(kept, store_8bit_yuv420(clip, color), atol=1e-5)
    planes = quantize(store_yuv420(clip, color))
    assert torch.allclose(store_yuv420(kept, color)[:, :4], planes[:, :4], atol=0.02)


@pytest.mark.parametrize("codec", CODECS)
def test_the_frames_of_a_clip_come_in_order_and_help_each_other(codec):
    clip = torch.cat([crop(64, 96, top=20 + 4 * t) for t in range(8)])
    decoded = compress_video(clip, 25, codec)
    distances = (decoded[:, None] - clip[None]).square().mean((2, 3, 4))
    assert distances.argmin(1).tolist() == list(range(8))
    alone = torch.cat([compress_video(frame[None], 25, codec) for frame in clip])
    assert not torch.allclose(alone[1:], decoded[1:], atol=1e-3)


@pytest.mark.parametrize("codec", CODECS)
def test_noise_behind_a_codec_is_weaker_and_correlated(codec):
    x = crop()
    noisy = white_gaussian(x, 0.06, generator()).clamp(0, 1)
    left = compress_video(noisy, 35, codec) - compress_video(x, 35, codec)
    assert left.std() < 0.85 * (noisy - x).std()
    across = (left[..., 1:] * left[..., :-1]).mean() / left.square().mean()
    assert across > 0.3  # 0 before
