"""What a confusion matrix says: IoU, mIoU, pixel accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..protocol import Absent


@dataclass(frozen=True, slots=True)
class Scores:
    """What a confusion matrix says, by the conventions of a protocol."""

    confusion: np.ndarray
    """(C, C) int64 pixels, rows are the truth."""
    classes: tuple[str, ...]
    absent: Absent = "skip"
    """What a class counts that neither truth nor prediction holds: zero: 0; skip: nothing, its IoU is NaN."""
    background: bool = True
    """Whether class 0 counts in the mean."""

    @property
    def iou(self) -> dict[str, float]:
        hit = np.diag(self.confusion).astype(float)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hit
        values = np.full(len(hit), 0.0 if self.absent == "zero" else math.nan)
        np.divide(hit, union, out=values, where=union > 0)
        return dict(zip(self.classes, values.tolist(), strict=True))

    @property
    def miou(self) -> float:
        """NaN where no class counts, and where not one pixel was judged."""
        values = np.array(list(self.iou.values()))[0 if self.background else 1 :]
        values = values[~np.isnan(values)]
        return float(values.mean()) if self.confusion.sum() and len(values) else math.nan

    @property
    def pixel_accuracy(self) -> float:
        """The share of right pixels among all that were judged, background included; NaN where none was."""
        judged = self.confusion.sum()
        return float(np.diag(self.confusion).sum() / judged) if judged else math.nan


def finite(value: float) -> float | None:
    """The value for JSON, which knows no NaN."""
    return value if math.isfinite(value) else None


def percent(share: float | None) -> str:
    """A share in [0, 1] in per cent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.2f}"
