"""The check passes here, and notices what it is there for."""

import json

import pytest
import torch

from semiseg.pipelines import check
from semiseg.pipelines.backends import BACKENDS, available
from semiseg.pipelines.host import HostBackend

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_right(name, device):
    if name not in available():
        pytest.skip("needs NVIDIA DALI")
    results = check.check(name, torch.device(device))
    assert [result.operator for result in results] == [f"{name} {one}" for one in ("cubic", "antialiased", "linear")]
    for result in results:
        assert result.problem is None
        assert result.error <= result.allowed
        assert result.seconds > 0


class Damaged(HostBackend):
    """Cuts windows as `host` and changes one of them."""

    def __init__(self, records, damage, **options):
        super().__init__(records, **options)
        self.damage = damage

    def __call__(self, plans):
        for plan, windows in super().__call__(plans):
            self.damage(windows)
            yield plan, windows


def brighter(windows):
    windows.labeled.add_(1)


def one_pixel(windows):
    windows.labeled[0, 5, 5] += 128


def one_label(windows):
    windows.target[0, 7, 7] += 1


def crash(windows):
    raise RuntimeError("nvImageCodec\n  failed")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (brighter, "grey levels from those of host on average, may be"),
        (one_pixel, "one is 128"),
        (one_label, "1 of 32768 labels are others than those of host"),
        (crash, "RuntimeError: nvImageCodec failed"),
    ],
)
def test_a_backend_that_decodes_otherwise_is_reported(monkeypatch, capsys, damage, says):
    def damaged(records, *, device, threads, **_):
        return Damaged(records, threads=threads, damage=damage)

    monkeypatch.setitem(BACKENDS, "resident", damaged)
    results = check.check("resident", CPU)
    assert len(results) == 3
    assert all(says in result.problem for result in results)
    assert check.main(["--backend", "resident", "--device", "cpu", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["problem"] for row in rows] == [result.problem for result in results]


def test_the_command_is_done_with_0(capsys):
    assert check.main(["--backend", "resident", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("right") == 3
