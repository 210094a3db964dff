"""Derivatives that an operator does not have: asking for one raises.

torch itself would say nothing. It treats what a backward function computes from saved tensors as constant, so that a
second derivative lacks the curvature of the operator, and it drops forward-mode tangents.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import CustomOpDef

Backward = Callable[..., tuple[Tensor | None, ...]]


def first_only(name: str) -> Callable[[Backward], Backward]:
    """Make the backward function of operator `name` raise RuntimeError where its results are to be differentiated.

    It raises in the backward pass itself: a node that raised only when differentiated again could be bypassed on the
    way to some leaves.
    """

    def decorate(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def wrapper(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
            without_tangent(name, *upstream)
            if torch.is_grad_enabled():  # it is where the caller said create_graph
                raise _error(name, "create_graph")
            return backward(ctx, *upstream)

        return wrapper

    return decorate


def without_tangent(name: str, *upstream: Tensor | None) -> None:
    """Raise RuntimeError if a gradient that comes to operator `name` carries a forward-mode tangent."""
    if forward_ad._current_level < 0:
        return
    if any(isinstance(one, Tensor) and forward_ad.unpack_dual(one).tangent is not None for one in upstream):
        raise _error(name, "tangents")


def keep(ctx: Any, *tensors: Tensor | None) -> None:
    """`ctx.save_for_backward`, which refuses tensors made in `torch.inference_mode`, as pseudo-labels may be: of these
    copies are saved."""
    ctx.save_for_backward(*(one.clone() if one is not None and one.is_inference() else one for one in tensors))


def require_computed(name: str, gradient: Tensor, shape: torch.Size) -> None:
    """Raise RuntimeError unless operator `name` has computed its gradient beside its value. It does where one is asked
    for; a program that was traced where none was never does."""
    if gradient.shape != shape:
        raise RuntimeError(f"{name} was traced where no gradient was asked for; trace it with inputs that require one")


def register_computed(name: str, operator: CustomOpDef) -> None:
    """Register the derivative of an operator that computes it beside its value: its last output is the gradient of its
    first, a number, with respect to its first argument. Other arguments have none. `name` is that of the function."""

    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        gradient = output[-1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(gradient)
        ctx.dtype, ctx.shape, ctx.others = inputs[0].dtype, inputs[0].shape, len(inputs) - 1

    @first_only(name)
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        require_computed(name, gradient, ctx.shape)
        return _scaled(gradient, upstream, ctx.dtype), *[None] * ctx.others

    operator.register_autograd(backward, setup_context=setup_context)


def _scaled(gradient: Tensor, upstream: Tensor, dtype: torch.dtype) -> Tensor:
    """`gradient` times the number `upstream`, rounded to `dtype` in the same pass."""
    batched = torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(upstream)
    if gradient.dtype == dtype or batched:  # a batched product takes no `out`
        return (gradient * upstream).to(dtype)
    return torch.mul(gradient, upstream, out=torch.empty_like(gradient, dtype=dtype))


def _error(name: str, what: str) -> RuntimeError:
    return RuntimeError(
        f"semiseg.kernels.{name} has first derivatives only: its backward pass takes no {what}. Call its namesake in "
        f"semiseg.kernels.reference, pass float64, or differentiate by torch.func, which all have the others"
    )
