"""Batches on the training device: plans, executed by a backend, coloured and normalised, one step ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..kernels import photometric
from .batch import Backend, Batch, Labeled, Unlabeled, Windows
from .plan import Plan, View
from .views import IMAGENET_MEAN, IMAGENET_STD


class Loader:
    """Iterates over the batches of steps start .. stop - 1; a thread prepares `ahead` of them beforehand."""

    def __init__(
        self,
        backend: Backend,
        device: torch.device,
        start: int,
        stop: int,
        *,
        dtype: torch.dtype = torch.float32,
        ahead: int = 2,
    ):
        self.backend, self.device, self.start, self.stop, self.dtype = backend, device, start, stop, dtype
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
        self._closed.set()
        if self._thread.is_alive():
            while not self._ready.empty():
                self._ready.get_nowait()
            self._thread.join()

    def _produce(self) -> None:
        try:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # a new thread starts on the first device
            windows = self.backend(self.start)
            for _ in range(self.start, self.stop):
                self._put(collate(*next(windows), self.device, self.dtype))
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


def collate(plan: Plan, windows: Windows, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
    """Windows and their plan as a batch on the device, colours changed, blurred and normalised there."""

    def send(array: np.ndarray | Tensor) -> Tensor:
        tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
        return tensor.to(device, non_blocking=True) if tensor.device != device else tensor

    def coloured(images: Tensor, view: View) -> Tensor:
        return photometric(send(images), send(view.matrix), send(view.blur), IMAGENET_MEAN, IMAGENET_STD, dtype=dtype)

    target = windows.target.clone() if windows.target.device == device else send(windows.target)
    labeled = Labeled(coloured(windows.labeled, plan.labeled.views[0]), target)
    views = [view for stream in plan.unlabeled for view in stream.views]
    images = [coloured(image, view) for image, view in zip(windows.unlabeled, views, strict=True)]
    if not images:
        return Batch(labeled)
    if plan.overlap is not None:
        corner1, corner2, extent = (
            send(part.astype(np.int32)) for part in (plan.overlap.corner1, plan.overlap.corner2, plan.overlap.extent)
        )
        flip1, flip2 = (send(view.flip) for view in views)
        return Batch(labeled, Unlabeled(*images, corner1, corner2, extent, flip1, flip2))
    boxes = None if plan.boxes is None else send(plan.boxes)
    return Batch(labeled, Unlabeled(*images, boxes=boxes))
