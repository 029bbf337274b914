"""What decoded frames carry beside their pictures."""

import math
import struct
from collections.abc import Mapping
from typing import Any

from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame

# What encoders could carry but PyAV has no way to hand to them.
_NOT_KEPT = {
    SideData.A53_CC: "closed captions",
    SideData.STEREO3D: "the packing of stereo 3D",
    SideData.SPHERICAL: "the projection of spherical video",
    SideData.AFD: "the active format description",
    SideData.S12M_TIMECODE: "the timecodes of frames",
}


def side_data(frame: VideoFrame) -> Mapping[SideData, Any]:
    """Return what a frame carries beside its picture; nothing if part of it is of unknown type."""
    try:
        carried: Any = frame.side_data  # PyAV's annotation describes something else
    except ValueError:  # PyAV names fewer types than its FFmpeg knows (EXIF is one)
        return {}
    return carried


def not_kept(frame: VideoFrame) -> list[str]:
    """Name what a frame carries that does not go into the target."""
    carried = side_data(frame)
    return [name for kind, name in _NOT_KEPT.items() if kind in carried]


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """Return the nine numbers of the display matrix of a frame, if it is to be turned."""
    if SideData.DISPLAYMATRIX in (carried := side_data(frame)):
        return struct.unpack("=9i", bytes(carried[SideData.DISPLAYMATRIX]))
    return _rotation_matrix(frame.rotation) if frame.rotation else None


def _rotation_matrix(degrees: int) -> tuple[int, ...]:
    """Return the display matrix of a counter-clockwise turn, in FFmpeg's fixed point."""
    cos, sin = (round(f(math.radians(degrees)) * 2**16) for f in (math.cos, math.sin))
    return cos, -sin, 0, sin, cos, 0, 0, 0, 2**30
