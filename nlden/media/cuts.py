"""Scene cuts: where a video goes over from one shot to another between two frames.

Frames are compared as encoders do that place key frames at cuts: by what motion compensation
leaves over of a frame when another predicts it. Here both are thumbnails, so that noise has been
averaged away and the cost is small, brought to mean 0 and variance 1, so that fades and flashes
of light change little. The residual of unrelated pictures is near 1, that of neighbours near 0.

A cut is a gap that no frame before it predicts across: the smallest residual over all pairs of
frames around the gap is large, in itself and beside what the frames on either side leave of
their own neighbours (fast motion, sparks). A flash lies between frames that predict each other.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

_CELLS = 48  # of the longer side of a thumbnail: objects are seen, texture and noise are not
_SMALLEST = 4  # pixels a side of a cell: noise is averaged in small pictures too
_FLAT = 0.04  # added to the standard deviation: the rest of noise in black frames stays small
_BLOCK = 1 / 6  # of the longer side: the blocks that move together
_REACH = 1 / 12  # of the longer side: how far a block may move between frames
_SPAN = 3  # frames that a pair lies apart at the most: flashes of two frames are seen over
# Chosen on spliced clips of real cameras: across their cuts the smallest residual was 0.22 to
# 1.24, inside the shots in 99 of 100 places below 0.22 (the noise of sigma 50 changed neither),
# and up to 0.6 in wild motion, where that of the neighbours is as large.
_DIFFERENT = 0.2  # residual of a cut at the least
_RATIO = 1.5  # a cut's residual over those of its neighbours at the least


class CutDetector:
    """Find the cuts of a video while its frames pass, with a delay of two frames.

    Every frame gets a flag: whether a cut lies before it. Memory and time per frame are constant.
    Shots are told apart if they last two frames or more and change from one frame to the next;
    fades and dissolves are no cuts. Pictures under 64 pixels a side are too small to be sure.

    Example:
        >>> detector = CutDetector()
        >>> flags = [flag for luma in frames for flag in detector.push(luma)]
        >>> flags += detector.finish()  # len(flags) == len(frames)
    """

    def __init__(self) -> None:
        self._shape: torch.Size | None = None
        self._thumbnails: deque[Tensor] = deque(maxlen=_SPAN)
        # Of the last frames: the residuals of their predictions from 1, 2, ... frames before.
        self._residuals: deque[list[float]] = deque(maxlen=_SPAN + 1)
        self._pending = 0

    def push(self, luma: Tensor) -> list[bool]:
        """Take the next frame.

        Args:
            luma: ``(1, H, W)``, values in [0, 1].

        Returns:
            The flag of the frame two before this one; nothing for the first two frames.

        Raises:
            ValueError: if it is of another shape, or of another size than the frames before.
        """
        if luma.ndim != 3 or len(luma) != 1 or luma.numel() == 0:
            raise ValueError(f"luma has the shape {tuple(luma.shape)}; it must be (1, H, W)")
        if self._shape is not None and luma.shape != self._shape:
            raise ValueError(
                f"luma has the shape {tuple(luma.shape)} after frames of {tuple(self._shape)}"
            )
        self._shape = luma.shape
        small = thumbnail(luma)
        earlier = reversed(self._thumbnails)
        self._residuals.append([prediction_residual(frame, small) for frame in earlier])
        self._thumbnails.append(small)
        self._pending += 1
        return self._flags(_SPAN - 1)

    def finish(self) -> list[bool]:
        """Return the flags of the last frames, that none follows."""
        return self._flags(0)

    def _flags(self, delay: int) -> list[bool]:
        flags = []
        while self._pending > delay:
            flags.append(self._is_cut(len(self._residuals) - self._pending))
            self._pending -= 1
        return flags

    def _is_cut(self, at: int) -> bool:
        """Tell whether a cut lies before the frame ``at`` of those in memory."""
        rows = list(self._residuals)
        # Row at + i holds pairs across the gap from the distance i + 1 on.
        across = [r for i, row in enumerate(rows[at:]) for r in row[i:]]
        beside = [row[0] for row in (*rows[at - 1 : at], *rows[at + 1 : at + 2]) if row]
        if not across:
            return False
        return min(across) > max(_DIFFERENT, _RATIO * max(beside, default=0.0))


def thumbnail(luma: Tensor) -> Tensor:
    """Average cells of ``(1, H, W)`` and bring them to mean 0 and variance 1 (0 if flat)."""
    height, width = luma.shape[1:]
    cell = max(_SMALLEST, math.ceil(max(height, width) / _CELLS))
    small = F.adaptive_avg_pool2d(luma.float(), (-(-height // cell), -(-width // cell)))
    return (small - small.mean()) / (small.std(correction=0) + _FLAT)


def prediction_residual(reference: Tensor, frame: Tensor) -> float:
    """Return the mean squared error of a thumbnail that another predicts by moved blocks."""
    height, width = frame.shape[1:]
    longer = max(height, width)
    around = F.pad(reference[None], (math.ceil(_REACH * longer),) * 4, mode="replicate")[0, 0]
    moved = around.unfold(0, height, 1).unfold(1, width, 1).flatten(0, 1)
    errors = F.avg_pool2d(
        (moved - frame).square()[None], min(math.ceil(_BLOCK * longer), height, width)
    )[0]
    return float(errors.amin(0).mean())


def find_cuts(frames: Iterable[Tensor]) -> Iterator[int]:
    """Iterate over the numbers (from 0) of the frames before which a cut lies.

    Args:
        frames: luma ``(1, H, W)``, values in [0, 1], in the order of display.

    Raises:
        ValueError: see :meth:`CutDetector.push`.
    """
    detector = CutDetector()

    def flags() -> Iterator[bool]:
        for frame in frames:
            yield from detector.push(frame)
        yield from detector.finish()

    return (number for number, flag in enumerate(flags()) if flag)
