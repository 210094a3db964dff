import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semiseg.engine.models import DECODERS as ALL
from semiseg.engine.models import build_network
from semiseg.pipelines.errors import UsageError

DECODERS = {name: decoder for name, decoder in ALL.items() if decoder.aspp is not None}


def pyramid(name):
    torch.manual_seed(0)
    return DECODERS[name].aspp(512, 16)


def test_atrous_rates_of_all_pyramids():
    for name, decoder in DECODERS.items():
        aspp = decoder.aspp(8, 8)
        convolutions = [m for m in aspp.branches.modules() if isinstance(m, nn.Conv2d)]
        assert [m.dilation[0] for m in convolutions] == ([1, 12, 24, 36] if name == "u2pl" else [1, 6, 12, 18])
        assert [m.kernel_size[0] for m in convolutions] == [1, 3, 3, 3]


def _randomise_norms(module):
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor, low in ((m.weight, 0.5), (m.bias, -0.5), (m.running_mean, -0.5), (m.running_var, 0.5)):
                nn.init.uniform_(tensor, low, low + 1)


@pytest.mark.parametrize("name", ["cac", "unimatch", "u2pl"])
def test_concatenating_pyramid_is_the_textbook_one(name):
    aspp = pyramid(name).double().eval()
    _randomise_norms(aspp)
    x = torch.randn(2, 512, 5, 7, dtype=torch.float64)
    pooled = aspp.pooled(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, 5, 7)
    branches = [branch(x) for branch in aspp.branches]
    merged = aspp.merge(torch.cat([pooled, *branches] if name == "u2pl" else [*branches, pooled], 1))
    torch.testing.assert_close(aspp(x), F.relu(aspp.norm(merged)), rtol=1e-10, atol=1e-10)


def test_summing_pyramid_is_concatenation_with_leaky_relu():
    aspp = pyramid("cps").double().eval()
    _randomise_norms(aspp)
    x = torch.randn(2, 512, 5, 7, dtype=torch.float64)
    spatial = aspp.branch_norm(torch.cat([branch(x) for branch in aspp.branches], 1))
    pooled = aspp.pooled_norm(aspp.pooled(F.adaptive_avg_pool2d(x, 1))).expand(-1, -1, 5, 7)
    weight = torch.cat([aspp.merge.weight, aspp.merge_pooled.weight], 1)
    merged = F.conv2d(F.leaky_relu(torch.cat([spatial, pooled], 1), 0.01), weight)
    torch.testing.assert_close(aspp(x), F.leaky_relu(aspp.norm(merged), 0.01), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", DECODERS)
def test_one_image_trains_with_a_clear_error(name):
    aspp, x = pyramid(name), torch.randn(1, 512, 3, 4)
    with pytest.raises(UsageError, match="batch of at least 2"):
        aspp(x)
    assert aspp.eval()(x).shape == (1, 16, 3, 4)


@pytest.mark.parametrize("name", DECODERS)
def test_the_decoder_is_two_convolutions_of_the_upsampled_map_and_the_fine_one(name):
    torch.manual_seed(0)
    decoder = DECODERS[name].build((24, 320), 16).double().eval()
    _randomise_norms(decoder)
    low, high = (torch.randn(2, c, *size, dtype=torch.float64) for c, size in ((24, (9, 13)), (16, (3, 4))))
    fine = decoder.reduce(low)
    upsampled = F.interpolate(high, fine.shape[-2:], mode="bilinear", align_corners=True)
    together = torch.cat([fine, upsampled] if name in ("unimatch", "u2pl") else [upsampled, fine], 1)
    torch.testing.assert_close(decoder(low, high), decoder.refine(together), rtol=1e-10, atol=1e-10)


def test_maps_of_a_larger_batch_are_decoded_together():
    """UniMatch drops channels of both maps between encoder and decoder, whose batch statistics see both halves."""
    torch.manual_seed(0)
    network = build_network("unimatch", "resnet18", 3, head_width=16).double().train()
    x = torch.randn(2, 3, 33, 49, dtype=torch.float64)
    maps = network.encode(x)
    masks = [2.0 * (torch.rand(2, each.shape[1], 1, 1) < 0.5).double() for each in maps]
    clean, dropped = network.decode(tuple(torch.cat([m, m * mask]) for m, mask in zip(maps, masks))).chunk(2)
    assert clean.shape == dropped.shape == (2, 16, 9, 13)
    assert not torch.allclose(clean, network.decode(maps))  # other batch statistics
    network.eval()
    both = network.decode(tuple(torch.cat([m, m * mask]) for m, mask in zip(maps, masks)))
    apart = [network.decode(maps), network.decode(tuple(m * mask for m, mask in zip(maps, masks)))]
    torch.testing.assert_close(both, torch.cat(apart))
