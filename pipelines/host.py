"""The `host` backend: executes plans with OpenCV and torch in a pool of threads, without a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from .batch import Windows
from .datasets.dataset import IGNORE
from .decode import COLOUR, LABEL, read
from .plan import DENOMINATOR, Plan, Planner, Stream
from .views import FILL


class HostBackend:
    """Runs a planner's plans. images and masks: one path a record (masks of unlabelled records are None)."""

    def __init__(self, images: Sequence[Path], masks: Sequence[Path | None], planner: Planner, *, threads: int = 0):
        cv2.setNumThreads(1)  # the pool is the parallelism
        self.images, self.masks, self.planner = images, masks, planner
        self.threads = threads or os.cpu_count() or 1

    def __call__(self, start: int) -> Iterator[tuple[Plan, Windows]]:
        """Plans and windows of steps start, start + 1, ... without end; the next step is already worked on."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            slots = [self._slot() for _ in range(3)]
            ahead = self._submit(pool, start, slots[start % 3])
            while True:
                plan, windows, pending = ahead
                start += 1
                ahead = self._submit(pool, start, slots[start % 3])
                for task in pending:
                    task.result()
                yield plan, windows

    def _slot(self) -> Windows:
        """Buffers that are used again: fresh memory costs more in page faults than the work done in it."""
        crop, kind = self.planner.crop, self.planner.views.unlabeled
        views = {"none": 0, "plain": 1, "pair": 2, "mixed": 2}[kind]
        labeled, unlabeled = self.planner.batch, self.planner.unlabeled_batch
        return Windows(
            torch.empty(labeled, crop, crop, 3, dtype=torch.uint8),
            torch.empty(labeled, crop, crop, dtype=torch.uint8),
            tuple(torch.empty(unlabeled, crop, crop, 3, dtype=torch.uint8) for _ in range(views)),
        )

    def _submit(self, pool: ThreadPoolExecutor, step: int, slot: Windows) -> tuple[Plan, Windows, list[Future]]:
        plan = self.planner(step)
        outputs = [((slot.labeled,), slot.target)]
        if len(plan.unlabeled) == 1:
            outputs.append((slot.unlabeled, None))
        else:
            outputs += [((view,), None) for view in slot.unlabeled]
        pending = [
            pool.submit(
                self._cut,
                stream,
                row,
                [view[row].numpy() for view in views],
                None if mask is None else mask[row].numpy(),
            )
            for stream, (views, mask) in zip(plan.streams, outputs, strict=True)
            for row in range(len(stream.record))
        ]
        return plan, slot, pending

    def _cut(self, stream: Stream, row: int, outputs: list[np.ndarray], target: np.ndarray | None) -> None:
        record = int(stream.record[row])
        region = resize(
            window(
                read(self.images[record], COLOUR, self.planner.sizes[record]), stream.origin[row], stream.source[row]
            ),
            int(stream.step[row]),
            stream.extent[row],
            stream.cubic,
        )
        for view, out in zip(stream.views, outputs, strict=True):
            place(region, view.offset[row], view.inside[row], view.flip[row], FILL, out, view.pad[row])
        if target is not None:
            view = stream.views[0]
            labels = read(self.masks[record], LABEL, self.planner.sizes[record])
            region = nearest(labels, stream.origin[row], int(stream.step[row]), stream.extent[row])
            place(region, view.offset[row], view.inside[row], view.flip[row], IGNORE, target, view.pad[row])


def window(image: np.ndarray, origin: np.ndarray, size: np.ndarray) -> np.ndarray:
    (y, x), (h, w) = origin, size
    return image[y : y + h, x : x + w]


def resize(source: np.ndarray, step: int, extent: np.ndarray, cubic: bool) -> np.ndarray:
    """`extent` output pixels, each `step` / 1024 source pixels wide, from the source's corner; (h, w, 3) uint8."""
    height, width = (int(n) for n in extent)
    if cubic:
        tensor = torch.from_numpy(source)[None].permute(0, 3, 1, 2)
        scaled = torch.ops.aten._upsample_bicubic2d_aa(
            tensor, [height, width], False, DENOMINATOR / step, DENOMINATOR / step
        )
        return scaled[0].permute(1, 2, 0).numpy()
    scale = step / DENOMINATOR
    affine = np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, affine, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def nearest(labels: np.ndarray, origin: np.ndarray, step: int, extent: np.ndarray) -> np.ndarray:
    """The label under the centre of each output pixel, exactly: floor(origin + (i + 1/2) step)."""
    rows, columns = (origin[axis] + (2 * np.arange(extent[axis]) + 1) * step // (2 * DENOMINATOR) for axis in range(2))
    return labels[rows][:, columns]


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
