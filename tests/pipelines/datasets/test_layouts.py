from pathlib import Path

import pytest

from semiseg.pipelines.datasets import shapes
from semiseg.pipelines.datasets.files import find_pictures
from semiseg.pipelines.datasets.layouts import LAYOUTS, absolute, find_dataset
from semiseg.pipelines.errors import UsageError


def test_files_by_stem_nests_skips_and_refuses_twins(tmp_path):
    for name in ("a.jpg", "day/b.PNG", "day/.hidden.png", "notes.txt", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_pictures(tmp_path).by_stem() == {"a": tmp_path / "a.jpg", "day/b": tmp_path / "day/b.PNG"}
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match=r"holds both a\.jpg and a\.png"):
        find_pictures(tmp_path).by_stem()


@pytest.mark.parametrize(
    ("layout", "root", "options", "what"),
    [
        ("camvid", ".", {}, "unknown layout 'camvid': choose one of voc, cityscapes, ade20k, coco, folder, shapes"),
        ("voc", ".", {}, "no Pascal VOC data set in .*looked for JPEGImages, VOCdevkit/VOC2012/JPEGImages"),
        ("cityscapes", ".", {}, "looked for leftImg8bit"),
        ("ade20k", ".", {}, r"no ADE20K in .*looked for images/training\): pass the folder ADEChallengeData2016"),
        ("coco", ".", {}, r"no COCO in .*looked for train2017\): pass the folder that holds it"),
        ("folder", ".", {}, "has no images: put them in .*images"),
    ],
)
def test_unusable_arguments(tmp_path, layout, root, options, what):
    with pytest.raises(UsageError, match=what):
        find_dataset(layout, root and tmp_path / root, **options)


OPTIONS = {
    "voc": {"masks", "classes", "train_list", "val_list", "test_list"},
    **{layout: {"train_list", "val_list"} for layout in ("cityscapes", "ade20k", "coco")},
    "folder": {"images", "masks", "classes", "train_list", "val_list", "test_list"},
    "shapes": set(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_options_that_a_layout_has_no_use_for_are_refused(tmp_path, layout):
    assert set(LAYOUTS[layout].options) == OPTIONS[layout]
    every = set() if layout == "shapes" else {"unlabeled"}
    for option in (OPTIONS["folder"] | {"unlabeled"}) - OPTIONS[layout] - every:
        flag = f"--files.{option.replace('_', '-')}"
        with pytest.raises(UsageError, match=f"{flag} has no meaning for the layout {layout}: leave it out"):
            find_dataset(layout, tmp_path, **{option: "x"})


@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if layout.needs_root])
def test_a_layout_that_needs_a_root_says_so(tmp_path, layout):
    with pytest.raises(UsageError, match=f"the layout {layout} needs the folder of the data set: pass --data ROOT"):
        find_dataset(layout, None)
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        find_dataset(layout, tmp_path / "nowhere")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_layout_says_beforehand_is_what_is_found(layout, request, own_cache, monkeypatch):
    monkeypatch.setattr(shapes, "TRAIN", 2)
    monkeypatch.setattr(shapes, "VAL", 1)
    known = LAYOUTS[layout]
    found = find_dataset(layout, request.getfixturevalue(f"{layout}_root")() if known.needs_root else None)
    assert found.layout == layout
    assert len(found.palette) == found.num_classes
    if known.classes:
        assert (found.classes, found.palette) == (known.classes, known.palette)


def test_list_files_may_be_relative_to_the_root(folder_root):
    root = folder_root(val=0)
    (root / "lists").mkdir()
    (root / "lists/v.txt").write_text("a000\na001\n")
    dataset = find_dataset("folder", root, val_list="lists/v.txt")
    assert [sample.id for sample in dataset.val] == ["a000", "a001"]


@pytest.fixture
def twice(folder_root, tmp_path, monkeypatch):
    """A data set whose lists and folders have namesakes in the working folder."""
    root = folder_root(masked=6, bare=0, val=0)
    (root / "mine.txt").write_text("a000\n")
    (tmp_path / "work/images").mkdir(parents=True)
    (tmp_path / "work/mine.txt").write_text("a001\n")
    (tmp_path / "work/here.txt").write_text("a002\n")
    monkeypatch.chdir(tmp_path / "work")
    return root


def test_options_are_looked_for_in_the_data_set_and_then_in_the_working_folder(twice):
    found = find_dataset("folder", twice, val_list="mine.txt", images="images")
    assert [sample.id for sample in found.val] == ["a000"]
    assert f"--files.val-list: {twice / 'mine.txt'} is taken, and not" in "\n".join(found.notes)
    assert any(note.startswith("--files.images") for note in found.notes)
    found = find_dataset("folder", twice, val_list="here.txt")
    assert [sample.id for sample in found.val] == ["a002"]
    with pytest.raises(UsageError, match=f"{twice / 'none.txt'} does not exist"):
        find_dataset("folder", twice, val_list="none.txt")


def test_options_are_made_absolute(twice, tmp_path):
    options = {"images": "images", "masks": None, "val_list": Path("here.txt"), "train_list": "none.txt"}
    assert absolute("folder", twice, options) == {
        "images": twice / "images",
        "val_list": tmp_path / "work/here.txt",
        "train_list": twice / "none.txt",
    }


def test_options_are_looked_for_where_the_data_set_lies_below_the_root(voc_root, tmp_path, monkeypatch):
    home = voc_root()
    (tmp_path / "SegmentationClass").mkdir()
    monkeypatch.chdir(tmp_path)
    root = home.parent.parent
    assert absolute("voc", root, {"masks": "SegmentationClass"})["masks"] == home / "SegmentationClass"
