"""The `resident` backend: executes plans as `host` does, over pixels that were decoded once, into the pack of the data
set, and not once a step. Of an image no more is read than the rows of its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .datasets.pack import Pack
from .host import HostBackend


class ResidentBackend(HostBackend):
    """Executes plans over these files, which the pack holds: one image and mask a record (masks of unlabelled records
    are None), and sizes (N, 2), the height and width that plans were made for. threads, pinned: as of host."""

    def __init__(
        self,
        pack: Pack,
        images: Sequence[Path],
        masks: Sequence[Path | None],
        sizes: np.ndarray,
        *,
        threads: int = 0,
        pinned: bool = False,
    ):
        super().__init__(images, masks, sizes, threads=threads, pinned=pinned)
        self.pack = pack

    def image(self, record: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a record, on disk until it is touched."""
        return self.pack.image(self.images[record])

    def mask(self, record: int) -> np.ndarray:
        """(H, W) uint8 of a record, on disk until it is touched."""
        return self.pack.mask(self.masks[record])
