import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs
from skimage.io import imsave

from nlden.data.crops import (
    CropBatches,
    ImageBank,
    ImageFiles,
    Places,
    draw_places,
    list_images,
    read_rgb,
    read_size,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_images_are_listed_by_name_and_other_files_passed_over(tmp_path):
    for name in ("b.PNG", "a.jpeg", "c.tiff", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.tiff"]
    with pytest.raises(FileNotFoundError, match="deeper"):
        list_images(tmp_path / "deeper")


COFFEE = photographs.coffee()[:24, :40]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_every_kind_of_picture_is_read_as_pillow_reads_it(tmp_path, mode, suffix):
    path = tmp_path / f"x.{suffix}"
    picture = Image.fromarray(COFFEE).convert(mode)
    picture.save(path)
    pixels = read_rgb(path)
    assert pixels.dtype == torch.uint8
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(pixels.numpy(), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped(tmp_path, mode):
    opaque = Image.fromarray(COFFEE).convert(mode[:-1])
    picture = opaque.convert(mode)
    picture.putalpha(100)
    picture.save(tmp_path / "x.png")
    expected = np.asarray(opaque.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read_rgb(tmp_path / "x.png").numpy(), expected)


def test_a_picture_for_print_keeps_its_colours(tmp_path):
    Image.fromarray(COFFEE).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    pixels = read_rgb(tmp_path / "x.jpg").float().mean((1, 2))
    assert pixels.tolist() == pytest.approx(COFFEE.mean((0, 1)).tolist(), abs=8)


@pytest.mark.parametrize("shape", ["gray", "rgb"])
def test_sixteen_bits_become_eight(tmp_path, shape):
    pixels = COFFEE if shape == "rgb" else COFFEE[..., 0]
    imsave(tmp_path / "x.tif", pixels.astype(np.uint16) * 257, check_contrast=False)
    got = read_rgb(tmp_path / "x.tif")
    assert got.dtype == torch.uint8
    assert np.array_equal(got[0].numpy(), COFFEE[..., 0])


def marked(sizes):
    """Pictures whose pixels tell where they are from: picture, row, column."""
    pictures = []
    for i, (height, width) in enumerate(sizes):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pictures.append(torch.stack([torch.full_like(rows, i), rows, columns]).byte())
    return pictures


def bank(pictures):
    pixels = torch.cat([p.permute(1, 2, 0).reshape(-1, 3) for p in pictures])
    return ImageBank(pixels, torch.tensor([p.shape[1:] for p in pictures]))


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(5, 30), st.integers(5, 30)), min_size=1, max_size=6),
    extent=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_every_crop_lies_in_one_picture_that_holds_it(sizes, extent, seed):
    extent = min(extent, max(min(s) for s in sizes))
    source = bank(marked(sizes))
    places = draw_places(source.sizes, 40, extent, generator(seed))
    codes = source.crops(places).long()
    assert codes.shape == (40, 3, extent, extent)
    first = codes[:, :, :1, :1]
    steps = torch.arange(extent)
    assert (codes[:, 0] == first[:, 0]).all()
    assert (codes[:, 1] == first[:, 1] + steps[:, None]).all()
    assert (codes[:, 2] == first[:, 2] + steps).all()
    assert torch.equal(first[:, :, 0, 0], torch.stack([places.index, places.top, places.left], 1))
    ends = torch.tensor(sizes)[first[:, 0, 0, 0]] - extent
    assert (first[:, 1:, 0, 0] <= ends).all()


def test_places_follow_the_area_and_reach_everywhere():
    sizes = torch.tensor([(8, 8), (5, 90), (8, 40), (16, 20)])  # the second holds no crop
    count, extent = 8000, 6
    places = draw_places(sizes, count, extent, generator())
    area = sizes.prod(1).double() * torch.tensor([1, 0, 1, 1])
    share = area / area.sum()
    found = places.index.bincount(minlength=4) / count
    spread = (share * (1 - share) / count).sqrt()
    assert ((found - share).abs() <= 4 * spread).all()
    for i in (0, 2, 3):
        corners = torch.stack([places.top, places.left], 1)[places.index == i].unique(dim=0)
        assert len(corners) == (sizes[i] - extent + 1).prod()


@pytest.fixture
def files(tmp_path):
    paths = []
    for i, (height, width) in enumerate([(40, 56), (64, 33), (36, 36)]):
        picture = photographs.astronaut()[i * 50 :][:height, 100 : 100 + width]
        paths.append(tmp_path / f"{i}.png")
        imsave(paths[-1], picture, check_contrast=False)
    gray = tmp_path / "deep.tif"
    imsave(gray, photographs.camera()[:50, :40].astype(np.uint16) * 257, check_contrast=False)
    return [*paths, gray]


def test_sizes_come_from_headers(files):
    assert [read_size(p) for p in files] == [tuple(read_rgb(p).shape[1:]) for p in files]


@pytest.mark.parametrize("rescale", [1.0, 2.0])
def test_batches_are_the_same_wherever_pictures_are_held(files, tmp_path, rescale):
    shots = [(p,) for p in files]
    ways = [ImageFiles(shots), ImageBank.read(shots), ImageBank.mapped(shots, tmp_path / "cache")]
    batches = [CropBatches(w, 5, 16, rescale, seed=3) for w in ways]
    for number in (0, 1, 7, 12345):
        (n, first), *others = (b[number] for b in batches)
        assert n == number
        assert first.dtype == torch.uint8
        assert all(torch.equal(first, crops) for _, crops in others)
    assert not torch.equal(batches[0][0][1][..., :16, :16], batches[0][1][1][..., :16, :16])
    other = CropBatches(ways[1], 5, 16, rescale, seed=4)
    assert not torch.equal(batches[1].places(0).top, other.places(0).top)


def test_every_other_batch_is_reduced_by_up_to_rescale(files):
    bank = ImageBank.read([(p,) for p in files])
    assert {CropBatches(bank, 1, 16, 1.0, 0).places(n).extent for n in range(20)} == {16}
    extents = [CropBatches(bank, 1, 16, 2.0, 0).places(n).extent for n in range(200)]
    assert 72 < extents.count(16) < 140  # a few more are reduced by less than half a pixel
    assert min(extents) == 16
    assert 30 <= max(extents) <= 32


def test_a_mapped_bank_is_made_once_and_travels_by_its_path(files, tmp_path):
    cache = tmp_path / "cache"
    shots = [(p,) for p in files]
    first = ImageBank.mapped(shots, cache)
    (held,) = cache.iterdir()
    written = held.stat().st_mtime_ns
    sent = pickle.dumps(first)
    assert len(sent) < 1000 < first.pixels.nbytes
    assert torch.equal(pickle.loads(sent).pixels, first.pixels)
    ImageBank.mapped(shots, cache)
    assert [p.stat().st_mtime_ns for p in cache.iterdir()] == [written]
    imsave(files[0], photographs.cat()[:44, :44], check_contrast=False)
    assert ImageBank.mapped(shots, cache).sizes[0].tolist() == [44, 44]
    assert len(list(cache.iterdir())) == 2


def test_what_was_drawn_is_held_beside_files_and_names_the_mapped_bank(files, tmp_path):
    for number, code in enumerate((7, 9), 1):
        shots = [(files[0],), torch.full((3, 20, 30), code, dtype=torch.uint8)]
        for held in (ImageFiles(shots), ImageBank.mapped(shots, tmp_path / "cache")):
            assert held.sizes.tolist() == [[40, 56], [20, 30]]
            index, corner = torch.tensor([0, 1]), torch.tensor([4, 2])
            crops = held.crops(Places(index, corner, corner, 16))
            assert torch.equal(crops[0], read_rgb(files[0])[:, 4:20, 4:20])
            assert (crops[1] == code).all()
        assert len(list((tmp_path / "cache").iterdir())) == number
