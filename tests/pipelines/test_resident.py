from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semiseg.pipelines.datasets.manifest import Record, sizes_of
from semiseg.pipelines.datasets.pack import open_pack
from semiseg.pipelines.host import HostBackend
from semiseg.pipelines.loader import Loader
from semiseg.pipelines.resident import DeviceResidentBackend, ResidentBackend
from semiseg.pipelines.views import KINDS, Augmentation

FILTERS = ["cubic", "linear"]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]


def tensors(windows) -> list[torch.Tensor]:
    return [windows.target, windows.labeled, *windows.unlabeled]


def equal(ours, theirs, steps: int) -> bool:
    """Whether the windows of so many steps are the same, each of them."""
    return all(
        torch.equal(x, y)
        for _ in range(steps)
        for x, y in zip(tensors(next(ours)[1]), tensors(next(theirs)[1]), strict=True)
    )


@pytest.fixture(scope="module")
def resident(photos, tmp_path_factory) -> ResidentBackend:
    """Over the photographs."""
    pack = open_pack(photos.records, tmp_path_factory.mktemp("cache"))
    return ResidentBackend(pack, photos.records, threads=2)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_those_of_host(photos, resident, run, kind, filter) -> None:
    planner = photos.planner(kind, filter)
    assert equal(run(resident, planner, 3), run(photos.host(), planner, 3), 10)


def test_windows_are_those_of_host_with_padding_all_round(photos, resident, run) -> None:
    published = Augmentation(filter="linear", crop_off_by_one=True, padding="centre")
    planner = photos.planner("plain", "linear", labeled=published, unlabeled=published)
    assert equal(run(resident, planner), run(photos.host(), planner), 10)


