"""Cross-entropy on logits that are upsampled bilinearly on the way, with and without online hard-example mining.

With z = upsample(logits), p = softmax(z) over the classes and y the target of a pixel,

    loss = log sum_c exp(z_c) - z_y,    d loss / d z_c = p_c - [c == y],    d loss / d logits = upsample^T d loss / d z

Hard-example mining keeps the valid pixels with p_y <= max(threshold, k-th smallest p_y), k = min_kept.

Interpolation followed by cross-entropy moves about 8 B C H W elements in training and computes 2 B C H W exponentials.
Fused, no more than the logits, the target and the gradient are read and written: with logits of e and a target of t
bytes, (2 e + 12) B C h w + t B H W bytes. The gradient, in float32, is cleared, added to, and scaled in the backward
pass. On a GPU there are 2 B C H W exponentials (1 without a gradient, 5 for a deterministic one, which also moves
8 B H W bytes), on the CPU 1; there, one tile of upsampled logits exists at a time.

The mean and the sum compute their gradient in the forward pass, to be scaled in the backward pass; per-pixel losses,
whose upstream gradient is not a single number, compute theirs in the backward pass.

A target that is neither a class nor `ignore_index` raises ValueError on the CPU. On a GPU, where the host does not wait
for values, it makes the loss and the gradient around it NaN, and raises with SEMISEG_DEBUG=1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import (
    FLOATS,
    TARGETS,
    check_flag,
    check_integer,
    check_normalizer,
    check_number,
    check_tensor,
    outside_autocast,
)
from ._derivatives import first_only, keep, register_computed
from ._ranking import kth_smallest
from .cpu import upsample_cross_entropy as cpu
from .gpu import upsample_cross_entropy as gpu
from .reference.upsample_cross_entropy import mean_of_hard_pixels, valid_pixels


def _check_values(target: Tensor, classes: int, ignore_index: int) -> None:
    values = target.long()
    wrong = values[(values != ignore_index) & ((values < 0) | (values >= classes))]
    if wrong.numel():
        raise ValueError(f"target holds {wrong[0]}, neither below {classes} classes nor ignore_index {ignore_index}")


@torch.library.custom_op("semiseg::checked_target", mutates_args=())
def _checked(target: Tensor, classes: int, ignore_index: int) -> Tensor:
    """The target in int64 for a plain definition, which checks no values: done here, if the host may wait."""
    target = target.to(torch.int64, copy=True)
    if _dispatch.DEBUG or target.device.type == "cpu":
        _check_values(target, classes, ignore_index)
    return target


@_checked.register_fake
def _(target, classes, ignore_index):
    return torch.empty_like(target, dtype=torch.int64)


def _compute(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    align_corners: bool,
    ignore_index: int,
    deterministic: bool = False,
    **outputs: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if _dispatch.provider_of(logits) == "triton":
        if _dispatch.DEBUG:
            _check_values(target, logits.shape[1], ignore_index)
        return gpu.cross_entropy(
            logits, target, weight, align_corners, ignore_index, deterministic=deterministic, **outputs
        )
    return cpu.cross_entropy(logits, target, weight, align_corners, ignore_index, **outputs)


@torch.library.custom_op("semiseg::upsample_cross_entropy_sum", mutates_args=())
def _sum_operator(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    align_corners: bool,
    ignore_index: int,
    with_gradient: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the weighted losses (float32), number of valid pixels (int64), and the gradient of the sum with respect
    to the logits (float32; empty if unwanted)."""
    gradient = torch.zeros(logits.shape if with_gradient else (0,), dtype=torch.float32, device=logits.device)
    total, count = _compute(
        logits, target, weight, align_corners, ignore_index, deterministic,
        gradient=gradient if with_gradient else None,
    )  # fmt: skip
    return total, count, gradient


@_sum_operator.register_fake
def _(logits, target, weight, align_corners, ignore_index, with_gradient, deterministic):
    gradient_shape = logits.shape if with_gradient else (0,)
    return (
        logits.new_empty((), dtype=torch.float32),
        logits.new_empty((), dtype=torch.int64),
        logits.new_empty(gradient_shape, dtype=torch.float32),
    )


register_computed("upsample_cross_entropy", _sum_operator)


@torch.library.custom_op("semiseg::upsample_cross_entropy_map", mutates_args=())
def _map_operator(
    logits: Tensor, target: Tensor, weight: Tensor | None, align_corners: bool, ignore_index: int, deterministic: bool
) -> Tensor:
    """Weighted loss of every pixel, (B, H, W) float32. `deterministic` is about the backward pass."""
    losses = torch.empty(target.shape, dtype=torch.float32, device=logits.device)
    _compute(logits, target, weight, align_corners, ignore_index, losses=losses)
    return losses


@_map_operator.register_fake
def _(logits, target, weight, align_corners, ignore_index, deterministic):
    return logits.new_empty(target.shape, dtype=torch.float32)


def _setup_map(ctx, inputs, output):
    logits, target, weight, *ctx.options = inputs
    keep(ctx, logits, target, weight)


@first_only("upsample_cross_entropy")
def _backward_map(ctx, upstream):
    logits, target, weight = ctx.saved_tensors
    align_corners, ignore_index, deterministic = ctx.options
    weight = upstream if weight is None else upstream * weight
    _, _, gradient = _sum_operator(logits, target, weight, align_corners, ignore_index, True, deterministic)
    return gradient.to(logits.dtype), *[None] * 5


