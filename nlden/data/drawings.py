"""Pictures that are drawn instead of photographed: captions, tables, shapes, hatching.

Videos show titles, screens and print, which photographs for training hardly hold: letters, edges
as sharp as pixels are, patterns that repeat, and areas that are flat.
"""

import random
import string
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

EXTENT = 512
"""Height and width in pixels of the drawings of trainings."""

_UNSEEN = 2**40  # seed of what no training draws
_SMALLEST, _LARGEST = 12, 130  # heights of letters in pixels
_SHADE = 60  # largest difference, of 255, across a shaded ground

Box = tuple[int, int, int, int]
"""Left, top, right and bottom."""


def draw_pictures(count: int, extent: int, seed: int) -> list[Tensor]:
    """Draw pictures of text, tables, shapes and hatching, in random colours.

    Args:
        count: number of pictures.
        extent: height and width N of each in pixels, at least 64.
        seed: source of all randomness.

    Returns:
        Pictures, uint8 ``(3, N, N)``.

    Raises:
        ValueError: if the pictures would be too small for anything to be seen.
    """
    if extent < 64:
        raise ValueError(f"extent={extent} must be at least 64 pixels")
    draw = random.Random(seed)
    return [_picture(extent, draw) for _ in range(count)]


def draw_unseen(count: int) -> list[Tensor]:
    """Draw pictures of :data:`EXTENT` to validate on: the same ones, whatever a training draws."""
    return draw_pictures(count, EXTENT, _UNSEEN)


def _picture(extent: int, draw: random.Random) -> Tensor:
    image = _ground(extent, draw)
    canvas = ImageDraw.Draw(image)
    parts = (_paragraph, _paragraph, _table, _shapes, _hatching)
    for _ in range(draw.randint(3, 9)):
        left, top = (draw.randrange(-extent // 8, extent * 3 // 4) for _ in "xy")
        right, bottom = (a + draw.randint(extent // 6, extent) for a in (left, top))
        if draw.random() < 0.4:
            canvas.rectangle((left, top, right, bottom), fill=_color(draw))
        draw.choice(parts)(canvas, (left, top, right, bottom), draw)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _ground(extent: int, draw: random.Random) -> Image.Image:
    """Return a plain or shaded ground."""
    color = _color(draw)
    image = Image.new("RGB", (extent, extent), color)
    if draw.random() < 0.5:
        red, green, blue = (min(255, max(0, c + draw.randint(-_SHADE, _SHADE))) for c in color)
        shade = Image.linear_gradient("L").rotate(draw.choice((0, 90, 180, 270)))
        image.paste((red, green, blue), mask=shade.resize(image.size))
    return image


def _color(draw: random.Random) -> tuple[int, int, int]:
    """Return a grey, black and white among them, as often as a colour."""
    if draw.random() < 0.5:
        level = draw.choice((0, 255, draw.randrange(256)))
        return level, level, level
    return draw.randrange(256), draw.randrange(256), draw.randrange(256)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _size(draw: random.Random) -> int:
    """Return a height of letters, small ones as often as large ones."""
    return round(_SMALLEST * (_LARGEST / _SMALLEST) ** draw.random())


def _word(draw: random.Random) -> str:
    kind = draw.choice((string.ascii_lowercase, string.ascii_uppercase, string.digits))
    return "".join(draw.choices(kind, k=draw.randint(1, 9)))


def _paragraph(canvas: ImageDraw.ImageDraw, box: Box, draw: random.Random) -> None:
    left, top, right, bottom = box
    size, color = _size(draw), _color(draw)
    for y in range(top, bottom, round(size * draw.uniform(1.1, 1.6))):
        line = " ".join(_word(draw) for _ in range(1 + (right - left) // (3 * size)))
        canvas.text((left, y), line, fill=color, font=_font(size))


def _table(canvas: ImageDraw.ImageDraw, box: Box, draw: random.Random) -> None:
    left, top, right, bottom = box
    size, color, ruling, width = _size(draw), _color(draw), _color(draw), draw.randint(0, 3)
    wide, high = (round(size * draw.uniform(1.5, 3)) for _ in "xy")
    for row, y in enumerate(range(top, bottom - high, high)):
        for column, x in enumerate(range(left, right - wide, wide)):
            if width:
                canvas.rectangle((x, y, x + wide, y + high), outline=ruling, width=width)
            middle = x + wide / 2, y + high / 2
            canvas.text(middle, str(7 * row + column), fill=color, font=_font(size), anchor="mm")


def _shapes(canvas: ImageDraw.ImageDraw, box: Box, draw: random.Random) -> None:
    left, top, right, bottom = box
    for _ in range(draw.randint(1, 12)):
        x, y = draw.randint(left, right), draw.randint(top, bottom)
        wide, high = (draw.randint(2, max(3, n // 2)) for n in (right - left, bottom - top))
        corners, color = (x, y, x + wide, y + high), _color(draw)
        match draw.randrange(4):
            case 0:
                canvas.line(corners, fill=color, width=draw.randint(1, 8))
            case 1:
                points = [(x + draw.randint(0, wide), y + draw.randint(0, high)) for _ in range(4)]
                canvas.polygon(points, fill=color)
            case 2:
                canvas.ellipse(corners, fill=color)
            case _:
                canvas.rectangle(corners, fill=color)


def _hatching(canvas: ImageDraw.ImageDraw, box: Box, draw: random.Random) -> None:
    left, top, right, bottom = box
    pitch, width, color = draw.randint(4, 24), draw.randint(1, 6), _color(draw)
    slope = draw.choice((0, 0, 1, -1))
    if draw.random() < 0.2:
        for x in range(left, right, pitch):
            canvas.line((x, top, x, bottom), fill=color, width=width)
        return
    for y in range(top, bottom, pitch):
        end = y + slope * (right - left) // 2
        canvas.line((left, y, right, end), fill=color, width=width)
