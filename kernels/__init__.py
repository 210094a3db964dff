"""Fused operations for semi-supervised segmentation. They know torch and nothing of the rest of this project.

Each name is one file with its mathematics, operator and function, beside Triton kernels in `gpu/`, an implementation in
bounded memory in `cpu/` and a plain definition in `reference/`. The definition serves float64 tensors, torch.func and
other devices, CPU tensors of `cut_windows` and GPU tensors of `depthwise_conv2d`.
"""

from .cut_windows import cut_windows
from .cutmix import box_mask, cutmix
from .depthwise_conv2d import depthwise_conv2d
from .directional_contrast import directional_contrast
from .photometric import photometric
from .pseudo_label import mixed_pseudo_label, pseudo_label
from .upsample import upsample
from .upsample_confusion import upsample_confusion
from .upsample_conv2d import upsample_conv2d
from .upsample_cross_entropy import upsample_cross_entropy, upsample_ohem_cross_entropy
from .upsample_mse import upsample_mse

__all__ = [
    "box_mask",
    "cut_windows",
    "cutmix",
    "depthwise_conv2d",
    "directional_contrast",
    "mixed_pseudo_label",
    "photometric",
    "pseudo_label",
    "upsample",
    "upsample_confusion",
    "upsample_conv2d",
    "upsample_cross_entropy",
    "upsample_mse",
    "upsample_ohem_cross_entropy",
]
