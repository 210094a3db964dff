"""How torch multiplies float32: as IEEE 754 says, or shorter. A setting of the process, for which torch has two
interfaces: the older raises where the newer has said what it cannot say, and what the older forbids, the newer may have
allowed. So the newer is read, and both are set."""

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
"""Where the newer interface has a setting, each before those that follow it where they say nothing."""


def exact_fp32() -> bool:
    """Whether products of float32 matrices must be IEEE's on a GPU: yes unless torch's settings allow TensorFloat32."""
    return cuda.matmul.fp32_precision != "tf32"


def allow_tf32(allowed: bool) -> None:
    """Says to GPUs whether they may multiply and convolve float32 in TensorFloat32; for the whole process, in which
    CPUs then use nothing shorter than float32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    cudnn.allow_tf32 = allowed
    for place in (cuda.matmul, *CUDNN):
        place.fp32_precision = "tf32" if allowed else "ieee"
    for place in MKLDNN:
        place.fp32_precision = "ieee"


@contextmanager
def precision_kept() -> Iterator[None]:
    """Afterwards all of it is as it was; but what followed another setting is then a setting of its own."""
    before = [place.fp32_precision for place in PLACES]
    products = convolutions = None
    with suppress(RuntimeError):  # said by the newer interface alone
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
