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
import torch.nn.functional as F
from torch import Tensor

from . import _dispatch, _triton, reference

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
UNIT = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
"""Some rounding errors of each dtype."""
DIFFERENT = 0.004
"""Share of pixels whose label may differ."""


@dataclass(frozen=True)
class Result:
    """What came of one operator. Of its outputs and gradients, the one that is furthest beyond what it may be."""

    operator: str
    """Its name, followed by what is special."""
    device: str
    dtype: str
    implementation: str
    """triton, cpu, torch (its own operators, as the operator's file arranges them) or plain."""
    error: float | None = None
    """|ours - exact| / |exact|, as norms; of labels and counts the share that differs. None if there is no number."""
    allowed: float | None = None
    seconds: float | None = None
    """Of the first call, forward and gradient, compilation included."""
    problem: str | None = None
    """Why the operator must not be used; None if it is right."""


@dataclass(frozen=True)
class _Case:
    name: str
    """Of the operator, followed by what is special."""
    call: Callable[..., Any]
    """Takes the operator, or its definition, and the float tensors."""
    tensors: Sequence[Tensor]
    """In float64."""
    differentiable: int = 0
    """So many of the tensors, the first ones, take a gradient."""

    @property
    def operator(self) -> str:
        return self.name.split()[0]


def _cases(device: torch.device) -> list[_Case]:
    """The same numbers on every device."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def integers(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(low, high, shape, generator=generator).to(device, dtype)

    target = integers(0, 5, 2, 37, 29, dtype=torch.uint8)
    target[:, :3] = 255
    weight = torch.rand(target.shape, generator=generator).to(device)
    logits = [3 * random(2, 5, 9, 11) for _ in range(2)]
    boxes = torch.tensor([[[1, 1, 17, 16], [9, 3, 30, 20]], [[0, 2, 35, 8], [0, 0, 0, 0]]], device=device)
    rows, bank = 150, 333
    labels, bank_labels = integers(0, 3, 2, rows), integers(-1, 3, bank)
    confidence = torch.rand(2, rows, generator=generator).to(device)
    features = [F.normalize(random(count, 32), dim=1) for count in (rows, rows, bank)]
    images, blur = integers(0, 256, 2, 19, 23, 3, dtype=torch.uint8), torch.tensor([True, False], device=device)
    mean, std = (torch.tensor(values, device=device) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    matrix, sigma = (
        torch.eye(3, 4, dtype=torch.float64) + 0.1 * random(2, 3, 4),
        torch.tensor((1.6, 0.7), device=device),
    )
    pictures, size = [random(2, 3, 37, 29) for _ in range(2)], (37, 29)
    contrast = (*labels, *confidence)
    # Of images of 19 x 23 pixels: larger than they are and padded, and smaller and mirrored; of masks of 37 x 29 alike.
    places = torch.tensor(
        [
            [0, 23, 2, 3, 8, 9, 700, 1, 0, 10, 12, 2, 1, 0],
            [19 * 23 * 3, 23, 0, 1, 19, 22, 1600, 0, 1, 12, 12, 0, 2, 1],
        ],
        device=device,
    )
    mask_places = places.clone()
    mask_places[:, :2] = torch.tensor([[0, 29], [37 * 29, 29]], device=device)
    maps = random(2, 16, 19, 14)
    return [
        *(
            _Case(
                f"depthwise_conv2d {words}",
                lambda f, x, w, form=form: f(x, w, **form),
                [maps, random(16, 1, taps, taps) / taps],
                2,
            )
            for words, taps, form in (
                ("5x5", 5, {"padding": 2}),
                ("dilated", 3, {"padding": 2, "dilation": 2}),
            )
        ),
        _Case("directional_contrast", lambda f, a, b, n: f(a, b, *contrast, n, bank_labels), features, 2),
        _Case(
            "directional_contrast with negatives",
            lambda f, a, b, n: f(a, b, *contrast, n, bank_labels, grad_negatives=True),
            features,
            3,
        ),
        _Case("upsample_cross_entropy", lambda f, x: f(x, target), logits[:1], 1),
        _Case("upsample_cross_entropy deterministic", lambda f, x: f(x, target, deterministic=True), logits[:1], 1),
        _Case(
            "upsample_cross_entropy map",
            lambda f, x: f(x, target, reduction="none", pixel_weight=weight, align_corners=False),
            logits[:1],
            1,
        ),
        _Case("upsample_ohem_cross_entropy", lambda f, x: f(x, target, min_kept=600), logits[:1], 1),
        _Case("pseudo_label", lambda f, x: f(x, size), logits[:1]),
        _Case("pseudo_label without confidence", lambda f, x: f(x, size, confidence=False), logits[:1]),
        _Case("mixed_pseudo_label", lambda f, a, b: f(a, b, boxes, size), logits),
        _Case("upsample", lambda f, x: f(x, size), logits[:1], 1),
        _Case(
            "upsample channels-last",
            lambda f, x: f(x.contiguous(memory_format=torch.channels_last), size, align_corners=False),
            logits[:1],
            1,
        ),
        _Case("upsample_confusion", lambda f, x: f(x, target, 5), logits[:1]),
        _Case("upsample_conv2d", lambda f, x, w: f(x, w, size), [random(2, 16, 9, 11), random(8, 16, 3, 3) / 12], 2),
        _Case("upsample_mse", lambda f, x, y: f(x, y, size), logits, 1),
        _Case(
            "upsample_mse mixed",
            lambda f, x, y, other: f(x, y, size, other=other, boxes=boxes[:, :1], pixel_weight=weight),
            [*logits, 3 * random(2, 5, 9, 11)],
            1,
        ),
        *(
            _Case(
                f"cut_windows {filter}",
                lambda f, _, filter=filter: f(images.flatten(), places, 14, filter=filter, fill=(124, 116, 104)),
                [logits[0]],
            )
            for filter in ("cubic", "antialiased", "linear", "nearest")
        ),
        _Case("cut_windows of masks", lambda f, _: f(target.flatten(), mask_places, 14, channels=1), [logits[0]]),
        _Case("cutmix", lambda f, a, b: f(a, b, boxes), pictures, 2),
        _Case("photometric", lambda f, m: f(images, m, blur, mean, std, dtype=m.dtype), [matrix]),
        _Case(
            "photometric blurred last",
            lambda f, m: f(images, m, blur, mean, std, sigma=sigma, radius=6, blur_last=True, dtype=m.dtype),
            [matrix],
        ),
    ]


def _results(case: _Case, function: Callable[..., Any], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, then the gradients of a sum of them with uneven weights."""
    leaves = [tensor.detach().requires_grad_(index < case.differentiable) for index, tensor in enumerate(tensors)]
    outputs = case.call(function, *leaves)
    outputs = [output for output in (outputs if isinstance(outputs, tuple) else (outputs,)) if output is not None]
    if not case.differentiable:
        return outputs
    weights = [torch.linspace(0.5, 1.5, output.numel(), device=output.device) for output in outputs]
    total = sum((output.double() * weight.view_as(output)).sum() for output, weight in zip(outputs, weights))
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, leaves[: case.differentiable])]


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
    with _dispatch.refusing(()), _single_precision():
        return [_check(*cases, device, dtype) for cases in zip(_cases(device), _cases(torch.device("cpu")))]


