"""Which implementation of an operator serves a tensor."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _triton

DEBUG = os.environ.get("SEMISEG_DEBUG", "0") == "1"
"""Whether operators look at the values of their arguments, for which the host waits."""

OTHERS = {
    "cut_windows": ("triton", "plain"),
    "depthwise_conv2d": ("plain", "cpu"),
    "upsample": ("triton", "torch"),
    "upsample_conv2d": ("torch", "torch"),
}
"""What serves the operators without a Triton kernel, or without code for the CPU, on a GPU and on the CPU."""


refused: frozenset[str] = frozenset()
"""Operators that their plain definitions serve, on all devices."""


def refuse(operators: Iterable[str]) -> None:
    """From now on in this process the plain definitions serve these operators, and no others."""
    global refused
    refused = frozenset(operators)


def transformed() -> bool:
    """Whether a transformation of torch.func (grad, vmap, jvp, ...) or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def on_device(device: torch.device, operator: str | None = None) -> str:
    """What serves an operator on a device: "triton" on a GPU (and in Triton's interpreter), "cpu" on the CPU, "torch"
    where its own file arranges torch's operators, "plain" on all other devices and where it is refused."""
    if operator in refused:
        return "plain"
    on_gpu, on_cpu = OTHERS.get(operator or "", ("triton", "cpu"))
    if _triton.runs_on(device):
        return on_gpu
    return on_cpu if device.type == "cpu" else "plain"


def provider(tensor: Tensor, operator: str | None = None) -> str:
    """The same for a tensor, with "plain" for float64 and, asked for an operator by name, while torch transforms what
    calls it: a definition is made of torch's own operators, which have every derivative and every batched form."""
    if tensor.dtype == torch.float64 or (operator is not None and transformed()):
        return "plain"
    return on_device(tensor.device, operator)
