"""Blur, colour and normalisation of uint8 windows: the last step of augmentation, on the training device.

For each sample, in grey levels 0..255, rounded to uint8 between the steps as OpenCV does:

    1. where blur[b]: separable 5x5 Gaussian, sigma 1.1, reflect-101 borders
    2. y = matrix[b, :, :3] @ rgb + matrix[b, :, 3], rounded and clamped to 0..255
    3. (y / 255 - mean) / std

Steps 1 and 2 are integer arithmetic, the same on every device: taps in 1/256 and coefficients in 1/1024, as OpenCV has
them. Three bytes are read and three floats written per pixel; blur costs 30 multiply-adds a pixel and colour 9. The CPU
implementation uses OpenCV where it is installed, one sample per worker in buffers that stay in cache, and skips the
steps a sample does not need. Without OpenCV the plain definition runs sample by sample.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import reference
from ._arguments import FLOATS, check_tensor

try:
    import cv2
except ImportError:
    cv2 = None

_IDENTITY = np.eye(3, 4, dtype=np.float32)


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


def _one(image: np.ndarray, matrix: np.ndarray, blur: bool, normalise: np.ndarray, out: np.ndarray) -> None:
    """One (H, W, 3) uint8 image into `out` (H, W, 3) float32."""
    blurred, coloured, wide = _scratch.buffers(image.shape)
    if blur:
        image = cv2.GaussianBlur(image, (5, 5), 1.1, dst=blurred, borderType=cv2.BORDER_REFLECT_101)
    if not np.array_equal(matrix, _IDENTITY):
        image = cv2.transform(image, matrix, dst=coloured)
    wide[...] = image
    cv2.transform(wide, normalise, dst=out)


@torch.library.custom_op("semiseg::photometric_cpu", mutates_args=(), device_types="cpu")
def _operator(images: Tensor, matrix: Tensor, blur: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    batch, height, width, _ = images.shape
    images = images.contiguous()
    if cv2 is None:
        out = torch.empty((batch, height, width, 3), dtype=dtype).permute(0, 3, 1, 2)
        for i in range(batch):
            one = slice(i, i + 1)
            out[one] = reference.photometric(images[one], matrix[one], blur[one], mean, std, dtype=dtype)
        return out
    out = torch.empty((batch, height, width, 3), dtype=torch.float32)
    normalise = np.zeros((3, 4), np.float32)
    np.fill_diagonal(normalise, 1 / (255 * std.double().numpy()))
    normalise[:, 3] = -(mean.double() / std.double()).numpy()
    jobs = list(zip(images.numpy(), matrix.float().numpy(), blur.tolist(), out.numpy()))

    def run(first: int, step: int) -> None:
        for image, colour, blurred, target in jobs[first::step]:
            _one(image, colour, blurred, normalise, target)

    workers = min(torch.get_num_threads(), batch)
    if workers > 1:
        list(_workers(torch.get_num_threads()).map(run, range(workers), [workers] * workers))
    else:
        run(0, 1)
    return out.to(dtype).permute(0, 3, 1, 2)


@_operator.register_fake
def _(images, matrix, blur, mean, std, dtype):
    return images.new_empty(images.shape, dtype=dtype).permute(0, 3, 1, 2)


def _per_channel(name: str, values: Tensor | Sequence[float], device: torch.device) -> Tensor:
    if not isinstance(values, Tensor):
        # Filled on the device: a copy from the host would make the host wait.
        values = torch.stack([torch.full((), float(value), device=device) for value in values])
    check_tensor(name, values, (3,), FLOATS, device)
    return values


def photometric(
    images: Tensor,
    matrix: Tensor,
    blur: Tensor,
    mean: Tensor | Sequence[float],
    std: Tensor | Sequence[float],
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Blurred where wanted, recoloured and normalised images.

    images: (B, H, W, 3) uint8, RGB. matrix: (B, 3, 4) float, acts on grey levels 0..255, the last column is added;
    coefficients below 32 in size, of which multiples of 1/1024 are told apart.
    blur: (B,) bool. mean, std: three numbers or a tensor (3,) each, for images scaled to [0, 1].
    dtype: of the result, a float. Returns (B, 3, H, W) in channels-last memory format.
    Raises TypeError or ValueError naming the argument.
    """
    check_tensor("images", images, (None, None, None, 3), (torch.uint8,))
    batch, height, width, _ = images.shape
    if height == 0 or width == 0:
        raise ValueError(f"images are empty: {tuple(images.shape)}")
    check_tensor("matrix", matrix, (batch, 3, 4), FLOATS, images.device)
    check_tensor("blur", blur, (batch,), (torch.bool,), images.device)
    mean, std = _per_channel("mean", mean, images.device), _per_channel("std", std, images.device)
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be one of {', '.join(str(d) for d in FLOATS)}, not {dtype}")
    if images.device.type != "cpu" or dtype == torch.float64:
        return reference.photometric(images, matrix, blur, mean, std, dtype=dtype)
    return _operator(images, matrix.detach(), blur, mean.detach(), std.detach(), dtype)
