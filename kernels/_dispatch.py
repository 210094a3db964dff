"""The provider of an operator for a tensor: "triton", its kernels in `gpu/`; "cpu", its code in `cpu/`; "torch",
torch's operators as its own file arranges them; "plain", its definition in `reference/`."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _triton

DEBUG = os.environ.get("SEMISEG_DEBUG", "0") == "1"
"""Whether operators look at the values of their arguments, for which the host waits."""

EXCEPTIONS = {
    "cut_windows": ("triton", "plain"),
    "depthwise_conv2d": ("plain", "cpu"),
    "upsample": ("triton", "torch"),
    "upsample_conv2d": ("torch", "torch"),
}
"""Operators that lack a Triton kernel or code of their own for the CPU: their providers on a GPU and on the CPU."""

refused: frozenset[str] = frozenset()
"""Operators that their plain definitions serve, on all devices."""


def refuse(operators: Iterable[str]) -> None:
    """From now on in this process the plain definitions serve these operators, and no others."""
    global refused
    refused = frozenset(operators)


def transformed() -> bool:
    """Whether a transformation of torch.func (grad, vmap, jvp, ...) or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def provider_on(device: torch.device, operator: str | None = None) -> str:
    """The provider of an operator on a device: but for EXCEPTIONS, "triton" on a GPU (and in Triton's interpreter) and
    "cpu" on the CPU; "plain" on all other devices and where the operator is refused."""
    if operator in refused:
        return "plain"
    on_gpu, on_cpu = EXCEPTIONS.get(operator or "", ("triton", "cpu"))
    if _triton.runs_on(device):
        return on_gpu
    return on_cpu if device.type == "cpu" else "plain"


def provider_of(tensor: Tensor, operator: str | None = None) -> str:
    """The provider of an operator for a tensor: "plain" for float64 and, if the operator is named, while torch
    transforms what calls it; else the one on the tensor's device. A definition is made of torch's own operators, which
    have every derivative and every batched form."""
    if tensor.dtype == torch.float64 or (operator is not None and transformed()):
        return "plain"
    return provider_on(tensor.device, operator)