def test_nothing_is_decoded(photos, resident, run, monkeypatch) -> None:
    def fail(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("cv2.imdecode", fail)
    next(run(resident, photos.planner("pair")))
    with pytest.raises(AssertionError, match="decoded"):
        next(run(photos.host(), photos.planner("pair")))


def test_any_step_can_be_started_with(photos, resident, run) -> None:
    planner = photos.planner("pair")
    walk = run(resident, planner)
    for _ in range(5):
        next(walk)
    assert equal(run(resident, planner, 5), walk, 3)


def test_the_loader_makes_of_it_the_same_batches(photos, resident) -> None:
    def images(backend, start: int) -> list[torch.Tensor]:
        colours = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        batches = Loader([photos.planner("pair")], backend, torch.device("cpu"), start, 4, **colours)
        return [image for b in batches for image in (b.labeled.image, b.labeled.target.float(), b.unlabeled.image2)]

    whole, tail = images(resident, 0), images(resident, 2)
    assert all(torch.equal(x, y) for x, y in zip(whole, images(photos.host(), 0), strict=True))
    assert all(torch.equal(x, y) for x, y in zip(whole[6:], tail, strict=True))


def test_the_pack_stays_as_it_is(photos, resident, run) -> None:
    before = [resident.image(number).copy() for number in range(len(photos.records))]
    windows = run(resident, photos.planner("pair"))
    for _ in range(10):
        for tensor in tensors(next(windows)[1]):
            tensor.zero_()  # what a window is made of must not be the pack itself
    assert all(np.array_equal(resident.image(number), image) for number, image in enumerate(before))


@pytest.fixture(scope="module", params=DEVICES)
def on_device(request, photos, resident) -> DeviceResidentBackend:
    """The same photographs in the memory of a device."""
    return DeviceResidentBackend(resident.pack, photos.records, torch.device(request.param))


def near(ours, theirs, steps: int) -> float:
    """The mean difference of the images, in grey levels, where labels are the same."""
    differences = []
    for _ in range(steps):
        (_, one), (_, other) = next(ours), next(theirs)
        assert torch.equal(one.target.cpu(), other.target)
        pairs = zip((one.labeled, *one.unlabeled), (other.labeled, *other.unlabeled), strict=True)
        differences += [(x.cpu().int() - y.int()).abs().flatten() for x, y in pairs]
    difference = torch.cat(differences).float()
    assert (difference <= 1).float().mean() > 0.999
    return float(difference.mean())


@pytest.mark.parametrize(("filter", "most"), [("cubic", 0.25), ("antialiased", 0.25), ("linear", 1e-3)])
@pytest.mark.parametrize("kind", KINDS)
def test_windows_made_on_a_device_are_those_of_host(photos, on_device, run, kind, filter, most) -> None:
    planner = photos.planner(kind, filter)
    assert near(run(on_device, planner, 3), run(photos.host(), planner, 3), 4) <= most


def test_windows_made_on_a_device_are_padded_as_those_of_host(photos, on_device, run) -> None:
    published = Augmentation(filter="linear", crop_off_by_one=True, padding="centre", range=(0.3, 1.0))
    planner = photos.planner("plain", "linear", labeled=published, unlabeled=published)
    assert near(run(on_device, planner), run(photos.host(), planner), 10) <= 1e-3


def test_unlabelled_images_on_a_device_need_no_masks(photos, resident, run) -> None:
    first, *others = photos.records
    records = [first, *(replace(record, mask=None) for record in others)]
    backend = DeviceResidentBackend(resident.pack, records, torch.device("cpu"))
    planner = photos.planner("plain", "linear", images=([0], range(1, len(records))))
    host = photos.host(records=records)
    assert near(run(backend, planner), run(host, planner), 4) <= 1e-3


def coordinates(folder: Path, height: int, width: int) -> tuple[Path, Path]:
    """An image whose red is the row and whose green is the column, and a mask of row + 3 columns, without loss."""
    image, mask = folder / f"{height}x{width}.png", folder / f"{height}x{width}-mask.png"
    if not mask.exists():
        rows, columns = np.mgrid[:height, :width].astype(np.uint8)
        Image.fromarray(np.dstack([rows, columns, 0 * rows])).save(image)
        Image.fromarray((rows + 3 * columns) % 251).save(mask)
    return image, mask


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    crop=st.integers(4, 24),
    filter=st.sampled_from(FILTERS),
    seed=st.integers(0, 999),
    centre=st.booleans(),
)
def test_windows_of_any_image_are_those_of_host(
    tmp_path_factory, make_planner, run, height, width, crop, filter, seed, centre
) -> None:
    folder = tmp_path_factory.getbasetemp() / "coordinates"
    folder.mkdir(exist_ok=True)
    image, mask = coordinates(folder, height, width)
    records = [Record("one", image, mask, height, width)]
    pack = open_pack(records, folder / "cache")
    padding = {"crop_off_by_one": centre, "padding": "centre" if centre else "corner"}
    augmentation = Augmentation(filter=filter, range=(0.3, 3.0), **padding)
    options = dict(crop=crop, batch=3, unlabeled_batch=2, seed=seed, labeled=augmentation, unlabeled=augmentation)
    planner = make_planner(sizes_of(records), "plain" if centre else "pair", **options)
    host, ours = HostBackend(records, threads=1), ResidentBackend(pack, records, threads=1)
    plan, windows = next(run(ours, planner))
    assert equal(run(ours, planner), run(host, planner), 2)

    # And the target by its definition: the value under the centre of each pixel, padding around it, then the flip.
    view, stream = plan.labeled.views[0], plan.labeled
    rows, columns = np.mgrid[:height, :width]
    truth = (rows + 3 * columns) % 251
    for row, target in enumerate(windows.target.numpy()):
        (y, x), (h, w), (top, left) = stream.origin[row], view.inside[row], view.pad[row]
        step, expected = int(stream.step[row]), np.full((crop, crop), 255)
        at = [np.arange(n) * step + step // 2 for n in (h, w)]
        expected[top : top + h, left : left + w] = truth[y + at[0] // 1024][:, x + at[1] // 1024]
        assert np.array_equal(target, expected[:, ::-1] if view.flip[row] else expected)
