"""Which images are worth labelling next: those of whose pixels a network is least sure.

That is least-confidence sampling, the plainest heuristic of active learning (Settles, 2009). A network can be sure and
wrong, and like images come together in the list: it is a place to begin, no measurement of what a mask would bring.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ..disk import require_own, write_rows

FILE, UNKNOWN = "confidence.csv", "unknown"
UNSURE = 0.8
"""Pixels whose label is less probable are unsure. Below it FixMatch and UniMatch on own images take no pseudo-label, so
that unlabelled these pixels teach them nothing; at 0.5 none of two classes would ever count."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a network is of an image: a row of confidence.csv."""

    image: str
    """Its path below the folder that was predicted."""
    confidence: float
    """Mean over the pixels of the label's probability, in [0, 1], to six digits."""
    unsure_pct: float
    """Share of the unsure pixels, in per cent."""
    unsure_class: str
    """The label of most of the unsure pixels, the first of several; empty where there are none."""
    mask: str = ""
    """What the run had its mask for, labels or validation, or that it had one and did not use it; empty where the
    picture is none of the run's, or has no mask; UNKNOWN of a checkpoint outside of its run."""

    @classmethod
    def of(cls, image: str, mask: np.ndarray, sure: np.ndarray, classes: Sequence[str], use: str = "") -> Confidence:
        """mask: (H, W) uint8 class indices. sure: (H, W) the probability of each, in [0, 1]."""
        labels = np.bincount(mask[sure < UNSURE], minlength=len(classes))
        share, most = 100 * labels.sum() / mask.size, classes[int(labels.argmax())] if labels.any() else ""
        return cls(image, round(float(sure.mean(dtype=np.float64)), 6), round(float(share), 4), most, use)


COLUMNS = tuple(field.name for field in fields(Confidence))
HEADER = ",".join(COLUMNS)


def write_csv(path: Path, confidences: Iterable[Confidence]) -> list[Confidence]:
    """One row an image, the least sure first, then by name: these are returned. The file is there whole, or as it was
    before."""
    ranked = sorted(confidences, key=lambda one: (one.confidence, one.image))
    rows = [(one.image, f"{one.confidence:.6f}", f"{one.unsure_pct:.4f}", one.unsure_class, one.mask) for one in ranked]
    write_rows(path, [COLUMNS, *rows])
    return ranked


def clear(files: Mapping[Path, str]) -> None:
    """Takes away files of an earlier prediction, which would stand beside other masks: paths, and what such a file
    begins with. Raises UsageError, and leaves all as they are, where something else is in the place of one."""
    require_own(files, "a prediction")
    for path in files:
        path.unlink(missing_ok=True)
