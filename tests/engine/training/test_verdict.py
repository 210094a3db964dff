"""Broken fast paths, each on purpose: training goes on without them, correctly, and says so; verdicts are kept."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semiseg.engine.device import Precision
from semiseg.engine.models import Network
from semiseg.engine.training import check as steps_check
from semiseg.engine.training import verdict
from semiseg.engine.training.trainer import Trainer
from semiseg.engine.training.verdict import Part, prove_fast_paths
from semiseg.kernels import check as kernels_check
from semiseg.kernels.check import Result, has_kernels, refuse
from semiseg.kernels.cpu import upsample_cross_entropy as cpu
from semiseg.pipelines import check as backends_check
from semiseg.pipelines.documents import read_sealed, sealed

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)
PROGRAMS = {
    "semiseg.kernels.check": kernels_check,
    "semiseg.pipelines.check": backends_check,
    "semiseg.engine.training.check": steps_check,
}
pytestmark = pytest.mark.skipif(has_kernels(CPU), reason="about the CPU's operators")


@pytest.fixture(autouse=True)
def _nothing_refused():
    yield
    refuse([])


@pytest.fixture
def here(monkeypatch) -> list[str]:
    """Checks run in this process, where a test can break something; their names."""
    examined: list[str] = []

    def examine(part: Part) -> list[Result]:
        examined.append(part.name)
        module, *arguments = part.program
        with contextlib.redirect_stdout(io.StringIO()) as out:
            PROGRAMS[module].main([*arguments, "--device", str(part.device), "--json"])
        return [Result(**row) for row in json.loads(out.getvalue())["results"]]

    monkeypatch.setattr(verdict, "examine", examine)
    return examined


@pytest.fixture
def program(tmp_path, monkeypatch) -> Callable[..., Part]:
    """`program(code, ...)`: a part that is checked by this code."""

    def build(code: str, name: str = "quick", refused: tuple[str, ...] = ("one", "two"), timeout: int = 60) -> Part:
        module = f"checks_{len(list(tmp_path.glob('*.py')))}"
        (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        return Part(name, CPU, (module,), ("kernels",), refused, timeout)

    return build


DIES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
HANGS = "import time\ntime.sleep(600)"


@pytest.fixture
def trained(tiny, voc_root, own_cache):
    """`trained(**changes)`: losses of a run, and what it said."""
    root = voc_root()

    def run(**changes) -> tuple[list[float], list[str]]:
        said: list[str] = []
        number = len(list(root.glob("run*")))
        recipe = tiny("supervised", data=root, network="cps", out=root / f"run{number}", **changes)
        trainer = Trainer(recipe, lambda event: event.kind == "note" and said.append(event.text))
        result = trainer.train()
        lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
        about = [line for line in said if line.startswith(("kernel", "backend", "compile", "checking", "the verdict"))]
        return [line["loss"] for line in lines if "loss" in line], about

    return run


def test_a_run_on_a_cpu_checks_nothing(trained, here):
    assert trained()[1] == []
    assert not here


def test_a_kernel_that_returns_a_wrong_number_is_not_trained_with(trained, here, monkeypatch):
    refuse([Result("upsample_cross_entropy", "cpu", "fp32", "cpu", problem="for comparison")])
    plain, _ = trained()
    refuse([])
    right = cpu.cross_entropy

    def wrong(*arguments, **options):
        total, count = right(*arguments, **options)
        return 1.5 * total, count

    monkeypatch.setattr(cpu, "cross_entropy", wrong)
    damaged, _ = trained()
    assert damaged[0] == pytest.approx(1.5 * plain[0], rel=1e-4)
    monkeypatch.setattr(verdict, "has_kernels", lambda device: True)
    losses, said = trained()
    assert losses == plain
    assert said[0].startswith("checking kernels in fp32 on ")
    assert said[1].startswith("kernel upsample_cross_entropy: refused (is ")
    assert said[1].endswith("; the plain definition is used instead")
    refuse([])
    losses, again = trained()
    assert losses == plain
    assert [line for line in again if line.startswith("kernel")] == [line for line in said if line.startswith("kernel")]
    assert here == ["kernels in fp32"]


def test_right_kernels_are_used_and_nothing_is_said(trained, here, monkeypatch):
    plain, _ = trained()
    monkeypatch.setattr(verdict, "has_kernels", lambda device: True)
    losses, said = trained()
    assert losses == plain
    assert len(said) == 1
    assert trained()[1] == []
    assert here == ["kernels in fp32"]


@pytest.mark.parametrize(
    "problem",
    [
        "CUDA out of memory. Tried",
        "exit code 1: CUDA devices are busy or unavailable",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "died by signal 9 (SIGKILL)",
    ],
)
def test_a_check_that_a_full_gpu_ended_is_made_again(monkeypatch, tmp_path, problem):
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path))
    found, said = [[Result("one", "cpu", "fp32", "x", problem=problem)], [Result("one", "cpu", "fp32", "x")]], []
    monkeypatch.setattr(verdict, "examine", lambda part: found.pop(0))
    part = verdict.kernels(FP32)
    assert verdict.problem_of(verdict.verdict(part, said.append)) == problem
    assert said[1].startswith("the verdict is not kept")
    assert verdict.problem_of(verdict.verdict(part, said.append)) is None
    assert verdict.problem_of(verdict.verdict(part, said.append)) is None
    assert not found


def test_a_check_of_kernels_that_crashes_leaves_plain_definitions(trained, program, monkeypatch):
    refuse([Result(name, "cpu", "fp32", "cpu", problem="for comparison") for name in verdict.OPERATORS])
    plain, _ = trained()
    refuse([])
    monkeypatch.setattr(verdict, "has_kernels", lambda device: True)
    monkeypatch.setattr(verdict, "kernels", lambda precision: program(DIES, "kernels", tuple(verdict.OPERATORS)))
    losses, said = trained()
    assert losses == plain
    assert len(said) == 2
    assert "died by signal 11 (SIGSEGV)" in said[1]


@pytest.fixture
def decoders(monkeypatch, program):
    """`decoders(dali=CODE, dali_whole=CODE)`: the backends of a GPU, each checked by its code."""

    def build(**codes: str) -> None:
        parts = {name: program(code, f"backend {name}", (name,), 5) for name, code in codes.items()}
        asked = {"auto": list(parts)} | {name: [name] for name in parts}
        monkeypatch.setattr(verdict, "backends_to_check", lambda name, device, decoded=False: asked.get(name, []))
        monkeypatch.setattr(verdict, "backend", lambda name, device: parts[name])

    return build


RIGHT = f"""import json
print(json.dumps({{"results": [{dict(operator="dali", device="cpu", dtype="uint8", implementation="x")!r}]}}))"""


def test_a_decoder_that_dies_or_hangs_is_not_trained_with(trained, decoders, monkeypatch):
    plain, _ = trained(backend="host")
    decoders(dali=DIES, dali_whole=HANGS)
    began = time.monotonic()
    losses, said = trained(backend="auto")
    assert losses == plain
    assert time.monotonic() - began < 60
    assert [line for line in said if line.startswith("backend")] == [
        "backend dali: refused (died by signal 11 (SIGSEGV)); dali_whole is used instead",
        "backend dali_whole: refused (hung, was stopped after 5 s); host is used instead",
    ]
    losses, again = trained(backend="auto")
    assert losses == plain
    assert again == [line for line in said if line.startswith("backend")]


@pytest.mark.parametrize(
    ("dali", "whole", "taken", "refused"),
    [(RIGHT, DIES, "dali", 0), (DIES, RIGHT, "dali_whole", 1), (DIES, DIES, "host", 2)],
)
def test_the_best_decoder_that_is_right_is_taken(tiny, own_cache, decoders, dali, whole, taken, refused):
    decoders(dali=dali, dali_whole=whole)
    said: list[str] = []
    assert prove_fast_paths(tiny("supervised", backend="auto"), FP32, said.append).runtime.backend == taken
    assert sum(line.startswith("backend") for line in said) == refused


@pytest.mark.parametrize(
    ("whole", "before", "taken"),
    [
        (RIGHT, "dali_whole", "dali_whole"),
        (RIGHT, "host", "host"),
        (DIES, "dali_whole", "dali"),
        (RIGHT, "auto", "dali"),
    ],
)
def test_a_run_that_goes_on_keeps_the_backend_that_it_began_with(tiny, own_cache, decoders, whole, before, taken):
    """Two decoders differ by grey levels. One that is refused by now is not kept."""
    decoders(dali=RIGHT, dali_whole=whole)
    recipe = prove_fast_paths(tiny("supervised", backend="auto"), FP32, lambda line: None, before=before)
    assert recipe.runtime.backend == taken
    asked = prove_fast_paths(tiny("supervised", backend="host"), FP32, lambda line: None, before=before)
    assert asked.runtime.backend == "host"


def test_who_asks_for_a_decoder_that_is_refused_is_told(semiseg, voc_root, tmp_path, decoders):
    decoders(dali=DIES)
    out = tmp_path / "run"
    arguments = ["train", "supervised_voc", "--data", voc_root(), "--split", "draw:1/2@0", "--weights", "none"]
    code, _, error = semiseg(*arguments, "--device", "cpu", "--out", out, "--backend", "dali")
    assert code == 2
    line = error.strip().splitlines()[-1]
    assert line == (
        "semiseg: --backend dali: refused on cpu (died by signal 11 (SIGSEGV)); pass --backend host, or leave it out"
    )
    assert not out.exists()


class Halved(torch.autograd.Function):
    """The identity, whose gradient is wrong."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


