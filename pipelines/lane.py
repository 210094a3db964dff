"""The way from host memory to the training device: beside the step that trains, not in line with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16
"""Bytes between which arrays begin in a shared buffer: what a device reads at once."""


class Lane:
    """To the CPU: there is nothing to move and nothing to wait for."""

    def working(self) -> AbstractContextManager:
        """The context in which batches are made."""
        return nullcontext()

    def mark(self) -> Any:
        """A place behind all that was asked for up to now."""
        return None

    def wait(self, mark: Any) -> None:
        """The host waits until a mark is passed: what was sent before it may be overwritten."""

    def hand_over(self, batch: Any, mark: Any) -> None:
        """The work that is asked for next waits, on the device, until a mark is passed, and may read the batch."""


class CudaLane(Lane):
    """To a GPU: a stream of its own."""

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)

    def working(self) -> AbstractContextManager:
        """The context in which batches are made."""
        torch.cuda.set_device(self.device)  # a new thread starts on the first device
        return torch.cuda.stream(self.stream)

    def mark(self) -> Any:
        """An event of the stream."""
        event = torch.cuda.Event()
        event.record(self.stream)
        return event

    def wait(self, mark: Any) -> None:
        """The host waits until a mark is passed: what was sent before it may be overwritten."""
        mark.synchronize()

    def hand_over(self, batch: Any, mark: Any) -> None:
        """The current stream waits for the mark; memory of the batch is not given away before that stream is done."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(mark)
        for tensor in leaves(batch, Tensor):
            tensor.record_stream(current)


def lane_to(device: torch.device) -> Lane:
    """The lane that ends at a device."""
    return CudaLane(device) if device.type == "cuda" else Lane()


def send(value: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """On the device. A tensor in pinned memory is read later: see `Lane.mark`."""
    tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
    return tensor if tensor.device == device else tensor.to(device, non_blocking=True)


def send_together(value: Any, device: torch.device) -> Any:
    """A plan or a part of it whose arrays have become tensors on the device, all by one copy."""
    arrays = list(leaves(value, np.ndarray))
    ends = np.cumsum([_padded(array) for array in arrays], dtype=np.int64).tolist()
    buffer = torch.zeros(ends[-1] if ends else 0, dtype=torch.uint8, pin_memory=device.type == "cuda")
    places = [slice(end - _padded(array), end - _padded(array) + array.nbytes) for end, array in zip(ends, arrays)]
    for place, array in zip(places, arrays):
        buffer[place].numpy()[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    sent = send(buffer, device)
    dtypes = [torch.from_numpy(np.empty(0, array.dtype)).dtype for array in arrays]
    tensors = [sent[place].view(dtype).view(array.shape) for place, dtype, array in zip(places, dtypes, arrays)]
    in_order = iter(tensors)  # the order of `leaves`, in which `mapped` goes, too
    return mapped(value, np.ndarray, lambda array: next(in_order))


def _padded(array: np.ndarray) -> int:
    return -(-array.nbytes // ALIGNMENT) * ALIGNMENT


def leaves(value: Any, kind: type) -> Iterator[Any]:
    """What is of a kind in tuples and dataclasses, at any depth, in order."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from leaves(part, kind)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), kind)


def mapped(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """The same with `function(leaf)` in the place of each of `leaves`."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, tuple):
        return tuple(mapped(part, kind, function) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: mapped(getattr(value, name), kind, function) for name in fields})
    return value


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers that never change, (N,) float32 on the device, sent once."""
    return torch.tensor(values, dtype=torch.float32, device=device)
