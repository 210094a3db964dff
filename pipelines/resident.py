"""The `resident` backend: executes plans over pixels that were decoded once, into the pack of the data set, and not
once a step. In host memory as `host` does, where of an image no more is read than the rows of its window; in a GPU's,
where they fit, by one kernel a view.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..kernels import cut_windows
from .batch import Windows
from .datasets.dataset import IGNORE
from .datasets.pack import Pack
from .host import HostBackend
from .lane import send_together
from .plan import Plan, Stream, View


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
        path = self.masks[record]
        assert path is not None  # plans want masks of labelled records alone
        return self.pack.mask(path)


class DeviceResidentBackend:
    """Executes plans over these files, whose pixels it takes from the pack and keeps on a device: one image and mask a
    record (masks of unlabelled records are None), and sizes (N, 2), the height and width that plans were made for.
    Windows are made on the device, in the order of its stream."""

    def __init__(
        self,
        pack: Pack,
        images: Sequence[Path],
        masks: Sequence[Path | None],
        sizes: np.ndarray,
        device: torch.device,
    ):
        self.widths = np.asarray(sizes, np.int64)[:, 1]
        parts = [pack.image(path) for path in images]
        parts += [pack.mask(path) for path in masks if path is not None]
        ends = np.cumsum([part.size for part in parts], dtype=np.int64)
        self.pixels = torch.empty(int(ends[-1]) if parts else 0, dtype=torch.uint8, device=device)
        starts = ends - [part.size for part in parts]
        for start, end, part in zip(starts.tolist(), ends.tolist(), parts):
            self.pixels[start:end].copy_(torch.from_numpy(np.ascontiguousarray(part)).reshape(-1))
        self.image_starts, self.mask_starts = starts[: len(images)], np.full(len(masks), -1, np.int64)
        self.mask_starts[[number for number, path in enumerate(masks) if path is not None]] = starts[len(images) :]

    def __call__(self, plans: Iterator[Plan]) -> Generator[tuple[Plan, Windows], None, None]:
        """Plans and their windows."""
        for plan in plans:
            yield plan, self._windows(plan)

    def _windows(self, plan: Plan) -> Windows:
        labeled = plan.labeled
        views = [(stream, view) for stream in plan.streams for view in stream.views]
        places = [self._places(stream, view, self.image_starts) for stream, view in views]
        places.append(self._places(labeled, labeled.views[0], self.mask_starts))
        *images, masks = send_together(tuple(places), self.pixels.device)
        windows = [
            cut_windows(self.pixels, image, plan.crop, filter=stream.filter, fill=stream.fill)
            for (stream, _), image in zip(views, images)
        ]
        ignored = (IGNORE,) * 3
        target: Tensor = cut_windows(self.pixels, masks, plan.crop, channels=1, filter="nearest", fill=ignored)
        return Windows(windows[0], target, tuple(windows[1:]))

    def _places(self, stream: Stream, view: View, starts: np.ndarray) -> np.ndarray:
        """(B, 14) int64, as `cut_windows` takes them, of images that begin at `starts`."""
        record = stream.record
        columns = (
            starts[record], self.widths[record], stream.origin, stream.source, stream.step,
            view.offset, view.inside, view.pad, view.flip,
        )  # fmt: skip
        return np.column_stack(columns).astype(np.int64)
