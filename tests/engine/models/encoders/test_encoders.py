"""Every row of the registry, against the module that it builds."""

import pytest
import torch

from semiseg.engine.models import DECODERS, ENCODERS, encoder_of
from semiseg.pipelines.errors import UsageError

FORMS = [DECODERS[name].forms for name in ("cac", "unimatch")]


@pytest.mark.parametrize("name", ENCODERS)
def test_maps_are_what_the_row_says(name):
    encoder = encoder_of(name)
    for form in FORMS if encoder.forms else [{}]:
        with torch.device("meta"):
            module = encoder.build(**form)
        for rows, columns in ((65, 98), (70, 84)):
            height, width = (side // encoder.multiple * encoder.multiple for side in (rows, columns))
            maps = module(torch.empty(2, 3, height, width, device="meta"))
            assert [tuple(each.shape) for each in maps] == [
                (2, channels, -(-height // stride), -(-width // stride))  # sides round up
                for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
            ]
        least = encoder.least
        assert min(min(each.shape[2:]) for each in module(torch.empty(2, 3, least, least, device="meta"))) == 1


def test_normalisation_belongs_to_the_encoder():
    for name, encoder in ENCODERS.items():
        lite = name.startswith("efficientnet")
        assert encoder.mean == ((0.5, 0.5, 0.5) if lite else (0.485, 0.456, 0.406))
        assert encoder.std == ((0.5, 0.5, 0.5) if lite else (0.229, 0.224, 0.225))
        assert encoder.fill == ((128, 128, 128) if lite else (124, 116, 104))  # the mean in grey levels


def test_unknown_names_are_refused_with_the_near_ones():
    for name, near in (("resnet5", "resnet50"), ("efficientnet_lite", "efficientnet_lite"), ("dinov2_smal", "small")):
        with pytest.raises(UsageError, match=f"choose one of resnet18, .*timm:NAME; did you mean .*{near}"):
            encoder_of(name)
    with pytest.raises(UsageError, match=r"timm:NAME; one of your own: import what adds it \(docs/adding\.md\)$"):
        encoder_of("xyz")
