"""The backends by name, over the records of a prepared data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .batch import Backend
from .dali import DaliBackend, installed
from .datasets.manifest import Record, sizes_of, watch_of
from .datasets.pack import is_packed, open_pack, packed_bytes
from .errors import UsageError
from .host import HostBackend
from .resident import ResidentBackend

SMALL = 256 << 20
"""Decoded bytes of records that `auto` packs without being asked: seconds of work."""


def _files(records: Sequence[Record]) -> tuple[list[Path], list[Path | None], np.ndarray]:
    return [record.image for record in records], [record.mask for record in records], sizes_of(records)


def _dali(
    records: Sequence[Record], *, device: torch.device, threads: int, whole: bool = False, **_: Any
) -> DaliBackend:
    device_id = (device.index or 0) if device.type == "cuda" else None
    return DaliBackend(*_files(records), device_id=device_id, threads=threads, watch=watch_of(records), whole=whole)


def _host(records: Sequence[Record], *, device: torch.device, threads: int, **_: Any) -> HostBackend:
    pinned = device.type == "cuda"
    return HostBackend(*_files(records), threads=threads, pinned=pinned, watch=watch_of(records))


def _resident(records: Sequence[Record], *, device: torch.device, threads: int, **packing: Any) -> ResidentBackend:
    pack = open_pack(records, threads=threads, **packing)
    return ResidentBackend(pack, *_files(records), threads=threads, pinned=device.type == "cuda")


BACKENDS: dict[str, Callable[..., Backend]] = {
    "dali": _dali,
    "dali_whole": partial(_dali, whole=True),
    "host": _host,
    "resident": _resident,
}
"""Called with records, and by name with the device, threads, and what `open_pack` is told besides."""
PLAIN = "host"
"""What the others are checked against, and what serves where none of them can be trusted."""
DECODING = ("dali", "dali_whole")
"""Those that decode on a GPU, the fastest first."""


def available() -> list[str]:
    """Those of BACKENDS whose packages are there."""
    return [name for name in BACKENDS if name not in DECODING or installed()]


def unproven(name: str, device: torch.device) -> list[str]:
    """What may serve a name that `open_backend` takes and has to be checked on the device before, the best first."""
    if device.type != "cuda" or not installed():
        return []
    return [one for one in DECODING if name in ("auto", one)]


def open_backend(
    name: str,
    records: Sequence[Record],
    device: torch.device,
    threads: int = 0,
    *,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Backend:
    """One of BACKENDS, or `auto`. Plans mean the records by their place in the sequence.

    auto: dali with a GPU; without one resident where the records are packed already or small, else host.
    device: where batches are wanted. threads: 0 for one a core. folder, say, on_progress: as in `open_pack`; without a
    folder `auto` packs nothing.
    Raises UsageError for another name, where DALI is wanted and not installed, and where a pack is wanted and cannot be
    made.
    """
    options = dict(device=device, threads=threads, folder=folder, say=say, on_progress=on_progress)
    if name != "auto":
        if name not in BACKENDS:
            raise UsageError(f"backend: {name!r} is unknown; choose one of auto, {', '.join(BACKENDS)}")
        return BACKENDS[name](records, **options)
    if device.type == "cuda":
        return _dali(records, **options)
    if folder is not None and (packed_bytes(records) <= SMALL or is_packed(records, folder)):
        try:
            return _resident(records, **options)
        except UsageError as error:  # what nobody asked for must not stop a run
            say(f"backend host: {error}")
    return _host(records, **options)
