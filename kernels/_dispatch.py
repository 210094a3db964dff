"""Which implementation of an operator serves a tensor."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from . import _triton

DEBUG = os.environ.get("SEMISEG_DEBUG", "0") == "1"
"""Whether operators look at the values of their arguments, for which the host waits."""


def provider(tensor: Tensor) -> str:
    """ "triton" on a GPU (and in Triton's interpreter), "cpu" on the CPU, "plain" for float64 and all other devices."""
    if tensor.dtype == torch.float64:
        return "plain"
    if _triton.runs_on(tensor.device):
        return "triton"
    return "cpu" if tensor.device.type == "cpu" else "plain"
