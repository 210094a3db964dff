"""The way to the device. Where there is no GPU, CUDA's streams and events are stood in for, and what is asked of them
is looked at."""

import dataclasses
import itertools
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from semiseg.pipelines import lane, loader
from semiseg.pipelines.batch import HELD, Batch, Labeled, Pair
from semiseg.pipelines.lane import CudaLane, Lane, constant, lane_to, leaves, send_together
from semiseg.pipelines.loader import Loader
from semiseg.pipelines.plan import Plan
from semiseg.pipelines.views import KINDS

CPU = torch.device("cpu")
COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_arrives_as_it_was(photos, arrays, kind) -> None:
    plan = photos.planner(kind, batch=3, unlabeled_batch=5)(1)
    sent = send_together(plan, CPU)
    assert type(sent) is Plan
    assert (sent.crop, sent.labeled.fill) == (plan.crop, plan.labeled.fill)
    expected, found = list(arrays(plan)), list(leaves(sent, torch.Tensor))
    assert len(found) == len(expected)
    for tensor, array in zip(found, expected):
        assert tensor.dtype == torch.from_numpy(array.copy()).dtype
        assert tensor.shape == array.shape
        assert np.array_equal(tensor.numpy(), array)


def test_all_arrays_go_by_one_copy_and_lie_where_devices_read_at_once(photos, monkeypatch) -> None:
    copies = []
    monkeypatch.setattr(lane, "send", lambda tensor, device: copies.append(tensor) or tensor)
    found = list(leaves(send_together(photos.planner("pair", batch=0)(0), CPU), torch.Tensor))
    (copy,) = copies
    places = [(tensor.data_ptr() - copy.data_ptr(), tensor.nbytes) for tensor in found]
    assert all(start % 16 == 0 for start, size in places if size)
    assert all(start + size <= after for (start, size), (after, _) in itertools.pairwise(places))
    assert sum(size for _, size in places) <= copy.nbytes


def test_nothing_to_send_is_no_fault() -> None:
    assert send_together((), CPU) == ()


def test_constants_are_made_once() -> None:
    first = constant((0.5, 0.25), CPU)
    assert first is constant((0.5, 0.25), CPU)
    assert first.tolist() == [0.5, 0.25]
    assert constant((0.5,), CPU).tolist() == [0.5]


class Recorder(Lane):
    """What happens, in order."""

    def __init__(self):
        self.events, self.marks = [], 0

    @contextmanager
    def working(self):
        self.events.append("work")
        yield

    def mark(self):
        self.marks += 1
        self.events.append(("mark", self.marks - 1))
        return self.marks - 1

    def wait(self, mark):
        self.events.append(("wait", mark))

    def hand_over(self, batch, mark):
        assert isinstance(batch, Batch)
        self.events.append(("hand over", mark))


def test_windows_are_read_before_they_are_given_back_and_batches_handed_over(photos, monkeypatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(loader, "lane_to", lambda device: recorder)

    def backend(plans):
        for number, item in enumerate(photos.host()(plans)):
            recorder.events.append(("asked for", number))
            yield item

    assert len(list(Loader([photos.planner()], backend, CPU, 0, 6, **COLOURS))) == 6
    events = recorder.events
    assert events[0] == "work"
    for number in range(6):
        asked = events.index(("asked for", number))
        assert asked < events.index(("mark", number)) < events.index(("hand over", number))
        # By now the windows of the one before the last are overwritten.
        waited = [event[1] for event in events[:asked] if event[0] == "wait"]
        assert waited == list(range(number - HELD + 1))


class Event:
    def __init__(self):
        self.told = []

    def record(self, stream):
        self.told.append(("record", stream))

    def synchronize(self):
        self.told.append("synchronize")


def test_a_gpu_has_a_stream_of_its_own_that_steps_wait_for(monkeypatch) -> None:
    waits, context = [], object()
    own, training = object(), SimpleNamespace(wait_event=waits.append)
    for name, stand_in in {
        "Stream": lambda device: own,
        "Event": Event,
        "stream": lambda stream: context if stream is own else None,
        "set_device": waits.append,
        "current_stream": lambda device: training,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    there = torch.device("cuda", 1)
    gpu = lane_to(there)
    assert type(gpu) is CudaLane
    assert gpu.working() is context
    assert waits.pop() == there
    mark = gpu.mark()
    gpu.wait(mark)
    assert mark.told == [("record", own), "synchronize"]

    kept = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: kept.append((tensor, stream)))
    tensors = [torch.zeros(1) for _ in range(9)]
    gpu.hand_over(Batch(Labeled(*tensors[:2]), Pair(*tensors[2:])), mark)
    assert waits == [mark]
    assert all(stream is training for _, stream in kept)
    assert [id(tensor) for tensor, _ in kept] == [id(tensor) for tensor in tensors]


def test_the_cpu_has_nothing_to_wait_for(photos) -> None:
    here = lane_to(CPU)
    assert type(here) is Lane
    here.wait(here.mark())
    here.hand_over(None, here.mark())


def test_no_field_of_a_plan_is_left_behind(photos) -> None:
    sent = send_together(photos.planner("pair")(0), CPU)
    assert not list(leaves(sent, np.ndarray))
    assert {field.name for field in dataclasses.fields(sent)} == {field.name for field in dataclasses.fields(Plan)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_for_another_device_takes_one_copy_of_numbers_and_one_of_each_window(
    photos, run, monkeypatch, kind
) -> None:
    """The device that holds no values stands in for one."""
    there, to, copies = torch.device("meta"), torch.Tensor.to, []
    plan, windows = next(run(photos.host(), photos.planner(kind)))
    constants = [constant(COLOURS[name], there) for name in COLOURS]
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *how, **more: copies.append(how) or to(tensor, *how, **more))
    batch = loader.collate(plan, windows, there, **COLOURS)
    assert all(tensor.device == there for tensor in [*leaves(batch, torch.Tensor), *constants])
    assert len([how for how in copies if how[:1] == (there,)]) == 1 + 2 + KINDS[kind].windows
