"""Meters: means of what there was, and time that counts."""

from __future__ import annotations

import mmap
import time

import pytest
import torch

from semiseg.engine.training.meters import Mark, Meters, describe

CPU = torch.device("cpu")


def test_a_term_that_begins_late_is_averaged_over_its_own_steps(tiny):
    meters = Meters(tiny("cac"), CPU)
    meters.add({"loss": torch.tensor(1.0)})
    meters.add({"loss": torch.tensor(2.0), "contrastive": torch.tensor(8.0)})
    line = meters.read(2, 0.01)
    assert (line["loss"], line["loss/contrastive"]) == (1.5, 8.0)
    meters.add({"loss": torch.tensor(5.0)})
    assert meters.read(3, 0.01)["loss"] == 5.0


def test_peak_memory_is_of_what_follows_and_goes_on_with_the_run(tiny):
    """Neither of what this process held before, nor of what its parent did."""
    recipe, most = tiny("cac"), 400 << 20

    def hold() -> None:
        with mmap.mmap(-1, most) as memory:  # which goes back at once, whatever malloc does with what it frees
            for _ in range(most >> 20):
                memory.write(bytes(1 << 20))

    hold()
    meters = Meters(recipe, CPU)
    before = meters.memory_gib
    hold()
    peak, state = meters.memory_gib, meters.state_dict()
    assert peak - before == pytest.approx(most / 2**30, abs=0.05)
    after = Meters(recipe, CPU)
    assert after.memory_gib == pytest.approx(before, abs=0.05)
    after.load_state_dict(state)
    assert after.memory_gib >= peak


def test_crops_without_any_label_are_counted_and_the_count_goes_on_with_the_run(tiny):
    target = torch.full((4, 8, 8), 255, dtype=torch.uint8)
    target[0, 3, 4] = 0
    meters = Meters(tiny("cac"), CPU)
    meters.add({"loss": torch.tensor(1.0)})
    meters.look_at(target)
    after = Meters(tiny("cac"), CPU)
    after.load_state_dict(meters.state_dict())
    for one in (meters, after):
        one.add({"loss": torch.tensor(2.0)})
        one.look_at(torch.zeros(4, 8, 8, dtype=torch.uint8))
        line = one.read(2, 0.01)
        assert line["ignored_crops_pct"] == 37.5  # 3 of 8
        assert "loss/ignored_crops_pct" not in line


def test_steps_that_changed_nothing_are_counted_and_said(tiny):
    meters = Meters(tiny("supervised", steps=9), CPU)
    for skipped in (True, False, True, True):
        meters.add({"loss": torch.tensor(1.0)})
        meters.count_skipped(torch.tensor(skipped))
    line = meters.read(4, 0.01)
    assert line["skipped_steps_pct"] == 75.0
    assert "steps skipped 75 %" in describe(line, 9)
    meters.add({"loss": torch.tensor(1.0)})
    assert "skipped" not in describe(meters.read(5, 0.01), 9)


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

    meters = Meters(tiny("supervised", steps=4, eval_every=2), CPU, clock=lambda: now)
    for _ in meters.waited(batches()):
        spend(1)
        meters.add({"loss": torch.tensor(1.0)})
    line = meters.read(2, 0.01)
    assert line["data_wait_pct"] == 60  # 3 of 1 + 3 + 1 seconds
    assert line["images_per_s"] == 2 * 2 / 5
    assert line["compute_images_per_s"] == 2 * 2 / 2
    assert line["eta_s"] == 5
    assert "ETA 0:00:05" in describe(line, 4)
    with meters.aside() as evaluated:
        spend(100)
        evaluated()
    assert (meters.images_per_s, meters.data_wait_pct) == (4 / 5, 60)


@pytest.mark.parametrize(("steps", "left"), [(4, [6, 3, 100 + 4 / 3, 100]), (5, [8, 4.5, 200 + 8 / 3, 201.25, 100])])
def test_the_time_left_is_that_of_steps_and_of_evaluations_as_they_have_been(tiny, steps, left):
    """One every two steps and one at the end; of a run that goes on after each step, from the save behind it."""
    now, found, state = [0.0], [], None
    for step in range(1, steps + 1):
        meters = Meters(tiny("supervised", steps=steps, eval_every=2), CPU, clock=lambda: now[0])
        if state:
            meters.load_state_dict(state)
        now[0] += 2 if step == 1 else 1
        meters.add({"loss": torch.tensor(1.0)})
        found.append(meters.read(step, 0.01)["eta_s"])
        state = meters.state_dict()
        if step % 2 == 0:
            with meters.aside() as evaluated:
                now[0] += 100
                evaluated()
                state = meters.state_dict()
    assert found == pytest.approx(left)


def test_mfu_is_the_time_of_the_products_at_the_peak_beside_the_time_that_passed(tiny):
    now = iter([0.0, 8.0, 8.0])
    meters = Meters(tiny("supervised"), CPU, clock=lambda: next(now), fastest_step=0.5)
    for _ in range(4):
        meters.add({"loss": torch.tensor(1.0)})
    line = meters.read(4, 0.01)
    assert line["mfu_pct"] == 25  # four steps of half a second in eight
    assert "MFU 25 %" in describe(line, 4)


class Device:
    """Works through what it is asked for in order, beside a host that goes on at once."""

    def __init__(self):
        self.host = self.busy_until = 0.0

    def work(self, seconds: float) -> None:
        self.busy_until = max(self.host, self.busy_until) + seconds

    def wait_until(self, time: float) -> None:
        self.busy_until = max(self.host, self.busy_until, time)

    def mark(self) -> Mark:
        device = self

        class Event:
            def record(self):
                self.at = max(device.host, device.busy_until)

            def elapsed_time(self, end):
                return 1000 * (end.at - self.at)

        return Event()


def data_wait(tiny, device: Device, batches) -> float:
    meters = Meters(
        tiny("supervised", steps=9), CPU, clock=lambda: max(device.host, device.busy_until), mark=device.mark
    )
    for _ in meters.waited(batches):
        device.work(2)
        meters.add({"loss": torch.tensor(1.0)})
    return meters.read(3, 0.01)["data_wait_pct"]


def test_a_host_that_waits_while_the_device_works_is_no_data_wait(tiny):
    device = Device()

    def batches():
        yield 0
        device.host += 1.5  # the device needs 2 seconds for the step before
        yield 1
        device.host += 1.5
        yield 2

    assert data_wait(tiny, device, batches()) == 0


def test_a_device_that_waits_for_a_copy_is_data_wait_though_the_host_has_the_batch_at_once(tiny):
    device = Device()

    def batches():
        yield 0
        device.wait_until(device.busy_until + 1)
        yield 1
        device.wait_until(device.busy_until + 1)
        yield 2

    assert data_wait(tiny, device, batches()) == 25  # 2 of 3 * 2 + 2 seconds


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_tells_how_long_it_waited(tiny):
    device = torch.device("cuda")
    meters = Meters(tiny("supervised", steps=9), device)
    x = torch.randn(2048, 2048, device=device)
    (x @ x).sum().item()  # the first one makes what cuBLAS needs

    def batches():
        yield 0
        for number in range(1, 3):
            torch.cuda.synchronize()
            time.sleep(0.05)
            yield number

    for _ in meters.waited(batches()):
        meters.add({"loss": (x @ x).sum()})
    line = meters.read(3, 0.01)
    assert line["data_wait_pct"] > 50
