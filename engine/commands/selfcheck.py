"""`semiseg selfcheck`."""

from __future__ import annotations

import sys
from dataclasses import asdict

from ...kernels.check import DTYPES, check, table
from .. import console
from ..device import LOW, resolve_device, resolve_precision
from .options import emit


def selfcheck(*, device: str = "auto", json: bool = False) -> None:
    """Check every kernel on this device against its definition in float64, forward and gradient.

    In float32, and in the precision that training takes by default. Exits with 1 where a kernel is wrong or fails.

    Args:
        device: auto, cpu, cuda or cuda:N.
        json: Print one JSON document.
    """
    where = resolve_device(device)
    low = LOW.get(resolve_precision("auto", where).name)
    results = [
        result for dtype in dict.fromkeys((DTYPES["fp32"], low or DTYPES["fp32"])) for result in check(where, dtype)
    ]
    wrong = [result for result in results if result.problem]
    if json:
        emit({"ok": not wrong, "kernels": [asdict(result) for result in results]})
    else:
        console.say(table(results))
    if wrong:
        sys.exit(1)
