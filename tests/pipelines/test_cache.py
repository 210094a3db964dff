"""Where prepared data is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from semiseg.pipelines.cache import cache_root
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
