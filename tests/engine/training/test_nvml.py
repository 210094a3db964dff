"""What a GPU tells of itself, and that one which tells nothing stops nobody."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from semiseg.engine.training.nvml import Gpu


class NVMLError(Exception):
    pass


def refuse(*_) -> None:
    raise NVMLError


@pytest.fixture
def nvml(monkeypatch):
    """A driver that knows one device, under its identifier, and neither its clock nor its utilisation."""
    told = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID={"GPU-7": "handle"}.get,
        nvmlDeviceGetUtilizationRates=refuse,
        nvmlDeviceGetClockInfo=refuse,
        nvmlDeviceGetPowerUsage={"handle": 250_500}.get,
        nvmlDeviceGetTotalEnergyConsumption={"handle": 12_500}.get,
    )
    monkeypatch.setitem(sys.modules, "pynvml", told)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=7))
    return told


def test_units_are_watts_and_joules_and_what_is_not_told_is_left_out(nvml):
    gpu = Gpu(torch.device("cuda"))
    assert gpu.read() == {"gpu_watt": 250.5}
    assert gpu.joules() == 12.5
    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert gpu.joules() is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_nvml_nothing_is_told(monkeypatch, device):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpu = Gpu(torch.device(device))
    assert gpu.read() == {}
    assert gpu.joules() is None
