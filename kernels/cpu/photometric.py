"""Blur, colour and normalisation on the CPU: one image per worker, in buffers that stay in cache.

OpenCV does the work where it is installed, and skips what an image does not need; else the plain definition does, image
by image.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .. import reference
from ..reference.photometric import COLOUR_BITS

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

_IDENTITY = np.eye(3, 4, dtype=np.float32)
_OTHERS = np.arange(4) != np.arange(3)[:, None]
_OTHERS[:, 3] = False
"""Which coefficients make a channel depend on another."""
_UNSEEN = 2.0 ** -(COLOUR_BITS + 2)
"""Rounds to 0 in fixed point."""


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="photometric")


# A forked process inherits the pool but not its threads.
os.register_at_fork(after_in_child=_workers.cache_clear)


class _Scratch(threading.local):
    """Per thread: two uint8 images and a float32 one of the last shape asked for."""

    shape = None

    def buffers(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if shape != self.shape:
            self.shape = shape
            self.arrays = np.empty(shape, np.uint8), np.empty(shape, np.uint8), np.empty(shape, np.float32)
        return self.arrays


_scratch = _Scratch()


def _mixing(matrix: np.ndarray) -> np.ndarray:
    """The colour matrix (3, 4) in a form that cv2.transform multiplies by in fixed point. One in which no channel
    depends on another it would multiply by in floating point, and round otherwise."""
    if np.abs(matrix[_OTHERS]).max() >= _UNSEEN:
        return matrix
    mixing = matrix.copy()
    mixing[0, 1] = _UNSEEN
    return mixing


def _one(
    image: np.ndarray,
    matrix: np.ndarray,
    sigma: float,
    normalise: np.ndarray,
    out: np.ndarray,
    radius: int,
    blur_last: bool,
) -> None:
    """One (H, W, 3) uint8 image into `out` (H, W, 3) float32."""
    blurred, coloured, wide = _scratch.buffers(image.shape)

    def blur(image: np.ndarray) -> np.ndarray:
        size = 2 * radius + 1
        return cv2.GaussianBlur(image, (size, size), sigma, dst=blurred, borderType=cv2.BORDER_REFLECT_101)

    if sigma > 0 and not blur_last:
        image = blur(image)
    if not np.array_equal(matrix, _IDENTITY):
        image = cv2.transform(image, _mixing(matrix), dst=coloured)
    if sigma > 0 and blur_last:
        image = blur(image)
    wide[...] = image
    cv2.transform(wide, normalise, dst=out)


def photometric(
    images: Tensor,
    matrix: Tensor,
    deviation: Tensor,
    mean: Tensor,
    std: Tensor,
    radius: int,
    blur_last: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Arguments as in `semiseg.kernels.photometric`, with `deviation` not above 0 where nothing is blurred and `mean`
    and `std` as tensors (3,)."""
    batch, height, width, _ = images.shape
    images = images.contiguous()
    if cv2 is None:
        out = torch.empty((batch, height, width, 3), dtype=dtype).permute(0, 3, 1, 2)
        for i in range(batch):
            one = slice(i, i + 1)
            levels = {"sigma": deviation[one], "radius": radius, "blur_last": blur_last}
            blur = deviation[one] > 0
            out[one] = reference.photometric(images[one], matrix[one], blur, mean, std, **levels, dtype=dtype)
        return out
    out = torch.empty((batch, height, width, 3), dtype=torch.float32)
    normalise = np.zeros((3, 4), np.float32)
    np.fill_diagonal(normalise, 1 / (255 * std.double().numpy()))
    normalise[:, 3] = -(mean.double() / std.double()).numpy()
    jobs = list(zip(images.numpy(), matrix.float().numpy(), deviation.tolist(), out.numpy()))

    def run(first: int, step: int) -> None:
        for image, colour, sigma, target in jobs[first::step]:
            _one(image, colour, sigma, normalise, target, radius, blur_last)

    workers = min(torch.get_num_threads(), batch)
    if workers > 1:
        list(_workers(torch.get_num_threads()).map(run, range(workers), [workers] * workers))
    else:
        run(0, 1)
    return out.to(dtype).permute(0, 3, 1, 2)
