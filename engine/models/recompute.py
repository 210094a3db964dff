"""Activations that are computed a second time in the backward pass instead of being kept: less memory, more arithmetic.

Chen et al., Training Deep Nets with Sublinear Memory Cost (2016), block by block of the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from ...pipelines.errors import UsageError
from .network import Network

ARGUMENT_TYPES = (Tensor, bool, int, float, str, type(None))
"""What a block may be given."""


def recompute(network: Network) -> None:
    """From now on the blocks of the network's backbone keep their inputs alone for the backward pass. Outputs,
    gradients and running statistics stay the same. Raises UsageError where the backbone has no blocks in a row."""
    blocks = list(_blocks(network.backbone))
    if not blocks:
        raise UsageError(
            f"--recompute: the backbone {network.backbone_name} is not made of blocks that could be computed again; "
            "leave it out"
        )
    for block in blocks:
        block.forward = partial(_call, block, block.forward)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that stand in a row, of which each has parts of its own."""
    row = isinstance(module, (nn.Sequential, nn.ModuleList))
    for child in module.children():
        if row and not isinstance(child, (nn.Sequential, nn.ModuleList)) and any(child.children()):
            yield child
        else:
            yield from _blocks(child)


def _call(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # A list of maps, as HRNet's blocks take, may be changed by the first pass, and the second would begin with that.
    given = (*args, *kwargs.values())
    if not all(isinstance(value, ARGUMENT_TYPES) for value in given) or not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    tensors = [value for value in given if isinstance(value, Tensor)]
    before = [tensor.grad_fn for tensor in tensors]  # of a tensor that is changed it is another
    result = checkpoint(
        partial(forward, **kwargs),
        *args,
        use_reentrant=False,
        # To keep the generator's state the host reads it, which a captured step may not.
        preserve_rng_state=_draws(block),
        context_fn=lambda: (nullcontext(), _statistics_kept(block)),
    )
    if any(tensor.grad_fn is not function for tensor, function in zip(tensors, before, strict=True)):
        raise UsageError(
            f"--recompute: a {type(block).__name__} of the backbone changes what it is given, and would be computed "
            "from something else the second time; pass --recompute off"
        )
    return result


def _draws(block: nn.Module) -> bool:
    """Whether the block draws random numbers in training."""
    return any(
        "drop" in type(module).__name__.lower() and (getattr(module, "p", 0) or getattr(module, "drop_prob", 0))
        for module in block.modules()
    )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Without this the second pass would follow the same batch's statistics once more."""
    norms = [module for module in block.modules() if isinstance(module, _NormBase)]
    kept = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
