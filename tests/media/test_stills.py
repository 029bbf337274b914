from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from nlden.media.probe import MediaError
from nlden.media.stills import Still, is_gray, is_still, read_still, write_still


def random_still(bits, channels, alpha, size=(21, 33), seed=0):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.uint8 if bits == 8 else torch.int32
    draw = [
        torch.randint(0, 2**bits, (n, *size), generator=generator).to(dtype) for n in (channels, 1)
    ]
    return Still(draw[0], bits, draw[1] if alpha else None)


@settings(deadline=None, max_examples=25)
@given(
    suffix=st.sampled_from([".png", ".tif"]),
    bits=st.sampled_from([8, 16]),
    channels=st.sampled_from([1, 3]),
    alpha=st.booleans(),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_lossless_formats_keep_every_code(tmp_path_factory, suffix, bits, channels, alpha, size):
    path = tmp_path_factory.mktemp("still") / f"x{suffix}"
    still = random_still(bits, channels, alpha, size)
    write_still(path, still)
    back = read_still(path)
    assert back.bits == bits
    assert torch.equal(back.pixels, still.pixels)
    assert (back.alpha is None) == (still.alpha is None)
    assert back.alpha is None or torch.equal(back.alpha, still.alpha)


@pytest.mark.parametrize("letter", ["x", "\u00fc"])
def test_the_longest_names_are_written(tmp_path, letter):
    path = tmp_path / f"{letter * (250 // len(letter.encode()))}.png"
    write_still(path, random_still(8, 3, False, (4, 5)))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_stay_close(tmp_path, suffix):
    ramp = torch.arange(64, dtype=torch.uint8).repeat(3, 64, 1) * 4
    write_still(tmp_path / f"x{suffix}", Still(ramp, 8))
    back = read_still(tmp_path / f"x{suffix}")
    assert (back.pixels.int() - ramp.int()).abs().max() <= 8


def test_sixteen_bits_are_read_as_another_library_wrote_them(tmp_path):
    codes = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 50
    Image.fromarray(codes).save(tmp_path / "gray.png")
    assert torch.equal(
        read_still(tmp_path / "gray.png").pixels[0], torch.from_numpy(codes.astype(np.int32))
    )


def test_metadata_is_kept(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    Image.new("RGB", (8, 8)).save(tmp_path / "in.jpg", exif=exif, icc_profile=b"profile")
    write_still(tmp_path / "out.jpg", read_still(tmp_path / "in.jpg"))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif()[0x010F] == "a camera"
        assert image.info["icc_profile"] == b"profile"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_bmp_is_turned_as_its_source_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    still = random_still(8, 3, alpha=False)
    write_still(tmp_path / "out.png", replace(still, metadata={"exif": exif.tobytes()}))
    write_still(tmp_path / "out.bmp", read_still(tmp_path / "out.png"))
    with Image.open(tmp_path / "out.png") as image, Image.open(tmp_path / "out.bmp") as turned:
        assert np.array_equal(ImageOps.exif_transpose(image), turned)


def codes(channels=3, size=(20, 30)):
    shape = (*size, channels) if channels > 1 else size
    return np.random.default_rng(0).integers(0, 2**16, shape).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 16)},
        {"bigtiff": True},
        {"compression": "lzma"},
        {"byteorder": ">"},
        {"description": "hi", "metadata": None},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 5},
    ],
    ids=lambda o: "-".join(o),
)
def test_deep_tiffs_of_all_layouts_are_read(tmp_path, channels, options):
    x = codes(channels)
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "x.tif", x, photometric=photometric, **options)
    still = read_still(tmp_path / "x.tif")
    assert still.bits == 16
    assert is_gray(tmp_path / "x.tif") == (channels == 1)
    assert np.array_equal(still.pixels.movedim(0, -1).squeeze(-1).numpy(), x)


