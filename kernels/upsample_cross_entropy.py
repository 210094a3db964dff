"""Cross-entropy on logits that are upsampled bilinearly on the way, with and without online hard-example mining.

With z = upsample(logits), p = softmax(z) over the classes and y the target of a pixel,

    loss = log sum_c exp(z_c) - z_y,    d loss / d z_c = p_c - [c == y],    d loss / d logits = upsample^T d loss / d z

Hard-example mining keeps the valid pixels with p_y <= max(threshold, k-th smallest p_y), k = min_kept.

Interpolation followed by cross-entropy moves about 8 B C H W elements in training; the fused form reads the logits and
the target and writes the gradient, 2 B C h w + B H W, and computes B C H W exponentials. On the CPU one tile of
upsampled logits exists at a time. The mean and the sum compute their gradient in the forward pass, to be scaled in the
backward pass; per-pixel losses, whose upstream gradient is not a single number, compute theirs in the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from ._arguments import FLOATS, TARGETS, check_tensor, outside_autocast, plain_only
from ._bilinear import upsampled_tiles
from .reference.upsample_cross_entropy import mean_of_hard_pixels


def _tiles(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    align_corners: bool,
    ignore_index: int,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Tensor:
    """Sum of the weighted losses (float64); fills `losses` (B, H, W) and adds the gradient of the sum to `gradient`."""
    classes = logits.shape[1]
    total = torch.zeros((), dtype=torch.float64)
    scratch = torch.empty(0)
    for place, values in upsampled_tiles(logits, tuple(target.shape[1:]), align_corners, gradient):
        truth = target[place].reshape(1, -1).long()
        valid = truth != ignore_index
        truth = torch.where(valid, truth, 0)
        least, most = int(truth.min()), int(truth.max())
        if least < 0 or most >= classes:
            wrong = least if least < 0 else most
            raise ValueError(f"target holds {wrong}, neither below {classes} classes nor ignore_index {ignore_index}")
        scale = valid.float()
        if weight is not None:
            scale *= weight[place].reshape(1, -1)
        if scratch.shape != values.shape:
            scratch = torch.empty_like(values)
        probability = torch.softmax(values, 0, out=scratch)
        # The log of the sum of exponentials is the largest value minus the log of its probability.
        loss = (values.amax(0) - values.gather(0, truth) - probability.amax(0).log()) * scale
        total += loss.sum()
        if losses is not None:
            losses[place] = loss.view_as(losses[place])
        if gradient is not None:
            probability.scatter_add_(0, truth, torch.full_like(scale, -1.0))
            torch.mul(probability, scale, out=values)
    return total


@torch.library.custom_op("semiseg::upsample_cross_entropy_sum_cpu", mutates_args=(), device_types="cpu")
def _sum_operator(
    logits: Tensor, target: Tensor, weight: Tensor | None, align_corners: bool, ignore_index: int, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Sum of the weighted losses (float32) and its gradient with respect to the logits (float32; empty if unwanted)."""
    gradient = torch.zeros(logits.shape if with_gradient else (0,))
    total = _tiles(logits, target, weight, align_corners, ignore_index, gradient=gradient if with_gradient else None)
    return total.float(), gradient


@_sum_operator.register_fake
def _(logits, target, weight, align_corners, ignore_index, with_gradient):
    gradient_shape = logits.shape if with_gradient else (0,)
    return logits.new_empty((), dtype=torch.float32), logits.new_empty(gradient_shape, dtype=torch.float32)


def _setup_sum(ctx, inputs, output):
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.dtype = inputs[0].dtype


def _backward_sum(ctx, upstream, _):
    (gradient,) = ctx.saved_tensors
    return (upstream * gradient).to(ctx.dtype), None, None, None, None, None


_sum_operator.register_autograd(_backward_sum, setup_context=_setup_sum)


@torch.library.custom_op("semiseg::upsample_cross_entropy_map_cpu", mutates_args=(), device_types="cpu")
def _map_operator(
    logits: Tensor, target: Tensor, weight: Tensor | None, align_corners: bool, ignore_index: int
) -> Tensor:
    """Weighted loss of every pixel, (B, H, W) float32."""
    losses = torch.empty(target.shape)
    _tiles(logits, target, weight, align_corners, ignore_index, losses=losses)
    return losses


