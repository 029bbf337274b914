"""Classical denoisers to stand beside: non-local means, wavelet shrinkage, BM3D.

Each is told the true level of the noise. All take and return pictures as the networks do:
``(3, H, W)`` or ``(1, H, W)``, values around [0, 1], nothing clipped.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

Method = Callable[[Tensor, float], Tensor]
"""A denoiser: noisy picture ``(C, H, W)`` and sigma in [0, 1] to a picture of the same shape."""


class PeerError(ValueError):
    """A peer is unknown or not installed. The message is one line for the user."""


def non_local_means(noisy: Tensor, sigma: float) -> Tensor:
    """Average pixels by the likeness of their 5 x 5 patches, within 6 pixels.

    scikit-image's fast form with the filtering strength that its documentation advises for it,
    ``h = 0.8 sigma`` (A. Buades, B. Coll, J.-M. Morel: "A non-local algorithm for image
    denoising", CVPR 2005).
    """
    from skimage.restoration import denoise_nl_means

    clean = denoise_nl_means(
        noisy.squeeze(0).numpy(),
        patch_size=5,
        patch_distance=6,
        h=0.8 * sigma,
        sigma=sigma,
        fast_mode=True,
        channel_axis=0 if len(noisy) > 1 else None,
    )
    return torch.from_numpy(clean).view(noisy.shape)


def wavelet_shrinkage(noisy: Tensor, sigma: float) -> Tensor:
    """Shrink wavelet coefficients, in YCbCr for colour.

    scikit-image's BayesShrink with soft thresholds (S. G. Chang, B. Yu, M. Vetterli: "Adaptive
    wavelet thresholding for image denoising and compression", IEEE TIP 2000).
    """
    from skimage.restoration import denoise_wavelet

    clean = denoise_wavelet(
        noisy.permute(1, 2, 0).numpy(),
        sigma=sigma,
        wavelet="db2",  # better than the default, Haar's, on every picture that was tried
        convert2ycbcr=len(noisy) > 1,
        rescale_sigma=True,
        channel_axis=-1,
    )
    return torch.from_numpy(clean).permute(2, 0, 1).float()


def bm3d(noisy: Tensor, sigma: float) -> Tensor:
    """Filter groups of like blocks together, in the opponent colour space for colour.

    The authors' package (K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian: "Image denoising by
    sparse 3-D transform-domain collaborative filtering", IEEE TIP 2007).
    """
    package = import_module("bm3d")
    if (noisy == noisy[:1]).all():  # without colour the opponent channels divide by zero
        clean = package.bm3d(noisy[0].double().numpy(), sigma)
        return torch.from_numpy(clean).float().expand_as(noisy)
    clean = package.bm3d_rgb(noisy.permute(1, 2, 0).double().numpy(), sigma)
    return torch.from_numpy(clean).permute(2, 0, 1).float()


PEERS: dict[str, Method] = {"nlm": non_local_means, "wavelet": wavelet_shrinkage, "bm3d": bm3d}
"""The peers by name."""

_PACKAGES = {"wavelet": ("pywt", "PyWavelets"), "bm3d": ("bm3d", "bm3d")}  # module, distribution


def missing_package(name: str) -> str | None:
    """Return the package that a peer still needs, as pip knows it; None if it can run."""
    module, distribution = _PACKAGES.get(name, ("skimage", "scikit-image"))
    return None if find_spec(module) else distribution


def choose_peers(names: Sequence[str]) -> dict[str, Method]:
    """Return peers by name.

    Raises:
        PeerError: if one is unknown or not installed.
    """
    for name in names:
        if name not in PEERS:
            raise PeerError(f"{name}: no such peer; give {', '.join(PEERS)} or none")
        if package := missing_package(name):
            raise PeerError(f"{name} is not installed; pip install {package}")
    return {name: PEERS[name] for name in names}
