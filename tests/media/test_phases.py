import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from nlden.media.phases import from_phases, halved, to_phases


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_phases_are_those_of_pixel_unshuffle(form):
    x = torch.rand(2, 3, 6, 10).contiguous(memory_format=form)
    assert torch.equal(to_phases(x), F.pixel_unshuffle(x, 2))
    assert torch.equal(from_phases(to_phases(x)), x)


@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_halves_are_means(height, width):
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    mean = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    assert torch.allclose(halved(x), mean, rtol=1e-12)


@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_an_odd_last_row_or_column_is_repeated(height, width):
    x = torch.rand(2, 3, height, width)
    even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    assert torch.equal(to_phases(x), F.pixel_unshuffle(even, 2))
