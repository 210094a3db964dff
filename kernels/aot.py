"""Compile every kernel ahead of time, on a machine that needs no GPU, and print what the compiler made of it:

    python -m semiseg.kernels.aot [--json] [--arch 80 90 100] [--kernel NAME]

The launchers run at the sizes of training on tensors without memory (device "meta"). What they would launch is noted
down (`_triton.recording`) and compiled as the launch would compile it: same specialisation, same configuration. One row
each: registers of a thread, bytes it spills (stores and loads) and its stack as ptxas counts them, shared memory of a
program, shuffles and barriers inside the loops of the PTX (what threads have to exchange again and again), and the
tensor-core instruction there, if any: `mma` (sm_80), `wgmma` (sm_90) or `tcgen05` (sm_100).

Exit code: 0; 1 if a kernel does not compile or does not fit on the GPU (its row says why); 2 for a call that asks for
what does not exist, and where nothing can be compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import _triton
from .gpu import cut_windows, cutmix, directional_contrast, photometric, pseudo_label, ranking, upsample
from .gpu import upsample_confusion as confusion
from .gpu import upsample_cross_entropy as cross_entropy
from .gpu import upsample_mse as squared_error
from .precision import allow_tf32, precision_kept

DEFAULT_ARCHITECTURES = (80, 90, 100)
LARGEST_SHARED = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
"""Bytes of shared memory that a program can have, by architecture."""
LARGEST_TENSOR_MEMORY = 512
"""Columns of tensor memory that a program can have (sm_100)."""
INSTRUCTIONS = {"tcgen05": "tcgen05.mma", "wgmma": "wgmma.mma_async", "mma": "mma.sync"}
HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, *HALVES)
VOC = (16, 21, 81, 81), (321, 321)
CITYSCAPES = (16, 19, 200, 200), (800, 800)


def _meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _contrast(
    dtype: torch.dtype,
    with_gradient: bool = True,
    rows: int = 6400,
    bank: int = 51200,
    channels: int = 128,
    temperature: float = 0.1,
    by_class: bool = False,
    product_dtype: torch.dtype | None = None,
) -> None:
    features, labels, confidences = _meta(rows, channels, dtype=dtype), _meta(rows, dtype=torch.int64), _meta(rows)
    directional_contrast.directional_contrast(
        features, features, labels, labels, confidences, confidences,
        _meta(bank, channels, dtype=dtype), _meta(bank, dtype=torch.int64), _meta(rows, dtype=torch.bool),
        temperature, 0.75, 1e-8, with_gradient, by_class, product_dtype,
    )  # fmt: skip


def _contrast_negatives(dtype: torch.dtype, channels: int = 128) -> None:
    features, labels, weights = _meta(6400, channels, dtype=dtype), _meta(6400, dtype=torch.int64), _meta(6400)
    directional_contrast.directional_contrast_negatives(
        features, features, labels, labels, _meta(6400, dtype=torch.int8), weights, weights,
        _meta(51200, channels, dtype=dtype), _meta(51200, dtype=torch.int64), 0.1, None,
    )  # fmt: skip


def _tf32(call: Callable[[], Any]) -> None:
    with precision_kept():
        allow_tf32(True)
        call()


def _cross_entropy(
    logits: tuple[int, ...],
    size: Sequence[int],
    dtype: torch.dtype,
    target_dtype: torch.dtype = torch.int64,
    align_corners: bool = True,
    weighted: bool = False,
) -> None:
    """The loss alone, its map, with a gradient, with a deterministic one."""
    one, gradient = _meta(*logits, dtype=dtype), _meta(*logits)
    target, pixels = _meta(logits[0], *size, dtype=target_dtype), _meta(logits[0], *size)
    arguments = one, target, pixels if weighted else None, align_corners, 255
    cross_entropy.cross_entropy(*arguments)
    cross_entropy.cross_entropy(*arguments, losses=pixels)
    cross_entropy.cross_entropy(*arguments, gradient=gradient)
    cross_entropy.cross_entropy(*arguments, gradient=gradient, deterministic=True)


def _squared_error(logits: tuple[int, ...], size: Sequence[int], dtype: torch.dtype, mixed: bool) -> None:
    """The error alone, and with a gradient."""
    one, gradient, pixels = _meta(*logits, dtype=dtype), _meta(*logits), _meta(logits[0], *size, dtype=torch.bool)
    other, boxes = (one, _meta(logits[0], 1, 4, dtype=torch.int32)) if mixed else (None, None)
    squared_error.mse(one, one, other, boxes, None, size, True)
    squared_error.mse(one, one, other, boxes, pixels, size, True, gradient)


def _labels(logits: tuple[int, ...], size: Sequence[int], dtype: torch.dtype, align_corners: bool = True) -> None:
    """With confidence and without."""
    one, boxes = _meta(*logits, dtype=dtype), _meta(logits[0], 3, 4, dtype=torch.int32)
    label = _meta(logits[0], *size, dtype=torch.uint8)
    for confidence in (_meta(logits[0], *size), None):
        pseudo_label.pseudo_label(one, align_corners, label, confidence)
        pseudo_label.mixed_pseudo_label(one, one, boxes, align_corners, label, confidence)


def _upsample(dtype: torch.dtype, order: torch.memory_format, align_corners: bool = True) -> None:
    """The decoder's maps, and their gradient."""
    upsample.upsample(_meta(16, 256, 20, 20, dtype=dtype).to(memory_format=order), (80, 80), align_corners, order)
    upsample.gather(_meta(16, 256, 80, 80, dtype=dtype).to(memory_format=order), (20, 20), align_corners, order)


