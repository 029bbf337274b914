"""The Python interface: arrays, tensors and PIL pictures in, the same kind out."""

import os
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nlden.inference.engines import DTYPES, choose_device, to_device
from nlden.inference.packing import Packing
from nlden.inference.planes import ChangeStream, PlaneDenoiser
from nlden.jobs.denoise import STILLS, open_denoiser
from nlden.media.color import YCbCr
from nlden.models.pretrained import load
from nlden.noise.estimation import Levels, estimate_levels

__all__ = ["denoise", "load"]

Picture = TypeVar("Picture", np.ndarray[Any, Any], Tensor, Image.Image)
Network: TypeAlias = tuple[str, str, str]
"""Model, device and precision."""

_WHITE = {torch.uint8: 255, torch.uint16: 65535}
_RGB = YCbCr("bt709", full_range=True)


def denoise(
    x: Picture,
    sigma: float | str = "auto",
    *,
    strength: float = 1.0,
    model: str | os.PathLike[str] = "auto",
    device: str = "auto",
    precision: str = "auto",
) -> Picture:
    """Denoise a picture or the frames of a clip.

    Args:
        x: a PIL picture (grey, RGB, with or without alpha); a NumPy picture ``(H, W)``,
            ``(H, W, C)`` or clip ``(T, H, W)``, ``(T, H, W, C)``; or a tensor ``(H, W)``,
            ``(C, H, W)`` or ``(T, C, H, W)``. C is 1 or 3 (4: the last is alpha and is kept).
            uint8, uint16, or floats in [0, 1].
        sigma: standard deviation of the noise in the units of ``x`` (25 for uint8 is 25 / 255
            for floats), or ``auto`` to estimate it.
        strength: 0 keeps the picture, 1 takes the denoised one; a blend between.
        model: name of shipped weights or a safetensors file; ``auto`` is ``image-gray`` for grey
            pictures and ``image-base`` for others. Those of videos look at the neighbours of a
            frame: hand them one shot of a film at a time.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Returns:
        The same kind, shape and type as ``x``; of a PIL picture with a palette RGB or RGBA.

    Raises:
        TypeError: for another kind or type of values.
        ValueError: for an impossible shape, sigma or strength, and for NaN or infinite values.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must lie between 0 and 1")
    if precision not in (known := ("auto", *DTYPES)):
        raise ValueError(f"precision={precision!r} must be one of {', '.join(known)}")
    network = (os.fspath(model), device, precision)
    if isinstance(x, Image.Image):
        return _picture(x, sigma, strength, network)
    if isinstance(x, np.ndarray):
        return _array(x, sigma, strength, network)
    if isinstance(x, Tensor):
        return _tensor(x, sigma, strength, network)
    raise TypeError(f"cannot denoise a {type(x).__name__}; give a NumPy array, tensor or picture")


@lru_cache(maxsize=2)
def _denoiser(model: str, device: str, precision: str) -> PlaneDenoiser:
    return open_denoiser(model, choose_device(device), precision, None)


def _picture(x: Image.Image, sigma: float | str, strength: float, network: Network) -> Image.Image:
    if x.mode.startswith("I;16"):
        return Image.fromarray(_array(np.asarray(x).astype(np.uint16), sigma, strength, network))
    if x.mode in ("I", "F"):
        raise TypeError(f"cannot denoise a picture of mode {x.mode}; give its values as an array")
    mode = x.mode if x.mode in ("L", "LA", "RGB", "RGBA") else "RGB"
    if x.mode == "P" and "transparency" in x.info:
        mode = "RGBA"
    clean = Image.fromarray(_array(np.asarray(x.convert(mode)), sigma, strength, network), mode)
    return clean if x.mode == "P" else clean.convert(x.mode)


def _array(
    x: np.ndarray[Any, Any], sigma: float | str, strength: float, network: Network
) -> np.ndarray[Any, Any]:
    if x.dtype == object:
        raise TypeError("cannot denoise an array of objects; give frames of one size, one array")
    channels_last = x.ndim >= 3 and x.shape[-1] in (1, 2, 3, 4)
    tensor = torch.from_numpy(np.require(x, requirements=["C", "W"]))
    if channels_last:
        tensor = tensor.movedim(-1, -3)
    elif x.ndim == 3:
        tensor = tensor[:, None]
    clean = _tensor(tensor, sigma, strength, network)
    if channels_last:
        clean = clean.movedim(-3, -1)
    return np.ascontiguousarray(clean.reshape(x.shape).numpy())


def _tensor(x: Tensor, sigma: float | str, strength: float, network: Network) -> Tensor:
    if not x.dtype.is_floating_point and x.dtype not in _WHITE:
        raise TypeError(f"cannot denoise {x.dtype}; give uint8, uint16 or floats in [0, 1]")
    if x.ndim not in (2, 3, 4) or (x.ndim > 2 and x.shape[-3] not in (1, 2, 3, 4)):
        raise ValueError(
            f"cannot denoise the shape {tuple(x.shape)}; give (H, W), (C, H, W) or (T, C, H, W) "
            "with 1 to 4 channels (last for NumPy)"
        )
    if x.numel() == 0:
        return x.clone()
    if x.dtype.is_floating_point and (strange := int((~x.isfinite()).sum())):
        raise ValueError(f"{strange} of the values are NaN or infinite; replace them before")
    white = _WHITE.get(x.dtype, 1)
    shape = (1,) * (4 - x.ndim) + tuple(x.shape)
    frames = (x.detach().float() / white).reshape(shape)
    color = 3 if shape[1] >= 3 else 1
    kind = "rgb" if color == 3 else "gray"
    model, *where = network
    denoiser = _denoiser(STILLS[kind] if model == "auto" else model, *where)
    known = _sigma(sigma, white)
    if known is None:
        levels = estimate_levels([(f[:color],) for f in frames[:: -(-len(frames) // 8)]])
    else:
        levels = Levels(known, known)
    if strength > 0:
        stream = ChangeStream(denoiser, Packing(kind, _RGB, levels, denoiser.network.formats))
        ready = [r for f in frames for r in stream.push([to_device(f[:color], denoiser.device)])]
        for frame, (changes, _) in zip(frames, [*ready, *stream.finish()], strict=True):
            frame[:color] += strength * changes[0].to(frame)
    clean = (frames * white).reshape(x.shape)
    if not x.dtype.is_floating_point:
        clean = clean.round().clamp(0, white).to(torch.int32)
    return clean.to(x)


def _sigma(sigma: float | str, white: int) -> float | None:
    if isinstance(sigma, str):
        if sigma != "auto":
            raise ValueError(f"sigma={sigma!r} must be a number or 'auto'")
        return None
    if not 0 <= sigma <= white:
        hint = f"; for floats in [0, 1] give {sigma}/255" if white == 1 else ""
        raise ValueError(f"sigma={sigma} must lie between 0 and {white}{hint}")
    return sigma / white
