"""What a confusion matrix says: IoU, precision, recall and Dice of each class, their means, pixel accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..protocol import Absent


@dataclass(frozen=True, slots=True)
class Scores:
    """What a confusion matrix says, by the conventions of a protocol. Shares are in [0, 1].

    IoU, precision, recall and Dice of a class that neither truth nor prediction holds are all what `absent` says. One
    that the truth holds and nothing predicts has no precision (NaN), and 0 for the others; one that is predicted and
    not in the truth has no recall.
    """

    confusion: np.ndarray
    """(C, C) int64 pixels, rows are the truth."""
    classes: tuple[str, ...]
    absent: Absent = "skip"
    """What a class counts that neither truth nor prediction holds: zero: 0; skip: nothing, its scores are NaN."""
    background: bool = True
    """Whether class 0 counts in the means."""
    images: tuple[ImageScores, ...] = ()
    """Those of each image, the worst first, where they were asked for."""

    @property
    def iou(self) -> dict[str, float]:
        """Pixels that truth and prediction share, among those of either."""
        return self._hits_among(self.truth + self.predicted - np.diag(self.confusion))

    @property
    def precision(self) -> dict[str, float]:
        """The share of the predicted pixels that are right."""
        return self._hits_among(self.predicted)

    @property
    def recall(self) -> dict[str, float]:
        """The share of the truth's pixels that are found."""
        return self._hits_among(self.truth)

    @property
    def dice(self) -> dict[str, float]:
        """The harmonic mean of precision and recall, also called F1: 2 IoU / (1 + IoU)."""
        return self._hits_among((self.truth + self.predicted) / 2)

    @property
    def miou(self) -> float:
        """NaN where no class counts, and where not one pixel was judged."""
        return self._mean(self.iou)

    @property
    def mdice(self) -> float:
        """Mean Dice, of the same classes as the mIoU."""
        return self._mean(self.dice)

    @property
    def pixel_accuracy(self) -> float:
        """The share of right pixels among all that were judged, background included; NaN where none was."""
        return float(np.diag(self.confusion).sum() / self.pixels) if self.pixels else math.nan

    @property
    def pixels(self) -> int:
        """Those that were judged."""
        return int(self.confusion.sum())

    @property
    def truth(self) -> np.ndarray:
        """(C,) pixels of each class in the truth."""
        return self.confusion.sum(1)

    @property
    def predicted(self) -> np.ndarray:
        """(C,) pixels of each class in the prediction."""
        return self.confusion.sum(0)

    def _hits_among(self, pixels: np.ndarray) -> dict[str, float]:
        """The right pixels of each class as a share of (C,) others."""
        absent = self.truth + self.predicted == 0
        values = np.where(absent & (self.absent == "zero"), 0.0, math.nan)
        np.divide(np.diag(self.confusion), pixels, out=values, where=pixels > 0)
        return dict(zip(self.classes, values.tolist(), strict=True))

    def _mean(self, of_classes: dict[str, float]) -> float:
        values = np.array(list(of_classes.values()))[0 if self.background else 1 :]
        values = values[~np.isnan(values)]
        return float(values.mean()) if self.pixels and len(values) else math.nan


@dataclass(frozen=True, slots=True)
class ImageScores:
    """What is left of the scores of one image among others. Shares are in [0, 1]."""

    image: str
    """Its id."""
    miou: float
    """Over the classes that its truth or its prediction holds; NaN where none of them counts."""
    pixel_accuracy: float
    """NaN where no pixel was judged."""
    pixels: int
    """Those that were judged."""

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Its place among others: the lowest mIoU first, those without any last."""
        none = math.isnan(self.miou)
        return none, 0.0 if none else self.miou, self.image


def finite(value: float) -> float | None:
    """The value for JSON, which knows no NaN."""
    return value if math.isfinite(value) else None


def percent(share: float | None) -> str:
    """A share in [0, 1] in per cent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.2f}"
