"""What is peculiar to DPT; `test_published_unimatch.py` holds the whole of it to a network written plainly."""

import pytest
import torch

from semiseg.engine.models import DECODERS


def build(channels, width=256):
    torch.manual_seed(0)
    return DECODERS["dpt"].build((channels,) * 4, width)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (2, 3), (5, 4)])
def test_features_are_eight_times_as_fine_for_odd_and_even_grids(h, w):
    decoder = build(384, 64)
    maps = [torch.randn(2, 384, h, w) for _ in range(4)]
    assert decoder(*maps).shape == (2, decoder.width, 8 * h, 8 * w)
    assert (decoder(*maps) >= 0).all()  # they end in an activation


@pytest.mark.parametrize(
    ("channels", "width", "features", "levels"),
    [
        (384, 256, 64, [48, 96, 192, 384]),
        (768, 256, 128, [96, 192, 384, 768]),
        (1024, 256, 256, [256, 512, 1024, 1024]),
        (384, 64, 16, [12, 24, 48, 96]),
        (384, 1, 1, [1, 1, 1, 1]),
    ],
)
def test_width_is_a_share_of_the_published_one(channels, width, features, levels):
    with torch.device("meta"):
        decoder = build(channels, width)
    assert decoder.width == decoder.output.out_channels == features
    assert [each.out_channels for each in decoder.projects] == levels


def test_every_level_counts_and_the_deepest_side_is_idle():
    decoder = build(384, 64).double()
    maps = [torch.randn(1, 384, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    decoder(*maps).sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in maps)
    idle = {name.rpartition(".")[0] for name, p in decoder.named_parameters() if p.grad is None}
    assert idle == {"fusions.3.side.conv1", "fusions.3.side.conv2"}
