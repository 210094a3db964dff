"""Saves: what a run goes on from, whole or not at all.

A save is the state after one step together with the networks of the evaluation before it. Its files are written beside
those that they replace; then its record, `state-STEP.json`, which names them with sizes and checksums, and with which
the save is made; then the files take their places. What a kill leaves undone of the last part is done when the run goes
on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...pipelines.documents import opened, read_object
from ...pipelines.errors import UsageError
from ...pipelines.progress import Say
from ..disk import sync, write_text, writing
from ..methods import Method
from ..serial import typed

Writer = Callable[[Path], None]
NEW = ".new"
"""Behind the name of a file that waits for its place."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Contents:
        """Raises OSError."""
        with opened(path) as file:
            return cls(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True)
class Save:
    """A save as its record states it."""

    step: int
    """Steps done."""
    files: dict[str, Contents]
    """By their names in the folder: the state, and the networks that belong to it."""

    @property
    def state(self) -> str:
        return f"state-{self.step}.pt"

    @property
    def record(self) -> str:
        return f"state-{self.step}.json"

    @property
    def networks(self) -> dict[str, Contents]:
        return {name: contents for name, contents in self.files.items() if name != self.state}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Save:
        """The inverse of `asdict`. Raises ValueError or TypeError where it is no record."""
        save = typed(cls, values)
        save = cls(save.step, {name: typed(Contents, said, name) for name, said in save.files.items()})
        if save.state not in save.files or any(os.path.basename(name) != name for name in save.files):
            raise ValueError(f"it must name {save.state}, and files of this folder alone")
        return save


def write_save(folder: Path, step: int, state: Any, networks: Mapping[str, Writer], before: Save | None) -> Save:
    """Writes the state after `step` and networks by the names of their files; those of the save before that are not
    among them belong to this one, too. Raises UsageError where the disk does not take it; all is then as it was."""
    kept = before.networks if before else {}
    save = Save(step, {})
    writers = {save.state: lambda path: torch.save(state, path), **networks}
    waiting = {name: folder / f"{name}{NEW}" for name in writers}
    try:
        for name, write in writers.items():
            with writing(waiting[name]):
                write(waiting[name])
                sync(waiting[name])
                save.files[name] = Contents.of(waiting[name])
        save.files.update({name: contents for name, contents in kept.items() if name not in save.files})
        write_text(folder / save.record, json.dumps(asdict(save), indent=1), durable=True)
    except BaseException:
        for path in waiting.values():
            path.unlink(missing_ok=True)
        raise
    with writing(folder):
        for name, path in waiting.items():
            os.replace(path, folder / name)
        sync(folder)
    return save


def settle(folder: Path, save: Save) -> None:
    """Files of the save that wait for their places take them; what else a kill left unfinished goes."""
    with writing(folder):
        for path in [*folder.glob(f"*{NEW}"), *folder.glob("*.part")]:
            name = path.name.removesuffix(NEW)
            if name != path.name and save.files.get(name) == Contents.of(path):
                os.replace(path, folder / name)
            else:
                path.unlink()
        sync(folder)


def forget(folder: Path, saves: list[Save], keep: int) -> list[Save]:
    """The last `keep` of the saves; the files that belong to the others alone are deleted."""
    old, kept = saves[:-keep], saves[-keep:]
    wanted = {name for save in kept for name in (save.record, *save.files)}
    with writing(folder):
        for name in {name for save in old for name in (save.record, *save.files)} - wanted:
            (folder / name).unlink(missing_ok=True)
    return kept


def load_save(folder: Path, say: Say, *, mend: bool = True) -> tuple[list[Save], dict[str, Any] | None]:
    """The newest whole save with those before it, the newest last, and its state, on the CPU; none and None where none
    was ever made. Later ones that are damaged are named and stay where they are. Raises UsageError where all are.

    mend: what a kill left undone is done first; else nothing in the folder changes.
    """
    saves = list(_records(folder, say))
    for number, save in reversed(list(enumerate(saves, 1))):
        if mend:
            settle(folder, save)
        try:
            return saves[:number], _state(folder, save)
        except (OSError, ValueError) as error:
            say(f"warning: the save of step {save.step} in {folder} is passed over: {error}")
    if any(path.suffix not in (NEW, ".part") for path in folder.glob("*")):
        raise UsageError(
            f"{folder} has no whole save of this version; start a new run, from its network with "
            f"--init {folder / 'last.safetensors'}"
        )
    if mend:
        settle(folder, Save(0, {}))
    return [], None


def load_method(method: Method, tensors: Mapping[str, Tensor]) -> None:
    """Gives a method the tensors of a save. Raises UsageError where it has others."""
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:  # which names every tensor
        if not re.search(r"key\(s\)|size mismatch", str(error)):
            raise
        raise UsageError(
            f"the saves hold other tensors than {method.name} has in this version of semiseg; go on with the one that "
            "wrote them, or start anew in another folder"
        ) from None


def _records(folder: Path, say: Say) -> Iterator[Save]:
    """By their steps."""
    for path in sorted(folder.glob("state-*.json"), key=lambda path: (len(path.name), path.name)):
        try:
            save = Save.from_dict(read_object(path))
            if save.record != path.name:
                raise ValueError(f"it is {save.record}")
        except (ValueError, TypeError) as error:
            say(f"warning: {path} is passed over: damaged ({error})")
        else:
            yield save


def _state(folder: Path, save: Save) -> dict[str, Any]:
    """Raises OSError or ValueError where it is not the one that was saved."""
    path = folder / save.state
    if not path.exists():
        raise ValueError(f"{path.name} is missing")
    if Contents.of(path) != save.files[save.state]:
        raise ValueError(f"{path.name} is damaged")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path.name} is not of this torch ({type(error).__name__})") from error
