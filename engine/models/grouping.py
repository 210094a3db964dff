"""Several batches in one call of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Groups:
    """Sizes of the batches that a network sees in one call; None where it is one batch."""

    sizes: list[int] | None = None

    @contextmanager
    def of(self, sizes: list[int]) -> Iterator[None]:
        """Inside, a batch is so many images of each, which are taken apart wherever batches have statistics."""
        self.sizes = sizes
        try:
            yield
        finally:
            self.sizes = None


def grouped(network: nn.Module) -> Groups:
    """From now on the batch normalisations of the network, in training, see the groups of a batch one after the other:
    statistics are each group's, and running ones follow them in this order."""
    groups = Groups()
    for norm in batch_norms(network):
        norm.forward = partial(_normalised, norm, norm.forward, groups)  # type: ignore[method-assign]
    return groups


def batch_norms(network: nn.Module) -> Iterator[_BatchNorm]:
    """The batch normalisations of a network, or of all networks of a method."""
    return (module for module in network.modules() if isinstance(module, _BatchNorm))


def _normalised(norm: nn.Module, forward: Callable[[Tensor], Tensor], groups: Groups, x: Tensor) -> Tensor:
    if groups.sizes is None or not norm.training:
        return forward(x)
    return torch.cat([forward(group) for group in x.split(groups.sizes)])
