"""`semiseg show`: the pixels that training sees, drawn and described."""

import json

import numpy as np
import pytest
from PIL import Image

ROW = ("--layout", "folder", "--data")


@pytest.fixture
def refused(semiseg, tmp_path):
    """The one line of an exit with code 2 that leaves no picture behind."""

    def run(*arguments):
        code, _, err = semiseg("show", *arguments)
        assert code == 2
        (line,) = err.strip().splitlines()
        assert not list(tmp_path.rglob("show.png"))
        return line

    return run


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_pictures_of_several_images_and_what_is_said_of_them(semiseg, folder_root, tmp_path):
    root = folder_root()
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.open(root / "images/a000.jpg").convert("L").transpose(Image.Transpose.ROTATE_90)
    stored.save(root / "images/a000.jpg", exif=exif)  # a gray one, of which a copy is read
    (tmp_path / "sheet.png").write_text("an older one")
    code, text, _ = semiseg("show", *ROW, root, "a000", "images/a008.jpg", "--out", "sheet.png", "--json")
    assert code == 0
    document = json.loads(text)
    first, second = document["images"]
    assert (first["id"], first["height"], first["width"], first["orientation"]) == ("a000", 40, 48, 6)
    counts = np.bincount(np.asarray(Image.open(root / "masks/a000.png")).ravel(), minlength=3).tolist()
    assert [(v["value"], v["name"], v["pixels"]) for v in first["values"]] == [
        (0, "ground", counts[0]),
        (1, "car", counts[1]),
        (2, "tree", counts[2]),
    ]
    assert first["image"]["source"] == str(root / "images/a000.jpg")
    assert str(tmp_path / "cache") in first["image"]["read"]
    assert first["image"]["turn"] == 1  # the copy is upright
    assert first["mask"] == {"source": str(root / "masks/a000.png"), "read": str(root / "masks/a000.png"), "turn": 1}
    assert (second["mask"], second["values"]) == (None, [])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    # One row below the other, each 48 x 40 enlarged by five; the orange of cars in the first alone.
    orange = (sheet == (255, 128, 0)).all(2)
    assert orange.sum() >= 25 * counts[1]
    assert not orange[len(orange) // 2 + 40 :].any()
    assert sheet.shape[0] > 2 * 5 * 40


def test_how_what_is_read_is_turned_is_told(semiseg, folder_root, tmp_path):
    root, exif = folder_root(), Image.Exif()
    exif[0x0112] = 3
    Image.open(root / "images/a000.jpg").save(root / "images/a000.jpg", exif=exif)
    for orientation, turn in (("upright", 3), ("ignore", 1)):
        told = (*ROW, root, "a000", "--out", "sheet.png", "--json", "--files.orientation", orientation)
        (found,) = json.loads(semiseg("show", *told)[1])["images"]
        path = str(root / "images/a000.jpg")
        assert found["image"] == {"source": path, "read": path, "turn": turn}
        assert (found["orientation"], found["mask"]["turn"]) == (3, 1)


def test_what_the_class_list_merges_is_told(semiseg, folder_root, tmp_path):
    root = folder_root()
    (root / "classes.txt").write_text("0: ground\n1: car\n2: car\n")
    code, text, err = semiseg("show", *ROW, root, "a000", "--out", "sheet.png")
    assert code == 0
    assert f"car stands in 2 lines of {root / 'classes.txt'}: values 1, 2 are one class" in text + err


def test_the_way_to_an_image_is_that_of_lists(semiseg, folder_root):
    """`images/x` means x of the images' folder, whatever masks and other folders are called."""
    root = folder_root()
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        (root / folder / "b").mkdir()
        (root / folder / f"a001.{suffix}").rename(root / folder / "b" / f"a000.{suffix}")
    code, text, _ = semiseg("show", *ROW, root, "images/a000", "images/b/a000.jpg", "--json")
    assert code == 0
    assert [image["id"] for image in json.loads(text)["images"]] == ["a000", "b/a000"]


def test_names_an_image_that_is_not_there(refused, folder_root):
    line = refused(*ROW, folder_root(), "a001", "b001")
    assert "has no image 'b001': the nearest of 12 are a001" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name the images"),
        (["a000"] * 33, "at most 32"),
        (("a000", "--out", "show.jpg"), "name a .png file"),
        (("a000", "--out", "nowhere/show.png"), "a folder that is there"),
    ],
)
def test_wrong_arguments(refused, folder_root, arguments, says):
    assert says in refused(*ROW, folder_root(), *arguments)


def test_what_training_refuses_is_refused(refused, folder_root):
    root = folder_root()
    (root / "images/a003.jpg").write_text("no picture")
    assert "a003.jpg cannot be decoded" in refused(*ROW, root, "a000")
