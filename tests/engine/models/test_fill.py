import pytest
import torch
from torch import nn

from semiseg.engine.models import ENCODERS
from semiseg.engine.models.fill import fill


def test_tensors_that_hold_numbers_are_filled():
    weight = torch.zeros(4, 3, 3, 3)
    torch.manual_seed(0)
    expected = nn.init.kaiming_normal_(torch.zeros(4, 3, 3, 3), mode="fan_out", nonlinearity="relu")
    torch.manual_seed(0)
    fill(nn.init.kaiming_normal_, weight, mode="fan_out", nonlinearity="relu")
    assert torch.equal(weight, expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_no_normal_number_is_drawn_for_networks_that_are_made_to_be_counted(name, monkeypatch):
    def draw(tensor, *_, **__):
        raise AssertionError(f"draws {tuple(tensor.shape)}")

    for function in ("normal_", "kaiming_normal_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, function, draw)
    with torch.device("meta"):
        network = ENCODERS[name].build()
    assert all(parameter.is_meta for parameter in network.parameters())
