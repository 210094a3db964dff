"""The embedded data set: drawn once, whole or not at all, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.datasets import shapes
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.manifest import prepare
from semiseg.pipelines.errors import UsageError


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


@pytest.mark.parametrize("kept", ["thesis.txt", "classes.txt", "JPEGImages/000000.jpg"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, small, kept):
    (tmp_path / kept).parent.mkdir(exist_ok=True)
    (tmp_path / kept).write_text("mine")
    with pytest.raises(UsageError, match="is not the data set shapes: pass an empty folder, or leave out --data"):
        find_dataset("shapes", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / kept]
    assert (tmp_path / kept).read_text() == "mine"


def test_it_is_drawn_into_an_empty_folder_and_at_home(tmp_path, small, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    assert find_dataset("shapes", "~/here").root == tmp_path / "here"
    assert len(find_dataset("shapes", tmp_path / "here").train) == 12


def test_of_two_that_draw_at_once_the_first_ones_set_stays(tmp_path, small, monkeypatch):
    draw, root, drawn = shapes.draw, tmp_path / "set", {}

    def overtaken(number):
        monkeypatch.setattr(shapes, "draw", draw)
        shapes.write(root)
        drawn.update({path: path.stat().st_ino for path in root.rglob("*.jpg")})
        return draw(number)

    monkeypatch.setattr(shapes, "draw", overtaken)
    assert len(find_dataset("shapes", root).train) == 12
    assert drawn == {path: path.stat().st_ino for path in root.rglob("*.jpg")}
    assert list(tmp_path.iterdir()) == [root]


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
