"""The `resident` backend: executes plans over pixels that were decoded once, into the pack of the data set, and not
once a step. In host memory as `host` does, where of an image no more is read than the rows of its window; in a GPU's,
where they fit, by one kernel a view.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..kernels import cut_windows
from .batch import Windows
from .datasets.dataset import IGNORE
from .datasets.manifest import Record
from .datasets.pack import Pack
from .host import HostBackend
from .lane import send_together
from .plan import Plan, Stream, View


class ResidentBackend(HostBackend):
    """Executes plans over prepared records, which the pack holds. threads, pinned: as of host."""

    def __init__(self, pack: Pack, records: Sequence[Record], *, threads: int = 0, pinned: bool = False):
        super().__init__(records, threads=threads, pinned=pinned)
        self.pack = pack

    def image(self, record: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a record, on disk until it is touched."""
        return self.pack.image(self.records[record])

    def mask(self, record: int) -> np.ndarray:
        """(H, W) uint8 of a record, on disk until it is touched."""
        return self.pack.mask(self.records[record])


class DeviceResidentBackend:
    """Executes plans over prepared records, whose pixels it takes from the pack and keeps on a device. Windows are made
    on the device, in the order of its stream."""

    def __init__(self, pack: Pack, records: Sequence[Record], device: torch.device):
        self.widths = np.array([record.width for record in records], np.int64)
        parts = [pack.image(record) for record in records]
        parts += [pack.mask(record) for record in records if record.mask]
        ends = np.cumsum([part.size for part in parts], dtype=np.int64)
        self.pixels = torch.empty(int(ends[-1]) if parts else 0, dtype=torch.uint8, device=device)
        starts = ends - [part.size for part in parts]
        for start, end, part in zip(starts.tolist(), ends.tolist(), parts):
            self.pixels[start:end].copy_(torch.from_numpy(np.ascontiguousarray(part)).reshape(-1))
        count = len(records)
        self.image_starts, self.mask_starts = starts[:count], np.full(count, -1, np.int64)
        self.mask_starts[[number for number, record in enumerate(records) if record.mask]] = starts[count:]

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
