"""Options of FFmpeg's encoders: quality, speed, losslessness, and what the user adds."""

from collections.abc import Mapping

import av

from nlden.media.probe import MediaError

# Visually lossless.
_CRF = {
    **{"libx264": 16, "libx264rgb": 16, "libx265": 18, "libsvtav1": 22},
    **{"libvpx-vp9": 22, "libvpx": 10},
}
_QSCALE = ("mpeg1video", "mpeg2video", "mpeg4", "mjpeg")
_LAMBDA = 118  # what FFmpeg multiplies qualities by
_LOSSLESS: Mapping[str, Mapping[str, str]] = {
    "ffv1": {},
    "libx264": {"qp": "0"},
    "libx264rgb": {"qp": "0"},
    "libx265": {"x265-params": "lossless=1"},
    "libvpx-vp9": {"lossless": "1"},
    **{name: {} for name in ("utvideo", "huffyuv", "ffvhuff", "magicyuv", "qtrle")},
    **{name: {} for name in ("rawvideo", "png", "tiff", "bmp")},
}
_CLI = {"crf": "--crf", "preset": "--encoder-preset", "cpu-used": "--encoder-preset"}


def is_lossless(encoder: str) -> bool:
    """Tell whether an encoder can keep every code."""
    return encoder in _LOSSLESS


def quality(encoder: str, crf: float | None) -> dict[str, str]:
    """Return the options of a quality.

    Args:
        encoder: FFmpeg's name.
        crf: constant rate factor, or what the encoder has in its place (quantiser scale of MPEG-2,
            MPEG-4 and JPEG; constant quality of hardware encoders); None is visually lossless.
    """
    if encoder in _CRF:
        options = {"crf": f"{_CRF[encoder] if crf is None else crf:g}"}
        return options | ({"b": "0"} if encoder == "libvpx-vp9" else {})
    if encoder in _QSCALE:
        # A fixed scale would have to be written on every frame, which PyAV cannot.
        scale = str(2 if crf is None else round(crf))
        return {"qmin": scale, "qmax": scale}
    level = f"{19 if crf is None else crf:g}"
    match encoder.rpartition("_")[2]:
        case "nvenc":
            return {"rc": "vbr", "cq": level, "b": "0"}
        case "qsv":
            return {"global_quality": level}
        case "amf":
            return {"rc": "cqp", "qp_i": level, "qp_p": level}
        case "videotoolbox":  # 1 to 100, larger is better
            grade = 65 if crf is None else crf
            return {"flags": "+qscale", "global_quality": str(round(grade * _LAMBDA))}
    return {} if crf is None else {"crf": level}


def lossless(encoder: str) -> dict[str, str]:
    """Return the options that keep every code.

    Raises:
        MediaError: if the encoder has none.
    """
    if encoder not in _LOSSLESS:
        raise MediaError(f"--lossless: {encoder} cannot; use --codec {', '.join(_LOSSLESS)}")
    return dict(_LOSSLESS[encoder])


def speed(encoder: str, preset: str | None) -> dict[str, str]:
    """Return the options of a speed preset; None is the encoder's own."""
    if preset is None:
        return {}
    return {"cpu-used" if encoder.startswith("libvpx") else "preset": preset}


def merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Join options; later ones win, but lists of an encoder's own parameters grow."""
    options: dict[str, str] = {}
    for part in parts:
        for key, value in part.items():
            known = options.get(key) if key.endswith("-params") else None
            options[key] = f"{known}:{value}" if known else value
    return options


def check(encoder: str, options: Mapping[str, str]) -> None:
    """Refuse options that FFmpeg would silently ignore.

    Raises:
        MediaError: if the encoder does not know one.
    """
    known = av.CodecContext.create(encoder, "w").supported_options
    names = {option.name for option in (*known.generic, *known.private)}
    for key, value in options.items():
        if key not in names:
            said = _CLI.get(key, f"-e {key}={value}")
            raise MediaError(f"{said}: the encoder {encoder} has no option {key}")
