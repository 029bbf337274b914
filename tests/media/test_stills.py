import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nlden.media.probe import MediaError
from nlden.media.stills import Still, is_still, read_still, write_still


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
