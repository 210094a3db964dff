"""What the pages of a run and of a comparison are made of. A page is one file: figures are SVG, pictures are data."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from ..pipelines.datasets.dataset import Colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } .wide { overflow-x: auto } td, th { padding: .15em .9em .15em 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.tiles { display: flex; flex-wrap: wrap; gap: 1.6em; margin: 1em 0 } .tiles b { display: block; font-size: 1.6em }
.bar { background: #4477aa; height: .8em } .samples img { width: 100%; image-rendering: auto }
.legend span { display: inline-block; margin: 0 1em .3em 0 } .legend i { display: inline-block; width: 1em; height: 1em;
margin-right: .3em; vertical-align: -.15em; border: 1px solid #999 } svg { max-width: 100%; height: auto }
details { margin-top: 1em } pre { white-space: pre-wrap; font-size: 12px }
"""
BEGINNING = "<!doctype html><html lang='en'><meta charset='utf-8'><title>"
"""Of every page, before its title."""


def head(title: str, style: str = "") -> str:
    """Title and styles of a page; style: what it has of its own."""
    return f"{BEGINNING}{html.escape(title)}</title>\n<style>{STYLE}{style}</style>"


def figure_of(**options: Any) -> Figure:
    """An empty figure of matplotlib, for `svg`; the options are Figure's."""
    from matplotlib.figure import Figure  # which nothing but a page needs

    return Figure(**options)


def svg(figure: Figure) -> str:
    """The figure as an element of a page. What it says stays text, in the fonts of whoever looks at it."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # whoever looks may have the font that matplotlib lacks
        figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def html_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Iterable[int], links: Sequence[str] = ()
) -> str:
    """Text in rows, below a head where columns are named. numbers: the columns that are aligned to the right; links:
    where the first cell of each row leads."""
    right = set(numbers)

    def line(tag: str, row: Sequence[str], link: str = "") -> str:
        words = [html.escape(cell) for cell in row]
        if link:
            words[0] = f"<a href='{html.escape(link)}'>{words[0]}</a>"
        marks = (" class='n'" if number in right else "" for number in range(len(row)))
        return f"<tr>{''.join(f'<{tag}{mark}>{cell}' for mark, cell in zip(marks, words))}</tr>"

    head = line("th", columns) if columns else ""
    body = "".join(line("td", row, links[number] if links else "") for number, row in enumerate(rows))
    return f"<div class='wide'><table>{head}{body}</table></div>"


def embedded(data: bytes, kind: str = "png") -> str:
    """The bytes of a picture's file, PNG or JPEG, as an element of a page."""
    return f"<img alt='' src='data:image/{kind};base64,{base64.b64encode(data).decode()}'>"


def embedded_picture(pixels: np.ndarray, form: Literal["JPEG", "PNG"]) -> str:
    """(H, W, 3) uint8 RGB as an element of a page: photographs as JPEG, flat colours as PNG."""
    buffer = io.BytesIO()
    options = {"quality": 88} if form == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(buffer, form, **options)
    return embedded(buffer.getvalue(), form.lower())


def legend(classes: Sequence[str], palette: Sequence[Colour]) -> str:
    """What the colours of masks mean."""
    named = (
        f"<span><i style='background:rgb{tuple(colour)}'></i>{html.escape(name)}</span>"
        for name, colour in zip(classes, palette, strict=True)
    )
    return f"<p class='legend'>{''.join(named)}</p>"
