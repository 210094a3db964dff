"""Squared error between the probabilities of two bilinearly upsampled logits, the second a teacher's, mixed or not.

With p = softmax(z), z = upsample(logits), and q = softmax(upsample(teacher)) over the classes, d = p - q, and w the
weight of a pixel,

    loss = w sum_c d_c^2,    d loss / d z_c = 2 w p_c (d_c - sum_k p_k d_k),
    d loss / d logits = upsample^T d loss / d z

Inside toggled boxes (see `cutmix`) the teacher's logits are those of a second output, which equals mixing both
upsampled logits with a 0/1 mask (French et al., BMVC 2020). The teacher takes no gradient.

Two interpolations, two softmaxes and their difference move about 12 B C H W elements in training (16 where the teacher
is mixed); fused, the logits and the teacher's are read, a gradient in float32 cleared, added to and scaled: with logits
of e bytes (2 e + 12) B C h w bytes, (3 e + 12) if mixed. On a GPU there are 6 B C H W exponentials, 4 without a
gradient, and as many interpolations; on the CPU 2, and one tile of upsampled logits exists at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import FLOATS, check_flag, check_normalizer, check_size, check_tensor, outside_autocast
from ._derivatives import register_computed
from .cpu import upsample_mse as cpu
from .cutmix import check_boxes
from .gpu import upsample_mse as gpu


@torch.library.custom_op("semiseg::upsample_mse_sum", mutates_args=())
def _operator(
    logits: Tensor,
    teacher: Tensor,
    other: Tensor | None,
    boxes: Tensor | None,
    weight: Tensor | None,
    height: int,
    width: int,
    align_corners: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Sum of the weighted errors, and its gradient with respect to the logits (empty if unwanted), both float32."""
    gradient = torch.zeros(logits.shape if with_gradient else (0,), dtype=torch.float32, device=logits.device)
    implementation = gpu if _dispatch.provider_of(logits) == "triton" else cpu
    total = implementation.mse(
        logits, teacher, other, boxes, weight, (height, width), align_corners, gradient if with_gradient else None
    )
    return total, gradient


@_operator.register_fake
def _(logits, teacher, other, boxes, weight, height, width, align_corners, with_gradient):
    gradient_shape = logits.shape if with_gradient else (0,)
    return logits.new_empty((), dtype=torch.float32), logits.new_empty(gradient_shape, dtype=torch.float32)


register_computed("upsample_mse", _operator)


@outside_autocast
def upsample_mse(
    logits: Tensor,
    teacher: Tensor,
    size: Sequence[int],
    *,
    other: Tensor | None = None,
    boxes: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    normalizer: Tensor | None = None,
    align_corners: bool = True,
) -> Tensor:
    """Squared error of the softmax of bilinearly upsampled logits against that of a teacher's, summed over the classes
    and averaged over the pixels.

    logits: (B, C, h, w) float, finite. teacher: the same shape and dtype; not differentiated. size: (H, W).
    other, boxes: logits like the teacher's that take its place inside toggled boxes, (B, n, 4) signed int (y0, x0, y1,
    x1) in pixels of `size`, ends exclusive; both or neither.
    pixel_weight: (B, H, W) float or bool, multiplies each pixel's error, not differentiated.
    normalizer: () int or float, a number of pixels by which the sum is divided instead of B H W (1 where it is less).

    Returns a scalar, float32 (float64 for float64 logits). The gradient is the same bits in every run on the CPU, and
    on a GPU where torch.use_deterministic_algorithms asks for it, which takes the memory of the upsampled logits.
    Raises TypeError or ValueError naming the argument, and RuntimeError in a backward pass with create_graph.
    """
    check_tensor("logits", logits, (None, None, None, None), FLOATS)
    if logits.numel() == 0:
        raise ValueError(f"logits is empty: {tuple(logits.shape)}")
    check_tensor("teacher", teacher, tuple(logits.shape), (logits.dtype,), logits.device)
    teacher = teacher.detach()
    if (other is None) != (boxes is None):
        raise ValueError("other and boxes belong together: pass both or neither")
    if other is not None and boxes is not None:
        check_tensor("other", other, tuple(logits.shape), (logits.dtype,), logits.device)
        check_boxes(boxes, logits.shape[0], logits.device)
        other = other.detach()
    height, width = check_size(size)
    if pixel_weight is not None:
        shape = (logits.shape[0], height, width)
        check_tensor("pixel_weight", pixel_weight, shape, (*FLOATS, torch.bool), logits.device)
        pixel_weight = pixel_weight.detach()
    if normalizer is not None:
        check_normalizer(normalizer, logits.device)
    check_flag("align_corners", align_corners)
    provider = _dispatch.provider_of(logits, "upsample_mse")
    if provider == "plain" or (provider == "triton" and torch.are_deterministic_algorithms_enabled()):
        return reference.upsample_mse(
            logits, teacher, (height, width), other=other, boxes=boxes, pixel_weight=pixel_weight,
            normalizer=normalizer, align_corners=align_corners,
        )  # fmt: skip
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    total, _ = _operator(logits, teacher, other, boxes, pixel_weight, height, width, align_corners, with_gradient)
    if normalizer is None:
        return total / (logits.shape[0] * height * width)
    return total / normalizer.detach().to(total.dtype).clamp(min=1)
