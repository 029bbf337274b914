"""Before a long run: one frame before and after as a picture, or a few seconds side by side."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from nlden.inference.planes import PlaneDenoiser, Planes
from nlden.jobs.cleaning import Item, clean_frames
from nlden.jobs.denoise import Request, clean_still, naming, video_levels
from nlden.jobs.pipeline import WriteBehind
from nlden.media.color import MATRIX_TAGS
from nlden.media.frames import Frame, from_planes
from nlden.media.probe import Layout, MediaError, VideoInfo
from nlden.media.reader import VideoReader
from nlden.media.stills import Still, is_still, read_still, write_still
from nlden.media.trim import exact
from nlden.media.writer import VideoWriter
from nlden.models import VideoDenoiser
from nlden.noise.estimation import Levels

_BEFORE = 0.5  # seconds
_SPACE, _ZOOM, _WIDEST = 8, 4, 960  # pixels between pictures, enlargement, a column's width


def preview(
    source: Path, second: float, target: Path, denoiser: PlaneDenoiser, request: Request
) -> Levels:
    """Write a sheet as PNG: a frame before and after, above its most detailed part enlarged.

    Args:
        source: a video or a still picture.
        second: time of the frame, from the beginning of the file.
        target: where to write.
        denoiser: the network.
        request: how.

    Returns:
        The noise levels that the network was told.

    Raises:
        MediaError: if there is no such frame or the target cannot be written.
    """
    if is_still(source):
        clean, levels = clean_still(source, denoiser, request)
        before, after = (_picture(s) for s in (read_still(source), clean))
    else:
        pair, info, levels = _frame_at(source, second, denoiser, request)
        before, after = (_displayed(p, info) for p in pair)
    told = f"denoised: noise {255 * levels.luma:.1f} luma, {255 * levels.chroma:.1f} chroma"
    sheet = _sheet(before, after, (source.name, told))
    pixels = torch.from_numpy(np.asarray(sheet).copy()).permute(2, 0, 1)
    write_still(target, Still(pixels, 8))
    return levels


def _frame_at(
    source: Path, second: float, denoiser: PlaneDenoiser, request: Request
) -> tuple[tuple[Planes, Planes], VideoInfo, Levels]:
    """Return a frame before and after, the video, and the noise levels."""
    # What looks at neighbours is given some of those before.
    start = max(0.0, second - _BEFORE) if isinstance(denoiser.network, VideoDenoiser) else second
    options = (request.deinterlace, request.hwaccel)
    with VideoReader(source, start, None, None, *options) as reader:
        info, levels = reader.info, video_levels(reader, request)
        moment = info.origin + exact(second)
        with naming(source):
            stream = denoiser.stream(info.layout, info.color, levels, request.strengths)
        seen: deque[Frame] = deque()
        with closing(clean_frames(_seen(reader, seen), stream)) as cleaned:
            for item, _ in cleaned:
                if isinstance(item, Frame):
                    source_frame = seen.popleft()
                    if item.pts * info.time_base >= moment:
                        return (source_frame.planes, item.planes), info, levels
    raise MediaError(f"{source}: no frame at {second:g} s")


def _seen(items: Iterable[Item], frames: deque[Frame]) -> Iterator[Item]:
    """Note the frames that pass by."""
    for item in items:
        if isinstance(item, Frame):
            frames.append(item)
        yield item


def _picture(still: Still) -> Image.Image:
    codes = still.pixels if still.bits == 8 else (still.pixels.float() / 257).round()
    return Image.fromarray(codes.to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy())


def _displayed(planes: Planes, info: VideoInfo) -> Image.Image:
    """Convert a frame as a player shows it."""
    frame, color = from_planes(planes, info.layout), info.color
    if info.layout.kind != "rgb":
        matrix, span = MATRIX_TAGS[color.matrix], 2 if color.full_range else 1
        frame.colorspace, frame.color_range = matrix, span
        frame = frame.reformat(
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=span,
            dst_color_range=2,
        )
    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return picture.rotate(info.rotation, expand=True)


def _sheet(before: Image.Image, after: Image.Image, labels: tuple[str, str]) -> Image.Image:
    wide = min(before.width, _WIDEST)
    tall = round(before.height * wide / before.width)
    across, down = min(wide // _ZOOM, before.width), min(wide // _ZOOM, before.height)
    left, top = _most_detailed(after, across, down)
    box = (left, top, left + across, top + down)
    font = ImageFont.load_default(max(11, wide // 45))
    line = round(1.6 * font.getbbox("Ag")[3])
    size = (2 * wide + 3 * _SPACE, line + tall + _ZOOM * down + 3 * _SPACE)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, text) in enumerate(zip((before, after), labels, strict=True)):
        x = _SPACE + i * (wide + _SPACE)
        draw.text((x, _SPACE // 2), text, "black", font)
        whole = picture if picture.width == wide else picture.resize((wide, tall))
        sheet.paste(whole, (x, line + _SPACE))
        scale = wide / picture.width
        frame = [scale * v for v in box]
        draw.rectangle(
            [x + frame[0], line + _SPACE + frame[1], x + frame[2], line + _SPACE + frame[3]],
            outline="yellow",
        )
        # Every pixel as it is: smoothing would change the noise that is to be judged.
        detail = picture.crop(box).resize((_ZOOM * across, _ZOOM * down), Image.Resampling.NEAREST)
        sheet.paste(detail, (x, line + tall + 2 * _SPACE))
    return sheet


def _most_detailed(picture: Image.Image, across: int, down: int) -> tuple[int, int]:
    """Return the left and top of the window in which the gradients are largest."""
    luma = torch.from_numpy(np.asarray(picture.convert("L")).copy()).float()[None, None]
    steep = F.pad(luma.diff(dim=2).abs(), (0, 0, 0, 1)) + F.pad(luma.diff(dim=3).abs(), (0, 1))
    mean = F.avg_pool2d(steep, (down, across), stride=1)
    top, left = divmod(int(mean.argmax()), mean.shape[-1])
    return left, top


def sample(
    source: Path,
    seconds: float,
    target: Path,
    denoiser: PlaneDenoiser,
    request: Request,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, Levels, list[str]]:
    """Write a few seconds of a video with the source on the left and the result on the right.

    Args:
        source: a video.
        seconds: how many.
        target: where to write.
        denoiser: the network.
        request: how; its ``start`` is where the part begins, 0 takes the middle of the file.
        progress: called with the frames done and the frames expected.

    Returns:
        How many frames were written, the noise levels, and lines for the user.

    Raises:
        MediaError: if the source cannot be read or the target not be written.
    """
    with VideoReader(source) as reader:
        whole, levels = reader.info, video_levels(reader, request)
    start = request.start or max(0.0, ((whole.duration or 0.0) - seconds) / 2)
    part = (start, start + seconds, None)
    with VideoReader(source, *part, request.deinterlace, request.hwaccel) as reader:
        info = reader.info
        opaque = replace(info.layout, alpha=False)
        upright = info.rotation % 180 == 0
        wide, tall = (2, 1) if upright else (1, 2)
        beside = replace(
            info,
            layout=opaque,
            width=wide * _even(info.width, info.layout),
            height=tall * _even(info.height, info.layout),
        )
        total = round(seconds * float(info.rate or 25))
        done = 0
        with naming(source):
            stream = denoiser.stream(info.layout, info.color, levels, request.strengths)
        writer = VideoWriter(target, beside, reader.streams, request.encoding, reader.shift)
        seen: deque[Frame] = deque()
        with (
            writer,
            WriteBehind(writer.take) as behind,
            closing(clean_frames(_seen(reader, seen), stream)) as cleaned,
        ):
            for item, _ in cleaned:
                if isinstance(item, Frame):
                    pair = _beside(seen.popleft().planes, item.planes, info)
                    item = replace(item, planes=pair, layout=opaque, alpha=None)
                    done += 1
                    progress(done, total)
                behind.put(item)
        return done, levels, [*reader.warnings, *writer.warnings]


def _even(extent: int, layout: Layout) -> int:
    """Return an extent that stays whole when chroma halves it."""
    return extent // 2 * 2 if layout.averaged > 1 else extent


def _beside(before: Planes, after: Planes, info: VideoInfo) -> Planes:
    """Join two frames so that a player, which may turn them, shows the first on the left."""
    pairs = [before, after]
    if info.rotation % 360 in (180, 270):
        pairs.reverse()
    dim = -1 if info.rotation % 180 == 0 else -2
    joined = []
    for number, (a, b) in enumerate(zip(*pairs, strict=True)):
        height, width = (_even(extent, info.layout) for extent in (info.height, info.width))
        if number and info.layout.averaged > 1:
            width, height = width // 2, height // (2 if info.layout.averaged == 4 else 1)
        joined.append(torch.cat([x[..., :height, :width] for x in (a, b)], dim))
    return tuple(joined)
