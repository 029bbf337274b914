from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from skimage import data as photographs

from nlden.data.camera_motion import camera_motion
from nlden.inference.stream import StreamState, VideoStream

SIGMA = 0.1


@pytest.fixture(scope="module")
def network(small_video_denoiser):
    return small_video_denoiser()


def frames(count: int = 9, size: tuple[int, int] = (28, 36)) -> list[torch.Tensor]:
    """Noisy packed 4:2:0 frames of a moving camera."""
    picture = torch.from_numpy(photographs.coffee()).permute(2, 0, 1) / 255
    clip = camera_motion(picture, count, (2 * size[0], 2 * size[1]))
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
    packed = torch.nn.functional.pixel_unshuffle(clip + SIGMA * noise, 2)
    return list(torch.cat([packed[:, :4], packed[:, 4::4]], dim=1)[:, None])


def run(stream, pieces, cuts=()):
    clean = []
    for i, frame in enumerate(pieces):
        clean += stream.push(frame, SIGMA, cut=i in cuts)
    return joined(clean + stream.finish())


def joined(shots):
    return torch.stack([shot.clean for shot in shots], dim=2)


def whole(network, pieces):
    with torch.no_grad():
        return network(torch.stack(pieces, dim=2), SIGMA)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_the_stream_gives_what_the_whole_clip_gives(network, count):
    pieces = frames()[:count]
    assert torch.allclose(run(VideoStream(network), pieces), whole(network, pieces), atol=1e-6)


def test_the_latency_is_what_it_says(network):
    stream = VideoStream(network)
    ready = [len(stream.push(frame, SIGMA)) for frame in frames(5)]
    assert ready == [0] * stream.latency + [1] * (5 - stream.latency)
    assert len(stream.finish()) == stream.latency


@settings(max_examples=6)
@given(cuts=st.sets(st.integers(1, 8), max_size=3))
def test_nothing_crosses_a_cut(network, cuts):
    pieces = frames()
    clean = run(VideoStream(network), pieces, cuts)
    borders = [0, *sorted(cuts), len(pieces)]
    shots = [pieces[a:b] for a, b in pairwise(borders)]
    alone = torch.cat([whole(network, shot) for shot in shots], dim=2)
    assert torch.allclose(clean, alone, atol=1e-6)


def test_each_shot_has_its_own_level(network):
    pieces = frames(6)
    stream = VideoStream(network)
    clean = [
        c for i, f in enumerate(pieces) for c in stream.push(f, SIGMA / (1 + i // 3), cut=i == 3)
    ]
    clean += stream.finish()
    with torch.no_grad():
        alone = [network(torch.stack(pieces[i : i + 3], 2), SIGMA / (1 + i // 3)) for i in (0, 3)]
    assert torch.allclose(joined(clean), torch.cat(alone, dim=2), atol=1e-6)


@pytest.mark.parametrize("cuts", [(), (3,)])
def test_all_may_be_looked_at_before_any_is_denoised(network, cuts):
    pieces = frames(7)
    stream = VideoStream(network)
    seen = [s for i, f in enumerate(pieces) for s in stream.look(f, SIGMA, cut=i in cuts)]
    clean = stream.denoise(seen) + stream.finish()
    assert torch.equal(joined(clean), run(VideoStream(network), pieces, cuts))


@pytest.mark.parametrize("at", [0, 1, 4, 9])
def test_a_stored_state_goes_on_as_if_nothing_had_been(network, at):
    pieces = frames()
    first = VideoStream(network)
    clean = [c for frame in pieces[:at] for c in first.push(frame, SIGMA)]
    stored = load(save(first.state.tensors()))
    second = VideoStream(network, state=StreamState.from_tensors(stored))
    for frame in pieces[at:]:
        clean += second.push(frame, SIGMA)
    clean += second.finish()
    assert torch.equal(joined(clean), run(VideoStream(network), pieces))


@pytest.mark.parametrize("halve", [False, True])
def test_tiles_give_what_the_whole_frame_gives(small_video_denoiser, halve):
    network = small_video_denoiser(halve=halve)
    pieces = frames(3, (110, 130))
    tiled = run(VideoStream(network, tile=64), pieces)
    # Two places that a block is as like as the other may be told apart by rounding alone.
    error = (tiled - run(VideoStream(network), pieces)).abs()
    assert (error > 1e-4).double().mean() < 0.005


@pytest.mark.parametrize("shape", [(1, 6, 20, 20), (1, 12, 44, 60)], ids=["size", "format"])
def test_frames_that_change_are_refused_and_the_stream_goes_on(network, shape):
    pieces = frames(3)
    stream = VideoStream(network)
    clean = stream.push(pieces[0], SIGMA)
    with pytest.raises(ValueError, match=r"after frames of .*; finish this stream"):
        stream.push(torch.zeros(shape), SIGMA)
    for frame in pieces[1:]:
        clean += stream.push(frame, SIGMA)
    clean += stream.finish()
    assert torch.equal(joined(clean), run(VideoStream(network), pieces))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_before_it_spreads(network, value):
    stream = VideoStream(network)
    broken = frames(1)[0]
    broken[0, 2, 5, 7] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        stream.push(broken, SIGMA)
    assert stream.finish() == []
