"""The kernel benchmarks as pytest runs them: `pytest benchmarks`, or one file of them.

A benchmark is a function marked with its operator; it is run once for each case. Rows go to `--results` and, as tables,
to the end of the run. Cases are chosen with pytest's own -k, e.g. `-k "voc and bf16 and not compiled"`. Of `--sizes
tiny` launches and allocations are counted, and no time is measured.
"""

import gc
from pathlib import Path

import pytest
import torch

import rowfile
from operator_benchmark import Comparison, cases, compiles
from semiseg.pipelines.errors import UsageError

collect_ignore = ["bench_loader.py", "bench_save.py", "bench_step.py", "bench_waterfall.py"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RESULTS = Path(__file__).parent / "results" / "kernels.csv"
COMPARISON = pytest.StashKey[Comparison]()


def pytest_addoption(parser):
    group = parser.getgroup("kernels", "the kernel benchmarks")
    group.addoption(
        "--sizes",
        choices=("default", "all", "tiny"),
        default="default",
        help="of tiny ones launches and allocations are counted, in seconds; all take hours",
    )
    group.addoption("--rounds", type=int, help="timed calls of each case (default: as many as fit a fixed time)")
    group.addoption("--compiled", action="store_true", help="include torch.compile, which `--sizes all` does on a GPU")
    group.addoption(
        "--results", type=Path, help="CSV file to append to (default: benchmarks/results/kernels.csv; none for tiny)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.option.benchmark_quiet = True  # its table would show the host's time on a GPU
    config.stash[COMPARISON] = _comparison(config.option)


def _comparison(option) -> Comparison:
    tiny = option.sizes == "tiny"
    results = option.results or (None if tiny else RESULTS)
    try:
        rowfile.appendable(results)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    compiled = option.compiled or compiles(option.sizes, DEVICE)
    return Comparison(DEVICE, results, option.rounds, compiled, counting=tiny)


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("operator")
    if marker:
        metafunc.parametrize("case", cases(marker.args[0], metafunc.config.option.sizes, DEVICE), ids=str)


def pytest_collection_finish():
    gc.freeze()  # what has been imported is not searched for garbage before each reading of memory


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture
def measure(request, pytestconfig):
    """`measure(case)` adds the row of a case to the run."""
    comparison = pytestconfig.stash[COMPARISON]

    def run(case):
        if case.provider == "compiled" and not comparison.compiles:
            pytest.skip("torch.compile takes its time for each case; --compiled includes it")
        if comparison.counting:
            comparison.measure(case)
            return
        benchmark = request.getfixturevalue("benchmark")
        if benchmark.disabled:
            pytest.skip("pytest-benchmark is disabled")
        benchmark.group = f"{case.operator.name} {case.size} {case.dtype} {case.mode}"
        benchmark.extra_info.update(comparison.measure(case, benchmark))

    return run


def pytest_terminal_summary(terminalreporter, config):
    comparison = config.stash[COMPARISON]
    if comparison.rows:
        terminalreporter.section("kernels")
        for line in comparison.report():
            terminalreporter.write_line(line)
        if comparison.results:
            terminalreporter.write_line(f"rows appended to {comparison.results}")
