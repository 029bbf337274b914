import pytest
import torch

from nlden.data.drawings import draw_pictures


def test_pictures_are_seeded_and_differ():
    first, again, other = (draw_pictures(4, 96, seed) for seed in (3, 3, 4))
    assert [p.shape for p in first] == [(3, 96, 96)] * 4
    assert all(p.dtype == torch.uint8 for p in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    pictures = [*first, *other]
    for i, picture in enumerate(pictures):
        assert not any(torch.equal(picture, p) for p in pictures[:i])


def test_a_picture_begins_with_what_fewer_begin_with():
    few, many = draw_pictures(2, 128, 0), draw_pictures(5, 128, 0)
    assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))


def test_pictures_are_flat_with_sharp_edges():
    """Photographs are neither: that is what drawings are for."""
    pictures = torch.stack(draw_pictures(24, 256, 1)).int()
    steps = torch.cat([pictures.diff(dim=a).abs().amax(1).flatten() for a in (2, 3)])
    assert (steps == 0).float().mean() > 0.5
    assert (steps > 100).float().mean() > 0.01
    assert pictures.amax((0, 2, 3)).tolist() == [255] * 3
    assert pictures.amin((0, 2, 3)).tolist() == [0] * 3
    grey = (pictures.amax(1) == pictures.amin(1)).float().mean()
    assert 0.2 < grey < 0.9


def test_too_small_pictures_are_refused():
    with pytest.raises(ValueError, match="extent=63 must be at least 64"):
        draw_pictures(1, 63, 0)
