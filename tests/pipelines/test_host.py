from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semiseg.pipelines.datasets.manifest import Record, sizes_of
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.host import HostBackend, nearest, place, resize
from semiseg.pipelines.plan import DENOMINATOR
from semiseg.pipelines.views import Augmentation

FILL = (124, 116, 104)


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory):
    """Images whose red is the row and whose green is the column, without loss; masks say the row."""
    folder, sizes = tmp_path_factory.mktemp("coordinates"), [(200, 250), (90, 60), (251, 120)]
    records = []
    for number, (height, width) in enumerate(sizes):
        rows, columns = np.mgrid[:height, :width].astype(np.uint8)
        record = Record(f"{number}", folder / f"{number}.png", folder / f"{number}-mask.png", height, width)
        Image.fromarray(np.dstack([rows, columns, np.full_like(rows, number)])).save(record.image)
        Image.fromarray(rows).save(record.mask)
        records.append(record)
    return records


def upright(window: torch.Tensor, flip: bool) -> np.ndarray:
    return window.numpy()[:, ::-1] if flip else window.numpy()


@pytest.mark.parametrize("filter", ["linear", "cubic"])
def test_both_windows_of_a_pair_show_the_same_pixels_where_they_overlap(coordinates, filter, make_planner, run) -> None:
    augmentation = Augmentation(range=(0.8, 2.0), filter=filter)
    options = dict(crop=96, unlabeled_batch=6, seed=3, labeled=augmentation, unlabeled=augmentation)
    planner = make_planner(sizes_of(coordinates), **options)
    backend = run(HostBackend(coordinates, threads=2), planner)
    shown = 0
    for _ in range(8):
        plan, windows = next(backend)
        stream, overlap = plan.unlabeled[0], plan.overlap
        for row in range(6):
            (h, w), parts = overlap.extent[row], []
            for view, window, corner in zip(stream.views, windows.unlabeled, (overlap.corner1, overlap.corner2)):
                (y, x), whole = corner[row], upright(window[row], view.flip[row])
                parts.append(whole[y : y + h, x : x + w])
                covered = np.zeros((96, 96), bool)
                covered[: view.inside[row][0], : view.inside[row][1]] = True
                assert (whole[~covered] == stream.fill).all()
                # Where a window lies in the source: its rows and columns are those that the plan says.
                step = stream.step[row] / DENOMINATOR
                for axis in range(2):
                    index = np.arange(view.inside[row][axis]) + view.offset[row][axis]
                    source = stream.origin[row][axis] + (index + 0.5) * step - 0.5
                    seen = whole[0, : len(index), 1] if axis else whole[: len(index), 0, 0]
                    assert np.abs(seen - source)[2:-2].max(initial=0) <= 1
                assert (whole[covered][:, 2] == stream.record[row]).all()
            assert np.array_equal(*parts)
            shown += h * w
    assert shown > 0
    backend.close()


def test_targets_follow_their_image(coordinates, make_planner, run) -> None:
    options = dict(crop=96, batch=6, unlabeled_batch=0, seed=1, labeled=Augmentation(filter="linear"))
    planner = make_planner(sizes_of(coordinates), "none", images=([0, 1, 2], []), **options)
    plan, windows = next(run(HostBackend(coordinates, threads=2), planner, 4))
    assert windows.unlabeled == ()
    for row, (h, w) in enumerate(plan.labeled.views[0].inside):
        flip = plan.labeled.views[0].flip[row]
        image, target = upright(windows.labeled[row], flip), upright(windows.target[row], flip)
        apart = np.abs(image[:h, :w, 0].astype(int) - target[:h, :w])
        assert apart.max() <= 1 + plan.labeled.step[row] / DENOMINATOR / 2
        assert (target[h:] == 255).all()
        assert (target[:, w:] == 255).all()


def test_windows_stay_until_the_next_but_one_is_asked_for(photos, run) -> None:
    backend = run(photos.host(), photos.planner("mixed"))
    _, first = next(backend)
    kept = first.labeled.clone(), first.target.clone(), *(view.clone() for view in first.unlabeled)
    next(backend)
    assert all(torch.equal(a, b) for a, b in zip(kept, (first.labeled, first.target, *first.unlabeled)))
    backend.close()


def test_any_step_can_be_started_with(photos, run) -> None:
    backend, planner = photos.host(), photos.planner("pair")
    walk, jump = run(backend, planner), run(backend, planner, 5)
    for _ in range(5):
        next(walk)
    for _ in range(3):
        (_, a), (_, b) = next(walk), next(jump)
        assert torch.equal(a.labeled, b.labeled)
        assert torch.equal(a.target, b.target)
        assert all(torch.equal(x, y) for x, y in zip(a.unlabeled, b.unlabeled))


def test_plans_are_executed_in_their_order_and_the_next_one_is_begun_meanwhile(photos) -> None:
    planner, asked = photos.planner("plain"), []

    def plans():
        for step in (7, 3, 3, 0):
            asked.append(step)
            yield planner(step)

    windows = photos.host()(plans())
    for number, (step, begun) in enumerate(zip((7, 3, 3), (2, 3, 4))):
        plan, _ = next(windows)
        assert np.array_equal(plan.labeled.origin, planner(step).labeled.origin), number
        assert len(asked) == begun
    windows.close()


