"""The definition of `cut_windows`, one window after the other in float64. The host reads the places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

DENOMINATOR = 1024


def weights(first: int, count: int, step: int, source: int, filter: str, device: torch.device) -> Tensor:
    """(count, source) float64: what each source pixel counts for in the pixels from `first` on, along one axis."""
    centre = (torch.arange(first, first + count, device=device, dtype=torch.float64) + 0.5) * step / DENOMINATOR
    pixels = torch.arange(source, device=device, dtype=torch.float64)
    if filter == "nearest":
        return (pixels == centre[:, None].floor()).double()
    distance = (centre[:, None] - pixels - 0.5).abs() / (1.0 if filter == "linear" else max(step / DENOMINATOR, 1.0))
    weight = _cubic(distance) if filter == "cubic" else (1 - distance).clamp(min=0)
    return weight / weight.sum(1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def cut_windows(
    pixels: Tensor,
    places: Tensor,
    size: int,
    *,
    channels: int = 3,
    filter: str = "cubic",
    fill: Sequence[int] = (0, 0, 0),
) -> Tensor:
    """Arguments as in `semiseg.kernels.cut_windows`."""
    empty = torch.tensor(fill[:channels], dtype=torch.uint8, device=pixels.device)
    result = empty.expand(len(places), size, size, channels).contiguous()
    for window, place in zip(result, places.tolist()):
        start, stride, y0, x0, rows, columns, step, y, x, height, width, top, left, flip = place
        if height < 1 or width < 1:
            continue
        index = start + ((y0 + torch.arange(rows)[:, None]) * stride + x0 + torch.arange(columns)) * channels
        source = pixels[(index[..., None] + torch.arange(channels)).to(pixels.device)].double()
        down = weights(y, height, step, rows, filter, pixels.device)
        across = weights(x, width, step, columns, filter, pixels.device)
        levels = torch.einsum("yi,ijc,xj->yxc", down, source, across).round().nan_to_num(0).clamp(0, 255)
        window[top : top + height, left : left + width] = levels.to(torch.uint8)
        if flip:
            window.copy_(window.flip(1))
    return result if channels == 3 else result[..., 0]
