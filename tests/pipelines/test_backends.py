from dataclasses import replace

import numpy as np
import pytest
import torch

from semiseg.pipelines import backends
from semiseg.pipelines.backends import BACKENDS, open_backend
from semiseg.pipelines.datasets.manifest import Record
from semiseg.pipelines.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def records(photos) -> list[Record]:
    places = zip(photos.images, photos.masks, photos.sizes, strict=True)
    return [Record(image.stem, image, mask, int(h), int(w)) for image, mask, (h, w) in places]


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_makes_the_same_targets_of_the_same_records(photos, records, run, name) -> None:
    if name == "dali":
        pytest.importorskip("nvidia.dali")
    ours, host = run(open_backend(name, records, CPU, 2), photos.planner()), run(photos.host(), photos.planner())
    for _ in range(3):
        (plan, windows), (same_plan, expected) = next(ours), next(host)
        assert np.array_equal(plan.labeled.record, same_plan.labeled.record)
        assert torch.equal(windows.target, expected.target)


@pytest.mark.parametrize(
    ("device", "name", "device_id"), [("cpu", "host", None), ("cuda", "dali", 0), ("cuda:1", "dali", 1)]
)
def test_auto_is_dali_where_there_is_a_gpu(records, monkeypatch, device, name, device_id) -> None:
    opened = []
    monkeypatch.setattr(backends, "HostBackend", lambda *files, **options: opened.append(("host", None)))
    monkeypatch.setattr(backends, "DaliBackend", lambda *files, device_id, **_: opened.append(("dali", device_id)))
    open_backend("auto", records, torch.device(device))
    assert opened == [(name, device_id)]


def test_an_unknown_backend_is_refused(records) -> None:
    with pytest.raises(UsageError, match="'gpu' is unknown; choose one of auto, dali, host"):
        open_backend("gpu", records, CPU)


def test_images_are_checked_against_the_sizes_of_their_records(photos, records, run) -> None:
    wrong = [replace(record, height=record.height + 1) for record in records]
    with pytest.raises(UsageError, match="and was"):
        next(run(open_backend("host", wrong, CPU, 1), photos.planner()))
