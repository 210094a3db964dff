import pytest
import torch
from torch import nn

from semiseg.engine.models import ENCODERS

RESNETS = [name for name in ENCODERS if name.startswith("resnet")]


@pytest.mark.parametrize("multi_grid", [(2, 4, 8), (1, 2, 2)])
@pytest.mark.parametrize("name", RESNETS)
def test_multi_grid_dilations(name, multi_grid):
    with torch.device("meta"):
        resnet = ENCODERS[name].build(multi_grid=multi_grid)
    rates = {
        stage: [
            {m.dilation for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
            for block in getattr(resnet, stage)
        ]
        for stage in ("layer1", "layer2", "layer3", "layer4")
    }
    for stage in ("layer1", "layer2", "layer3"):
        assert all(block == {(1, 1)} for block in rates[stage])
    assert rates["layer4"] == [{(r, r)} for r in multi_grid][: len(resnet.layer4)]
    assert all(m.stride == (1, 1) for m in resnet.layer4.modules() if isinstance(m, nn.Conv2d))
    dilated = [m for m in resnet.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(m.padding == m.dilation for m in dilated)


@pytest.mark.parametrize("name", RESNETS)
def test_an_output_stride_of_8_dilates_the_third_stage_behind_its_first_block(name):
    with torch.device("meta"):
        resnet = ENCODERS[name].build(output_stride=8, multi_grid=(4, 8, 16))
    rates = [block.conv2.dilation[0] for block in resnet.layer3]
    assert rates == [1, *[2] * (len(rates) - 1)]
    assert all(m.stride == (1, 1) for m in resnet.layer3.modules() if isinstance(m, nn.Conv2d))
    low, high = resnet(torch.empty(1, 3, 65, 98, device="meta"))
    assert (low.shape[2:], high.shape[2:]) == ((17, 25), (9, 13))
