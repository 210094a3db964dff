"""Windows of images that lie decoded on the device: cut, resampled, padded and flipped in one pass.

An output pixel is `step` / 1024 source pixels wide, so that pixel i of a region, counted from its corner, has its
centre at c = (i + 1/2) step / 1024. It shows, along each axis, sum_j w(c - j - 1/2) source_j / sum_j w(c - j - 1/2)
over the source pixels j of the region, rounded half to even and clamped to 0..255, with w by `filter`:

    linear        max(1 - |d|, 0), as OpenCV's INTER_LINEAR
    antialiased   the same of d / max(step / 1024, 1), as Pillow's BILINEAR
    cubic         the kernel of Keys (1981), a = -1/2, of d / max(step / 1024, 1), as Pillow's BICUBIC
    nearest       the source pixel that holds c

Of a window, the source pixels that it shows are read and 3 bytes a pixel written. One after the other, cropping, making
float32 of it, resizing, rounding, padding and flipping move twelve times as much at the image's own scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import check_integer, check_tensor, listed
from .gpu import cut_windows as gpu
from .reference.cut_windows import DENOMINATOR

COLUMNS = (
    "start", "stride", "origin_y", "origin_x", "source_height", "source_width", "step",
    "offset_y", "offset_x", "height", "width", "pad_y", "pad_x", "flip",
)  # fmt: skip
"""The columns of `places`."""
FILTERS = ("nearest", "linear", "antialiased", "cubic")


def _empty(pixels: Tensor, places: Tensor, size: int, channels: int) -> Tensor:
    shape = (len(places), size, size)
    return pixels.new_empty((*shape, 3) if channels == 3 else shape)


def _check_places(pixels: Tensor, places: Tensor, size: int, channels: int) -> None:
    """Raise ValueError unless what each row shows lies within `pixels` and the window. The host waits."""
    start, stride, y, x, rows, columns, step, above, before, height, width, top, left, _ = places.unbind(1)
    first = start + (y * stride + x) * channels
    last = first + (rows - 1) * stride * channels
    behind = torch.maximum(first, last) + columns * channels
    inside = (rows > 0) & (columns > 0) & (torch.minimum(first, last) >= 0) & (behind <= len(pixels))
    inside &= (x >= 0) & (x + columns <= stride.abs()) & (step > 0) & (above >= 0) & (before >= 0)
    for offset, seen, source in ((above, height, rows), (before, width, columns)):
        inside &= (2 * (offset + seen) - 1) * step < 2 * DENOMINATOR * source
    fits = (top >= 0) & (left >= 0) & (top + height <= size) & (left + width <= size)
    wrong = ((height > 0) & (width > 0) & ~(inside & fits)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        values = ", ".join(f"{name} {value}" for name, value in zip(COLUMNS, places[row].tolist()))
        where = f"pixels of {len(pixels)} bytes, their regions, or windows of {size}"
        raise ValueError(f"places leave {where} in row {row}: {values}")


@torch.library.custom_op("semiseg::cut_windows", mutates_args=())
def _operator(pixels: Tensor, places: Tensor, size: int, channels: int, filter: str, fill: Sequence[int]) -> Tensor:
    provider = _dispatch.provider_of(pixels, "cut_windows")
    if _dispatch.DEBUG or provider != "triton":
        _check_places(pixels, places, size, channels)
    if provider == "triton":
        return gpu.cut_windows(pixels, places, _empty(pixels, places, size, channels), channels, filter, fill)
    return reference.cut_windows(pixels, places, size, channels=channels, filter=filter, fill=fill)


@_operator.register_fake
def _(pixels, places, size, channels, filter, fill):
    return _empty(pixels, places, size, channels)


def cut_windows(
    pixels: Tensor,
    places: Tensor,
    size: int,
    *,
    channels: int = 3,
    filter: str = "cubic",
    fill: Sequence[int] = (0, 0, 0),
) -> Tensor:
    """Windows of `size` x `size` pixels out of images in one buffer.

    pixels: (N,) uint8, images (H, W, channels) anywhere in it, one row after the other. channels: 3, or 1 of masks.
    places: (B, 14) int64, a row a window: `start`, the index of its image's first byte, and `stride`, the pixels of a
    row of the image; `origin_y`, `origin_x`, `source_height`, `source_width`, the region that is resampled, in source
    pixels within the image; `step`, source pixels a pixel of the window in units of 1/1024; `offset_y`, `offset_x`, the
    pixel of the resampled region that the window's image begins with, and `height`, `width`, how many rows and
    columns of it are seen (0: none), whose centres must lie within the region; `pad_y`, `pad_x`, rows above and columns
    left of them; `flip`, 1 for a window that is then mirrored left to right.
    filter: see above. fill: grey levels of what the image does not cover, of masks the first.
    Returns (B, size, size, 3) uint8, of one channel (B, size, size).
    Raises TypeError or ValueError naming the argument, on the CPU also for a row that leaves `pixels`, its region or
    the window. On a GPU, where the host does not wait for values, that is read from elsewhere in `pixels`, or as 0, and
    raises with SEMISEG_DEBUG=1.
    """
    check_tensor("pixels", pixels, (None,), (torch.uint8,))
    check_tensor("places", places, (None, len(COLUMNS)), (torch.int64,), pixels.device)
    check_integer("size", size)
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    check_integer("channels", channels)
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if filter not in FILTERS:
        raise ValueError(f"filter must be one of {', '.join(FILTERS)}, not {filter!r}")
    fill = listed("fill", fill, "three grey levels from 0 to 255", 3)
    for level in fill:
        check_integer("each grey level of fill", level)
    if not all(0 <= level <= 255 for level in fill):
        raise ValueError(f"fill must be three grey levels from 0 to 255, not {fill}")
    return _operator(pixels, places, size, channels, filter, list(map(int, fill)))
