"""Check every operator on one device against its definition in float64:

    python -m semiseg.kernels.check [--json] [--device cuda] [--dtype bf16 ...]

Small inputs of ragged sizes, forward and gradient. A result may be no further from the definition in float64 than the
definition in the same dtype is, up to a rounding error of the result: |ours - exact| <= |plain - exact| + tol |exact|.
Labels and counts may differ in a few pixels, where two classes are too close to tell.

Exit code: 0; 1 if an operator is wrong or fails (its row says how); 2 for a call that asks for what does not exist.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from . import __all__, _dispatch, _triton, reference
from ._examples import Example, examples
from .precision import allow_tf32, precision_kept

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
UNIT = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
"""Some rounding errors of each dtype."""
DIFFERENT = 0.004
"""Share of pixels whose label may differ."""


@dataclass(frozen=True)
class Result:
    """What came of one operator; `error` and `allowed` are those of the output or gradient that does worst."""

    operator: str
    """Its name, followed by what is special."""
    device: str
    dtype: str
    implementation: str
    """Its provider: triton, cpu, torch (its own operators, as the operator's file arranges them) or plain."""
    error: float | None = None
    """|ours - exact| / |exact|, as norms; of labels and counts the share that differs. None if there is no number."""
    allowed: float | None = None
    seconds: float | None = None
    """The time of the first call, forward and gradient, compilation included."""
    problem: str | None = None
    """Why the operator must not be used; None if it is right."""


def _results(example: Example, function: Callable[..., Any], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, then the gradients of a sum of them with uneven weights."""
    leaves = [tensor.detach().requires_grad_(index < example.differentiable) for index, tensor in enumerate(tensors)]
    outputs = example.outputs(function, leaves)
    if not example.differentiable:
        return list(outputs)
    weights = [torch.linspace(0.5, 1.5, output.numel(), device=output.device) for output in outputs]
    sums = [(output.double() * weight.view_as(output)).sum() for output, weight in zip(outputs, weights)]
    total = torch.stack(sums).sum()
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, leaves[: example.differentiable])]


def _compared(ours: Tensor, plain: Tensor, exact: Tensor) -> tuple[float, float]:
    """The error of a result and what it may be, both as shares."""
    ours, plain, unit = ours.cpu(), plain.cpu(), UNIT.get(ours.dtype)
    if ours.shape != exact.shape or (unit is None) != (not exact.is_floating_point()):
        return float("inf"), 0.0
    if exact.dtype == torch.uint8:
        return (ours != exact).double().mean().item(), DIFFERENT
    if unit is None:
        return ((ours - exact).abs().sum() / exact.sum()).item(), 2 * DIFFERENT
    exact = exact.double()
    size = exact.norm().clamp(min=1e-300)
    error, base = (((one.double() - exact).norm() / size).item() for one in (ours, plain))
    return error if torch.isfinite(ours).all() else float("inf"), base + unit


def check(device: torch.device | str, dtype: torch.dtype) -> list[Result]:
    """Run every public operator on `device` in `dtype`, refused ones too, and compare it with its definition.

    Returns a result for each; one that is wrong, or raises, has a `problem`, and the others go on.
    """
    device = torch.device(device)
    with refusing(()), precision_kept():
        allow_tf32(False)
        pairs = zip(examples(device).values(), examples("cpu").values())
        return [_check(*pair, device, dtype) for pair in pairs]


def refuse(results: Iterable[Result]) -> dict[str, str]:
    """From now on in this process the plain definitions in `reference` serve the operators of which a result has a
    problem, in all dtypes and on all devices, and no others.

    Returns their names, each with its first problem.
    """
    problems: dict[str, str] = {}
    for result in results:
        if result.problem:
            problems.setdefault(result.operator.split()[0], result.problem)
    _dispatch.refuse(problems)
    return problems


@contextmanager
def refusing(operators: Iterable[str]) -> Iterator[None]:
    """Until the end of the context the plain definitions serve these operators, given by their names, and no others, in
    all dtypes and on all devices. Raises ValueError for names of none."""
    if isinstance(operators, str):
        raise ValueError(f"operators must be a list of names, not {operators!r}")
    if unknown := {*operators} - {*__all__}:
        raise ValueError(f"{', '.join(sorted(unknown))}: no operator; they are {', '.join(__all__)}")
    before = _dispatch.refused
    _dispatch.refuse(operators)
    try:
        yield
    finally:
        _dispatch.refuse(before)


def has_kernels(device: torch.device | str) -> bool:
    """Whether Triton kernels serve tensors on this device, unless they are refused."""
    return _triton.runs_on(torch.device(device))


def has_kernel(operator: str, device: torch.device | str) -> bool:
    """Whether a Triton kernel serves an operator on this device."""
    return _dispatch.provider_on(torch.device(device), operator) == "triton"


def _check(here: Example, there: Example, device: torch.device, dtype: torch.dtype) -> Result:
    """The result of one operator: on `device`, against its definition on the CPU, where no kernel is involved."""
    tensors = [tensor.to(dtype) for tensor in here.tensors]
    moved = [tensor.to(device) for tensor in tensors]
    head: dict[str, Any] = {
        "operator": here.name,
        "device": str(device),
        "dtype": next((name for name, known in DTYPES.items() if known == dtype), str(dtype)),
        "implementation": _dispatch.provider_of(moved[0], here.operator),
    }
    definition = getattr(reference, here.operator)
    began = time.perf_counter()
    try:
        ours = [result.cpu() for result in _results(here, getattr(sys.modules[__package__], here.operator), moved)]
        seconds = time.perf_counter() - began
        plain = _results(here, definition, moved)
    except Exception as error:
        return Result(**head, problem=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    exact = _results(there, definition, [tensor.double() for tensor in tensors])
    if len(ours) != len(exact):
        return Result(**head, seconds=seconds, problem=f"gives {len(ours)} results instead of {len(exact)}")
    pairs = [_compared(*results) for results in zip(ours, plain, exact)]
    distance, allowed = max(pairs, key=lambda pair: pair[0] - pair[1])
    if distance <= allowed:
        return Result(**head, error=distance, allowed=allowed, seconds=seconds)
    if distance == float("inf"):
        problem = "gives values that are not finite, or of another shape or dtype"
        return Result(**head, allowed=allowed, seconds=seconds, problem=problem)
    problem = f"is {distance:.2g} from the definition in float64, may be {allowed:.2g}"
    return Result(**head, error=distance, allowed=allowed, seconds=seconds, problem=problem)


def table(results: Sequence[Result]) -> str:
    """The results as aligned text."""
    lines: list[tuple[str, ...]] = [("operator", "device", "dtype", "by", "error", "allowed", "seconds", "")]
    for result in results:
        numbers = [result.error, result.allowed, result.seconds]
        texts = ["-" if number is None else f"{number:.2g}" for number in numbers]
        verdict = result.problem or "right"
        lines.append((result.operator, result.device, result.dtype, result.implementation, *texts, verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m semiseg.kernels.check", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="default: all")
    options = parser.parse_args(arguments)
    try:
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        print(f"{parser.prog}: no device {options.device}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    results = [result for name in options.dtype for result in check(options.device, DTYPES[name])]
    if options.json:
        print(json.dumps({"torch": torch.__version__, "results": [asdict(result) for result in results]}, indent=1))
    else:
        print(table(results))
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    sys.exit(main())
