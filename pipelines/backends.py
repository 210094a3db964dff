"""The backends by name, over the records of a prepared data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..kernels.check import has_kernel
from .batch import Backend
from .cores import cores
from .dali import DaliBackend, installed
from .datasets.manifest import Record
from .datasets.pack import is_packed, open_pack, packed_bytes
from .errors import UsageError
from .host import HostBackend
from .memory import gib
from .progress import Progress, Say, say_nothing, show_nothing
from .resident import DeviceResidentBackend, ResidentBackend

SMALL = 256 << 20
"""Decoded bytes of records that `auto` packs without being asked: seconds of work."""
CUTTING = 4
"""Threads that cut windows of decoded images: more wait for the interpreter, and keep a step's launches waiting."""
SHARE = 0.25
"""The share of a GPU's memory that decoded images may take."""


def memory_of_gpu(device: torch.device) -> int:
    """Bytes that it has; 0 where there is none."""
    return torch.cuda.mem_get_info(device)[1] if torch.cuda.is_available() else 0


def _dali(
    records: Sequence[Record], *, device: torch.device, threads: int, whole: bool = False, **_: Any
) -> DaliBackend:
    device_id = (device.index or 0) if device.type == "cuda" else None
    return DaliBackend(records, device_id=device_id, threads=threads, whole=whole)


def _host(records: Sequence[Record], *, device: torch.device, threads: int, **_: Any) -> HostBackend:
    return HostBackend(records, threads=threads, pinned=device.type == "cuda")


def _resident(
    records: Sequence[Record], *, device: torch.device, threads: int, say: Say, **packing: Any
) -> ResidentBackend | DeviceResidentBackend:
    pack = open_pack(records, threads=threads, say=say, **packing)
    threads = min(threads or cores(), CUTTING)
    if device.type != "cuda":
        return ResidentBackend(pack, records, threads=threads)
    if need := bytes_on(device, "resident", records):
        say(f"backend resident: {gib(need)} of decoded images in the GPU's memory")
        return DeviceResidentBackend(pack, records, device)
    say(f"backend resident: {gib(packed_bytes(records))} of decoded images stay in host memory")
    return ResidentBackend(pack, records, threads=threads, pinned=True)


def bytes_on(device: torch.device, name: str, records: Sequence[Record]) -> int:
    """The bytes of a GPU's memory that a backend keeps these records in: 0 of those that keep them in host memory, or
    nowhere. Depends on what the GPU has and not on what is free, so that a resumed run chooses the same."""
    need = packed_bytes(records)
    served = name == "resident" and device.type == "cuda" and has_kernel("cut_windows", device)
    return need if served and need <= SHARE * memory_of_gpu(device) else 0


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


def same_windows_as(name: str, kind: str) -> str:
    """The backend whose windows are those of `name`, bit for bit, on a kind of device: on a CPU decoded images are cut
    by the same code wherever they are kept."""
    return PLAIN if name == "resident" and kind == "cpu" else name


def available() -> list[str]:
    """Those of BACKENDS whose packages are there."""
    return [name for name in BACKENDS if name not in DECODING or installed()]


def keeps_decoded(records: Sequence[Record], folder: Path | None) -> bool:
    """Whether `auto` keeps these records decoded: they are packed already, or soon."""
    return folder is not None and (packed_bytes(records) <= SMALL or is_packed(records, folder))


def backends_to_check(name: str, device: torch.device, decoded: bool = False) -> list[str]:
    """The backends that may serve a name that `open_backend` takes, and must pass their check on the device first, the
    best first. decoded: whether `auto` keeps the records so."""
    if device.type != "cuda":
        return []
    kept = ["resident"] if name == "resident" or (name == "auto" and decoded) else []
    return kept + ([one for one in DECODING if name in ("auto", one)] if installed() else [])


def open_backend(
    name: str,
    records: Sequence[Record],
    device: torch.device,
    threads: int = 0,
    *,
    folder: Path | None = None,
    say: Say = say_nothing,
    on_progress: Progress = show_nothing,
) -> Backend:
    """One of BACKENDS, or `auto`. Plans mean the records by their place in the sequence.

    auto: resident where the records are packed already or small; else dali with a GPU, and host without one.
    device: where batches are wanted. threads: 0 for one a core. folder, say, on_progress: as in `open_pack`; without a
    folder `auto` packs nothing.
    Raises UsageError for another name, where DALI is wanted and not installed, and where a pack is wanted and cannot be
    made.
    """
    options: dict[str, Any] = dict(device=device, threads=threads, folder=folder, say=say, on_progress=on_progress)
    if name != "auto":
        if name not in BACKENDS:
            raise UsageError(f"backend: {name!r} is unknown; choose one of auto, {', '.join(BACKENDS)}")
        return BACKENDS[name](records, **options)
    if keeps_decoded(records, folder):
        try:
            return _resident(records, **options)
        except UsageError as error:  # what nobody asked for must not stop a run
            say(f"backend {PLAIN}: {error}")
            return _host(records, **options)
    if device.type == "cuda" and installed():
        return _dali(records, **options)
    if device.type == "cuda":
        say(f"backend {PLAIN}: NVIDIA DALI, which decodes on the GPU, is not installed")
    return _host(records, **options)
