"""One operator, several ways to compute it: what is compared, at which sizes, and the rows that come out.

A case is one provider at one size, dtype and mode. Its row holds the median time, the rate at which the useful work is
done beside what the device does at best, the extra memory at the peak, the error against float64, and how many times
faster it is than `plain` in the same run; at tiny sizes, whose time says nothing, launches and allocations instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import measurement
import rowfile

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SECONDS = {"cpu": 10.0, "cuda": 1.0}
"""How long one case is timed, if that is between LEAST and MOST rounds."""
LEAST, MOST = 3, 100
MIB = 1 << 20

ABOUT = (
    "date", "commit", "machine", "threads", "torch", "triton",
    "operator", "size", "shape", "dtype", "mode", "provider",
)  # fmt: skip
TIMED = (
    *ABOUT, "rounds", "ms", "ms_p20", "ms_p80", "host_ms", "rate", "unit", "roof", "memory_mib",
    "error", "gradient_error", "speedup",
)  # fmt: skip
COUNTED = (*ABOUT, "launches", "allocations", "allocated_bytes", "largest_bytes", "error", "gradient_error")


@dataclass(frozen=True)
class Operator:
    """What is compared. `inputs(**size, dtype=, device=)` makes the keyword arguments of every provider."""

    name: str
    sizes: Mapping[str, Mapping[str, Any]]
    """Name -> arguments of `inputs`."""
    cpu_sizes: Sequence[str]
    """What the CPU measures, in float32, unless told otherwise."""
    tiny: Mapping[str, Any]
    """A size for tests."""
    inputs: Callable[..., dict[str, Any]]
    providers: Mapping[str, Callable[..., Any]]
    """`plain` first; `compiled`, the same through torch.compile, is added."""
    exact: Callable[..., Any]
    """The definition, given the inputs in float64."""
    work: Callable[..., float]
    """Useful FLOPs or bytes: `work(backward, **inputs)`."""
    unit: str
    """TFLOP/s or GB/s."""
    gradients: Sequence[str] = ()
    """Inputs that are differentiated in the mode forward+backward; none: there is no such mode."""
    gpu_sizes: Sequence[str] = ()
    """What a GPU measures, in bfloat16, unless told otherwise; none named: all sizes."""
    seldom: Sequence[str] = ()
    """Providers that are measured only where everything is asked for: they take minutes, or tens of gigabytes."""
    autocast: bool = True
    """Whether the operator is part of the training step, which runs under autocast in fp16 and bf16."""


@dataclass(frozen=True)
class Case:
    operator: Operator
    size: str
    dtype: str
    mode: str
    provider: str

    def __str__(self) -> str:
        return "-".join((self.size, self.dtype, self.mode, self.provider))

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.operator.tiny if self.size == "tiny" else self.operator.sizes[self.size]


def cases(operator: Operator, sizes: str, device: torch.device) -> list[Case]:
    """All cases of an operator, `plain` before the providers that are compared with it.

    sizes: "tiny", "all", or "default": `gpu_sizes` in bfloat16 on a GPU, `cpu_sizes` in float32 on the CPU.
    """
    if sizes == "default":
        names, dtypes = (operator.cpu_sizes, ("fp32",)) if device.type == "cpu" else (operator.gpu_sizes, ("bf16",))
    else:
        names, dtypes = (("tiny",), ("fp32", "bf16")) if sizes == "tiny" else (operator.sizes, DTYPES)
    names = names or operator.sizes
    modes = ("forward", "forward+backward") if operator.gradients else ("forward",)
    plain, *others = (name for name in operator.providers if sizes != "default" or name not in operator.seldom)
    return [Case(operator, *choice) for choice in product(names, dtypes, modes, (plain, "compiled", *others))]


def compiles(sizes: str, device: torch.device) -> bool:
    """Whether torch.compile takes part unasked: only where a GPU measures everything, for it takes its time each."""
    return device.type == "cuda" and sizes == "all"


def evaluate(
    provider: Callable[..., Any], inputs: dict[str, Any], wanted: Sequence[str] = (), autocast: Any = None
) -> tuple[Tensor, ...]:
    """Outputs of a provider, then the gradients of their sum with respect to the inputs that `wanted` names."""
    leaves = {name: inputs[name].detach().requires_grad_() for name in wanted}
    with torch.set_grad_enabled(bool(wanted)), autocast or nullcontext():
        outputs = provider(**inputs | leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if not wanted:
        return outputs
    ones = [torch.ones_like(output) for output in outputs]
    return (*outputs, *torch.autograd.grad(outputs, list(leaves.values()), ones))


def double(value: Any) -> Any:
    """Floating-point tensors, and the dtype that a result shall have, as float64."""
    if isinstance(value, torch.dtype):
        return torch.float64
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


class Comparison:
    """The rows of one run on one device.

    counting: launches and allocations, instead of time.
    """

    def __init__(
        self, device: torch.device, results: Path | None, rounds: int | None, compiles: bool, counting: bool = False
    ):
        self.device, self.results, self.rounds, self.compiles = device, results, rounds, compiles
        self.counting, self.columns = counting, COUNTED if counting else TIMED
        self.rows: list[dict[str, Any]] = []
        self._roofs: dict[Any, float] = {}
        self._prepared: tuple[Any, ...] = (None,)

    @cached_property
    def machine(self) -> dict[str, Any]:
        return measurement.machine(self.device)

    def roof(self, unit: str, dtype: torch.dtype) -> float:
        """Rate of a large product in `dtype` or of a large copy on this device, measured once."""
        large = self.device.type == "cuda"
        if unit == "TFLOP/s":
            measure = partial(measurement.matmul_roof, dtype, self.device, 8192 if large else 2048)
        else:
            dtype = torch.uint8
            measure = partial(measurement.copy_roof, (1024 if large else 256) * MIB, self.device)
        if dtype not in self._roofs:
            self._roofs[dtype] = measure()
        return self._roofs[dtype]

    def prepare(self, case: Case) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
        """Inputs and exact results of a case; the cases that follow share them."""
        operator, key = case.operator, (case.operator.name, case.size, case.dtype)
        if self._prepared[0] != key:
            self._prepared = (None,)  # makes room
            if self.compiles:
                torch.compiler.reset()  # past a number of shapes it would give up and run the plain program
            torch.manual_seed(0)
            inputs = operator.inputs(**case.arguments, dtype=DTYPES[case.dtype], device=self.device)
            doubled = {name: double(value) for name, value in inputs.items()}
            exact = tuple(result.detach() for result in evaluate(operator.exact, doubled, operator.gradients))
            self._prepared = key, inputs, exact
        return self._prepared[1:]

    def measure(self, case: Case, benchmark: Any = None) -> dict[str, Any]:
        """The row of a case, timed by pytest-benchmark's fixture `benchmark`, unless it is counted."""
        operator, dtype, backward = case.operator, DTYPES[case.dtype], case.mode == "forward+backward"
        inputs, exact = self.prepare(case)
        provider = operator.providers["plain" if case.provider == "compiled" else case.provider]
        if case.provider == "compiled":
            provider = torch.compile(provider, dynamic=False)
        autocast = None
        if operator.autocast and dtype != torch.float32:
            autocast = torch.autocast(self.device.type, dtype)
        call = partial(evaluate, provider, inputs, operator.gradients if backward else (), autocast)

        errors = [measurement.error(*pair) for pair in zip(call(), exact)]
        outputs = len(exact) - len(operator.gradients)
        row = {
            "date": measurement.now(),
            **self.machine,
            "operator": operator.name,
            "size": case.size,
            "shape": shape(case.arguments),
            "dtype": case.dtype,
            "mode": case.mode,
            "provider": case.provider,
            "error": short(np.max(errors[:outputs])),  # NaN where one is
            "gradient_error": short(np.max(errors[outputs:])) if backward else "",
        }
        if self.counting:
            row |= asdict(measurement.counts(call, self.device))
        else:
            row |= self.timed(case, call, operator.work(backward, **inputs), benchmark)
        self.add(row)
        return row

    def timed(self, case: Case, call: Callable[[], Any], work: float, benchmark: Any) -> dict[str, Any]:
        """What of a row is measured: times, the rate of the useful work, memory, and how much faster than `plain`."""
        measurement.synchronize(self.device)
        start = time.perf_counter()
        memory = measurement.peak_memory(call, self.device)
        measurement.synchronize(self.device)
        rounds = self.rounds or min(max(int(SECONDS[self.device.type] / (time.perf_counter() - start)), LEAST), MOST)
        device, host = self.milliseconds(call, rounds, benchmark)
        low, median, high = np.percentile(device, (20, 50, 80))
        unit = case.operator.unit
        return {
            "rounds": rounds,
            "ms": short(median),
            "ms_p20": short(low),
            "ms_p80": short(high),
            "host_ms": short(np.median(host)),
            "rate": short(work / median / (1e9 if unit == "TFLOP/s" else 1e6)),
            "unit": unit,
            "roof": short(self.roof(unit, DTYPES[case.dtype])),
            "memory_mib": "" if memory is None else short(memory / MIB),
            "speedup": self.speedup(case, median),
        }

    def milliseconds(
        self, call: Callable[[], Any], rounds: int, benchmark: Any
    ) -> tuple[Sequence[float], Sequence[float]]:
        """Of each call on the device, and of the host, which on the CPU are one."""
        if self.device.type == "cuda":
            return benchmark.pedantic(measurement.device_milliseconds, (call, rounds))
        benchmark.pedantic(call, rounds=rounds)
        times = [1e3 * seconds for seconds in benchmark.stats.stats.data]
        return times, times

    def speedup(self, case: Case, median: float) -> float | str:
        """How many times faster than `plain`, which was measured before; empty where it was left out."""
        wanted = (case.operator.name, case.size, case.dtype, case.mode, "plain")
        if case.provider == "plain":
            return 1.0
        for row in self.rows:
            if tuple(row[name] for name in ("operator", "size", "dtype", "mode", "provider")) == wanted:
                return short(row["ms"] / median)
        return ""

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.results is None:
            return
        rowfile.append([{name: row[name] for name in self.columns}], self.results)

    def report(self) -> Iterator[str]:
        """Lines of a table for each operator, size, dtype and mode."""
        for (operator, size, dtype, mode, details), rows in groupby(
            self.rows, lambda row: tuple(row[name] for name in ("operator", "size", "dtype", "mode", "shape"))
        ):
            yield f"{operator} {size} {dtype} {mode}: {details}"
            yield from aligned((counted_lines if self.counting else timed_lines)(list(rows)))
            yield ""


