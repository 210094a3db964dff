"""Every row of the registry, against the module that it builds."""

import pytest
import torch

from semiseg.engine.models import DECODERS, ENCODERS


@pytest.mark.parametrize("deep_stem", sorted({decoder.deep_stem for decoder in DECODERS.values()}))
@pytest.mark.parametrize("name", ENCODERS)
def test_maps_are_what_the_row_says(name, deep_stem):
    encoder = ENCODERS[name]
    with torch.device("meta"):
        module = encoder.build(deep_stem=deep_stem)
    for height, width in ((4 * encoder.multiple, 6 * encoder.multiple), (65, 97)):
        maps = module(torch.empty(2, 3, height, width, device="meta"))
        assert [tuple(each.shape) for each in maps] == [
            (2, channels, -(-height // stride), -(-width // stride))  # sides round up
            for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
        ]
    # A crop of sides that are multiples covers whole positions of every map.
    assert all(encoder.multiple % stride == 0 for stride in encoder.strides)


def test_fill_is_the_mean_in_grey_levels():
    for encoder in ENCODERS.values():
        assert encoder.fill == (124, 116, 104)
