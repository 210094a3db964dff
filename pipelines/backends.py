"""The backends by name, over the records of a prepared data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .batch import Backend
from .dali import DaliBackend
from .datasets.manifest import Record, sizes_of, watch_of
from .errors import UsageError
from .host import HostBackend
from .watch import Watch


def _dali(*files, device: torch.device, threads: int, watch: Watch) -> DaliBackend:
    device_id = (device.index or 0) if device.type == "cuda" else None
    return DaliBackend(*files, device_id=device_id, threads=threads, watch=watch)


def _host(*files, device: torch.device, threads: int, watch: Watch) -> HostBackend:
    return HostBackend(*files, threads=threads, watch=watch)


BACKENDS: dict[str, Callable[..., Backend]] = {"dali": _dali, "host": _host}
"""Called with images, masks, sizes, device, threads and a watch over the files."""


def open_backend(name: str, records: Sequence[Record], device: torch.device, threads: int = 0) -> Backend:
    """One of BACKENDS, or `auto`: dali with a GPU, host without. Plans mean the records by their place in the sequence.

    device: where batches are wanted. threads: 0 for one a core. Raises UsageError for another name and where DALI is
    wanted and not installed.
    """
    if name == "auto":
        name = "dali" if device.type == "cuda" else "host"
    if name not in BACKENDS:
        raise UsageError(f"backend: {name!r} is unknown; choose one of auto, {', '.join(BACKENDS)}")
    images, masks = [record.image for record in records], [record.mask for record in records]
    files = images, masks, sizes_of(records)
    return BACKENDS[name](*files, device=device, threads=threads, watch=watch_of(records))