def _confusion(logits: tuple[int, ...], size: Sequence[int], dtype: torch.dtype, target_dtype: torch.dtype) -> None:
    target = _meta(logits[0], *size, dtype=target_dtype)
    confusion.upsample_confusion(_meta(*logits, dtype=dtype), target, True, 255)


def _cutmix(dtype: torch.dtype, order: torch.memory_format) -> None:
    images, boxes = _meta(16, 3, 800, 800, dtype=dtype).to(memory_format=order), _meta(16, 3, 4, dtype=torch.int32)
    cutmix.mix(images, images, boxes, order)
    if dtype.is_floating_point:
        cutmix.split(images, boxes, order)


def _photometric(dtype: torch.dtype) -> None:
    images, deviation = _meta(16, 321, 321, 3, dtype=torch.uint8), _meta(16)
    for radius, blur_last in ((2, False), (6, True)):
        photometric.photometric(images, _meta(16, 3, 4), deviation, _meta(3), _meta(3), radius, blur_last, dtype)


def _windows(channels: int, filter: str) -> None:
    result = _meta(16, 321, 321, 3, dtype=torch.uint8) if channels == 3 else _meta(16, 321, 321, dtype=torch.uint8)
    pixels, places = _meta(1 << 30, dtype=torch.uint8), _meta(16, 14, dtype=torch.int64)
    cut_windows.cut_windows(pixels, places, result, channels, filter, (0, 0, 0))


def cases() -> Iterator[Callable[[], Any]]:
    """Calls of all launchers: sizes of the published training runs, and what else selects another kernel."""
    for dtype in FLOATS:
        yield partial(_contrast, dtype)
        yield partial(_contrast, dtype, with_gradient=False)
        yield partial(_contrast_negatives, dtype)
        yield partial(_cross_entropy, *VOC, dtype)
        yield partial(_labels, *VOC, dtype)
        yield partial(_squared_error, *VOC, dtype, mixed=True)
        yield partial(_confusion, *VOC, dtype, torch.int64)
        yield partial(_cutmix, dtype, torch.channels_last)
        yield partial(_upsample, dtype, torch.channels_last)
        yield partial(_photometric, dtype)
    yield partial(_contrast, torch.float32, product_dtype=torch.float16)
    for dtype in (torch.float32, torch.float16):
        yield partial(_contrast, dtype, channels=256)
        yield partial(_contrast_negatives, dtype, channels=256)
    yield partial(_tf32, partial(_contrast, torch.float32))
    yield partial(_tf32, partial(_contrast_negatives, torch.float32))
    yield partial(_contrast, torch.float16, rows=16200, bank=129600, by_class=True)
    yield partial(_contrast, torch.float16, temperature=0.02)
    yield partial(_cross_entropy, *VOC, torch.float32, weighted=True)
    yield partial(_cross_entropy, *CITYSCAPES, torch.bfloat16, torch.uint8)
    yield partial(_cross_entropy, *VOC, torch.bfloat16, align_corners=False)
    yield partial(ranking.kth_smallest, _meta(16 * 800 * 800), 100000)
    yield partial(_labels, *CITYSCAPES, torch.bfloat16)
    yield partial(_labels, *VOC, torch.bfloat16, align_corners=False)
    yield partial(_squared_error, *CITYSCAPES, torch.bfloat16, mixed=False)
    yield partial(_confusion, *CITYSCAPES, torch.bfloat16, torch.uint8)
    yield partial(_cutmix, torch.float32, torch.contiguous_format)
    yield partial(_upsample, torch.float32, torch.contiguous_format)
    yield partial(_upsample, torch.bfloat16, torch.contiguous_format, align_corners=False)
    yield partial(_cutmix, torch.uint8, torch.channels_last)
    for filter in cut_windows.CODES:
        yield partial(_windows, 3, filter)
    yield partial(_windows, 1, "nearest")