_map_operator.register_autograd(_backward_map, setup_context=_setup_map)


def _check(logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int) -> None:
    check_tensor("logits", logits, (None, None, None, None), FLOATS)
    check_tensor("target", target, (logits.shape[0], None, None), TARGETS, logits.device)
    check_flag("align_corners", align_corners)
    check_integer("ignore_index", ignore_index)
    for name, tensor in (("logits", logits), ("target", target)):
        if tensor.numel() == 0:
            raise ValueError(f"{name} is empty: {tuple(tensor.shape)}")


@outside_autocast
def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    pixel_weight: Tensor | None = None,
    normalizer: Tensor | None = None,
    align_corners: bool = True,
    ignore_index: int = 255,
    reduction: str = "mean",
    deterministic: bool = False,
) -> Tensor:
    """Cross-entropy of bilinearly upsampled logits: F.cross_entropy(z, target) of z = F.interpolate(logits, target's
    size, mode="bilinear", align_corners=True). (torch aligns no corners by default; the published programs do.)

    logits: (B, C, h, w) float, finite. target: (B, H, W) int (not int8), classes or `ignore_index`.
    pixel_weight: (B, H, W) float, multiplies each pixel's loss, not differentiated; "mean" divides by the number of
    valid pixels whatever their weight. What it holds where a pixel is ignored does not count.
    normalizer: () int or float, a number of pixels by which "mean" divides instead (1 where it is less); not
    differentiated. So a mean may be over pixels that count, of which only some have a target.
    reduction: "mean" (0 with zero gradient where every pixel is ignored), "sum", or "none" for a map (B, H, W).
    deterministic: whether the gradient must be the same bits in every run, as torch.use_deterministic_algorithms asks
    for too; on the CPU it always is.

    Returns float32 (float64 for float64 logits). Raises TypeError or ValueError naming the argument, and RuntimeError
    in a backward pass with create_graph. On a GPU a target that is no class makes loss and gradient NaN instead.
    """
    _check(logits, target, align_corners, ignore_index)
    check_flag("deterministic", deterministic)
    if pixel_weight is not None:
        check_tensor("pixel_weight", pixel_weight, tuple(target.shape), FLOATS, logits.device)
        pixel_weight = pixel_weight.detach()
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    if normalizer is not None:
        check_normalizer(normalizer, logits.device)
        if reduction != "mean":
            raise ValueError(f"normalizer is for the reduction 'mean', not {reduction!r}")
    if _dispatch.provider_of(logits, "upsample_cross_entropy") == "plain":
        return reference.upsample_cross_entropy(
            logits, _checked(target, logits.shape[1], ignore_index), pixel_weight=pixel_weight, normalizer=normalizer,
            align_corners=align_corners, ignore_index=ignore_index, reduction=reduction, deterministic=deterministic,
        )  # fmt: skip
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    if reduction == "none":
        return _map_operator(logits, target, pixel_weight, align_corners, ignore_index, deterministic)
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    total, count, _ = _sum_operator(
        logits, target, pixel_weight, align_corners, ignore_index, with_gradient, deterministic
    )
    if reduction == "sum":
        return total
    count = count if normalizer is None else normalizer.detach()
    return total / count.to(total.dtype).clamp(min=1)


@outside_autocast
def upsample_ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int,
    align_corners: bool = True,
    ignore_index: int = 255,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean cross-entropy of the hard pixels of bilinearly upsampled logits (online hard-example mining, as in CPS).

    Kept are the valid pixels whose probability of the true class is at most the larger of `threshold` and the
    `min_kept`-th smallest probability of the whole batch; all valid pixels where there are fewer than `min_kept`.

    logits: (B, C, h, w) float, finite. target: (B, H, W) int (not int8), classes or `ignore_index`.
    threshold: a probability. min_kept: pixels of the whole batch, at least 0.
    gather: where several processes share the batch, a function that joins the tensors (n,) of all of them into one. The
    whole batch is then that of all, and the result this process's part of the mean: the parts add up to it.
    Returns a scalar, float32 (float64 for float64 logits); 0 with zero gradient where every pixel is ignored. The
    gradient is the same bits in every run on the CPU, and on a GPU where torch.use_deterministic_algorithms asks for
    it.
    Raises TypeError or ValueError naming the argument, and RuntimeError in a backward pass with create_graph. On a GPU
    a target that is no class makes loss and gradient NaN instead.
    """
    _check(logits, target, align_corners, ignore_index)
    threshold = check_number("threshold", threshold)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a probability, not {threshold}")
    check_integer("min_kept", min_kept)
    if min_kept < 0:
        raise ValueError(f"min_kept must not be negative, not {min_kept}")
    if _dispatch.provider_of(logits, "upsample_ohem_cross_entropy") == "plain":
        return reference.upsample_ohem_cross_entropy(
            logits, _checked(target, logits.shape[1], ignore_index), threshold=threshold, min_kept=min_kept,
            align_corners=align_corners, ignore_index=ignore_index, gather=gather,
        )  # fmt: skip
    deterministic = torch.are_deterministic_algorithms_enabled()
    losses = _map_operator(logits, target, None, align_corners, ignore_index, deterministic)
    return mean_of_hard_pixels(losses, valid_pixels(target, ignore_index), threshold, min_kept, gather, kth_smallest)
