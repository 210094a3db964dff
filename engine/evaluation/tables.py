"""What an evaluation leaves for spreadsheets: the scores of classes, those of images, and the confusion matrix."""

from __future__ import annotations

import math
from pathlib import Path

from ..disk import require_own, write_rows
from .scores import Scores

SCORES, IMAGES, CONFUSION = "scores.csv", "images.csv", "confusion.csv"
COLUMNS = {
    SCORES: ("class", "iou", "precision", "recall", "dice", "pixels"),
    IMAGES: ("image", "miou", "pixel_accuracy", "pixels"),
    CONFUSION: ("truth \\ prediction",),
}
"""What each begins with; the confusion matrix goes on with the classes."""


def require_tables_own(folder: Path) -> None:
    """Raises UsageError where tables would take the place of what no evaluation wrote."""
    require_own({folder / name: ",".join(columns) for name, columns in COLUMNS.items()}, "an evaluation")


def write_tables(folder: Path, scores: Scores) -> None:
    """scores.csv: a row a class, with its pixels in the truth. images.csv: a row an image, the worst first, with the
    pixels that were judged. confusion.csv: pixels, a row a class of the truth and a column a predicted one.

    Shares are in [0, 1], to six digits, and empty where there is none. Each file is there whole, or as it was before.
    """
    shares = (map(_decimal, one.values()) for one in (scores.iou, scores.precision, scores.recall, scores.dice))
    by_class = zip(scores.classes, *shares, scores.truth.tolist(), strict=True)
    by_image = [(one.image, _decimal(one.miou), _decimal(one.pixel_accuracy), one.pixels) for one in scores.images]
    by_pair = [(name, *row) for name, row in zip(scores.classes, scores.confusion.tolist(), strict=True)]
    write_rows(folder / SCORES, [COLUMNS[SCORES], *by_class])
    write_rows(folder / IMAGES, [COLUMNS[IMAGES], *by_image])
    write_rows(folder / CONFUSION, [(*COLUMNS[CONFUSION], *scores.classes), *by_pair])


def _decimal(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.6f}"
