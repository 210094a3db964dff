"""review.html: the images that a network is least sure of, on one page, to be labelled next or to have their masks
looked at."""

from __future__ import annotations

import html
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ...pipelines.datasets.dataset import Colour
from ..disk import write_text
from ..page import BEGINNING, embedded_picture, head, legend
from ..pictures import coloured, overlay
from ..sheet import striped
from .confidence import UNKNOWN, UNSURE, Confidence

FILE = "review.html"
TITLE = "Review of "
HEAD = f"{BEGINNING}{TITLE}"
"""What such a page begins with."""
SHOWN = 40
"""Images of a part of the page."""
SIDE = 320
"""Pixels, the long side of pictures."""
LAYOUT = """
.sure { display: grid; grid-template-columns: repeat(3, 1fr); gap: .6em; margin-bottom: 1.4em }
.sure img { width: 100% } .sure p { grid-column: 1 / -1; margin: 0 }
"""


@dataclass
class Review:
    """The least sure of the images that were looked at, with and without masks."""

    classes: Sequence[str]
    palette: Sequence[Colour]
    images: int = 0
    shown: dict[bool, list[tuple[float, str, str]]] = field(default_factory=lambda: {False: [], True: []})
    """By whether an image has a mask: confidence, path and what the page shows, the least sure first."""

    def look_at(self, one: Confidence, image: np.ndarray, mask: np.ndarray, sure: np.ndarray) -> None:
        """image: (H, W, 3) uint8 RGB. mask: (H, W) uint8 class indices. sure: (H, W) the probability of each."""
        self.images += 1
        part = self.shown[one.mask not in ("", UNKNOWN)]
        if len(part) == SHOWN and (one.confidence, one.image) > part[-1][:2]:
            return
        insort(part, (one.confidence, one.image, self._drawn(one, image, mask, sure)))
        del part[SHOWN:]

    def _drawn(self, one: Confidence, image: np.ndarray, mask: np.ndarray, sure: np.ndarray) -> str:
        small = Image.fromarray(image)
        small.thumbnail((SIDE, SIDE))
        shrunk = np.asarray(Image.fromarray(mask).resize(small.size, Image.Resampling.NEAREST))
        unsure = np.asarray(Image.fromarray(sure < UNSURE).resize(small.size, Image.Resampling.NEAREST))
        pictures = (
            embedded_picture(np.asarray(small), "JPEG"),
            embedded_picture(overlay(np.asarray(small), shrunk, self.palette), "JPEG"),
            embedded_picture(striped(coloured(shrunk, self.palette), unsure), "PNG"),
        )
        most = f", most of it taken for {one.unsure_class}" if one.unsure_class else ""
        use = f"; its mask: {one.mask}" if one.mask else ""
        said = f"confidence {one.confidence:.3f}, unsure of {one.unsure_pct:.1f} % of the pixels{most}{use}"
        return f"<div class='sure'><p><b>{html.escape(one.image)}</b> {html.escape(said)}</p>{''.join(pictures)}</div>"

    def write(self, path: Path, what: str) -> None:
        """what: the images and the network, in words. The file is there whole, or as it was before."""
        write_text(path, "\n".join(self._page(what)))

    def _page(self, what: str) -> Iterable[str]:
        yield f"{head(f'{TITLE}{what}', LAYOUT)}<h1>What the network is least sure of</h1>"
        yield (
            f"<p>{html.escape(what)}. Picture, prediction laid over it, and prediction with stripes where its label "
            f"is less probable than {UNSURE}. A network can be sure and wrong: look at other predictions, too. All "
            f"{self.images} images are in confidence.csv.</p>"
        )
        yield legend(self.classes, self.palette)
        for masked, title in (
            (False, "Without a mask: worth labelling next"),
            (True, "With a mask of the run: is it right?"),
        ):
            if part := self.shown[masked]:
                yield f"<h2>{title} ({'the least sure ' if len(part) == SHOWN else ''}{len(part)})</h2>"
                yield from (drawn for _, _, drawn in part)
        yield "</html>"
