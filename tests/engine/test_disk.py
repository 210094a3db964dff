"""Files are written whole, and folders made, or one line says why not."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from semiseg.engine.disk import DiskFull, create_new, whole, writing
from semiseg.pipelines.errors import UsageError


def test_runs_that_begin_at_once_have_a_folder_each(tmp_path):
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: create_new(tmp_path / "runs/cac-1"), range(4)))
    assert sorted(path.name for path in made) == ["cac-1", "cac-1-2", "cac-1-3", "cac-1-4"]
    assert all(path.is_dir() for path in made)


def fill(path: Path, error: Exception) -> None:
    """Half a file, and then the disk is full."""
    with whole(path) as draft:
        draft.write_text("half")
        raise error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")])
def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path, error):
    path = tmp_path / "last.state.pt"
    path.write_text("before")
    with pytest.raises(UsageError, match=r"^--out: cannot write .*last.state.pt \((No space|file write).*--resume"):
        fill(path, error)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["last.state.pt"]


def test_a_folder_that_is_gone_is_no_full_disk(tmp_path):
    """Of which torch's error says as little."""
    with pytest.raises(UsageError, match="No such file or directory") as error, writing(tmp_path / "gone/a"):
        torch.save(1, tmp_path / "gone/a")
    assert not isinstance(error.value, DiskFull)
