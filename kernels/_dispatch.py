"""Which implementation of an operator serves a tensor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from . import _triton

DEBUG = os.environ.get("SEMISEG_DEBUG", "0") == "1"
"""Whether operators look at the values of their arguments, for which the host waits."""


refused: frozenset[str] = frozenset()
"""Operators that their plain definitions serve, on all devices."""


def refuse(operators: Iterable[str]) -> None:
    """From now on in this process the plain definitions serve these operators, and no others."""
    global refused
    refused = frozenset(operators)


@contextlib.contextmanager
def refusing(operators: Iterable[str]) -> Iterator[None]:
    """The same until the end of the context."""
    before = refused
    refuse(operators)
    try:
        yield
    finally:
        refuse(before)


def provider(tensor: Tensor, operator: str | None = None) -> str:
    """ "triton" on a GPU (and in Triton's interpreter), "cpu" on the CPU, "plain" for float64, all other devices, and
    an operator that is refused."""
    if tensor.dtype == torch.float64 or operator in refused:
        return "plain"
    if _triton.runs_on(tensor.device):
        return "triton"
    return "cpu" if tensor.device.type == "cpu" else "plain"