@contextmanager
def _single_precision() -> Iterator[None]:
    """float32 means float32, whatever this process allows besides."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def refuse(results: Iterable[Result]) -> dict[str, str]:
    """From now on in this process the plain definitions in `reference` serve the operators of which a result has a
    problem, in all dtypes and on all devices, and no others.

    Returns their names, with what was wrong first.
    """
    problems: dict[str, str] = {}
    for result in results:
        if result.problem:
            problems.setdefault(result.operator.split()[0], result.problem)
    _dispatch.refuse(problems)
    return problems


def has_kernels(device: torch.device | str) -> bool:
    """Whether Triton kernels serve tensors on this device, unless they are refused."""
    return _triton.runs_on(torch.device(device))


def has_kernel(operator: str, device: torch.device | str) -> bool:
    """Whether a Triton kernel serves an operator on this device."""
    return _dispatch.on_device(torch.device(device), operator) == "triton"


def _check(here: _Case, there: _Case, device: torch.device, dtype: torch.dtype) -> Result:
    """The result of one operator: on `device`, against its definition on the CPU, where no kernel is involved."""
    tensors = [tensor.to(dtype) for tensor in here.tensors]
    on_device = [tensor.to(device) for tensor in tensors]
    head = {
        "operator": here.name,
        "device": str(device),
        "dtype": next((name for name, known in DTYPES.items() if known == dtype), str(dtype)),
        "implementation": _dispatch.provider(on_device[0], here.operator),
    }
    definition = getattr(reference, here.operator)
    began = time.perf_counter()
    try:
        ours = [result.cpu() for result in _results(here, getattr(sys.modules[__package__], here.operator), on_device)]
        seconds = time.perf_counter() - began
        plain = _results(here, definition, on_device)
    except Exception as error:
        return Result(**head, problem=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    exact = _results(there, definition, [tensor.double() for tensor in tensors])
    if len(ours) != len(exact):
        return Result(**head, seconds=seconds, problem=f"gives {len(ours)} results instead of {len(exact)}")
    pairs = [_compared(*results) for results in zip(ours, plain, exact)]
    error, allowed = max(pairs, key=lambda pair: pair[0] - pair[1])
    if error <= allowed:
        return Result(**head, error=error, allowed=allowed, seconds=seconds)
    if error == float("inf"):
        problem = "gives values that are not finite, or of another shape or dtype"
        return Result(**head, allowed=allowed, seconds=seconds, problem=problem)
    problem = f"is {error:.2g} from the definition in float64, may be {allowed:.2g}"
    return Result(**head, error=error, allowed=allowed, seconds=seconds, problem=problem)


def table(results: Sequence[Result]) -> str:
    """The results as aligned text."""
    lines = [("operator", "device", "dtype", "by", "error", "allowed", "seconds", "")]
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
