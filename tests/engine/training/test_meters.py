"""Meters: means of what there was, and time that counts."""

from __future__ import annotations

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
    now = 0.0

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    def batches():
        spend(7)  # the first batch: the pipeline starts
        yield 0
        spend(3)
        yield 1

    meters = Meters(tiny("supervised", steps=4), CPU, clock=lambda: now)
    for _ in meters.waited(batches()):
        spend(1)
        meters.add({"loss": torch.tensor(1.0)})
    meters.pause()
    spend(100)  # an evaluation
    meters.resume()
    line = meters.read(2, 0.01)
    assert line["data_wait_pct"] == 60  # 3 of 1 + 3 + 1 seconds
    assert line["images_per_s"] == 2 * 2 / 5
    assert line["compute_images_per_s"] == 2 * 2 / 2
    assert line["eta_s"] == 5
    assert "ETA 0:00:05" in describe(line, 4)
    assert (meters.images_per_s, meters.data_wait_pct) == (4 / 5, 60)
