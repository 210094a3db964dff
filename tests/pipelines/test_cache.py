"""Where prepared data is kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from semiseg.pipelines.cache import cache_root, write_atomically
from semiseg.pipelines.errors import UsageError


def test_the_cache_is_where_the_user_says_or_in_his_home(monkeypatch, tmp_path):
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("SEMISEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg/semiseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache/semiseg"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def nowhere(path):
        raise RuntimeError("Could not determine home directory.")

    for name in ("SEMISEG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", nowhere)
    with pytest.raises(UsageError, match="set SEMISEG_CACHE"):
        cache_root()


def test_others_may_read_what_is_written_as_the_user_has_it(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "one", b"whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    def fail(draft, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    (tmp_path / "one").write_bytes(b"before")
    with pytest.raises(UsageError, match=r"cannot write to the cache .*No space left.*set SEMISEG_CACHE elsewhere"):
        write_atomically(tmp_path / "one", b"after")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]