def halve_gradients(network: Network) -> None:
    decode = network.decode
    network.decode = lambda maps, **options: Halved.apply(decode(maps, **options))


def test_compiled_networks_that_give_other_gradients_are_not_trained_with(trained, here, monkeypatch):
    plain, _ = trained()
    monkeypatch.setattr(Network, "compile", halve_gradients)
    losses, said = trained(compile=True)
    assert losses == plain
    assert said[0].startswith("checking compiled steps of cps few in fp32 on ")
    assert said[1].startswith("compile: refused (momentum of network.")
    assert said[1].endswith("; networks run eagerly instead")
    losses, again = trained(compile=True)
    assert losses == plain
    assert again == said[1:]
    assert len(here) == 1


def test_a_verdict_is_about_one_network_and_precision():
    subject = steps_check.Subject(network="cps", backbone="resnet18", head_width=16)
    frozen = steps_check.Subject(network="cps", backbone="resnet18", head_width=16, freeze_backbone=True)
    parts = [
        verdict.steps("compiled", subject, FP32),
        verdict.steps("compiled", subject, Precision("bf16", CPU)),
        verdict.steps("compiled", frozen, FP32),
        verdict.kernels(FP32),
        verdict.kernels(Precision("bf16", CPU)),
        verdict.backend("dali", CPU),
    ]
    facts = [part.facts() for part in parts]
    assert all(facts.count(one) == 1 for one in facts)
    assert {"torch", "driver", "device", "sources"} <= set(facts[0])
    assert len({one["sources"] for one in facts}) == 3


