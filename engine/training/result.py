"""What a run comes down to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..evaluation.scores import finite


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished run comes down to."""

    out: Path
    split: str
    checksum: str
    """Checksum of the labelled ids."""
    labeled: int
    unlabeled: int
    steps: int
    best: float
    """mIoU in [0, 1] of the best evaluation; NaN where none gave a number."""
    best_step: int
    """-1 where none gave a number."""
    last: float
    """mIoU of the last evaluation."""
    beside: dict[str, float]
    """The same of the other networks that are evaluated, by their names in the method."""
    iou: dict[str, float]
    """Per class, of the last evaluation."""
    pixel_accuracy: float
    images_per_s: float
    data_wait_pct: float
    memory_gib: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which knows neither paths nor NaN."""
        plain = asdict(self) | {"out": str(self.out)}
        plain |= {name: finite(getattr(self, name)) for name in ("best", "last", "pixel_accuracy")}
        plain |= {name: {key: finite(v) for key, v in getattr(self, name).items()} for name in ("iou", "beside")}
        return plain
