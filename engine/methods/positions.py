"""Positions of maps as rows, by class and over processes: shapes are static, nothing is read on the host."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """In at least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def rows(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B h w, C), in at least float32."""
    return wide(maps.permute(0, 2, 3, 1).flatten(0, 2))


def class_rows(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (C, B h w)."""
    return maps.transpose(0, 1).flatten(1)


def nearest(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (B, S, S) uint8 or bool at the positions of maps of a size, (B, 1, *size)."""
    found = F.interpolate(pixels[:, None].byte(), size=size, mode="nearest")
    return found.to(pixels.dtype)


def one_hot(label: Tensor, classes: int) -> Tensor:
    """Labels (B, 1, h, w) uint8 -> (B, C, h, w) bool: which class each has, none where it is 255."""
    return label == torch.arange(classes, device=label.device)[:, None, None]


def nth(mask: Tensor, number: Tensor) -> Tensor:
    """(C, M): where each row of a mask (C, N) bool is true for the time that `number` (C, M) says, counted from 0 and
    rounded down; N where it is true less often."""
    classes, length = mask.shape
    counted = mask.flatten().cumsum(0, dtype=torch.int32)  # over all rows: a GPU has one block for each scan of a row
    ends = counted.view(classes, length)[:, -1:]
    wanted = number.to(torch.int32) + F.pad(ends[:-1], (0, 0, 1, 0))
    place = torch.searchsorted(counted, wanted + 1) - length * torch.arange(classes, device=mask.device)[:, None]
    return torch.where(wanted < ends, place, length)


def evenly_spaced(count: Tensor, most: int) -> Tensor:
    """(C, most): which ones of so many (C,) are taken where there are more than `most`, evenly spaced; else all."""
    number = torch.arange(most, device=count.device)
    return torch.where(count[:, None] > most, number * count[:, None] // most, number)


def local_rows(place: Tensor, labeled: int, unlabeled: int, processes: int, rank: int) -> tuple[Tensor, Tensor]:
    """Places among the rows of all processes, the labelled ones of all first -> rows of this process, which are
    `labeled` and then `unlabeled` ones, and which of the places are its own; for the others any rows."""
    behind = place >= processes * labeled
    row = place - torch.where(behind, processes * labeled + rank * unlabeled - labeled, rank * labeled)
    mine = torch.where(behind, (row >= labeled) & (row < labeled + unlabeled), (row >= 0) & (row < labeled))
    # Not one row for all of them, whose gradient would be added up place by place.
    others = torch.arange(place.numel(), device=place.device).view_as(place) % (labeled + unlabeled)
    return torch.where(mine, row, others), mine
