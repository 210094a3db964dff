"""The kernel benchmarks: counts and errors at tiny sizes, the agreement of the providers, times of the fastest, and how
memory is measured."""

from __future__ import annotations

import csv
import math
import mmap
import multiprocessing
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import measurement
import operator_benchmark
from bench_directional_contrast import CHUNK, CONTRAST
from bench_upsample import UPSAMPLE
from bench_upsample_cross_entropy import CROSS_ENTROPY

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
OPERATORS = {
    "cut_windows", "cutmix", "depthwise_conv2d", "directional_contrast", "mixed_pseudo_label", "photometric",
    "pseudo_label", "upsample", "upsample_confusion", "upsample_conv2d", "upsample_cross_entropy", "upsample_mse",
    "upsample_ohem_cross_entropy",
}  # fmt: skip
LARGEST_ERROR = {"fp32": 1e-5, "bf16": 1e-2}


def run(results: Path, *arguments: str) -> tuple[str, list[dict[str, str]]]:
    """What a run of the kernel benchmarks prints, and its rows."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "--results", str(results)]
    # pytest-benchmark measures nothing in a process that says it is one of several.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    with results.open() as file:
        return done.stdout, list(csv.DictReader(file))


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> tuple[str, list[dict[str, str]]]:
    """All of them, at tiny sizes."""
    return run(tmp_path_factory.mktemp("counted") / "kernels.csv", "benchmarks", "--sizes", "tiny")


@pytest.fixture(scope="module")
def timed(tmp_path_factory) -> tuple[str, list[dict[str, str]]]:
    """The one that takes least."""
    results = tmp_path_factory.mktemp("timed") / "kernels.csv"
    return run(results, "benchmarks/bench_cutmix.py", "--rounds", "1")


@pytest.fixture
def rows(counted) -> list[dict[str, str]]:
    return counted[1]


def test_every_operator_is_counted_without_a_clock(rows) -> None:
    assert {row["operator"] for row in rows} == OPERATORS
    for row in rows:
        assert tuple(row) == operator_benchmark.COUNTED
        assert int(row["launches"]) > 0
        assert int(row["allocated_bytes"]) >= int(row["largest_bytes"]) > 0
        assert int(row["allocated_bytes"]) <= int(row["allocations"]) * int(row["largest_bytes"])
        assert row["machine"]
        assert row["torch"] == torch.__version__
        assert (row["mode"] == "forward") == (row["gradient_error"] == "")


def test_a_gradient_costs_more_than_none(rows) -> None:
    names = ("operator", "size", "dtype", "provider")
    forward = {tuple(row[name] for name in names): row for row in rows if row["mode"] == "forward"}
    both = [row for row in rows if row["mode"] == "forward+backward"]
    assert both
    for row in both:
        without = forward[tuple(row[name] for name in names)]
        assert int(row["launches"]) > int(without["launches"])
        assert int(row["allocated_bytes"]) > int(without["allocated_bytes"])


def largest(operator: operator_benchmark.Operator, size: dict, provider: str) -> int:
    """Bytes of the largest allocation of a step with a gradient."""
    torch.manual_seed(0)
    inputs = operator.inputs(**size, dtype=torch.float32, device=CPU)
    call = partial(operator_benchmark.evaluate, operator.providers[provider], inputs, operator.gradients)
    return measurement.counts(call, CPU).largest_bytes


def test_the_fused_cross_entropy_holds_no_logits_at_full_resolution() -> None:
    size = CROSS_ENTROPY.sizes["voc"] | {"batch": 2}
    full = 4 * size["batch"] * size["classes"] * math.prod(size["full"])
    assert largest(CROSS_ENTROPY, size, "plain") >= full
    assert largest(CROSS_ENTROPY, size, "fused") < full / 4


def test_the_fused_contrast_holds_no_scores_of_all_rows_against_the_bank() -> None:
    size = {"rows": 1024, "negatives": 2 * CHUNK, "classes": 21, "active": "all"}
    scores = 4 * size["rows"] * size["negatives"]
    assert largest(CONTRAST, size, "plain") >= scores / 2
    assert largest(CONTRAST, size, "fused") < scores / 3


def test_counts_are_those_of_the_call_alone() -> None:
    """Without what an earlier call has prepared."""

    def call() -> torch.Tensor:
        if not prepared:
            prepared.append(torch.ones(1 << 20))
        return torch.empty(1000)

    prepared: list[torch.Tensor] = []
    threads = torch.get_num_threads()
    found = measurement.counts(call, CPU)
    assert (found.allocations, found.allocated_bytes, found.largest_bytes) == (1, 4000, 4000)
    assert found == measurement.counts(call, CPU)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("operator", [CONTRAST, CROSS_ENTROPY, UPSAMPLE], ids=lambda operator: operator.name)
def test_a_gpu_measures_published_sizes_in_one_precision_by_default(operator) -> None:
    some = operator_benchmark.cases(operator, "default", torch.device("cuda"))
    everything = operator_benchmark.cases(operator, "all", torch.device("cuda"))
    assert {case.dtype for case in some} == {"bf16"}
    assert {case.provider for case in everything} == {*operator.providers, "compiled"}
    assert "flex_attention" not in {case.provider for case in some}
    assert {case.size for case in everything} == set(operator.sizes)
    wanted = {name for name in operator.sizes if not name.startswith("cpu") and "one-gpu" not in name}
    assert {case.size for case in some} == wanted
    assert len(some) <= 50


@pytest.mark.parametrize(
    ("sizes", "device", "expected"),
    [("default", "cuda", False), ("all", "cuda", True), ("all", "cpu", False), ("tiny", "cuda", False)],
)
def test_torch_compile_is_left_out_but_where_a_gpu_measures_everything(sizes, device, expected) -> None:
    assert operator_benchmark.compiles(sizes, torch.device(device)) == expected


def test_on_a_gpu_the_host_is_timed_beside_the_device_which_sleeps_meanwhile(monkeypatch) -> None:
    """A clock of events that sees what happens between them, on a device that does nothing until it wakes."""
    order = []

    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self):
            order.append("event")

        def synchronize(self):
            order.append("wait")

        def elapsed_time(self, end):
            return 0.25

    class Flush:
        def zero_(self):
            order.append("flush")

    monkeypatch.setattr(torch, "empty", lambda *_, **__: Flush())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda clocks: order.append("sleep"))
    device, host = measurement.device_milliseconds(lambda: order.append("call") or time.sleep(0.02), 2)
    assert order == 2 * ["flush", "sleep", "event", "call", "event", "wait"]
    assert device == [0.25, 0.25]
    assert all(20 <= milliseconds < 2000 for milliseconds in host)


def test_times_have_every_column(timed) -> None:
    for row in timed[1]:
        assert tuple(row) == operator_benchmark.TIMED
        assert float(row["ms_p20"]) <= float(row["ms"]) <= float(row["ms_p80"])
        assert float(row["roof"]) > 0
        assert float(row["rate"]) > 0


def test_rates_and_speedups_are_those_of_the_times(timed) -> None:
    """Providers of one case do the same work; whatever the machine did meanwhile, rate and time say how much it is."""
    cases = {}
    for row in timed[1]:
        cases.setdefault(tuple(row[name] for name in ("operator", "size", "dtype", "mode")), []).append(row)
    for plain, *others in cases.values():
        assert (plain["provider"], float(plain["speedup"])) == ("plain", 1)
        assert others
        for row in others:
            faster = pytest.approx(float(plain["ms"]) / float(row["ms"]), rel=2e-3)  # of four digits
            assert float(row["speedup"]) == faster
            assert float(row["rate"]) / float(plain["rate"]) == faster


def test_what_is_compared(rows) -> None:
    def providers(operator: str, mode: str) -> set[str]:
        return {row["provider"] for row in rows if (row["operator"], row["mode"]) == (operator, mode)}

    for mode in ("forward", "forward+backward"):
        assert providers("directional_contrast", mode) == {"plain", "flex_attention", "fused", "fused-by-class"}
        assert providers("upsample_cross_entropy", mode) == {"plain", "fused", "fused-deterministic"}
    assert providers("mixed_pseudo_label", "forward") == {"plain", "plain-labels", "fused"}


def test_every_provider_computes_the_same(rows) -> None:
    """All are close to the definition in float64. Plain blur does not round as OpenCV: a grey level, here and there."""
    for row in rows:
        bound = 2e-2 if (row["operator"], row["provider"]) == ("photometric", "plain") else LARGEST_ERROR[row["dtype"]]
        assert float(row["error"]) <= bound, row
        assert float(row["gradient_error"] or 0) <= bound, row


def test_a_table_is_printed_and_torch_compile_left_out_visibly(counted, timed) -> None:
    assert "cutmix tiny fp32 forward" in counted[0]
    assert "largest bytes" in counted[0]
    assert "--compiled includes it" in counted[0]
    assert "of roof" in timed[0]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc")
def test_peak_memory_is_that_of_the_call() -> None:
    kept = []

    def touch(mebibytes: int) -> torch.Tensor:
        """Pages of its own, as an allocator may have some left."""
        return torch.frombuffer(mmap.mmap(-1, mebibytes << 20), dtype=torch.uint8).fill_(1)

    def call() -> None:
        temporary = touch(64)
        kept.append(touch(32))
        del temporary

    touch(256)  # an older and higher mark
    assert measurement.peak_memory(call, CPU) == pytest.approx(96 << 20, abs=4 << 20)
    assert measurement.peak_memory(lambda: None, CPU) == pytest.approx(0, abs=4 << 20)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc")
def test_processors_of_workers_count_and_sleep_does_not() -> None:
    before = measurement.processor_seconds()
    time.sleep(0.2)
    assert measurement.processor_seconds() - before < 0.1
    worker = multiprocessing.get_context("fork").Process(target=spin, daemon=True)
    worker.start()
    deadline = time.monotonic() + 20
    while measurement.processor_seconds() - before < 0.3 and time.monotonic() < deadline:
        time.sleep(0.05)
    own = time.process_time()
    found = measurement.processor_seconds() - own
    worker.kill()
    worker.join()
    assert found > 0.1


def spin() -> None:
    while True:
        pass


def test_errors_are_relative_and_labels_are_counted() -> None:
    exact = torch.tensor([3.0, 4.0])
    assert measurement.error(torch.tensor([3.0, 4.5]), exact) == pytest.approx(0.1)
    labels = torch.tensor([0, 7, 2, 2], dtype=torch.uint8)
    assert measurement.error(torch.tensor([0, 1, 2, 2]), labels) == 0.25


def test_a_file_of_other_columns_is_left_alone(tmp_path) -> None:
    results = tmp_path / "kernels.csv"
    results.write_text("kernel,ms\n")
    run = operator_benchmark.Comparison(CPU, results, rounds=1, compiles=False)
    with pytest.raises(ValueError, match="other columns"):
        run.add(dict.fromkeys(operator_benchmark.TIMED, 0))
    assert results.read_text() == "kernel,ms\n"


def test_rows_that_are_added_leave_the_commit_as_it_is(tmp_path, monkeypatch) -> None:
    """So that those of one run have one commit, and a run that goes on finds them."""
    monkeypatch.delenv("SEMISEG_COMMIT", raising=False)
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    code, rows = tmp_path / "benchmarks/measurement.py", tmp_path / measurement.ROWS / "kernels.csv"
    for path, text in ((code, Path(measurement.__file__).read_text()), (rows, "ms\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    monkeypatch.setattr(measurement, "__file__", str(code))
    commit = measurement.machine(CPU)["commit"]
    assert len(commit) >= 7
    rows.write_text("ms\n1\n")
    assert measurement.machine(CPU)["commit"] == commit
    code.write_text("")
    assert measurement.machine(CPU)["commit"] == f"{commit}-dirty"
