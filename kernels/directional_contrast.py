"""Directional contrastive loss of context-aware consistency (Lai et al., CVPR 2021).

Row i of `feat1` and `feat2` is one image location seen in two views. In direction 1 the anchor is view 1, the target is
view 2, and only rows where view 2 is sure and surer than view 1 are active; direction 2 swaps the roles. With t the
temperature and sg the stopped gradient,

    pos_i = f1_i . sg(f2_i) / t         s_ik = f1_i . n_k / t
    D_i   = exp(pos_i) + sum over k with label_k >= 0 and label_k != label1_i of exp(s_ik)
    q_i   = exp(pos_i) / D_i            w_i = [conf2_i > threshold and conf1_i < conf2_i]
    loss1 = sum_i w_i * -log(q_i + eps) / max(1, sum_i w_i)

    d loss1 / d f1_i = w_i / (max(1, sum w) t) * q_i / (q_i + eps) * (sum_k exp(s_ik)/D_i n_k - (1 - q_i) f2_i)

and, unless the negatives are differentiated, no other gradient. The two sets of active rows are disjoint (the
confidences differ strictly), so that both directions together are one list of P <= N anchors. `exp(s) n` is accumulated
beside `exp(s)` in one pass over the negatives: loss and gradient take 4 P K C FLOPs and P K exponentials, against
12 N K C FLOPs for two checkpointed directions that recompute every score, and the backward pass is elementwise. Minimal
traffic is 3 P C + K C elements: at C = 128 thousands of FLOPs a byte, so that nothing but arithmetic matters.

The published program subtracts a running maximum before exp and adds eps to D as well; both are below 1e-8 in the loss
of anchors that have negatives. Without any, its eps pulls an anchor towards a target that is far from it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import FLOATS, INTEGERS, check_flag, check_number, check_tensor, outside_autocast
from ._derivatives import first_only, keep, require_computed
from .cpu import directional_contrast as cpu
from .gpu import directional_contrast as gpu

PRODUCTS = (torch.float16, torch.bfloat16, torch.float32)


@torch.library.custom_op("semiseg::directional_contrast", mutates_args=())
def _operator(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    valid: Tensor | None,
    temperature: float,
    threshold: float,
    eps: float,
    with_gradient: bool,
    by_class: bool,
    product_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses (2,) of the two directions; direction (N,) int8: 1, 2, or 0 where not active; the gradient (N, C) of a
    row's anchor under its own direction's loss, empty if unwanted; lse (N,), log D; factor (N,), q / (q + eps) over the
    direction's rows, which times exp(s_ik - lse_i) is the derivative with respect to s_ik. All but `direction` float32.
    """
    if _dispatch.DEBUG:
        _check_values(feat1, feat2, negatives, negative_labels, valid)
    arguments = (feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels, valid)
    options = (temperature, threshold, eps, with_gradient)
    if _dispatch.provider_of(feat1) == "triton":
        return gpu.directional_contrast(*arguments, *options, by_class, product_dtype)
    return cpu.directional_contrast(*arguments, *options)


@_operator.register_fake
def _(feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels, valid, temperature, threshold, eps,
      with_gradient, by_class, product_dtype):  # fmt: skip
    rows, channels = feat1.shape
    single = {"dtype": torch.float32}
    return (
        feat1.new_empty(2, **single),
        feat1.new_empty(rows, dtype=torch.int8),
        feat1.new_empty((rows if with_gradient else 0, channels), **single),
        feat1.new_empty(rows, **single),
        feat1.new_empty(rows, **single),
    )


@torch.library.custom_op("semiseg::directional_contrast_negatives", mutates_args=())
def _negatives_operator(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    direction: Tensor,
    weight: Tensor,
    lse: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    temperature: float,
    product_dtype: torch.dtype | None,
) -> Tensor:
    """(K, C) float32: sum over the active rows i foreign to k of weight_i / temperature * exp(s_ik - lse_i) f_i."""
    arguments = (feat1, feat2, label1, label2, direction, weight, lse, negatives, negative_labels, temperature)
    if _dispatch.provider_of(feat1) == "triton":
        return gpu.directional_contrast_negatives(*arguments, product_dtype)
    return cpu.directional_contrast_negatives(*arguments)


