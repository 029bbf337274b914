"""Classical denoisers to stand beside: non-local means, wavelet shrinkage, BM3D.

Each is told the true level of the noise. All take and return pictures as the networks do:
``(3, H, W)`` or ``(1, H, W)``, values around [0, 1]; only OpenCV clips and rounds to 8 bits.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlden.noise.synthesis import quantize

Method = Callable[[Tensor, float], Tensor]
"""A denoiser: noisy picture ``(C, H, W)`` and sigma in [0, 1] to a picture of the same shape."""


class PeerError(ValueError):
    """A peer is unknown or not installed. The message is one line for the user."""


def non_local_means(
    noisy: Tensor, sigma: float, distance: int = 6, strength: float = 0.8
) -> Tensor:
    """Average pixels by the likeness of their patches of 5 along each axis.

    scikit-image's fast form, by default with the filtering strength that its documentation
    advises for it (A. Buades, B. Coll, J.-M. Morel: "A non-local algorithm for image denoising",
    CVPR 2005).

    Args:
        noisy: picture ``(C, H, W)``, or a clip ``(3, T, H, W)`` as a volume.
        sigma: level of the noise, in [0, 1].
        distance: how far patches are sought along each axis.
        strength: ``h`` relative to ``sigma``.
    """
    from skimage.restoration import denoise_nl_means

    clean = denoise_nl_means(
        noisy.squeeze(0).numpy(),
        patch_size=5,
        patch_distance=distance,
        h=strength * sigma,
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


def _is_grey(picture: Tensor) -> bool:
    """Tell whether all channels of ``(C, H, W)`` are the same."""
    return bool((picture == picture[:1]).all())


def bm3d(noisy: Tensor, sigma: float) -> Tensor:
    """Filter groups of like blocks together, in the opponent colour space for colour.

    The authors' package (K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian: "Image denoising by
    sparse 3-D transform-domain collaborative filtering", IEEE TIP 2007).
    """
    package = import_module("bm3d")
    if _is_grey(noisy):  # without colour the opponent channels divide by zero
        clean = package.bm3d(noisy[0].double().numpy(), sigma)
        return torch.from_numpy(clean).float().expand_as(noisy)
    clean = package.bm3d_rgb(noisy.permute(1, 2, 0).double().numpy(), sigma)
    return torch.from_numpy(clean).permute(2, 0, 1).float()


def opencv(noisy: Tensor, sigma: float) -> Tensor:
    """Average pixels by the likeness of their 7 x 7 patches, within 21 x 21 pixels.

    OpenCV's fast form on 8-bit pictures, luma and colour of CIELAB apart.
    """
    cv2 = import_module("cv2")
    if _is_grey(noisy):
        h = 0.9 * 255 * sigma
        clean = cv2.fastNlMeansDenoising(to_codes(noisy[:1]), None, h, 7, 21)
        return from_codes(clean[..., None]).expand_as(noisy)
    h = opencv_strength(sigma)
    return from_codes(cv2.fastNlMeansDenoisingColored(to_codes(noisy), None, h, h, 7, 21))


def opencv_strength(sigma: float) -> float:
    """Return the ``h`` of OpenCV for colour with noise of a level in [0, 1].

    OpenCV itself knows nothing of the level. Of grey and of colour these parts of it were the
    best on photographs that were tried; CIELAB shrinks noise.
    """
    return 0.55 * 255 * sigma


def to_codes(picture: Tensor) -> np.ndarray[Any, Any]:
    """Return RGB or grey ``(C, H, W)`` as OpenCV has it: uint8 ``(H, W, C)``, blue first."""
    return quantize(picture).mul(255).byte().flip(0).permute(1, 2, 0).contiguous().numpy()


def from_codes(codes: np.ndarray[Any, Any]) -> Tensor:
    """Return what :func:`to_codes` was given."""
    return torch.from_numpy(codes).permute(2, 0, 1).flip(0).float() / 255


PEERS: dict[str, Method] = {
    "nlm": non_local_means,
    "wavelet": wavelet_shrinkage,
    "bm3d": bm3d,
    "opencv": opencv,
}
"""The peers by name."""

_PACKAGES = {  # module, distribution
    "wavelet": ("pywt", "PyWavelets"),
    "bm3d": ("bm3d", "bm3d"),
    "opencv": ("cv2", "opencv-python-headless"),
}


def missing_package(name: str) -> str | None:
    """Return the package that a peer still needs, as pip knows it; None if it can run."""
    module, distribution = _PACKAGES.get(name, ("skimage", "scikit-image"))
    return None if find_spec(module) else distribution


def choose_peers(names: Sequence[str], peers: Mapping[str, Method] = PEERS) -> dict[str, Method]:
    """Return peers by name.

    Raises:
        PeerError: if one is unknown or not installed.
    """
    for name in names:
        if name not in peers:
            raise PeerError(f"{name}: no such peer; give {', '.join(peers)} or none")
        if package := missing_package(name):
            raise PeerError(f"{name} is not installed; pip install {package}")
    return {name: peers[name] for name in names}
