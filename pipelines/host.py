"""The `host` backend: executes plans with OpenCV and torch in a pool of threads, without a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
import torch

from .batch import HELD, Windows
from .cores import cores
from .datasets.dataset import IGNORE
from .datasets.manifest import Record, watch_of
from .decode import COLOUR, LABEL
from .plan import DENOMINATOR, Plan, Stream

ANTIALIASED = {"cubic": torch.ops.aten._upsample_bicubic2d_aa, "antialiased": torch.ops.aten._upsample_bilinear2d_aa}
SLOTS = 1 + HELD  # one being filled, and those that readers may still hold

Submitted = tuple[Plan, Windows, list[Future]]


class HostBackend:
    """Executes plans over prepared records. threads: 0 for one a core. pinned: whether windows lie in memory that a GPU
    reads by itself."""

    def __init__(self, records: Sequence[Record], *, threads: int = 0, pinned: bool = False):
        cv2.setNumThreads(1)  # the pool is the parallelism
        self.records, self.watch = records, watch_of(records)
        self.threads, self.pinned = threads or cores(), pinned

    def __call__(self, plans: Iterator[Plan]) -> Generator[tuple[Plan, Windows], None, None]:
        """Plans and their windows; the next ones are already worked on. Raises UsageError for a changed file."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            for (plan, windows, pending), _ in itertools.pairwise(self._submitted(pool, plans)):
                for task in pending:
                    task.result()
                yield plan, windows

    def _submitted(self, pool: ThreadPoolExecutor, plans: Iterator[Plan]) -> Iterator[Submitted]:
        """Plans on their way through the pool, each with buffers that others had before: fresh memory costs more in
        page faults than the work done in it."""
        slots: list[Windows] = []
        for number, plan in enumerate(plans):
            if number < SLOTS:
                slots.append(_slot(plan, self.pinned))
            slot = slots[number % SLOTS]
            views = iter(slot.unlabeled)
            outputs = [[slot.labeled], *([next(views) for _ in stream.views] for stream in plan.unlabeled)]
            pending = [
                pool.submit(
                    self._cut,
                    plan,
                    stream,
                    row,
                    [window[row].numpy() for window in windows],
                    slot.target[row].numpy() if stream is plan.labeled else None,
                )
                for stream, windows in zip(plan.streams, outputs, strict=True)
                for row in range(len(stream.record))
            ]
            yield plan, slot, pending

    def image(self, record: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a record."""
        one = self.records[record]
        return self.watch.pixels(one.image, COLOUR, one.size)

    def mask(self, record: int) -> np.ndarray:
        """(H, W) uint8 of a record."""
        one = self.records[record]
        assert one.mask is not None  # plans want masks of labelled records alone
        return self.watch.pixels(one.mask, LABEL, one.size)

    def _cut(self, plan: Plan, stream: Stream, row: int, outputs: list[np.ndarray], target: np.ndarray | None) -> None:
        """Image `row` of a stream into `outputs`, one (S, S, 3) window a view, and its mask into the target (S, S)."""
        record, origin, step = int(stream.record[row]), stream.origin[row], int(stream.step[row])
        region = resize(window(self.image(record), origin, stream.source[row]), step, stream.extent[row], stream.filter)
        for view, out in zip(stream.views, outputs, strict=True):
            place(region, view.offset[row], view.inside[row], view.flip[row], stream.fill, out, view.pad[row])
        if target is not None:
            view = stream.views[0]
            region = nearest(self.mask(record), origin, step, stream.extent[row])
            place(region, view.offset[row], view.inside[row], view.flip[row], IGNORE, target, view.pad[row])


def _slot(plan: Plan, pinned: bool) -> Windows:
    """Buffers for the windows of a plan and of all that are like it."""

    def empty(count: int, *channels: int) -> torch.Tensor:
        return torch.empty(count, plan.crop, plan.crop, *channels, dtype=torch.uint8, pin_memory=pinned)

    labeled = len(plan.labeled.record)
    views = tuple(empty(len(stream.record), 3) for stream in plan.unlabeled for _ in stream.views)
    return Windows(empty(labeled, 3), empty(labeled), views)


def window(image: np.ndarray, origin: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The (h, w, C) cut of an image (H, W, C) that begins at `origin`."""
    (y, x), (h, w) = origin, size
    return image[y : y + h, x : x + w]


def resize(source: np.ndarray, step: int, extent: np.ndarray, filter: str) -> np.ndarray:
    """`extent` output pixels, each `step` / 1024 source pixels wide, from the source's corner; (h, w, 3) uint8."""
    height, width = (int(n) for n in extent)
    if filter in ANTIALIASED:
        tensor = torch.from_numpy(source)[None].permute(0, 3, 1, 2)
        # torch takes an axis that keeps its length for one that keeps its scale: it is asked for one pixel more.
        sizes = [size + (size == length and step != DENOMINATOR) for size, length in zip((height, width), source.shape)]
        scaled = ANTIALIASED[filter](tensor, sizes, False, DENOMINATOR / step, DENOMINATOR / step)
        return scaled[0, :, :height, :width].permute(1, 2, 0).numpy()
    scale = step / DENOMINATOR
    affine = np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, affine, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def nearest(mask: np.ndarray, origin: np.ndarray, step: int, extent: np.ndarray) -> np.ndarray:
    """The value of a mask (H, W) under the centre of each output pixel, exactly: floor(origin + (i + 1/2) step)."""
    rows, columns = (origin[axis] + (2 * np.arange(extent[axis]) + 1) * step // (2 * DENOMINATOR) for axis in range(2))
    return mask[rows][:, columns]


def place(
    region: np.ndarray,
    offset: np.ndarray,
    inside: np.ndarray,
    flip: bool,
    fill: int | tuple[int, int, int],
    out: np.ndarray,
    pad: Sequence[int] | np.ndarray = (0, 0),
) -> None:
    """Cuts a window out of a region into `out`, fills the rest with `fill`, then flips it.

    `pad`: rows above and columns left of the image that are filled; what is missing beyond lies below and right.
    """
    (y, x), (h, w), (top, left) = offset.tolist(), inside.tolist(), map(int, pad)
    bottom, right = out.shape[0] - h - top, out.shape[1] - w - left
    cut = region[y : y + h, x : x + w]
    if top or left or bottom or right:
        cut = cv2.copyMakeBorder(cut, top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill)
    if flip:
        cv2.flip(cut, 1, out)
    else:
        out[...] = cut
