"""The page of the images that a network is least sure of."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from semiseg.engine import predict
from semiseg.engine.evaluation.confidence import UNKNOWN, Confidence
from semiseg.engine.evaluation.review import SHOWN, SIDE, Review
from semiseg.pipelines.errors import UsageError

CLASSES, PALETTE = ("ground", "<car>"), ((0, 0, 0), (255, 0, 0))


def named(page):
    return re.findall(r"<p><b>([^<]*)</b>", page)


def pictures(page):
    found = re.findall(r"data:image/(?:png|jpeg);base64,([^']+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


@pytest.fixture
def page(tmp_path):
    """`page({path: (confidence, use)})` is the page of images that are half unsure of cars."""

    def write(seen, size=(32, 40)):
        review = Review(CLASSES, PALETTE)
        mask = np.ones(size, np.uint8)
        sure = np.full(size, 0.9, np.float32)
        sure[:, : size[1] // 2] = 0.5
        for name, (confidence, use) in seen.items():
            one = Confidence(name, confidence, 50.0, "<car>", use)
            review.look_at(one, np.full((*size, 3), 200, np.uint8), mask, sure)
        review.write(tmp_path / "review.html", "new, seen by <net>")
        return (tmp_path / "review.html").read_text()

    return write


def test_the_least_sure_come_first_those_without_masks_by_themselves(page):
    shown = page({"c": (0.7, ""), "a": (0.9, ""), "d": (0.5, "labels"), "b": (0.7, UNKNOWN), "e": (0.6, "validation")})
    assert named(shown) == ["b", "c", "a", "d", "e"]
    bare, masked = shown.index("Without a mask: worth labelling next (3)"), shown.index("With a mask of the run")
    assert bare < shown.index("<b>b</b>") < masked < shown.index("<b>d</b>")
    assert "0.500, unsure of 50.0 % of the pixels, most of it taken for &lt;car&gt;; its mask: labels" in shown
    assert "<net>" not in shown
    assert "All 5 images are in confidence.csv" in shown


def test_no_more_are_kept_than_are_shown(page):
    seen = {f"{number:03d}": (round(0.001 * (number * 37 % 101), 3), "") for number in range(101)}
    expected = sorted(seen, key=lambda name: (seen[name], name))[:SHOWN]
    assert named(page(seen)) == expected
    assert f"(the least sure {SHOWN})" in page(seen)


@pytest.mark.parametrize("size", [(32, 40), (900, 400), (1, 700)])
def test_pictures_are_small_and_unsure_pixels_striped(page, size):
    picture, overlay, sure = pictures(page({"a": (0.7, "")}, size))
    assert picture.shape == overlay.shape == sure.shape
    assert max(picture.shape) <= SIDE
    half = picture.shape[1] // 2
    assert (sure[:, half + 1 :] == (255, 0, 0)).all()  # a car that it is sure of
    assert (sure[:, : half - 1, 0] == sure[:, : half - 1, 1]).all()  # gray
    assert abs(int(picture.mean()) - 200) < 3
    assert abs(overlay[..., 0].mean() - 227) < 4


def test_nothing_is_shown_of_nothing(page):
    assert "<h2>" not in page({})


def test_a_prediction_writes_it_anew_and_over_nothing_else(checkpoint, tmp_path):
    (tmp_path / "new").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)).save(tmp_path / "new" / name)
    done = predict(checkpoint, tmp_path / "new", tmp_path / "out", device="cpu")
    assert named(done.page.read_text()) == ["a.png", "b.png"]
    (tmp_path / "new/b.png").unlink()
    assert named(predict(checkpoint, tmp_path / "new", tmp_path / "out", device="cpu").page.read_text()) == ["a.png"]
    done.page.write_text("mine")
    with pytest.raises(UsageError, match=r"--out: .*review\.html is there and not of a prediction"):
        predict(checkpoint, tmp_path / "new", tmp_path / "out", device="cpu")
    assert done.page.read_text() == "mine"
    assert done.table.exists()
