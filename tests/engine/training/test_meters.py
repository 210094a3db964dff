"""Meters: means of what there was, and time that counts."""

from __future__ import annotations

import time

import pytest
import torch

from semiseg.engine.training.meters import Meters, describe

CPU = torch.device("cpu")


def test_a_term_that_begins_late_is_averaged_over_its_own_steps(tiny):
    meters = Meters(tiny("cac"), CPU)
    meters.add({"loss": torch.tensor(1.0)})
    meters.add({"loss": torch.tensor(2.0), "contrastive": torch.tensor(8.0)})
    line = meters.read(2, 0.01)
    assert (line["loss"], line["loss/contrastive"]) == (1.5, 8.0)
    meters.add({"loss": torch.tensor(5.0)})
    assert meters.read(3, 0.01)["loss"] == 5.0


def test_waiting_for_data_counts_and_evaluation_does_not(tiny):
    def slow():
        yield 0
        time.sleep(0.05)
        yield 1

    meters = Meters(tiny("supervised", steps=4), CPU)
    for _ in meters.waited(slow()):
        meters.add({"loss": torch.tensor(1.0)})
    meters.pause()
    time.sleep(0.3)
    meters.resume()
    line = meters.read(2, 0.01)
    assert line["data_wait_pct"] > 50
    assert line["images_per_s"] == pytest.approx(4 / 0.05, rel=0.5)
    assert line["compute_images_per_s"] > line["images_per_s"]
    assert "ETA" in describe(line, 4)
