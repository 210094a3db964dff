import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.pipelines import backends
from semiseg.pipelines.backends import BACKENDS, available, backends_to_check, open_backend
from semiseg.pipelines.datasets.manifest import Record
from semiseg.pipelines.datasets.pack import packed_bytes
from semiseg.pipelines.decode import turned_back
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.host import HostBackend
from semiseg.pipelines.resident import ResidentBackend
from semiseg.pipelines.watch import Mark, hash_of, stamp_of

CPU = torch.device("cpu")


@pytest.fixture
def records(photos) -> list[Record]:
    return photos.records


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_makes_the_same_targets_of_the_same_records(photos, records, run, own_cache, name) -> None:
    if name not in available():
        pytest.skip("needs NVIDIA DALI")
    ours, host = run(open_backend(name, records, CPU, 2), photos.planner()), run(photos.host(), photos.planner())
    for _ in range(3):
        (plan, windows), (same_plan, expected) = next(ours), next(host)
        assert np.array_equal(plan.labeled.record, same_plan.labeled.record)
        assert torch.equal(windows.target, expected.target)


@pytest.mark.parametrize("turns", [*((turn, turn) for turn in range(2, 9)), (6, 1), (1, 8)])
@pytest.mark.parametrize("name", BACKENDS)
def test_turned_files_are_cut_as_upright_ones(tmp_path, own_cache, make_planner, run, name, turns) -> None:
    """Where picture and mask are turned, or one of them."""
    if name not in available():
        pytest.skip("needs NVIDIA DALI")
    rng = np.random.default_rng(turns)
    image, mask = rng.integers(0, 256, (60, 90, 3), np.uint8), rng.integers(0, 9, (60, 90), np.uint8)
    records = []
    for folder, stored in (("upright", (1, 1)), ("turned", turns)):
        (tmp_path / folder).mkdir()
        paths = tmp_path / folder / "image.png", tmp_path / folder / "mask.png"
        for path, pixels, turn in zip(paths, (image, mask), stored, strict=True):
            exif = Image.Exif()
            exif[0x0112] = turn
            Image.fromarray(turned_back(pixels, turn)).save(path, exif=exif)
        marks = (Mark(stamp_of(os.stat(path)), hash_of(path.read_bytes()), turn) for path, turn in zip(paths, stored))
        records.append(Record("image", *paths, 60, 90, *marks))
    planner = make_planner([(60, 90)], crop=48)
    upright, turned = (run(open_backend(name, [record], CPU, 1, folder=tmp_path), planner) for record in records)
    for (_, expected), (_, windows), _ in zip(upright, turned, range(3), strict=False):
        assert torch.equal(windows.target, expected.target)
        assert torch.equal(windows.labeled, expected.labeled)
        assert all(map(torch.equal, windows.unlabeled, expected.unlabeled))


@pytest.mark.parametrize(
    ("device", "name", "device_id"), [("cpu", "host", None), ("cuda", "dali", 0), ("cuda:1", "dali", 1)]
)
def test_auto_is_dali_where_there_is_a_gpu(records, monkeypatch, device, name, device_id) -> None:
    opened = []
    monkeypatch.setattr(backends, "HostBackend", lambda *files, **options: opened.append(("host", None)))
    monkeypatch.setattr(backends, "DaliBackend", lambda *files, device_id, **_: opened.append(("dali", device_id)))
    open_backend("auto", records, torch.device(device))
    assert opened == [(name, device_id)]


@pytest.mark.parametrize(
    ("device", "name", "decoded", "asked"),
    [
        ("cpu", "auto", True, []),
        ("cpu", "dali", False, []),
        ("cpu", "resident", True, []),
        ("cuda", "host", True, []),
        ("cuda", "auto", False, ["dali", "dali_whole"]),
        ("cuda", "auto", True, ["resident", "dali", "dali_whole"]),
        ("cuda", "dali", True, ["dali"]),
        ("cuda", "dali_whole", False, ["dali_whole"]),
        ("cuda", "resident", False, ["resident"]),
    ],
)
def test_what_works_on_a_gpu_is_to_be_checked_there(monkeypatch, device, name, decoded, asked) -> None:
    monkeypatch.setattr(backends, "installed", lambda: True)
    assert backends_to_check(name, torch.device(device), decoded) == asked
    monkeypatch.setattr(backends, "installed", lambda: False)
    assert backends_to_check(name, torch.device(device), decoded) == [one for one in asked if one == "resident"]
    assert available() == ["host", "resident"]


def test_auto_on_a_gpu_without_dali_is_host(records, monkeypatch) -> None:
    said = []
    monkeypatch.setattr(backends, "installed", lambda: False)
    assert type(open_backend("auto", records, torch.device("cuda"), 1, say=said.append)) is HostBackend
    assert said == ["backend host: NVIDIA DALI, which decodes on the GPU, is not installed"]


def test_auto_on_a_gpu_goes_on_with_what_needs_no_check(records, monkeypatch, tmp_path) -> None:
    """Where the pack cannot be made: of DALI nobody knows whether it can be trusted."""
    said = []
    (tmp_path / "pack").write_text("a file where the folder would be")
    monkeypatch.setattr(backends, "DaliBackend", None)
    backend = open_backend("auto", records, torch.device("cuda"), 1, folder=tmp_path, say=said.append)
    assert type(backend) is HostBackend
    assert said[-1].startswith("backend host: cannot write the pack")


