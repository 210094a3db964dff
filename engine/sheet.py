"""Samples drawn for people: picture, mask and overlay side by side, and the classes that the mask holds."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..pipelines.datasets.dataset import IGNORE, Colour
from .pictures import coloured, overlay

WIDTH, HEIGHT = 2280, 640
"""Pixels of width: of the panels of a row together, and of the largest one."""
LEAST_WIDTH = 240
"""Smaller panels are enlarged, each pixel to a square."""
LEAST_COLUMN = 120
"""So that the words above and below a narrow panel can be read."""
MARGIN, GAP = 24, 12
STRIPE = 4
PAPER, INK, FAINT = (255, 255, 255), (32, 32, 32), (120, 120, 120)
LIGHT, DARK = (224, 224, 224), (168, 168, 168)
"""The stripes of ignored pixels and, the first, of a mask that is not there."""
TITLE, TEXT = 20, 16
"""Sizes of the font."""
LONGEST = 300
"""Characters that may fit into a line."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a value of a mask stands for, and how much of the mask it is."""

    value: int
    name: str
    pixels: int
    share: float
    """In [0, 1], of all pixels."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture, a mask, a mask laid over its picture, or the place of a mask that is not there."""

    name: str
    picture: np.ndarray | None = None
    """(H, W, 3) uint8 RGB."""
    mask: np.ndarray | None = None
    """(H, W) uint8 class indices and 255."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels of one size, side by side; the first one is a picture."""

    title: str
    panels: Sequence[Panel]
    mask: np.ndarray | None
    """(H, W) uint8, whose classes the legend names."""

    @classmethod
    def of_sample(cls, title: str, picture: np.ndarray, mask: np.ndarray | None) -> Row:
        """A picture (H, W, 3), its mask (H, W), if there is one, and the mask laid over it."""
        return cls(title, (Panel("picture", picture), Panel("mask", mask=mask), Panel("overlay", picture, mask)), mask)


def shares(mask: np.ndarray, classes: Sequence[str]) -> list[Share]:
    """What a mask (H, W) of class indices holds, in the order of its values; 255 is `ignored`."""
    values, counts = np.unique(mask, return_counts=True)
    return [
        Share(value, "ignored" if value == IGNORE else classes[value], pixels, pixels / mask.size)
        for value, pixels in zip(values.tolist(), counts.tolist(), strict=True)
    ]


def draw(rows: Sequence[Row], classes: Sequence[str], palette: Sequence[Colour]) -> Image.Image:
    """A sheet of samples, one below the other. Large pictures are shrunk, masks by nearest neighbour."""
    drawn = [_row(row, classes, palette) for row in rows]
    width = max(one.width for one in drawn) + 2 * MARGIN
    height = sum(one.height for one in drawn) + MARGIN * (len(drawn) + 1)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = MARGIN
    for one in drawn:
        sheet.paste(one, (MARGIN, top))
        top += one.height + MARGIN
    return sheet


def _row(row: Row, classes: Sequence[str], palette: Sequence[Colour]) -> Image.Image:
    panels = _drawn(row.panels, palette)
    width, height = panels[0].size
    step = max(width, LEAST_COLUMN) + GAP
    total = len(panels) * step - GAP
    title, text = font_of(TITLE), font_of(TEXT)
    head, line = 2 * TITLE, 2 * TEXT - 4
    held = shares(row.mask, classes) if row.mask is not None else []
    legend = list(_lines(held, total, text))
    drawn = Image.new("RGB", (total, head + line + height + GAP + line * len(legend)), PAPER)
    pen = ImageDraw.Draw(drawn)
    pen.text((0, 0), _fitted(row.title, total, title), INK, title)
    for place, (panel, pixels) in enumerate(zip(row.panels, panels, strict=True)):
        left = place * step
        pen.text((left, head), _fitted(panel.name, step - GAP, text), FAINT, text)
        drawn.paste(pixels, (left, head + line))
        pen.rectangle((left - 1, head + line - 1, left + width, head + line + height), outline=LIGHT)
    for number, entries in enumerate(legend):
        top = head + line + height + GAP + number * line
        for left, share, words in entries:
            side = TEXT + 2
            swatch = coloured(np.full((side, side), share.value, np.uint8), palette)
            drawn.paste(Image.fromarray(striped(swatch, share.value == IGNORE)), (left, top))
            pen.rectangle((left, top, left + side - 1, top + side - 1), outline=FAINT)
            pen.text((left + side + 8, top), words, INK, text)
    return drawn


def _drawn(panels: Sequence[Panel], palette: Sequence[Colour]) -> list[Image.Image]:
    picture = panels[0].picture
    assert picture is not None  # only masks may be missing
    height, width = picture.shape[:2]
    scale = min(WIDTH // len(panels) / width, HEIGHT / height, max(1, -(-LEAST_WIDTH // width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return [
        _panel(panel, size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX, palette)
        for panel in panels
    ]


def _panel(panel: Panel, size: tuple[int, int], filter: Image.Resampling, palette: Sequence[Colour]) -> Image.Image:
    picture = panel.picture if panel.picture is None else Image.fromarray(panel.picture).resize(size, filter)
    if panel.mask is None:
        return picture or _missing(size)
    mask = np.asarray(Image.fromarray(panel.mask).resize(size, Image.Resampling.NEAREST))
    if picture is None:
        return Image.fromarray(striped(coloured(mask, palette), mask == IGNORE))
    return Image.fromarray(overlay(np.asarray(picture), mask, palette))


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's, which has the letters of more languages than Pillow's."""
    import matplotlib  # which no command but one that draws has to wait for

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _missing(size: tuple[int, int]) -> Image.Image:
    none = Image.new("RGB", size, LIGHT)
    words = _fitted("no mask", size[0], font := font_of(TEXT))
    ImageDraw.Draw(none).text((size[0] / 2, size[1] / 2), words, FAINT, font, anchor="mm")
    return none


def striped(pixels: np.ndarray, where: np.ndarray | bool) -> np.ndarray:
    """(H, W, 3) uint8 with gray stripes in some places, (H, W)."""
    down, right = np.indices(pixels.shape[:2])
    stripes = np.where(((down + right) // STRIPE % 2 == 0)[..., None], LIGHT, DARK)
    return np.where(np.atleast_2d(where)[..., None], stripes, pixels).astype(np.uint8)


def _lines(held: Sequence[Share], width: int, font: ImageFont.FreeTypeFont) -> Iterator[list[tuple[int, Share, str]]]:
    """The entries of a legend, with their distance from the left, broken into lines."""
    line: list[tuple[int, Share, str]] = []
    left, swatch = 0, TEXT + 10
    for share in held:
        words = _fitted(f"{share.name} {_percent(share.share)}", width - swatch, font)
        needed = swatch + round(font.getlength(words))
        if line and left + needed > width:
            yield line
            line, left = [], 0
        line.append((left, share, words))
        left += needed + 2 * GAP
    if line:
        yield line


def _percent(share: float) -> str:
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text in one line, or as much of its end as there is room for: names differ there."""
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    end = text[-LONGEST:]
    while len(end) > 1 and font.getlength("…" + end if end != text else end) > width:
        end = end[1:]
    return end if end == text else "…" + end
