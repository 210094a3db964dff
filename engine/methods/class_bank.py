"""U2PL's memory: for each class, features of what hardly is of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassBank(nn.Module):
    """A ring of unit features for each class: those that entered last. Unit vectors lose little in float16, and banks
    are large."""

    features: Tensor
    held: Tensor
    position: Tensor

    def __init__(self, classes: int, size: int, channels: int):
        super().__init__()
        self.register_buffer("features", torch.zeros(classes, size, channels, dtype=torch.float16))
        self.register_buffer("held", torch.zeros(classes, dtype=torch.long))
        self.register_buffer("position", torch.zeros(classes, dtype=torch.long))

    def push(self, features: Tensor, count: Tensor) -> None:
        """Of features (C, M, D), M at most the ring's size, the first `count` (C,) of each class replace its oldest."""
        classes, size, _ = self.features.shape
        ring = torch.arange(classes, device=features.device)[:, None]
        number = torch.arange(features.shape[1], device=features.device)
        place = (self.position[:, None] + number) % size
        entering = (number < count[:, None])[..., None]
        self.features[ring, place] = torch.where(entering, features.to(self.features.dtype), self.features[ring, place])
        self.position.copy_((self.position + count) % size)
        self.held.copy_((self.held + count).clamp(max=size))

    def drawn(self, draws: Tensor, classes: Tensor) -> Tensor:
        """(C, A, K, D): for each number of `draws` (C, A, K), in [0, 1), a feature from the ring of `classes` (C,)."""
        classes = classes[:, None, None]
        return self.features[classes, (draws * self.held[classes]).long()]
