"""`semiseg selfcheck`: what it checks, says and ends with."""

from __future__ import annotations

import json

import pytest

from semiseg.engine.training import verdict
from semiseg.kernels.check import Result
from semiseg.pipelines.backends import PLAIN, available


def test_selfcheck_judges_every_kernel_and_backend(semiseg, own_cache):
    code, text, progress = semiseg("selfcheck", "--device", "cpu", "--json")
    document = json.loads(text)
    assert code == 0
    assert document["ok"]
    assert set(document) == {"ok", "kernels", "backends", "steps"}
    assert {row["operator"].split()[0] for row in document["kernels"]} >= {"cutmix", "upsample_cross_entropy"}
    assert {row["operator"].split()[0] for row in document["backends"]} == set(available()) - {PLAIN}
    assert all(row["error"] <= row["allowed"] for row in document["kernels"] + document["backends"])
    assert document["steps"] == []
    assert "checking kernels in fp32" in progress
    assert len(list((own_cache / "verdicts").iterdir())) == len(available())


@pytest.fixture
def examined(monkeypatch, own_cache):
    """What selfcheck has examined; each part gives a row, with a problem where its name begins with `wrong`."""
    names = []

    def examine(part):
        names.append(part.name)
        broken = part.name.startswith(examine.wrong)
        row = Result(part.name, str(part.device), "fp32", "x", problem="died by signal 11" if broken else None)
        return [row]

    examine.wrong = "nothing"
    examine.names = names
    monkeypatch.setattr(verdict, "examine", examine)
    return examine


@pytest.mark.parametrize("wrong", ["kernels", "backend resident", "compiled"])
def test_selfcheck_exits_with_1_where_something_is_wrong_and_goes_on(semiseg, examined, wrong):
    examined.wrong = wrong
    code, text, _ = semiseg("selfcheck", "--device", "cpu", "--compile")
    assert code == 1
    rows = [line for line in text.splitlines() if line.endswith("died by signal 11")]
    assert rows
    assert all(row.startswith(wrong) for row in rows)
    assert examined.names[-1].startswith("compiled steps of cac resnet18 in ")
    assert "checking compiled steps" in text


def test_selfcheck_checks_again_what_it_knows(semiseg, examined):
    assert semiseg("selfcheck", "--device", "cpu")[0] == 0
    once = list(examined.names)
    code, text, _ = semiseg("selfcheck", "--device", "cpu")
    assert code == 0
    assert examined.names == 2 * once
    assert text.rstrip().endswith("steps: compiled ones are checked on a CPU with --compile, which takes minutes")
