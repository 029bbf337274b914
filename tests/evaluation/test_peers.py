import sys

import pytest
import torch
from skimage import data as photographs
from torch import Generator

from nlden.evaluation.peers import PEERS, PeerError, choose_peers, missing_package


@pytest.fixture(scope="module")
def clean():
    return torch.from_numpy(photographs.astronaut()[60:108, 180:244]).permute(2, 0, 1) / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_removes_noise_and_keeps_its_input(name, channels, clean):
    if package := missing_package(name):
        pytest.skip(f"{package} is not installed")
    clean = clean[:channels]
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=Generator().manual_seed(0))
    given = noisy.clone()
    output = PEERS[name](noisy, 0.1)
    assert output.shape == clean.shape
    assert output.dtype == torch.float32
    assert noisy.equal(given)
    before, after = ((x - clean).square().mean() for x in (noisy, output))
    assert after < before / 2
    # What it is told matters: hardly any noise, hardly any change.
    assert (PEERS[name](noisy, 0.001) - noisy).square().mean() < before / 20


@pytest.mark.parametrize("name", PEERS)
def test_grey_as_three_equal_channels_stays_grey(name, clean):
    if package := missing_package(name):
        pytest.skip(f"{package} is not installed")
    noise = 0.1 * torch.randn(clean[:1].shape, generator=Generator().manual_seed(0))
    output = PEERS[name]((clean[:1] + noise).expand(3, -1, -1), 0.1)
    assert output.isfinite().all()
    assert (output - output[:1]).abs().max() < 1e-4


def test_unknown_and_missing_peers_are_named(monkeypatch):
    assert list(choose_peers(["nlm"])) == ["nlm"]
    with pytest.raises(PeerError, match=r"median: no such peer; give nlm, wavelet, bm3d"):
        choose_peers(["nlm", "median"])
    for name, module, package in (
        ("bm3d", "bm3d", "bm3d"),
        ("opencv", "cv2", "opencv-python-headless"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        assert missing_package(name) == package
        with pytest.raises(PeerError, match=f"{name} is not installed; pip install {package}"):
            choose_peers([name])
