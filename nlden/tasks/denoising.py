"""Denoising tasks."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio

from nlden.metrics import flicker
from nlden.models.image_denoiser import ImageDenoiser
from nlden.models.pretrained import load, load_weights
from nlden.models.self_ensemble import TURNS, self_ensemble
from nlden.models.video_denoiser import VideoDenoiser
from nlden.tasks.base import Task


def psnr_loss(x: Tensor, y: Tensor, eps: float = 1e-6) -> Tensor:
    """Return the negative PSNR in dB, mean over the pictures: values in [0, 1].

    The logarithm makes a picture with little noise count as much as one with much.

    Args:
        x: output, ``(B, C, H, W)`` or ``(B, C, T, H, W)``, whose frames count one by one.
        y: target.
        eps: added to the mean squared error: pictures better than ``-10 log10(eps)`` dB hardly
            count, and a perfect one has a finite gradient.
    """
    error = (x - y).square().mean(dim=(1, -2, -1))
    return 10 * torch.log10(error + eps).mean()


def mean_psnr(x: Tensor, y: Tensor) -> Tensor:
    """Return the PSNR in dB, mean over the pictures or frames; shapes as in :func:`psnr_loss`."""
    if x.ndim == 5:
        x, y = (t.transpose(1, 2).flatten(0, 1) for t in (x, y))
    return peak_signal_noise_ratio(x, y, data_range=1.0, dim=(1, 2, 3))


class ImageDenoising(Task):
    """Train a denoiser of images.

    A batch is a mapping with ``noisy`` and ``clean`` (RGB ``(B, 3, H, W)`` or packed 4:2:0
    ``(B, 6, h, w)``, in [0, 1]) and ``sigma`` ``(B, 2)``; in validation and test also ``name``,
    under which the PSNR is logged (mean of the pictures' PSNR, output clamped to [0, 1]).

    Args:
        net: the denoiser, called as ``net(noisy, sigma)``.
        weights: weights to start from: a shipped name or a safetensors file.
        teacher: weights of a larger denoiser whose results are the targets instead of the clean
            pictures (G. Hinton et al.: "Distilling the Knowledge in a Neural Network", 2015). They
            are what can be known of these, so that the gradients are less random. With the
            network's own weights it learns what it makes of all orientations together.
        turns: orientations, drawn at random, in which the teacher sees each batch, 1 to 8.
        lr: learning rate of Muon.
        adamw_lr: learning rate of AdamW.
    """

    def __init__(
        self,
        net: ImageDenoiser | VideoDenoiser,
        weights: str | None = None,
        teacher: str | None = None,
        turns: int = 1,
        lr: float = 0.01,
        adamw_lr: float = 0.001,
    ) -> None:
        super().__init__(lr, adamw_lr)
        if not 1 <= turns <= TURNS:
            raise ValueError(f"turns={turns} must lie in [1, {TURNS}]")
        self.net = net.to(memory_format=torch.channels_last)
        if weights is not None:
            load_weights(self.net, weights)
        self.teacher = load(teacher) if teacher is not None else None
        self.turns = turns

    def edge_modules(self) -> list[nn.Module]:
        """Return stems and tails."""
        assert isinstance(self.net, ImageDenoiser)
        return [self.net.stems, self.net.tails]

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Return the clean picture."""
        return self.net(noisy, sigma)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> STEP_OUTPUT:
        """Return the negative PSNR."""
        noisy, sigma, target = batch["noisy"], batch["sigma"], batch["clean"]
        if self.teacher is not None:
            generator = torch.Generator().manual_seed(self.global_step)  # a resumed run's, too
            turns = torch.randperm(TURNS, generator=generator)[: self.turns].tolist()
            with torch.no_grad():
                target = self_ensemble(self.teacher, noisy, sigma, turns)
        loss = psnr_loss(self(noisy, sigma), target)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log the PSNR of the batch's pictures."""
        psnr = self._psnr(batch)
        self.log(f"val/psnr/{batch['name']}", psnr, on_epoch=True, batch_size=1)
        self.log("val/psnr", psnr, on_epoch=True, prog_bar=True, batch_size=1)

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log the PSNR of the batch's pictures."""
        self.log(f"test/psnr/{batch['name']}", self._psnr(batch), on_epoch=True, batch_size=1)

    def _psnr(self, batch: Mapping[str, Any]) -> Tensor:
        output = self(batch["noisy"], batch["sigma"]).clamp(0, 1)
        return mean_psnr(output, batch["clean"])


class VideoDenoising(ImageDenoising):
    """Train a denoiser of videos.

    As :class:`ImageDenoising`, with clips: ``(B, 3, T, H, W)`` or packed ``(B, 6, T, h, w)``.

    Args:
        net: the denoiser.
        weights: weights to start from; None starts with those of the second stage.
        train_spatial: whether the first stage learns, too: to denoise frames alone.
        fusion: weights that the second stage starts from, as far as they fit.
        temporal: weight of what keeps the picture from flickering: the same loss for what changes
            from frame to frame.
        lr: learning rate of Muon.
        adamw_lr: learning rate of AdamW.
    """

    net: VideoDenoiser

    def __init__(
        self,
        net: VideoDenoiser,
        weights: str | None = None,
        train_spatial: bool = True,
        fusion: str | None = "image-base",
        temporal: float = 0.2,
        lr: float = 0.0015,
        adamw_lr: float = 0.0005,
    ) -> None:
        super().__init__(net, weights, lr=lr, adamw_lr=adamw_lr)
        self.temporal = temporal
        self.train_spatial = train_spatial
        net.spatial.requires_grad_(train_spatial)
        if weights is None and fusion is not None:
            load_weights(net.fusion, fusion, partly=True)

    def edge_modules(self) -> list[nn.Module]:
        """Return stems and tails."""
        return [m for net in (self.net.spatial, self.net.fusion) for m in (net.stems, net.tails)]

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> STEP_OUTPUT:
        """Return the negative PSNR of the frames and of their changes."""
        alone, clean = self.net.stages(batch["noisy"], batch["sigma"])
        target = batch["clean"]
        loss = psnr_loss(clean, target)
        self.log("train/loss", loss, prog_bar=True)
        if self.train_spatial:
            loss = loss + psnr_loss(alone, target)
        if self.temporal and clean.shape[2] > 1:
            loss = loss + self.temporal * psnr_loss(clean.diff(dim=2), target.diff(dim=2))
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log PSNR and flicker of the batch's clips."""
        clean = self(batch["noisy"], batch["sigma"]).clamp(0, 1)
        psnr = mean_psnr(clean, batch["clean"])
        self.log(f"val/psnr/{batch['name']}", psnr, on_epoch=True, batch_size=1)
        self.log("val/psnr", psnr, on_epoch=True, prog_bar=True, batch_size=1)
        if clean.shape[2] == 1:
            return  # nothing to flicker
        for clip, truth in zip(clean, batch["clean"], strict=True):
            self.log("val/flicker", 255 * flicker(clip, truth), on_epoch=True, batch_size=1)
