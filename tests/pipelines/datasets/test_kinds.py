"""Every kind of file ends in its defined result: used with the right pixels and classes, or refused in one line; in
time, in little memory, without a traceback."""

import pytest
from kinds import KINDS, make
from kinds.judge import apart, judged


@pytest.mark.parametrize("name", KINDS)
def test_kind(name, tmp_path):
    root = make(tmp_path, name)
    outcome = apart(lambda: judged(KINDS[name], root, tmp_path / "cache"))
    assert not outcome.end
    assert outcome.value == []
    assert outcome.megabytes < 4096


def test_enough_kinds():
    assert len(KINDS) >= 240