@dataclass
class Row:
    """One kernel as it was compiled; `error` instead of the numbers if it was not."""

    operator: str
    kernel: str
    dtypes: list[str]
    constants: dict[str, Any]
    warps: int
    stages: int
    architecture: int
    registers: int | None = None
    spill_bytes: int | None = None
    stack_bytes: int | None = None
    shared_bytes: int | None = None
    loop_shuffles: int | None = None
    loop_barriers: int | None = None
    tensor_cores: str | None = None
    error: str | None = None


@cache
def recorded(architecture: int) -> list[tuple]:
    """Every launch that the cases make on a device of `architecture`: (kernel, arguments, keywords)."""
    launches: dict[Any, tuple] = {}
    for call in cases():
        with _triton.recording(architecture) as recording:
            call()
        for kernel, arguments, keywords in recording.launches:
            key = (kernel.__module__, kernel.__name__, *map(_kind, arguments), *keywords.items())
            launches.setdefault(key, (kernel, arguments, keywords))
    return list(launches.values())


def _kind(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % 16
    return type(argument), argument


def describe(launch: tuple, architecture: int) -> Row:
    """The row of a launch before it is compiled."""
    kernel, arguments, keywords = launch
    absent = {name: None for name, argument in zip(kernel.arg_names, arguments) if argument is None}
    return Row(
        operator=kernel.__module__.rpartition(".")[2],
        kernel=kernel.__name__.strip("_"),
        dtypes=list(dict.fromkeys(_short(argument.dtype) for argument in arguments if isinstance(argument, Tensor))),
        constants=absent | {name: value for name, value in keywords.items() if name in kernel.arg_names},
        warps=keywords["num_warps"],
        stages=keywords["num_stages"],
        architecture=architecture,
    )


def _short(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    kind = name.rstrip("0123456789")
    return {"float": "fp", "bfloat": "bf", "int": "i", "uint": "u"}.get(kind, kind) + name.removeprefix(kind)


_logs: dict[str, str] = {}
"""What ptxas said of each binary; a process compiles launches that are the same to Triton only once."""


def compiled(index: int, architecture: int) -> tuple[Row, float]:
    """Compile launch `index` of those recorded: its row and the seconds that it took. For a process of its own."""
    from triton.backends.compiler import GPUTarget

    target = GPUTarget("cuda", architecture, 32)
    device = SimpleNamespace(
        get_current_device=lambda: architecture,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: target,
    )
    _triton.triton.runtime.driver.set_active(device)
    # The log of ptxas is printed when a kernel is compiled, not when it is found in the cache.
    os.environ |= {"TRITON_ALWAYS_COMPILE": "1", "TRITON_DUMP_PTXAS_LOG": "1"}
    launch = kernel, arguments, keywords = recorded(architecture)[index]
    row = describe(launch, architecture)
    log = io.StringIO()
    began = time.monotonic()
    try:
        with contextlib.redirect_stdout(log):
            binary = kernel.warmup(*arguments, grid=(1,), **keywords)
    except Exception as error:
        row.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return row, time.monotonic() - began
    text = _logs.setdefault(binary.hash, log.getvalue())
    row.registers = max(_numbers(r"Used (\d+) registers", text))
    row.spill_bytes = sum(_numbers(r"(\d+) bytes spill", text))
    row.stack_bytes = sum(_numbers(r"(\d+) bytes stack frame", text))
    row.shared_bytes = binary.metadata.shared
    looped = loops(binary.asm["ptx"])
    row.loop_shuffles = sum("shfl.sync" in line for line in looped)
    row.loop_barriers = sum("bar.sync" in line or "barrier.sync" in line for line in looped)
    found = [name for name, instruction in INSTRUCTIONS.items() if instruction in binary.asm["ptx"]]
    row.tensor_cores = found[0] if found else "none"
    if row.shared_bytes > LARGEST_SHARED[architecture]:
        row.error = f"needs more than the {LARGEST_SHARED[architecture]} bytes of shared memory of sm_{architecture}"
    elif (getattr(binary.metadata, "tmem_size", None) or 0) > LARGEST_TENSOR_MEMORY:
        row.error = f"needs more than the {LARGEST_TENSOR_MEMORY} columns of tensor memory of sm_{architecture}"
    return row, time.monotonic() - began


def loops(ptx: str) -> list[str]:
    """The lines of a program that are run again and again: those between a label and the last jump back to it."""
    lines = ptx.splitlines()
    labels: dict[str, int] = {}
    inside: set[int] = set()
    for place, line in enumerate(lines):
        if label := re.match(r"\s*(\$\w+):", line):
            labels[label[1]] = place
        jump = re.search(r"\bbra(?:\.uni)?\s+(\$\w+);", line)
        if jump and jump[1] in labels:
            inside.update(range(labels[jump[1]], place))
    return [lines[place] for place in sorted(inside)]


def _numbers(pattern: str, text: str) -> list[int]:
    return [int(number) for number in re.findall(pattern, text)]


def rows(architectures: Sequence[int], name: str | None = None) -> list[Row]:
    """Compile what is launched on the given architectures, of kernel or operator `name` only, if it is given.

    Progress goes to stderr. Launches that differ in their sizes only and compile to the same share a row.
    """
    jobs = []
    for architecture in architectures:
        for index, launch in enumerate(recorded(architecture)):
            row = describe(launch, architecture)
            if name in (None, row.kernel, row.operator):
                jobs.append((index, architecture))
    found: list[Any] = [None] * len(jobs)
    # Triton is not made for threads, and a forked copy of this process might hold locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(_cores(), len(jobs)), context) as pool:
        futures = {pool.submit(compiled, *job): place for place, job in enumerate(jobs)}
        for done, future in enumerate(as_completed(futures), 1):
            row, seconds = future.result()
            found[futures[future]] = row
            what = f"{row.kernel} sm_{row.architecture} {'failed' if row.error else 'compiled'}"
            print(f"{done}/{len(jobs)} {what} in {seconds:.1f} s", file=sys.stderr)
    return [row for place, row in enumerate(found) if row not in found[:place]]


def _cores() -> int:
    """How many cores this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(found: Sequence[Row]) -> str:
    """The rows as aligned text."""
    heads = [
        "operator", "kernel", "configuration", "arch", "registers", "spills", "stack", "shared",
        "shuffles", "barriers", "tensor-cores",
    ]  # fmt: skip
    lines = [heads]
    for row in found:
        constants = [_setting(name, value) for name, value in row.constants.items() if value is not False]
        configuration = [*row.dtypes, *constants, f"{row.warps} warps", f"{row.stages} stages"]
        numbers = [
            row.registers, row.spill_bytes, row.stack_bytes, row.shared_bytes, row.loop_shuffles, row.loop_barriers,
        ]  # fmt: skip
        texts = ["-" if number is None else str(number) for number in numbers]
        last = (row.tensor_cores or "") + (f" ERROR {row.error}" if row.error else "")
        lines.append([row.operator, row.kernel, " ".join(configuration), f"sm_{row.architecture}", *texts, last])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    numeric = range(4, 10)
    return "\n".join(
        "  ".join(
            text.rjust(width) if column in numeric else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def _setting(name: str, value: Any) -> str:
    if value is True:
        return name
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


def problem(architectures: Sequence[int], name: str | None) -> str | None:
    """Why this cannot be done here, in one line."""
    if _triton.triton is None:
        return "Triton is not installed (pip install triton)"
    if _triton.INTERPRETED:
        return "nothing can be compiled with TRITON_INTERPRET=1"
    unknown = [architecture for architecture in architectures if architecture not in LARGEST_SHARED]
    if unknown:
        return f"unknown architecture {unknown[0]}; known are {', '.join(map(str, LARGEST_SHARED))}"
    known = [describe(launch, architectures[0]) for launch in recorded(architectures[0])]
    names = dict.fromkeys(name for row in known for name in (row.operator, row.kernel))
    if name not in (None, *names):
        return f"unknown kernel {name}; known are {', '.join(names)}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m semiseg.kernels.aot", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--arch", type=int, nargs="+", default=DEFAULT_ARCHITECTURES, help="10 x compute capability")
    parser.add_argument("--kernel", help="only this kernel, or the kernels of this operator")
    options = parser.parse_args(arguments)
    wrong = problem(options.arch, options.kernel)
    if wrong:
        print(f"{parser.prog}: {wrong}", file=sys.stderr)
        return 2
    found = rows(options.arch, options.kernel)
    if options.json:
        print(json.dumps({"triton": _triton.triton.__version__, "rows": [asdict(row) for row in found]}, indent=1))
    else:
        print(table(found))
    return int(any(row.error for row in found))


if __name__ == "__main__":
    sys.exit(main())
