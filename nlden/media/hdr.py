"""HDR metadata of frames: what is read beside the pictures and how encoders take it.

SMPTE ST 2086 describes the display that a film was mastered on, CTA-861.3 the light of its
pictures; together with the transfer PQ they are HDR10. They hold for a whole film. Dolby Vision
and HDR10+ (SMPTE ST 2094-40) describe every frame anew.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction

from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame

from nlden.media.side_data import side_data

_DYNAMIC = {
    SideData.DYNAMIC_HDR_PLUS: "HDR10+",
    SideData.DOVI_METADATA: "Dolby Vision",
    SideData.DOVI_RPU_BUFFER: "Dolby Vision",
}
# The options that carry an encoder's own parameters, and its names of the two that matter here.
_PARAMETERS = {
    "libx264": ("x264-params", "mastering-display", "cll"),
    "libx265": ("x265-params", "master-display", "max-cll"),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
}


@dataclass(frozen=True)
class Hdr:
    """HDR metadata of a video. What is not there is None or empty.

    Args:
        chromaticities: x and y of red, green, blue and white of the mastering display (CIE 1931).
        luminances: least and greatest luminance of the mastering display, in cd/m2.
        light: MaxCLL and MaxFALL, in cd/m2.
        dynamic: names of the metadata of single frames: ``Dolby Vision``, ``HDR10+``.
    """

    chromaticities: tuple[Fraction, ...] | None = None
    luminances: tuple[Fraction, Fraction] | None = None
    light: tuple[int, int] | None = None
    dynamic: tuple[str, ...] = ()

    @classmethod
    def of(cls, frame: VideoFrame) -> "Hdr":
        """Read what a decoded frame carries."""
        carried = side_data(frame)
        chromaticities = luminances = light = None
        if SideData.MASTERING_DISPLAY_METADATA in carried:
            display = bytes(carried[SideData.MASTERING_DISPLAY_METADATA])
            numbers = struct.unpack("=22i", display[:88])
            pairs = zip(numbers[:20:2], numbers[1:20:2], strict=True)
            ratios = tuple(Fraction(n, d) if d else Fraction(0) for n, d in pairs)
            chromaticities = ratios[:8] if numbers[20] else None
            luminances = (ratios[8], ratios[9]) if numbers[21] else None
        if SideData.CONTENT_LIGHT_LEVEL in carried:
            light = struct.unpack("=2I", bytes(carried[SideData.CONTENT_LIGHT_LEVEL])[:8])
        dynamic = {name: None for kind, name in _DYNAMIC.items() if kind in carried}
        return cls(chromaticities, luminances, light, tuple(dynamic))

    @property
    def static(self) -> bool:
        """Whether there is anything that an encoder could be told."""
        return self._display is not None or self.light is not None

    @property
    def _display(self) -> tuple[Fraction, ...] | None:
        if self.chromaticities is None or self.luminances is None:
            return None  # encoders take the display whole
        return (*self.chromaticities, *self.luminances)

    def options(self, encoder: str) -> dict[str, str]:
        """Return the options that hand the metadata to an encoder; empty if it takes none."""
        if encoder not in _PARAMETERS:
            return {}
        option, display, light = _PARAMETERS[encoder]
        parts = []
        if self._display is not None:
            parts.append(f"{display}={_display(self._display, exact=encoder == 'libsvtav1')}")
        if self.light is not None:
            parts.append(f"{light}={self.light[0]},{self.light[1]}")
        return {option: ":".join(parts)} if parts else {}


def _display(numbers: tuple[Fraction, ...], *, exact: bool) -> str:
    """Spell a mastering display in the units of ST 2086, or in units of 1 if ``exact``."""
    if exact:
        values = [f"{float(n):.6f}" for n in numbers]
    else:
        units = [50_000] * 8 + [10_000] * 2
        values = [str(round(n * unit)) for n, unit in zip(numbers, units, strict=True)]
    rx, ry, gx, gy, bx, by, wx, wy, low, high = values
    return f"G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({high},{low})"
