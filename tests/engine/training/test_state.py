"""Saves: whole or not at all, wherever a kill or a full disk strikes; damage is passed over and left where it is."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from semiseg.engine import disk
from semiseg.engine.training import state as state_module
from semiseg.engine.training.state import Contents, forget, load_save, write_save
from semiseg.pipelines.errors import UsageError


def write(folder: Path, step: int, before=None, best: bool = True):
    """A save whose state and networks tell their step."""
    networks = {f"{name}.safetensors": lambda path: path.write_text(f"{step}") for name in ("last", "best")[: 1 + best]}
    return write_save(folder, step, {"steps_done": step, "w": torch.arange(1000)}, networks, before)


def held(folder: Path) -> tuple[int, str, str]:
    """Steps of the state that a run would go on from, of last and of best."""
    _, state = load_save(folder, pytest.fail)
    return state["steps_done"], *((folder / f"{name}.safetensors").read_text() for name in ("last", "best"))


def test_a_save_is_a_state_and_the_networks_that_belong_to_it(tmp_path):
    first = write(tmp_path, 2)
    second = write(tmp_path, 4, first, best=False)
    saves, state = load_save(tmp_path, pytest.fail)
    assert saves == [first, second]
    assert state["steps_done"] == 4
    assert torch.equal(state["w"], torch.arange(1000))
    assert second.networks["best.safetensors"] == first.networks["best.safetensors"]
    assert second.networks["last.safetensors"] != first.networks["last.safetensors"]
    assert forget(tmp_path, [first, second], 1) == [second]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors",
        "last.safetensors",
        "state-4.json",
        "state-4.pt",
    ]


class Killed(BaseException):
    """What a process that is killed does from then on: nothing."""


def test_whenever_a_save_is_killed_the_files_are_those_of_one_save(tmp_path, monkeypatch):
    """At every call that the disk sees, before and after it."""
    calls, seen = 0, set()
    functions = [(os, "fsync"), (os, "replace"), (Path, "unlink"), (torch, "save"), (Path, "touch"), (Path, "chmod")]

    def dying(function, after: bool, left: list[int]):
        def call(*args, **options):
            left[0] -= 1
            if left[0] < 0 or (left[0] == 0 and not after):
                raise Killed
            result = function(*args, **options)
            if left[0] == 0:
                raise Killed
            return result

        return call

    for after in (False, True):
        for calls in range(1, 100):
            folder = tmp_path / f"{after}-{calls}"
            folder.mkdir()
            first = write(folder, 2)
            left = [calls]
            with monkeypatch.context() as patch:
                for owner, name in functions:
                    patch.setattr(owner, name, dying(getattr(owner, name), after, left))
                with suppress(Killed):
                    write(folder, 4, first)
            steps = held(folder)
            assert steps in ((2, "2", "2"), (4, "4", "4")), (calls, after)
            assert not [*folder.glob("*.new"), *folder.glob("*.part")]
            seen.add(steps)
            if left[0] > 0:
                break
        assert calls > 10
    assert len(seen) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing", "record"])
def test_a_damaged_save_is_passed_over_and_stays(tmp_path, damage):
    write(tmp_path, 4, write(tmp_path, 2))
    path = tmp_path / ("state-4.json" if damage == "record" else "state-4.pt")
    whole = path.read_bytes()
    place = len(whole) // 2
    damaged = {"flip": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], "empty": b""}
    path.write_bytes(damaged.get(damage, whole[:place]))
    if damage == "missing":
        path.unlink()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    said = []
    saves, state = load_save(tmp_path, said.append)
    assert (state["steps_done"], [save.step for save in saves]) == (2, [2])
    assert len(said) == 1
    assert said[0].startswith("warning: ")
    assert "state-4" in said[0]
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_folder_whose_saves_are_all_damaged_is_refused_and_an_empty_one_is_none(tmp_path):
    assert load_save(tmp_path, pytest.fail) == ([], None)
    write(tmp_path, 2)
    (tmp_path / "state-2.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no whole save .*--init .*last.safetensors"):
        load_save(tmp_path, lambda line: None)
    assert (tmp_path / "state-2.pt").exists()


def test_networks_without_a_save_are_no_start_from_nothing(tmp_path):
    """Of a version that wrote no records, or of a run whose records were deleted."""
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(UsageError, match="no whole save of this version"):
        load_save(tmp_path, pytest.fail)


@pytest.mark.parametrize("full", [1, 2, 3, 4])
def test_a_full_disk_leaves_the_save_before(tmp_path, monkeypatch, full):
    """At each file of a save: state, two networks, record."""
    first = write(tmp_path, 2)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    files = iter(range(1, 10))
    sync = disk.sync

    def filling(path: Path) -> None:
        if path.is_file() and next(files) == full:
            path.write_bytes(path.read_bytes()[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    monkeypatch.setattr(disk, "sync", filling)
    monkeypatch.setattr(state_module, "sync", filling)
    with pytest.raises(UsageError, match="No space left on device"):
        write(tmp_path, 4, first)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert held(tmp_path) == (2, "2", "2")


@pytest.mark.parametrize("gone", range(1, 8))
def test_a_folder_that_goes_while_a_save_is_written_is_told(tmp_path, monkeypatch, gone):
    """At each call that the disk sees: no traceback, whichever comes first."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    first, sync, contents, calls = write(folder, 2), disk.sync, Contents.of, iter(range(1, 20))

    def going(function):
        def call(path: Path):
            if next(calls) == gone:
                folder.rename(tmp_path / "gone")
            return function(path)

        return call

    monkeypatch.setattr(disk, "sync", going(sync))
    monkeypatch.setattr(state_module, "sync", going(sync))
    monkeypatch.setattr(Contents, "of", going(contents))
    with pytest.raises(UsageError, match=r"^--out: cannot write .*No such file or directory"):
        write(folder, 4, first)


def test_a_device_without_room_is_told_as_a_full_disk(tmp_path):
    """By torch, whose error has no number."""
    (tmp_path / "state-2.pt.new").symlink_to("/dev/full")
    with pytest.raises(disk.DiskFull, match=r"^--out: cannot write .*state-2.pt.new"):
        write(tmp_path, 2)
    assert not list(tmp_path.iterdir())