COUNTS = """import json, pathlib, sys
with open(pathlib.Path(__file__).with_suffix(".count"), "a") as file:
    file.write("x")
row = {"operator": "one", "device": "cpu", "dtype": "fp32", "implementation": "x", "problem": "is 3"}
print(json.dumps({"results": [row]}))
sys.exit(1)"""


@pytest.fixture
def judged(own_cache, program):
    """`judged()`: a verdict of "is 3", how often it was made so far, and what was said."""
    part = program(COUNTS)

    def judge(**options) -> tuple[int, list[str]]:
        said: list[str] = []
        (row,) = verdict.verdict(part, said.append, **options)
        assert (row.operator, row.problem) == ("one", "is 3")
        count = Path(next(path for path in own_cache.parent.glob("checks_*.count"))).read_text()
        return len(count), said

    return judge


def test_a_verdict_is_kept_until_it_is_wanted_anew(judged):
    count, (line,) = judged()
    assert (count, line[:18]) == (1, "checking quick on ")
    assert judged() == (1, [])
    assert judged(anew=True)[0] == 2
    assert judged() == (2, [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text(""),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("[1, 2]"),
        lambda path: path.write_text(path.read_text()[:-40]),
        lambda path: path.write_text(path.read_text().replace('"problem"', '"trouble"')),
        lambda path: path.write_text(path.read_text().replace('"is 3"', "null")),
        lambda path: path.write_bytes(sealed(read_sealed(path) | {"facts": {"sources": "0"}})),
        lambda path: path.write_bytes(sealed(read_sealed(path) | {"results": []})),
        lambda path: path.unlink(),
    ],
)
def test_a_verdict_that_is_damaged_or_about_something_else_is_made_anew(judged, own_cache, damage):
    assert judged()[0] == 1
    (path,) = (own_cache / "verdicts").iterdir()
    whole = path.read_text()
    damage(path)
    assert judged()[0] == 2
    assert path.read_text() == whole
    assert judged() == (2, [])


