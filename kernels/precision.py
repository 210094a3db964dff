"""How torch multiplies float32: as IEEE 754 says, or shorter. A setting of the process.

torch has two interfaces for it. The older cannot express every state of the newer and raises when it reads one; and
what the older turns off may still be on in the newer. So this module reads the newer and sets both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.backends import cuda, cudnn, mkldnn

CUDNN: tuple[Any, ...] = (cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
MKLDNN: tuple[Any, ...] = (mkldnn.conv, mkldnn.rnn)  # type: ignore[attr-defined]
PLACES: tuple[Any, ...] = (
    torch.backends,
    cuda.matmul, cudnn, *CUDNN,
    mkldnn, mkldnn.matmul, *MKLDNN,  # type: ignore[attr-defined]
)  # fmt: skip
"""What has a setting in the newer interface, parents before those that inherit from them."""


def exact_fp32() -> bool:
    """Whether products of float32 matrices must be IEEE's on a GPU: yes unless torch's settings allow TensorFloat32."""
    return cuda.matmul.fp32_precision != "tf32"


def allow_tf32(allowed: bool) -> None:
    """Set for the whole process whether GPUs may multiply and convolve float32 in TensorFloat32. CPUs then use nothing
    shorter than float32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    cudnn.allow_tf32 = allowed
    for place in (cuda.matmul, *CUDNN):
        place.fp32_precision = "tf32" if allowed else "ieee"
    for place in MKLDNN:
        place.fp32_precision = "ieee"


@contextmanager
def precision_kept() -> Iterator[None]:
    """Restores all settings on exit. One that was inherited from a parent is afterwards set explicitly."""
    before = [place.fp32_precision for place in PLACES]
    products = convolutions = None
    with suppress(RuntimeError):  # in a state that only the newer interface can express
        products = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        convolutions = cudnn.allow_tf32
    try:
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        for place, precision in zip(PLACES, before, strict=True):
            place.fp32_precision = precision
