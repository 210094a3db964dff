"""What the restatements of published networks have in common: convolutions, random weights, and how far two maps are
apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semiseg.engine.models import from_published
from semiseg.pipelines.errors import UsageError


def conv(inputs, outputs, kernel=1, dilation=1, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=bias)


def empty(kind, *args, **options):
    with torch.device("meta"):
        return kind(*args, **options).eval()


def filled(kind, *args, dtype=torch.float64, **options):
    """The network with random weights and statistics that keep its maps at about the size of its input."""
    network = empty(kind, *args, **options).to(dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(5)
        elif name.endswith(("pos_embed", "token")):
            tensor.normal_(std=0.2, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.1, generator=generator)
        else:
            tensor.uniform_(0.5, 1.5, generator=generator)
    return network


def relative(given, wanted):
    return ((given - wanted).abs().max() / wanted.abs().max()).item()


def refusal(state, *args, **options) -> str:
    """The one line with which a checkpoint is refused."""
    with pytest.raises(UsageError) as error:
        from_published(state, *args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
