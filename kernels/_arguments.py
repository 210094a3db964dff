"""What every functional wrapper does first: check its arguments by name and leave autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
TARGETS = (torch.uint8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(
    name: str,
    tensor: Tensor,
    shape: tuple[int | None, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device | None = None,
) -> None:
    """Raise TypeError or ValueError naming `name` unless `tensor` has the given shape (None: any), dtype and device."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if tensor.dtype not in dtypes:
        raise TypeError(f"{name} must be one of {', '.join(str(d) for d in dtypes)}, not {tensor.dtype}")
    matches = tensor.dim() == len(shape)
    for have, want in zip(tensor.shape, shape):
        matches = matches and (want is None or have == want)
    if not matches:
        wanted = ", ".join("*" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have shape ({wanted}), not {tuple(tensor.shape)}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{name} must be on {device}, not {tensor.device}")


def check_normalizer(normalizer: Tensor, device: torch.device) -> None:
    """Raise TypeError or ValueError unless `normalizer` is a single number on `device`."""
    check_tensor("normalizer", normalizer, (), (torch.int32, torch.int64, torch.float32, torch.float64), device)


def check_size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return `size` as a pair of positive ints (height, width), or raise ValueError naming `name`."""
    if len(size) != 2 or size[0] < 1 or size[1] < 1:
        raise ValueError(f"{name} must be two positive numbers (height, width), not {tuple(size)}")
    return size[0], size[1]


def memory_format(maps: Tensor) -> torch.memory_format:
    """The order of (B, C, H, W) maps in memory: channels-last, or contiguous, which anything else is made."""
    channels_last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; every narrower float is accumulated in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def outside_autocast(function: Callable) -> Callable:
    """Run `function` with autocast off on the device of its first tensor: the kernels choose their own precision."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        first = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if first is None or not torch.is_autocast_enabled(first.device.type):
            return function(*args, **kwargs)
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return wrapper
