"""The embedded data set: drawn once, whole or not at all, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.datasets import shapes
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.manifest import prepare


@pytest.fixture
def small(monkeypatch):
    """Twelve training and four validation images."""
    monkeypatch.setattr(shapes, "TRAIN", 12)
    monkeypatch.setattr(shapes, "VAL", 4)


def test_draws_itself_into_the_cache_once(own_cache, small):
    dataset = find_dataset("shapes", None)
    assert dataset.layout == "shapes"
    assert dataset.classes == shapes.CLASSES
    assert (len(dataset.train), len(dataset.val)) == (12, 4)
    drawn = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.jpg")}
    assert len(drawn) == 16
    assert find_dataset("shapes", None) == dataset
    assert drawn == {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.jpg")}
    assert sum(prepare(dataset).histogram) > 0


def test_an_interrupted_drawing_leaves_nothing(own_cache, small, monkeypatch):
    draw = shapes.draw

    def stop(number):
        if number == 3:
            raise KeyboardInterrupt
        return draw(number)

    monkeypatch.setattr(shapes, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
        shapes.find()
    assert not list(own_cache.iterdir())


def test_a_picture_is_a_function_of_its_number():
    image, mask = shapes.draw(7)
    again, same = shapes.draw(7)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, same)
    assert (image.shape, mask.shape) == ((96, 128, 3), (96, 128))
    assert not np.array_equal(image, shapes.draw(8)[0])


def test_every_class_occurs_and_no_other_value():
    masks = np.stack([shapes.draw(number)[1] for number in range(24)])
    assert set(np.unique(masks)) == {*range(len(shapes.CLASSES)), 255}
    assert 0.4 < (masks == 0).mean() < 0.9


def test_no_colour_is_reserved_for_a_class():
    """The hue of a class strays: colour alone does not tell the neighbours apart."""
    hues = {label: [] for label in range(1, 7)}
    for number in range(60):
        image, mask = shapes.draw(number)
        hue = np.asarray(Image.fromarray(image).convert("HSV"))[..., 0].astype(float) * 360 / 255
        for label in hues:
            if (mask == label).sum() > 50:
                angle = np.deg2rad(hue[mask == label])
                hues[label].append(np.rad2deg(np.arctan2(np.sin(angle).mean(), np.cos(angle).mean())) % 360)
    apart = {label: np.abs((np.array(v) - 60 * label + 180) % 360 - 180) for label, v in hues.items()}
    astray = np.concatenate(list(apart.values()))
    assert np.median(astray) < 30
    assert (astray > 20).mean() > 0.1


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("hue", [None, 200.0])
def test_a_box_of_a_texture_is_cut_from_the_whole(seed, hue):
    whole, part = (
        shapes.texture(np.random.default_rng(seed), np.array([40, 60]), hue, box)
        for box in (np.s_[:, :], np.s_[7:19, 20:53])
    )
    np.testing.assert_array_equal(part, whole[7:19, 20:53])
