"""Batches on the training device: plans, executed by a backend, coloured and normalised, one step ahead."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from ..kernels import box_mask, photometric
from .batch import HELD, Backend, Batch, Labeled, Mixed, Pair, Plain, WeakStrong, Windows
from .lane import constant, lane_to, send, send_together
from .plan import Plan, View

AHEAD = 2
"""Batches that wait to be taken, beside the one that is being made."""


class Loader:
    """Iterates, once, over the batches of steps start .. stop - 1; a thread prepares `ahead` of them beforehand.
    Raises RuntimeError when it is asked for them again.

    planners: from a step to its plan, one for each of its micro-batches. mean, std, dtype, channels_last: as in
    `collate`.
    """

    def __init__(
        self,
        planners: Sequence[Callable[[int], Plan]],
        backend: Backend,
        device: torch.device,
        start: int,
        stop: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
        ahead: int = AHEAD,
    ):
        self.planners, self.backend, self.device, self.start, self.stop = planners, backend, device, start, stop
        self.collate = partial(collate, device=device, mean=mean, std=std, dtype=dtype, channels_last=channels_last)
        self.lane = lane_to(device)
        self._ready: queue.Queue = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="loader", daemon=True)

    def __iter__(self) -> Iterator[Batch]:
        if self._thread.ident is not None:
            raise RuntimeError("a Loader gives its batches once: make another one")
        self._thread.start()
        try:
            while (item := self._ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self.lane.hand_over(*item)
                yield item[0]
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
            with self.lane.working():
                windows = self.backend(self._plans())
                read: deque = deque()
                for _ in range(self.start, self.stop):
                    first, *more = [self._made(windows, read) for _ in self.planners]
                    self._put((replace(first, more=tuple(more)), read[-1]))
                    if self._closed.is_set():
                        break
                windows.close()
                self._put(None)
        except BaseException as error:
            self._put(error)

    def _plans(self) -> Iterator[Plan]:
        for step in itertools.count(self.start):
            for planner in self.planners:
                with record_function("plan"):
                    plan = planner(step)
                yield plan

    def _made(self, windows: Iterator[tuple[Plan, Windows]], read: deque) -> Batch:
        """The batch of the next windows. read: a mark for each batch before; behind it that one's windows may be
        overwritten."""
        if len(read) == HELD:
            self.lane.wait(read.popleft())
        with record_function("decode"):
            planned = next(windows)
        with record_function("collate"):
            batch = self.collate(*planned)
        read.append(self.lane.mark())
        return batch

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

    numbers: Any = plan if device.type == "cpu" else send_together(plan, device)  # of arrays, or of tensors
    means, deviations = constant(tuple(mean), device), constant(tuple(std), device)

    def coloured(windows: Tensor, view: View) -> list[Tensor]:
        """The windows, sent once, in each of the view's colourings."""
        windows, images = send(windows, device), []
        colour: Tensor | None = None
        for colouring in view.colourings:
            matrix, blur, sigma = (send(part, device) for part in (colouring.matrix, colouring.blur, colouring.sigma))
            if colouring.by_mean is not None:
                colour = mean_colour(windows) if colour is None else colour
                matrix = with_mean(matrix, send(colouring.by_mean, device), colour)
            blurs: dict[str, Any] = {"sigma": sigma, "radius": colouring.radius, "blur_last": colouring.blur_last}
            images.append(photometric(windows, matrix, blur, means, deviations, dtype=dtype, **blurs))
        return images if channels_last else [image.contiguous() for image in images]

    # A backend fills its buffers again soon.
    target = windows.target.clone() if windows.target.device == device else send(windows.target, device)
    if numbers.labeled_valid is not None:
        shown = box_mask(send(numbers.labeled_valid, device)[:, None], (plan.crop, plan.crop))
        target.masked_fill_(~shown, 0)
    (image,) = coloured(windows.labeled, numbers.labeled.views[0])
    labeled = Labeled(image, target)
    views = [view for stream in numbers.unlabeled for view in stream.views]
    images = [image for window, view in zip(windows.unlabeled, views, strict=True) for image in coloured(window, view)]
    if numbers.kind == "none":
        return Batch(labeled)
    if numbers.kind == "plain":
        return Batch(labeled, Plain(*images))
    if numbers.kind == "mixed":
        first, second = images
        return Batch(labeled, Mixed(first, second, send(numbers.boxes, device)))
    if numbers.kind == "pair":
        overlap = numbers.overlap
        corners = (send(part, device).int() for part in (overlap.corner1, overlap.corner2, overlap.extent))
        return Batch(labeled, Pair(*images, *corners, *(send(view.flip, device) for view in views)))
    weak, *strong = images
    boxes, partner, valid = (send(part, device) for part in (numbers.boxes, numbers.partner, numbers.valid))
    boxes = boxes.transpose(0, 1)[:, :, None].contiguous()
    return Batch(labeled, WeakStrong(weak, tuple(strong), boxes, partner, valid))


def mean_colour(windows: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3) float64. Sums are of integers that floats hold: the same on every device."""
    return windows.sum(1, dtype=torch.float32).sum(1, dtype=torch.float64) / (windows.shape[1] * windows.shape[2])


def with_mean(matrix: Tensor, by_mean: Tensor, colour: Tensor) -> Tensor:
    """Matrices (B, 3, 4) that also add `by_mean` (B, 3, 3) times the windows' mean colours (B, 3)."""
    shift = matrix[:, :, 3:] + by_mean.double() @ colour[:, :, None]
    return torch.cat([matrix[:, :, :3], shift.to(matrix.dtype)], 2)
