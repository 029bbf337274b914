"""Classical denoisers of clips, and those of pictures frame by frame.

All are told the level of the noise. They take and return RGB clips ``(3, T, H, W)``, values
around [0, 1].
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from nlden.evaluation.peers import (
    PEERS,
    Method,
    from_codes,
    non_local_means,
    opencv_strength,
    to_codes,
)

ClipMethod = Callable[[Tensor, float], Tensor]
"""A denoiser: noisy clip ``(C, T, H, W)`` and sigma in [0, 1] to a clip of the same shape."""

_WINDOW = 2  # frames that OpenCV looks at on either side


def frame_by_frame(method: Method) -> ClipMethod:
    """Return a method for pictures as one for clips."""
    return lambda clip, sigma: torch.stack([method(f, sigma) for f in clip.unbind(1)], dim=1)


def opencv(noisy: Tensor, sigma: float) -> Tensor:
    """Average pixels by the likeness of their patches in five frames, fewer at the ends.

    As :func:`nlden.evaluation.peers.opencv`. OpenCV wants as many frames before a frame as after
    it, so that the first and the last are denoised alone.
    """
    cv2 = import_module("cv2")
    frames = [to_codes(frame) for frame in noisy.unbind(1)]
    h, last = opencv_strength(sigma), len(frames) - 1
    clean = []
    for i in range(len(frames)):
        window = 2 * min(_WINDOW, i, last - i) + 1
        clean.append(cv2.fastNlMeansDenoisingColoredMulti(frames, i, window, None, h, h, 7, 21))
    return torch.stack([from_codes(codes) for codes in clean], dim=1)


CLIP_PEERS: dict[str, ClipMethod] = {
    **{name: frame_by_frame(method) for name, method in PEERS.items()},
    "opencv": opencv,
    # Of a few distances and strengths these were the best on clips that were tried.
    "nlm3d": partial(non_local_means, distance=3, strength=0.5),
}
"""The peers by name; those of pictures frame by frame, but for ``opencv``."""