def test_unlabelled_images_need_no_masks(photos, run) -> None:
    planner = photos.planner("plain", batch=0)
    _, windows = next(run(photos.host(records=[replace(record, mask=None) for record in photos.records]), planner))
    assert windows.labeled.shape == (0, 128, 128, 3)
    assert windows.unlabeled[0].shape == (2, 128, 128, 3)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), (b"", "cannot be decoded"), (b"no image", "cannot be decoded"), (20, "was 375x500")],
)
def test_a_file_that_changed_is_named(photos, run, tmp_path, content, says) -> None:
    broken = tmp_path / "broken.png"
    if isinstance(content, int):
        Image.new("RGB", (content, content)).save(broken)
    elif content is not None:
        broken.write_bytes(content)
    backend = photos.host(records=[replace(photos.records[0], image=broken)] * len(photos.records))
    with pytest.raises(UsageError, match=f"broken.png: .*{says}") as raised:
        next(run(backend, photos.planner("none")))
    assert "\n" not in str(raised.value)


@given(origin=st.integers(0, 50), step=st.integers(1, 4096), extent=st.integers(1, 40))
def test_nearest_is_the_value_under_the_centre(origin, step, extent) -> None:
    length = origin + extent * 4 + 1
    mask = np.tile(np.arange(length, dtype=np.int64), (length, 1))
    seen = nearest(mask, np.array([origin, origin]), step, np.array([extent, extent]))
    exact = [(2 * DENOMINATOR * origin + (2 * i + 1) * step) // (2 * DENOMINATOR) for i in range(extent)]
    assert (seen == exact).all()
    assert (nearest(mask.T, np.array([origin, origin]), step, np.array([extent, extent])) == np.c_[exact]).all()


@pytest.mark.parametrize(
    ("filter", "theirs"), [("cubic", Image.Resampling.BICUBIC), ("antialiased", Image.Resampling.BILINEAR)]
)
def test_filters_with_antialiasing_are_pillow_s(filter, theirs, photos) -> None:
    photo = np.array(Image.open(photos.records[0].image))
    for height, width in ((150, 200), (300, 400), (600, 800)):
        expected = np.array(Image.fromarray(photo).resize((width, height), theirs))
        ours = resize(photo, photo.shape[0] * DENOMINATOR // height, np.array([height, width]), filter)
        difference = np.abs(ours.astype(int) - expected)
        assert difference.mean() < 0.07
        assert difference.max() <= 3


def test_bilinear_is_opencv_s(photos) -> None:
    photo = np.array(Image.open(photos.records[1].image))[:332, :332]
    theirs = cv2.resize(photo, (83, 83), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize(photo, 4 * DENOMINATOR, np.array([83, 83]), "linear").astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("inside", [(5, 6), (3, 4), (5, 2), (1, 6)])
def test_padding_lies_at_the_bottom_and_right_before_the_flip(flip, inside) -> None:
    region = np.random.default_rng(0).integers(0, 200, (9, 9, 3), dtype=np.uint8)
    expected = np.full((5, 6, 3), FILL, np.uint8)
    h, w = inside
    expected[:h, :w] = region[2 : 2 + h, 1 : 1 + w]
    for fill, source, wanted in (
        (FILL, region, expected),
        (255, region[..., 0], np.where(expected == FILL, 255, expected)[..., 0]),
    ):
        out = np.zeros((5, 6, *source.shape[2:]), np.uint8)
        place(source, np.array([2, 1]), np.array(inside), flip, fill, out)
        assert np.array_equal(out[:, ::-1] if flip else out, wanted)


@pytest.mark.parametrize("filter", ["cubic", "antialiased", "linear"])
@pytest.mark.parametrize("sizes", [(320, 320), (320, 250), (250, 320)])
def test_a_region_that_nearly_keeps_its_size_is_resampled_all_the_same(filter, sizes) -> None:
    """With 1022 / 1024 source pixels a pixel, 320 pixels are made of 320, and pixel i shows what lies at
    (i + 1/2) 1022 / 1024 - 1/2: in an image whose levels are a steep wave, that is far from what lies at i."""
    height, width = sizes
    y, x = np.mgrid[:height, :width] / 2.0
    waves = np.dstack([127 + 100 * np.sin(y), 127 + 100 * np.sin(x), 127 + 100 * np.sin(x + y)])
    y, x = (((np.arange(size) + 0.5) * 1022 / 1024 - 0.5) / 2 for size in (height, width))
    y, x = np.meshgrid(y, x, indexing="ij")
    exact = np.dstack([127 + 100 * np.sin(y), 127 + 100 * np.sin(x), 127 + 100 * np.sin(x + y)])
    ours = resize(waves.round().astype(np.uint8), 1022, np.array(sizes), filter)
    assert ours.shape == (height, width, 3)
    inner = np.abs(ours - exact)[4:-4, 4:-4]
    assert inner.mean() < 3
    assert inner.max() < 13
