"""Initialisation that does nothing on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def fill(draw: Callable[..., Tensor], tensor: Tensor, **options: Any) -> None:
    """`draw(tensor, **options)`, a function of `torch.nn.init`, unless the tensor holds nothing: on the device "meta",
    where networks are made to be counted, torch takes milliseconds for a draw and loads its compiler for the first."""
    if not tensor.is_meta:
        draw(tensor, **options)
