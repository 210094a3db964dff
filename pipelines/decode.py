"""Files to pixels: one decoder for training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from .errors import UsageError

COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
LABEL = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION


def read(path: Path, flags: int, size: Sequence[int] | None = None) -> np.ndarray:
    """The decoded file, (H, W, 3) RGB or (H, W) uint8. Raises UsageError where it is not what plans were made for."""
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise unreadable(path, error) from None
    decoded = cv2.imdecode(encoded, flags) if encoded.size else None
    if decoded is None:
        raise UsageError(f"{path}: cannot be decoded any more; run `semiseg doctor` and mend or remove it")
    (height, width), (h, w) = decoded.shape[:2], decoded.shape[:2] if size is None else size
    if (height, width) != (h, w):  # resizers would read beyond a smaller image
        raise UsageError(f"{path}: is {height}x{width} and was {h}x{w} (height x width); run `semiseg prepare`")
    return decoded


def unreadable(path: Path, error: OSError) -> UsageError:
    """What to raise for a file that was there when it was prepared."""
    return UsageError(f"{path}: cannot be read ({error.strerror}); restore it or run `semiseg prepare`")