@_map_operator.register_fake
def _(logits, target, weight, align_corners, ignore_index):
    return logits.new_empty(target.shape, dtype=torch.float32)


def _setup_map(ctx, inputs, output):
    logits, target, weight, ctx.align_corners, ctx.ignore_index = inputs
    ctx.save_for_backward(logits, target, weight)


def _backward_map(ctx, upstream):
    logits, target, weight = ctx.saved_tensors
    weight = upstream if weight is None else upstream * weight
    _, gradient = _sum_operator(logits.detach(), target, weight, ctx.align_corners, ctx.ignore_index, True)
    return gradient.to(logits.dtype), None, None, None, None


_map_operator.register_autograd(_backward_map, setup_context=_setup_map)


def _check(logits: Tensor, target: Tensor) -> None:
    check_tensor("logits", logits, (None, None, None, None), FLOATS)
    check_tensor("target", target, (logits.shape[0], None, None), TARGETS, logits.device)
    for name, tensor in (("logits", logits), ("target", target)):
        if tensor.numel() == 0:
            raise ValueError(f"{name} is empty: {tuple(tensor.shape)}")


@outside_autocast
def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    pixel_weight: Tensor | None = None,
    align_corners: bool = True,
    ignore_index: int = 255,
    reduction: str = "mean",
    deterministic: bool = False,
) -> Tensor:
    """Cross-entropy of bilinearly upsampled logits, as F.cross_entropy(F.interpolate(logits, target's size), target).

    logits: (B, C, h, w) float. target: (B, H, W) int (not int8), classes or `ignore_index`.
    pixel_weight: (B, H, W) float, multiplies each pixel's loss, not differentiated; "mean" divides by the number of
    valid pixels whatever their weight.
    reduction: "mean" (0 with zero gradient where every pixel is ignored), "sum", or "none" for a map (B, H, W).
    deterministic: whether the gradient must be the same bits in every run; on the CPU it always is.

    Returns float32 (float64 for float64 logits). Raises TypeError or ValueError naming the argument.
    """
    _check(logits, target)
    if pixel_weight is not None:
        check_tensor("pixel_weight", pixel_weight, tuple(target.shape), FLOATS, logits.device)
        pixel_weight = pixel_weight.detach()
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    if plain_only(logits):
        return reference.upsample_cross_entropy(
            logits, target, pixel_weight=pixel_weight, align_corners=align_corners, ignore_index=ignore_index,
            reduction=reduction, deterministic=deterministic,
        )  # fmt: skip
    if reduction == "none":
        return _map_operator(logits, target, pixel_weight, align_corners, ignore_index)
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    total, _ = _sum_operator(logits, target, pixel_weight, align_corners, ignore_index, with_gradient)
    return total if reduction == "sum" else total / (target != ignore_index).sum().clamp(min=1)


@outside_autocast
def upsample_ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int,
    align_corners: bool = True,
    ignore_index: int = 255,
) -> Tensor:
    """Mean cross-entropy of the hard pixels of bilinearly upsampled logits (online hard-example mining, as in CPS).

    Kept are the valid pixels whose probability of the true class is at most the larger of `threshold` and the
    `min_kept`-th smallest probability of the whole batch; all valid pixels where there are fewer than `min_kept`.

    logits: (B, C, h, w) float. target: (B, H, W) int (not int8), classes or `ignore_index`. threshold in [0, 1].
    min_kept: pixels of the whole batch, at least 0.
    Returns a scalar, float32 (float64 for float64 logits); 0 with zero gradient where every pixel is ignored.
    Raises TypeError or ValueError naming the argument.
    """
    _check(logits, target)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a probability, not {threshold}")
    if min_kept < 0:
        raise ValueError(f"min_kept must not be negative, not {min_kept}")
    if plain_only(logits):
        return reference.upsample_ohem_cross_entropy(
            logits, target, threshold=threshold, min_kept=min_kept, align_corners=align_corners,
            ignore_index=ignore_index,
        )  # fmt: skip
    losses = _map_operator(logits, target, None, align_corners, ignore_index)
    return mean_of_hard_pixels(losses, target != ignore_index, threshold, min_kept)
