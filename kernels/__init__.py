"""Fused operations for semi-supervised segmentation. They know torch and nothing of the rest of this project.

Each name is one file with its mathematics, operator and function, beside Triton kernels in `gpu/`, an implementation in
bounded memory in `cpu/` and a plain definition in `reference/`, which float64 tensors and other devices get, and CPU
tensors of `cut_windows`.
"""

from .cut_windows import cut_windows
from .cutmix import box_mask, cutmix
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