def test_other_versions_and_other_sources_are_checked_again(judged, monkeypatch, tmp_path):
    assert judged()[0] == 1
    with monkeypatch.context() as patch:
        patch.setattr(verdict, "versions", lambda: {"torch": "9.9"})
        assert judged()[0] == 2
    with monkeypatch.context() as patch:
        (tmp_path / "kernels").mkdir()
        (tmp_path / "kernels" / "a.py").write_text("a = 1")
        patch.setattr(verdict, "PROJECT", tmp_path)
        assert judged()[0] == 3
        assert judged()[0] == 3
        (tmp_path / "kernels" / "a.py").write_text("a = 2")
        assert judged()[0] == 4
    assert judged() == (4, [])


def test_a_cache_that_takes_no_verdict_stops_nothing(judged, own_cache):
    own_cache.mkdir()
    (own_cache / "verdicts").write_text("a file where the folder would be")
    for number in (1, 2):
        count, (_, line) = judged()
        assert count == number
        assert line.startswith("the verdict is not kept: ")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (DIES, "died by signal 11 (SIGSEGV)"),
        ("raise RuntimeError('no such device')", "exit code 1: RuntimeError: no such device"),
        ("print('{}')", "exit code 0: no message"),
        ("""print('{"results": []}')""", "exit code 0: no message"),
        ("import sys\nprint('hello')\nsys.exit(3)", "exit code 3: no message"),
        (HANGS, "hung, was stopped after 2 s"),
        # What it started holds the pipes, too.
        (f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {HANGS!r}])", "hung, was stopped after 2 s"),
    ],
)
def test_a_check_that_says_nothing_refuses_all_that_it_was_about(program, code, says):
    began = time.monotonic()
    results = verdict.examine(program(code, timeout=2 if "hung" in says else 60))
    assert {result.operator: result.problem for result in results} == {"one": says, "two": says}
    assert time.monotonic() - began < 30


def test_the_real_programs_run_in_processes_of_their_own():
    results = verdict.examine(verdict.backend("resident", CPU))
    assert [result.problem for result in results] == [None] * 3
    results = verdict.examine(verdict.kernels(FP32))
    assert {result.operator.split()[0] for result in results} == set(verdict.OPERATORS) - {"box_mask"}
    assert not any(result.problem for result in results)
