"""Noise levels of a file: told by the user, or estimated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlden.media.color import YCbCr
from nlden.media.frames import Frame
from nlden.media.probe import Layout
from nlden.media.sampling import sample_frames
from nlden.noise.estimation import Levels, estimate_levels


def estimate_video(path: Path, white: int, start: float = 0.0, end: float | None = None) -> Levels:
    """Estimate the noise levels of a video's planes, from frames all over it.

    Args:
        path: the file.
        white: code of white.
        start: first second to look at.
        end: last second to look at; None is the end of the file.
    """
    return estimate_frames(sample_frames(path, start=start, end=end), white)


def estimate_frames(frames: Sequence[Frame], white: int) -> Levels:
    """Estimate the noise levels of the planes of some frames of a video; ``white`` as above."""
    return estimate_levels([f.planes for f in frames], white)


@dataclass(frozen=True)
class Noise:
    """What the user says of the noise. What is None is estimated from the file.

    Args:
        sigma: level of white noise in R, G and B, 0 to 1; carried to the planes of a file.
        luma: level of the luma plane itself; goes before ``sigma``.
        chroma: level of the chroma planes themselves; goes before ``sigma``.
    """

    sigma: float | None = None
    luma: float | None = None
    chroma: float | None = None

    def levels(self, layout: Layout, color: YCbCr, estimate: Callable[[], Levels]) -> Levels:
        """Return the levels of the planes of a file.

        Args:
            layout: its layout.
            color: its matrix and range.
            estimate: called if something must be estimated.
        """
        if self.luma is not None and self.chroma is not None:
            return Levels(self.luma, self.chroma)
        if self.sigma is None:
            known = estimate()
        elif layout.kind in ("rgb", "gray"):
            known = Levels(self.sigma, self.sigma)
        else:
            known = Levels(*color.plane_levels(self.sigma, averaged=layout.averaged))
        return Levels(
            known.luma if self.luma is None else self.luma,
            known.chroma if self.chroma is None else self.chroma,
        )
