"""Batches on the training device: plans, executed by a backend, coloured and normalised, one step ahead."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..kernels import photometric
from .batch import Backend, Batch, Labeled, Mixed, Pair, Plain, WeakStrong, Windows
from .plan import Plan, View


class Loader:
    """Iterates, once, over the batches of steps start .. stop - 1; a thread prepares `ahead` of them beforehand.

    planner: from a step to its plan. mean, std, dtype, channels_last: as in `collate`.
    """

    def __init__(
        self,
        planner: Callable[[int], Plan],
        backend: Backend,
        device: torch.device,
        start: int,
        stop: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
        ahead: int = 2,
    ):
        self.planner, self.backend, self.device, self.start, self.stop = planner, backend, device, start, stop
        self.collate = partial(collate, device=device, mean=mean, std=std, dtype=dtype, channels_last=channels_last)
        self._ready: queue.Queue = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="loader", daemon=True)

    def __iter__(self) -> Iterator[Batch]:
        self._thread.start()
        try:
            while (item := self._ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """Ends the thread, whose batches are lost; once is enough, more do no harm."""
        self._closed.set()
        if self._thread.is_alive():
            while not self._ready.empty():
                self._ready.get_nowait()
            self._thread.join()

    def _produce(self) -> None:
        try:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # a new thread starts on the first device
            windows = self.backend(map(self.planner, itertools.count(self.start)))
            for _ in range(self.start, self.stop):
                self._put(self.collate(*next(windows)))
                if self._closed.is_set():
                    break
            windows.close()
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item) -> None:
        while not self._closed.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue


def collate(
    plan: Plan,
    windows: Windows,
    device: torch.device,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
) -> Batch:
    """Windows and their plan as a batch on the device, colours changed, blurred and normalised there.

    mean, std: of RGB in [0, 1]. channels_last: the memory order of images, else NCHW.
    """

    def send(array: np.ndarray | Tensor) -> Tensor:
        # A backend fills its buffers again soon. They may be sent without waiting because they are pageable: CUDA has
        # taken a pageable tensor's values by the time that the copy returns. Pinned ones would need an event each.
        tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
        return tensor.to(device, non_blocking=True) if tensor.device != device else tensor

    def coloured(windows: Tensor, view: View) -> list[Tensor]:
        """The windows, sent once, in each of the view's colourings."""
        windows, images = send(windows), []
        by_mean = any(colouring.by_mean is not None for colouring in view.colourings)
        colour = mean_colour(windows) if by_mean else None
        for colouring in view.colourings:
            matrix = send(colouring.matrix)
            if colouring.by_mean is not None:
                matrix = with_mean(matrix, send(colouring.by_mean), colour)
            blurs = {"sigma": send(colouring.sigma), "radius": colouring.radius, "blur_last": colouring.blur_last}
            images.append(photometric(windows, matrix, send(colouring.blur), mean, std, dtype=dtype, **blurs))
        return images if channels_last else [image.contiguous() for image in images]

    target = windows.target.clone() if windows.target.device == device else send(windows.target)
    labeled = Labeled(*coloured(windows.labeled, plan.labeled.views[0]), target)
    views = [view for stream in plan.unlabeled for view in stream.views]
    images = [image for window, view in zip(windows.unlabeled, views, strict=True) for image in coloured(window, view)]
    if not images:
        return Batch(labeled)
    if plan.overlap is not None:
        overlap = (plan.overlap.corner1, plan.overlap.corner2, plan.overlap.extent)
        geometry = (send(part.astype(np.int32)) for part in overlap)
        return Batch(labeled, Pair(*images, *geometry, *(send(view.flip) for view in views)))
    if plan.partner is not None:
        weak, *strong = images
        boxes = send(plan.boxes.swapaxes(0, 1)[:, :, None].copy())
        valid = send(views[0].valid(plan.crop))
        return Batch(labeled, WeakStrong(weak, tuple(strong), boxes, send(plan.partner), valid))
    if plan.boxes is not None:
        return Batch(labeled, Mixed(*images, send(plan.boxes)))
    return Batch(labeled, Plain(*images))


def mean_colour(windows: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3) float64. Sums are of integers that floats hold: the same on every device."""
    return windows.sum(1, dtype=torch.float32).sum(1, dtype=torch.float64) / (windows.shape[1] * windows.shape[2])


def with_mean(matrix: Tensor, by_mean: Tensor, colour: Tensor) -> Tensor:
    """Matrices (B, 3, 4) that also add `by_mean` (B, 3, 3) times the windows' mean colours (B, 3)."""
    shift = matrix[:, :, 3:] + by_mean.double() @ colour[:, :, None]
    return torch.cat([matrix[:, :, :3], shift.to(matrix.dtype)], 2)