@_negatives_operator.register_fake
def _(feat1, feat2, label1, label2, direction, weight, lse, negatives, negative_labels, temperature, product_dtype):
    return negatives.new_empty(negatives.shape, dtype=torch.float32)


def _setup_context(ctx, inputs, output):
    feat1, feat2, label1, label2, _, _, negatives, negative_labels, _, ctx.temperature, *_, ctx.product_dtype = inputs
    _, direction, gradient, lse, factor = output
    ctx.mark_non_differentiable(direction, gradient, lse, factor)
    ctx.feat_dtype, ctx.feat_shape, ctx.grad_negatives = feat1.dtype, feat1.shape, negatives.requires_grad
    keep(ctx, direction, gradient)
    if ctx.grad_negatives:
        keep(ctx, direction, gradient, lse, factor, feat1, feat2, label1, label2, negatives, negative_labels)


@first_only("directional_contrast")
def _backward(ctx, upstream, *_):
    direction, gradient, *rest = ctx.saved_tensors
    if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
        require_computed("directional_contrast", gradient, ctx.feat_shape)
    to_first = torch.where(direction == 1, upstream[0], 0.0)
    to_second = torch.where(direction == 2, upstream[1], 0.0)
    grad_feat1 = (to_first[:, None] * gradient).to(ctx.feat_dtype) if ctx.needs_input_grad[0] else None
    grad_feat2 = (to_second[:, None] * gradient).to(ctx.feat_dtype) if ctx.needs_input_grad[1] else None
    grad_negatives = None
    if ctx.needs_input_grad[6]:
        lse, factor, feat1, feat2, label1, label2, negatives, negative_labels = rest
        weight = (to_first + to_second) * factor
        grad_negatives = _negatives_operator(
            feat1,
            feat2,
            label1,
            label2,
            direction,
            weight,
            lse,
            negatives,
            negative_labels,
            ctx.temperature,
            ctx.product_dtype,
        ).to(negatives.dtype)
    return grad_feat1, grad_feat2, *(None,) * 4, grad_negatives, *(None,) * 8


_operator.register_autograd(_backward, setup_context=_setup_context)


def _wide(conf: Tensor) -> Tensor:
    """In float32 or wider: a threshold is rounded to the dtype of what it is compared with."""
    return conf.detach().to(torch.promote_types(conf.dtype, torch.float32))


def _check_values(
    feat1: Tensor, feat2: Tensor, negatives: Tensor, negative_labels: Tensor, valid: Tensor | None
) -> None:
    _check_unit("feat1", feat1, valid)
    _check_unit("feat2", feat2, valid)
    _check_unit("negatives", negatives, negative_labels >= 0)
    if negative_labels.dtype == torch.int64 and bool((negative_labels >= 2**31).any()):
        raise ValueError(f"negative_labels must be below 2^31, but {int(negative_labels.max())} is not")


def _check_unit(name: str, features: Tensor, used: Tensor | None) -> None:
    """Raise ValueError unless the used rows have length 1, or 0 as normalising a zero vector leaves it."""
    length = torch.linalg.vector_norm(features.float(), dim=1)
    wrong = ~((length - 1).abs() <= 0.01) & (length != 0)  # NaN is wrong
    if used is not None:
        wrong &= used
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"{name} must be L2-normalised, but row {row} has length {float(length[row]):.4g}")


