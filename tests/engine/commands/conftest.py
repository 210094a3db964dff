"""What the tests of commands share."""

from __future__ import annotations

import pytest


@pytest.fixture
def refused(semiseg, tmp_path):
    """`refused("train", ...)` -> the one line of an exit with code 2 that leaves no run behind."""

    def run(*arguments) -> str:
        before = sorted(tmp_path.rglob("*"))
        code, _, err = semiseg(*arguments)
        assert code == 2, err
        lines = [line for line in err.splitlines() if line.strip()]
        assert len(lines) == 1
        assert lines[0].startswith("semiseg: ")
        assert "Traceback" not in err
        left = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
        assert not [path for path in left if "cache" not in path.parts], left
        return lines[0]

    return run


@pytest.fixture
def small() -> list[str]:
    """Flags of a run of seconds."""
    return [
        *("--backbone", "resnet18", "--head-width", "16", "--weights", "none", "--crop", "32", "--batch", "2"),
        *("--steps", "2", "--threads", "1", "--device", "cpu", "--backend", "host"),
    ]


@pytest.fixture
def train(small):
    """`train(root, *more)`: the words of such a run."""

    def words(data, *more, recipe="supervised_voc", split="draw:1/2@0"):
        return ["train", recipe, "--data", data, "--split", split, *small, *more]

    return words
