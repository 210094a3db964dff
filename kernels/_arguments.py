"""What every functional wrapper does first: check its arguments by name and leave autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")
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


def check_maps(name: str, maps: Tensor) -> None:
    """Raise TypeError or ValueError naming `name` unless `maps` are (B, C, H, W) float with channels and pixels."""
    check_tensor(name, maps, (None, None, None, None), FLOATS)
    if maps.shape[1] == 0 or maps.shape[2] == 0 or maps.shape[3] == 0:
        raise ValueError(f"{name} must have channels and pixels, not shape {tuple(maps.shape)}")


def check_normalizer(normalizer: Tensor, device: torch.device) -> None:
    """Raise TypeError or ValueError unless `normalizer` is a single number on `device`."""
    check_tensor("normalizer", normalizer, (), (*INTEGERS, *FLOATS), device)


def check_integer(name: str, value: int) -> None:
    """Raise TypeError naming `name` unless `value` is an integer, or a tensor, as shapes are while torch.jit traces."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt, Integral, Tensor)):
        raise TypeError(f"{name} must be an integer, not {value!r}")


def check_number(name: str, value: float) -> float:
    """Return `value`, or raise TypeError naming `name` unless it is a number, or a tensor of one that wants no
    gradient, and ValueError for NaN."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise TypeError(f"{name} must be a number, as no gradient comes to it: pass its value, detached")
    if isinstance(value, (torch.SymFloat, torch.SymInt, Tensor)):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if value != value:
        raise ValueError(f"{name} must be a number, not NaN")
    return float(value)


def check_flag(name: str, value: bool) -> None:
    """Raise TypeError naming `name` unless `value` is True or False."""
    if not isinstance(value, (bool, torch.SymBool)):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """Return `size` as a pair of positive ints (height, width), or raise TypeError or ValueError."""
    height, width = listed("size", size, "two integers (height, width)", 2)
    check_integer("size", height)
    check_integer("size", width)
    if height < 1 or width < 1:
        raise ValueError(f"size must be two positive numbers (height, width), not {(height, width)}")
    return height, width


def listed(name: str, values: Any, what: str, count: int) -> tuple:
    """The `count` values of a sequence, or TypeError or ValueError: `name` must be `what`."""
    try:
        values = tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be {what}, not {values!r}") from None
    if len(values) != count:
        raise ValueError(f"{name} must be {what}, not {values}")
    return values


def dtypes_beside(tensor: Tensor) -> tuple[torch.dtype, ...]:
    """Dtypes that a factor of `tensor` may have: its own, and under autocast those that are cast to the same."""
    cast = autocasts(tensor.device) and tensor.dtype != torch.float64
    return FLOATS[:3] if cast else (tensor.dtype,)


def memory_format(maps: Tensor) -> torch.memory_format:
    """The order of (B, C, H, W) maps in memory: channels-last, or contiguous, to which any other is brought."""
    if torch._C._are_functorch_transforms_active():  # a slice of batched maps has no order of its own
        return torch.contiguous_format
    channels_last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; every narrower float is accumulated in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for a device; "meta" does not know it, and raises when it is asked."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def outside_autocast(function: Callable[P, T]) -> Callable[P, T]:
    """Run `function` with autocast off on the device of its first tensor: the kernels choose their own precision."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        first = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if first is None or not autocasts(first.device):
            return function(*args, **kwargs)
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return wrapper