@outside_autocast
def directional_contrast(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: float = 0.1,
    threshold: float = 0.75,
    eps: float = 1e-8,
    grad_negatives: bool = False,
    by_class: bool = False,
    product_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Directional contrastive loss of two aligned lists of features, both directions.

    feat1, feat2: (N, C) float, rows L2-normalised, row i of both the same image location. conf1, conf2: (N,) float in
    [0, 1], not differentiated. label1, label2: (N,) int, the pseudo-label in each view, below 2^31.
    negatives: (K, C) float, L2-normalised; differentiated only with `grad_negatives`. negative_labels: (K,) int, below
    2^31; one of the anchor's own label is finite and not used, one below zero is an empty bank slot, of any value.
    valid: (N,) bool; false rows take no part. temperature > 0; threshold: the least confidence of a target, exclusive.
    by_class: on a GPU, sort anchors and negatives by label first: pairs of tiles of one class are then left out.
    product_dtype: on a GPU, multiply features and negatives in this dtype, accumulating in float32, whatever their own
    is; float16 suits unit vectors. Without it float32 is multiplied in full, and as TensorFloat32 where
    torch.set_float32_matmul_precision allows that. The CPU multiplies in float32.

    Returns (loss1, loss2), scalars in float32 (float64 for float64), each the mean over its own active rows, zero with
    zero gradient where there is none. An anchor without any foreign negative has loss 0 (to eps).
    Raises TypeError or ValueError naming the argument, and RuntimeError in a backward pass with create_graph.
    """
    check_tensor("feat1", feat1, (None, None), FLOATS)
    rows, channels = feat1.shape
    dtype, device = feat1.dtype, feat1.device
    check_tensor("feat2", feat2, (rows, channels), (dtype,), device)
    for name, label in (("label1", label1), ("label2", label2)):
        check_tensor(name, label, (rows,), INTEGERS, device)
    for name, conf in (("conf1", conf1), ("conf2", conf2)):
        check_tensor(name, conf, (rows,), FLOATS, device)
    check_tensor("negatives", negatives, (None, channels), FLOATS, device)
    check_tensor("negative_labels", negative_labels, (negatives.shape[0],), INTEGERS, device)
    if valid is not None:
        check_tensor("valid", valid, (rows,), (torch.bool,), device)
    numbers = {"temperature": temperature, "threshold": threshold, "eps": eps}
    temperature, threshold, eps = (check_number(name, value) for name, value in numbers.items())
    check_flag("grad_negatives", grad_negatives)
    check_flag("by_class", by_class)
    if not temperature >= torch.finfo(torch.float32).tiny:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if product_dtype not in (None, *PRODUCTS):
        raise TypeError(f"product_dtype must be one of {', '.join(map(str, PRODUCTS))}, not {product_dtype}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be at least 0 and finite, not {eps}")

    conf1, conf2 = _wide(conf1), _wide(conf2)
    options: dict[str, Any] = {"valid": valid, "temperature": temperature, "threshold": threshold, "eps": eps}
    provider = _dispatch.provider_of(feat1, "directional_contrast")
    if provider == "plain" or (provider == "triton" and channels > gpu.LARGEST_CHANNELS):
        if _dispatch.DEBUG and not (_dispatch.transformed() or torch.compiler.is_compiling() or device.type == "meta"):
            _check_values(feat1, feat2, negatives, negative_labels, valid)
        # The CPU has the memory, and torch.func does not go through checkpoints.
        whole = device.type == "cpu" or _dispatch.transformed()
        block_rows = None if whole else reference.affordable_rows(rows, len(negatives))
        return reference.directional_contrast(
            feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels,
            grad_negatives=grad_negatives, block_rows=block_rows, **options,
        )  # fmt: skip
    with_gradient = torch.is_grad_enabled() and (feat1.requires_grad or feat2.requires_grad)
    losses, *_ = _operator(
        feat1, feat2, label1, label2, conf1, conf2, negatives if grad_negatives else negatives.detach(),
        negative_labels, *options.values(), with_gradient, by_class, product_dtype,
    )  # fmt: skip
    return losses[0], losses[1]
