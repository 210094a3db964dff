"""What a save costs, measured in parts."""

from __future__ import annotations

import pytest
import torch

import bench_save
from semiseg.engine.device import Precision


def test_a_save_is_measured_in_parts():
    setting = {"backbone": "resnet18", "crop": 32, "batch": 2, "head_width": 16}
    found = bench_save.measure(setting, Precision("fp32", torch.device("cpu")), rounds=1)
    weights = 4 * 11.2  # MB of a ResNet-18 in single precision
    assert 2 * weights < found["state_mb"] < 2.2 * weights  # and as much momentum
    assert min(found[name] for name in ("step_s", "copy_s", "write_s", "write_cpu_s")) > 0
    assert found["lost_pct"] == pytest.approx((found["copy_s"] + found["write_cpu_s"]) / 3, abs=1e-3)