def timed_lines(rows: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
    head = [
        "provider", "ms", "p20", "p80", "host", rows[0]["unit"],
        "of roof", "MiB", "error", "gradient", "x plain",
    ]  # fmt: skip
    lines = [
        [
            row["provider"], row["ms"], row["ms_p20"], row["ms_p80"], row["host_ms"], row["rate"],
            f"{100 * row['rate'] / row['roof']:.0f} %",
            row["memory_mib"], row["error"], row["gradient_error"], row["speedup"],
        ]
        for row in rows
    ]  # fmt: skip
    return [head, *lines]


def counted_lines(rows: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
    names = ("provider", *(name for name in COUNTED if name not in ABOUT))
    return [[name.replace("_", " ") for name in names], *([row[name] for name in names] for row in rows)]


def short(number: float) -> float:
    """Four significant digits."""
    return float(f"{number:.4g}")


def shape(arguments: Mapping[str, Any]) -> str:
    """(81, 81) -> 81x81; name=value, in the order given."""
    texts = {name: "x".join(map(str, v)) if isinstance(v, tuple) else str(v) for name, v in arguments.items()}
    return " ".join(f"{name}={text}" for name, text in texts.items())


def aligned(lines: Sequence[Sequence[Any]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    texts = [[f"{cell:,g}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*texts)]
    for first, *others in texts:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:])]
        yield "  ".join(["", first.ljust(widths[0]), *cells])
