"""Noise of a digital camera: it arises in the raw light of a sensor, and is then developed.

T. Brooks et al.: "Unprocessing Images for Learned Raw Denoising", CVPR 2019; A. Foi et al.:
"Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data", TIP 2008.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from nlden.noise.sampling import normal, per_picture
from nlden.noise.synthesis import quantize


@dataclass(frozen=True)
class Camera:
    """Cameras of a batch of pictures, one each. Raw light runs from 0 to 1, where it saturates.

    Args:
        shot: variance that each unit of light adds, ``(B,)``; one over the number of
            photoelectrons that saturate.
        read: standard deviation without light, ``(B,)``.
        gains: what the raw R, G and B are multiplied by to give a balanced and well exposed
            linear picture, ``(B, 3)``.
    """

    shot: Tensor
    read: Tensor
    gains: Tensor


def draw_camera(n: int, generator: Generator) -> Camera:
    """Draw cameras, sensitivities and light as Brooks et al. found them in photographs.

    - log(shot) is uniform between log(0.0001) and log(0.012);
    - log(read^2) = 2.18 log(shot) + 1.20 + 0.26 n, with n standard normal;
    - the gains of red and blue relative to green are uniform in [1.9, 2.4] and [1.5, 1.9];
    - all gains are divided by an exposure 0.8 + 0.1 n, kept within [0.5, 1] so that white does
      not saturate the sensor.

    Args:
        n: number of cameras.
        generator: source of randomness; the parameters lie on its device.
    """
    device = generator.device
    log_shot, red, blue = torch.rand((3, n), generator=generator, device=device)
    scatter, exposure = torch.randn((2, n), generator=generator, device=device)
    log_shot = torch.lerp(
        log_shot.new_tensor(1e-4).log(), log_shot.new_tensor(0.012).log(), log_shot
    )
    read = (0.5 * (2.18 * log_shot + 1.20 + 0.26 * scatter)).exp()
    balance = torch.stack([1.9 + 0.5 * red, torch.ones_like(red), 1.5 + 0.4 * blue], dim=1)
    return Camera(log_shot.exp(), read, balance / (0.8 + 0.1 * exposure).clamp(0.5, 1)[:, None])


def poisson_gaussian(
    x: Tensor, shot: Tensor | float, read: Tensor | float, generator: Generator
) -> Tensor:
    """Draw photoelectrons and add the noise of the amplifier: ``shot P(x / shot) + read n``.

    P is a Poisson number: the mean is x and the variance ``shot x + read^2``. Neither clipped
    nor rounded.

    Args:
        x: linear light ``(B, C, H, W)``; below 0 there is no light.
        shot: variance that each unit of light adds; one number, ``(B,)`` or broadcasting. 0 is
            light without grain.
        read: standard deviation without light, likewise.
        generator: source of randomness, on the device of ``x``.

    Raises:
        ValueError: if a parameter is negative.
    """
    unit, floor = per_picture("shot", shot, x), per_picture("read", read, x)
    light = x.clamp(min=0)
    electron = torch.where(unit > 0, unit, 1.0)
    electrons = torch.poisson(light / electron, generator=generator)
    counted = torch.where(unit > 0, electrons * electron, light)
    return counted + floor * normal(x.shape, x, generator)


def through_camera(
    rgb: Tensor, camera: Camera, generator: Generator | None = None, bits: int = 12
) -> Tensor:
    """Take pictures of pictures: the noise of a sensor as a finished photograph shows it.

    The sRGB curve and the gains are undone, a Bayer mosaic (RGGB) is exposed with
    :func:`poisson_gaussian`, clipped and rounded to the codes of the converter; then
    demosaicked bilinearly, amplified, clipped and put through the sRGB curve. Where curve and
    gains have the slope g at a signal s of the sensor, the noise of a flat picture has the
    standard deviation ``g sqrt(a (shot s + read^2))``, with a = 5/8 for green and 9/16 for red
    and blue, and is correlated between neighbours.

    Args:
        rgb: sRGB ``(B, 3, H, W)`` of any size.
        camera: the parameters of the pictures.
        generator: source of randomness, on the device of ``rgb``. Without one there is neither
            noise nor rounding: the picture to train towards, which is free of noise and has
            been demosaicked alike.
        bits: of the converter.

    Returns:
        sRGB ``(B, 3, H, W)`` in [0, 1].

    Raises:
        ValueError: if the shapes do not fit or a parameter lies outside its range.
    """
    # Imported here: kornia takes its time, and who measures noise has no need of it.
    from kornia.color import CFA, linear_rgb_to_rgb, raw_to_rgb, rgb_to_linear_rgb, rgb_to_raw

    batch, channels, height, width = rgb.shape
    if channels != 3 or camera.gains.shape != (batch, 3):
        raise ValueError(
            f"rgb has shape {tuple(rgb.shape)} and gains {tuple(camera.gains.shape)}, "
            "must be (B, 3, H, W) and (B, 3)"
        )
    gains = per_picture("gains", camera.gains[:, :, None, None], rgb, low=1e-3)
    light = rgb_to_linear_rgb(rgb.clamp(0, 1)) / gains
    # A mosaic is made of cells of 2 x 2.
    raw = rgb_to_raw(F.pad(light, (0, width % 2, 0, height % 2), mode="replicate"), CFA.BG)
    if generator is not None:
        raw = quantize(poisson_gaussian(raw, camera.shot, camera.read, generator), bits)
    developed = raw_to_rgb(raw.clamp(0, 1), CFA.BG)[..., :height, :width] * gains
    return linear_rgb_to_rgb(developed.clamp(0, 1))