def test_a_thumbnail_before_a_deep_picture_is_passed_over(tmp_path):
    x = codes()
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(x[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(x, photometric="rgb")
    assert np.array_equal(read_still(tmp_path / "x.tif").pixels.movedim(0, -1).numpy(), x)


def test_a_compression_that_tifffile_lacks_is_left_to_another_library(tmp_path):
    # Pillow writes 16-bit grey with LZW, as scanners do.
    x = codes(1)
    Image.fromarray(x).save(tmp_path / "x.tif", compression="tiff_lzw")
    assert np.array_equal(read_still(tmp_path / "x.tif").pixels[0].numpy(), x)


def test_planes_of_a_deep_tiff_may_lie_apart(tmp_path):
    x = codes()
    planes = np.moveaxis(x, -1, 0)
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_still(tmp_path / "x.tif").pixels.numpy(), planes)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int16", "int32", "uint32"])
def test_other_samples_are_told(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "x.tif", codes(1).astype(dtype), photometric="minisblack")
    with pytest.raises(MediaError, match=f"{dtype} samples"):
        read_still(tmp_path / "x.tif")


@pytest.mark.parametrize("name", ["x.tif", "x.png", "x.webp"])
def test_several_pictures_are_told(tmp_path, name):
    first, *others = (Image.new("RGB", (9, 9), (60 * i, 0, 0)) for i in range(3))
    first.save(tmp_path / name, save_all=True, append_images=others)
    with pytest.raises(MediaError, match="holds 3 p"):
        read_still(tmp_path / name)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_profile_resolution_orientation_and_texts_are_kept(tmp_path, suffix, bits):
    exif = Image.Exif()
    exif.update({0x010F: "a camera", 0x0112: 6})
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    metadata = {"exif": exif.tobytes(), "icc_profile": icc, "dpi": (300.0, 300.0)}
    write_still(
        tmp_path / f"x{suffix}", replace(random_still(bits, 3, alpha=False), metadata=metadata)
    )
    back = read_still(tmp_path / f"x{suffix}")
    assert back.metadata["icc_profile"] == icc
    assert back.metadata["dpi"] == pytest.approx((300, 300), rel=1e-4)
    read = Image.Exif()
    read.load(back.metadata["exif"])
    assert read[0x010F] == "a camera"
    # Pillow turns the pixels of a TIFF of 8 bits as it reads them.
    turned = (suffix, bits) == (".tif", 8)
    assert read.get(0x0112) == (None if turned else 6)
    assert back.pixels.shape[1:] == ((33, 21) if turned else (21, 33))
    with Image.open(tmp_path / f"x{suffix}") as image:  # another reader sees them, too
        assert image.info["icc_profile"] == icc


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_and_texts_of_a_png_are_kept(tmp_path, bits):
    texts = PngInfo()
    texts.add_text("Title", "a rose")
    texts.add(b"gAMA", (100000).to_bytes(4, "big"))
    still = replace(random_still(bits, 3, alpha=False), metadata={"pnginfo": texts})
    write_still(tmp_path / "in.png", still)
    write_still(tmp_path / "out.png", read_still(tmp_path / "in.png"))
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["Title"] == "a rose"
        assert image.info["gamma"] == 1


def test_the_profile_of_other_colours_is_not_that_of_rgb(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ink = srgb[:16] + b"CMYK" + srgb[20:]
    Image.new("CMYK", (8, 8), (200, 0, 0, 0)).save(tmp_path / "x.jpg", icc_profile=ink)
    still = read_still(tmp_path / "x.jpg")
    assert "icc_profile" not in still.metadata
    assert still.pixels[:, 0, 0].tolist() == pytest.approx([55, 255, 255], abs=4)


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x89PNG\r\n\x1a\n" + b"x" * 50])
def test_unreadable_files_are_told(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"x\.png"):
        read_still(path)


def test_an_unknown_format_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(MediaError, match="unknown picture format"):
        write_still(tmp_path / "x.xyz", random_still(8, 3, alpha=False))
    assert list(tmp_path.iterdir()) == []


def test_stills_are_told_by_their_extension(tmp_path):
    assert is_still(tmp_path / "A.PNG")
    assert not is_still(tmp_path / "a.mp4")
