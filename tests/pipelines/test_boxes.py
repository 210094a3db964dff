"""The laws of boxes against the published samplers, of which UniMatch's tries until a box lies inside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.pipelines.boxes import PER_STRONG_BOX, half_boxes, sometimes_boxes, sometimes_half_boxes
from semiseg.pipelines.draws import ProcessSamples

DRAWS = 40_000


def draw(crop: int, count: int = DRAWS, seed: int = 3, law=sometimes_boxes) -> np.ndarray:
    samples = ProcessSamples(seed=seed, batch=count, rank=0, world=1, shared=1)
    return law(samples.draws(3, 0, PER_STRONG_BOX), crop)


def tried(crop: int, count: int) -> np.ndarray:
    """Boxes as published: the area is drawn once, ratio and corner until the box fits."""
    rng = np.random.default_rng(0)
    area = rng.uniform(0.02, 0.4, count) * crop**2
    boxes, missing = np.zeros((count, 4), int), np.arange(count)
    while len(missing):
        ratio = rng.uniform(0.3, 1 / 0.3, len(missing))
        width, height = np.sqrt(area[missing] / ratio).astype(int), np.sqrt(area[missing] * ratio).astype(int)
        x, y = rng.integers(0, crop, (2, len(missing)))
        boxes[missing] = np.stack([y, x, y + height, x + width], 1)
        missing = missing[(x + width > crop) | (y + height > crop)]
    return boxes


@pytest.mark.parametrize("crop", [100, 321])
def test_boxes_have_the_law_of_those_that_are_tried_until_they_fit(crop) -> None:
    ours = draw(crop)
    there = ours.any(1)
    assert there.mean() == pytest.approx(0.5, abs=0.01)
    theirs = tried(crop, DRAWS)

    def measures(boxes: np.ndarray) -> np.ndarray:
        size, centre = (boxes[:, 2:] - boxes[:, :2]) / crop, (boxes[:, 2:] + boxes[:, :2]) / 2 / crop
        return np.column_stack([size, centre, size.prod(1), np.log(size[:, 0] / size[:, 1])])

    ours, theirs = measures(ours[there]), measures(theirs)
    levels = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
    a, b = (np.quantile(values, levels, axis=0) for values in (ours, theirs))
    assert np.abs(a - b).max() < 0.03
    assert np.abs(np.corrcoef(ours.T) - np.corrcoef(theirs.T)).max() < 0.03


def test_sizes_in_a_small_window_are_as_probable_as_they_fit() -> None:
    """The exact law by integration over area and ratio: density times the share of corners at which a box fits."""
    crop = 12
    area = (0.02 + 0.38 * (np.arange(400) + 0.5) / 400)[:, None] * crop**2
    ratio = 0.3 + (1 / 0.3 - 0.3) * (np.arange(4000) + 0.5) / 4000
    height, width = np.sqrt(area * ratio).astype(int), np.sqrt(area / ratio).astype(int)
    fits = np.clip(crop + 1 - height, 0, crop) * np.clip(crop + 1 - width, 0, crop)
    expected = np.zeros((crop + 12, crop + 12))
    np.add.at(expected, (height, width), fits / fits.sum(1, keepdims=True) / 400)
    boxes = draw(crop)
    boxes = boxes[boxes.any(1)]
    seen = np.zeros_like(expected)
    np.add.at(seen, tuple((boxes[:, 2:] - boxes[:, :2]).T), 1 / len(boxes))
    assert np.abs(seen - expected).max() < 0.006
    # Given the size, every corner is as good as another.
    common = np.unravel_index(expected.argmax(), expected.shape)
    corners = boxes[((boxes[:, 2:] - boxes[:, :2]) == common).all(1), :2]
    assert corners.min(0).tolist() == [0, 0]
    assert corners.max(0).tolist() == [crop - common[0], crop - common[1]]
    assert corners.mean(0) == pytest.approx((crop - np.array(common)) / 2, abs=0.3)


@settings(max_examples=100, deadline=None)
@given(crop=st.integers(4, 2000), seed=st.integers(0, 2**32))
def test_boxes_lie_inside_or_are_all_zeros(crop, seed) -> None:
    boxes = draw(crop, 200, seed)
    assert boxes.dtype == np.int32
    there = boxes.any(1)
    assert 0 < there.mean() < 1
    (y0, x0), (y1, x1) = boxes[there, :2].T, boxes[there, 2:].T
    assert (y0 >= 0).all()
    assert (x0 >= 0).all()
    assert (y1 <= crop).all()
    assert (x1 <= crop).all()
    if crop >= 13:
        assert (y1 > y0).all()
        assert (x1 > x0).all()


@pytest.mark.parametrize("crop", [128, 321])
def test_half_boxes_cover_half_of_every_window_with_a_log_uniform_height(crop) -> None:
    """CutMix-Seg: height 0.5^U and width 0.5 / height, in windows; a corner that is uniform over what is left."""
    boxes = draw(crop, law=half_boxes)
    (y0, x0), size = boxes[:, :2].T, boxes[:, 2:] - boxes[:, :2]
    assert (boxes >= 0).all()
    assert (boxes <= crop).all()
    assert np.abs(size.prod(1) / crop**2 - 0.5).max() < 1.5 / crop  # rounded sides
    levels = np.linspace(0.02, 0.98, 25)
    for side in size.T:
        assert np.quantile(side / crop, levels) == pytest.approx(0.5 ** (1 - levels), abs=0.012)
    for corner, side in ((y0, size[:, 0]), (x0, size[:, 1])):
        room = crop - side > 20
        share = corner[room] / (crop - side[room])
        assert np.quantile(share, levels) == pytest.approx(levels, abs=0.03)
    apart = np.corrcoef(y0 / np.maximum(crop - size[:, 0], 1), x0 / np.maximum(crop - size[:, 1], 1))
    assert np.abs(apart[0, 1]) < 0.02


def test_half_of_the_time_a_box_of_half_the_window_has_any_width_above_half_the_side() -> None:
    """U2PL: of a window of 12, widths 7 to 11 and heights 72 / width, each at every corner where it fits."""
    boxes = draw(12, law=sometimes_half_boxes)
    there = boxes.any(1)
    assert there.mean() == pytest.approx(0.5, abs=0.01)
    expected = {
        (y, x, y + height, x + width): 1 / 5 / (13 - height) / (13 - width)
        for height, width in ((10, 7), (9, 8), (8, 9), (7, 10), (7, 11))
        for y in range(13 - height)
        for x in range(13 - width)
    }
    found, counts = np.unique(boxes[there], axis=0, return_counts=True)
    seen = dict(zip(map(tuple, found.tolist()), counts / there.sum()))
    assert seen.keys() == expected.keys()
    assert [seen[box] for box in expected] == pytest.approx(list(expected.values()), abs=0.004)


@settings(max_examples=100, deadline=None)
@given(crop=st.integers(3, 2000), seed=st.integers(0, 2**32))
def test_boxes_of_half_the_window_lie_inside_or_are_all_zeros(crop, seed) -> None:
    boxes = draw(crop, 200, seed, sometimes_half_boxes)
    assert boxes.dtype == np.int32
    there = boxes.any(1)
    assert 0 < there.mean() < 1
    assert (boxes >= 0).all()
    assert (boxes <= crop).all()
    height, width = (boxes[there, 2:] - boxes[there, :2]).T
    assert (width > crop / 2).all()
    assert (width < crop).all()
    assert (np.abs(height * width - crop**2 / 2) <= width / 2).all()  # a rounded height