@pytest.mark.parametrize(("kernel", "room"), [(True, 4), (True, 3.99), (False, 4)])
@pytest.mark.parametrize("name", ["auto", "resident"])
def test_decoded_images_lie_in_the_memory_of_a_gpu_where_they_fit(
    records, tmp_path, monkeypatch, name, kernel, room
) -> None:
    """In a quarter of it, and where a kernel cuts them; `auto` takes them rather than DALI, as the set is small."""
    opened, said = [], []
    monkeypatch.setattr(backends, "memory_of_gpu", lambda device: room * packed_bytes(records))
    monkeypatch.setattr(backends, "has_kernel", lambda operator, device: kernel and operator == "cut_windows")
    monkeypatch.setattr(backends, "DeviceResidentBackend", lambda pack, *files: opened.append(files[-1]))
    backend = open_backend(name, records, torch.device("cuda:1"), 1, folder=tmp_path, say=said.append)
    if kernel and room == 4:
        assert backends.bytes_on(torch.device("cuda:1"), "resident", records) == packed_bytes(records)
        assert backends.bytes_on(torch.device("cuda:1"), "dali", records) == 0
        assert backends.bytes_on(CPU, "resident", records) == 0
        assert opened == [torch.device("cuda:1")]
        assert said[-1] == "backend resident: 1.9 MiB of decoded images in the GPU's memory"
    else:
        assert isinstance(backend, ResidentBackend)
        assert backend.pinned
        assert backends.bytes_on(torch.device("cuda:1"), "resident", records) == 0
        assert said[-1] == "backend resident: 1.9 MiB of decoded images stay in host memory"


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
@pytest.mark.parametrize("name", ["host", "resident"])
def test_windows_for_a_gpu_lie_in_pinned_memory(
    records, run, photos, own_cache, monkeypatch, name, device, pinned
) -> None:
    monkeypatch.setattr(backends, "memory_of_gpu", lambda device: 0)  # so that decoded images stay in the host's
    backend, asked, empty = open_backend(name, records, torch.device(device), 1), set(), torch.empty

    def unpinned(*shape, pin_memory=False, **more):
        asked.add(pin_memory)
        return empty(*shape, **more)

    monkeypatch.setattr(torch, "empty", unpinned)
    next(run(backend, photos.planner("pair")))
    assert asked == {pinned}


@pytest.fixture
def auto(records, own_cache):
    """`auto(folder)`: what `auto` opens without a GPU, and what it says."""

    def opened(folder):
        said = []
        return open_backend("auto", records, CPU, 1, folder=folder, say=said.append), said

    return opened


def test_auto_packs_a_small_set_and_takes_a_pack_that_is_there(auto, records, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(backends, "SMALL", packed_bytes(records) - 1)
    assert not isinstance(auto(tmp_path)[0], ResidentBackend)
    monkeypatch.setattr(backends, "SMALL", packed_bytes(records))
    backend, said = auto(tmp_path)
    assert isinstance(backend, ResidentBackend)
    assert said == [f"packing 7 images: 1.9 MiB into {tmp_path / 'pack'}"]
    monkeypatch.setattr(backends, "SMALL", 0)
    backend, said = auto(tmp_path)
    assert isinstance(backend, ResidentBackend)
    assert not said


@pytest.mark.parametrize(("asked", "cutting"), [(1, 1), (16, 4)])
def test_few_threads_cut_what_is_decoded_and_all_pack_it(records, tmp_path, monkeypatch, asked, cutting) -> None:
    packing, pack = [], backends.open_pack
    monkeypatch.setattr(backends, "open_pack", lambda *a, threads, **b: packing.append(threads) or pack(*a, **b))
    assert open_backend("resident", records, CPU, asked, folder=tmp_path).threads == cutting
    assert packing == [asked]


def test_auto_packs_nothing_where_no_folder_is_known(auto, own_cache) -> None:
    assert not isinstance(auto(None)[0], ResidentBackend)
    assert not own_cache.exists()


def test_auto_goes_on_without_a_pack_that_cannot_be_made_and_resident_does_not(auto, records, tmp_path) -> None:
    (tmp_path / "pack").write_text("a file where the folder would be")
    backend, (line,) = auto(tmp_path)
    assert type(backend) is HostBackend
    assert line.startswith("backend host: cannot write the pack")
    with pytest.raises(UsageError, match="cannot write the pack"):
        open_backend("resident", records, CPU, 1, folder=tmp_path)


def test_an_unknown_backend_is_refused(records) -> None:
    with pytest.raises(UsageError, match="'gpu' is unknown; choose one of auto, dali, dali_whole, host, resident"):
        open_backend("gpu", records, CPU)


def test_images_are_checked_against_the_sizes_of_their_records(photos, records, run) -> None:
    wrong = [replace(record, height=record.height + 1) for record in records]
    with pytest.raises(UsageError, match="and was"):
        next(run(open_backend("host", wrong, CPU, 1), photos.planner()))
