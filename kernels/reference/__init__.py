"""Plain definitions of every kernel: readable PyTorch, any device and float dtype, differentiable, static shapes.

They materialise whatever they like. The kernels are tested against them, and they serve float64 tensors.
"""

from .cut_windows import cut_windows
from .cutmix import box_mask, cutmix
from .depthwise_conv2d import depthwise_conv2d
from .directional_contrast import affordable_rows, directional_contrast
from .photometric import photometric
from .pseudo_label import mixed_pseudo_label, pseudo_label
from .upsample import upsample
from .upsample_confusion import upsample_confusion
from .upsample_conv2d import upsample_conv2d
from .upsample_cross_entropy import upsample_cross_entropy, upsample_ohem_cross_entropy
from .upsample_mse import upsample_mse

__all__ = [
    "affordable_rows",
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
