import shutil

import pytest

from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.voc import CLASSES
from semiseg.pipelines.errors import UsageError


def ids(samples):
    return [sample.id for sample in samples]


@pytest.mark.parametrize(
    ("level", "root"),
    [
        ("data/VOCdevkit/VOC2012", "data"),
        ("data/VOCdevkit/VOC2012", "data/VOCdevkit"),
        ("data/VOCdevkit/VOC2012", "data/VOCdevkit/VOC2012"),
        ("data", "data"),
    ],
)
def test_all_usual_roots(voc_root, tmp_path, level, root):
    home = voc_root(level=level)
    dataset = find_dataset("voc", tmp_path / root)
    assert dataset.root == home
    assert ids(dataset.train) == [f"2007_{n:06d}" for n in range(1, 7)]
    assert ids(dataset.val) == [f"2007_{n:06d}" for n in range(7, 10)]
    assert dataset.classes == CLASSES
    assert len(dataset.palette) == 21
    assert dataset.train[0].mask == home / "SegmentationClass/2007_000001.png"


def test_pool_is_what_has_a_mask_or_is_listed_without_val(voc_root):
    home = voc_root()
    segmentation = home / "SegmentationClass"
    (segmentation / "2007_000001.png").unlink()  # listed in train.txt
    (home / "ImageSets/Segmentation/train.txt").write_text("2007_000001\n2007_000007\n")  # 7 is in val.txt
    shutil.copy(home / "JPEGImages/2007_000001.jpg", home / "JPEGImages/2012_000001.jpg")  # neither
    dataset = find_dataset("voc", home)
    assert ids(dataset.train) == [f"2007_{n:06d}" for n in range(1, 7)]
    assert [sample.mask is None for sample in dataset.train] == [True] + [False] * 5
    assert ids(dataset.extra) == ["2012_000001"]


def test_masks_of_sbd_come_first_and_official_ones_fill_in_for_val(voc_root):
    home = voc_root()
    (home / "SegmentationClassAug").mkdir()
    for n in (1, 2, 3):
        shutil.copy(home / f"SegmentationClass/2007_{n:06d}.png", home / "SegmentationClassAug")
    dataset = find_dataset("voc", home)
    assert [s.mask and s.mask.parent.name for s in dataset.train] == ["SegmentationClassAug"] * 3 + [None] * 3
    assert {s.mask.parent.name for s in dataset.val} == {"SegmentationClass"}
    (note,) = dataset.notes
    assert note.startswith(
        "3 training images have no mask in SegmentationClassAug, 2007_000004 for one, and one in Seg"
    )
    official = find_dataset("voc", home, masks="SegmentationClass")
    assert all(s.mask.parent.name == "SegmentationClass" for s in official.train)


def test_masks_without_an_image_are_noted(voc_root):
    home = voc_root()
    (home / "JPEGImages/2007_000002.jpg").unlink()
    (home / "ImageSets/Segmentation/train.txt").unlink()
    assert find_dataset("voc", home).notes == ("1 masks belong to no image, 2007_000002 for one: they are not used",)


@pytest.mark.parametrize("name", ["classes.txt", "labelmap.txt"])
def test_own_classes_and_lists(voc_root, tmp_path, name):
    home = voc_root()
    (home / name).write_text("ground\ncat\ndog\nhorse\n")
    train, val = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("/JPEGImages/2007_000002.jpg /SegmentationClassAug/2007_000002.png\n")
    val.write_text("2007_000001\n")
    dataset = find_dataset("voc", home, train_list=train, val_list=val)
    assert (ids(dataset.train), ids(dataset.val)) == (["2007_000002"], ["2007_000001"])
    assert dataset.classes == ("ground", "cat", "dog", "horse")
    val.write_text("2007_000002\n")
    with pytest.raises(UsageError, match=r"2007_000002 is in .*train\.txt and in .*val\.txt"):
        find_dataset("voc", home, train_list=train, val_list=val)


@pytest.mark.parametrize(
    ("remove", "what"),
    [
        ("ImageSets/Segmentation/val.txt", r"val\.txt does not exist"),
        ("SegmentationClass", "neither SegmentationClassAug nor SegmentationClass"),
        ("JPEGImages/2007_000001.jpg", r"train\.txt, line 1: 2007_000001 is not among"),
        ("JPEGImages/2007_000008.jpg", r"val\.txt, line 2: 2007_000008 is not among"),
        ("SegmentationClass/2007_000009.png", "validation image 2007_000009 .* has no mask"),
    ],
)
def test_missing_parts_are_named(voc_root, remove, what):
    home = voc_root()
    target = home / remove
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(UsageError, match=what):
        find_dataset("voc", home)


def test_a_list_of_the_classes_of_voc_without_background_is_refused(voc_root):
    home = voc_root()
    (home / "class_names.txt").write_text("\n".join(find_dataset("voc", home).classes[1:]))
    with pytest.raises(UsageError, match=r"class_names\.txt lacks background, which has the value 0"):
        find_dataset("voc", home)
    (home / "class_names.txt").write_text("\n".join(f"{value}: {name}" for value, name in enumerate(CLASSES[1:], 1)))
    with pytest.raises(UsageError, match=r"class_names\.txt lacks background, which has the value 0"):
        find_dataset("voc", home)
    with (home / "class_names.txt").open("a") as file:
        file.write("\n0: __ignore__\n")
    assert find_dataset("voc", home).classes == CLASSES[1:]


def test_images_for_testing_are_left_alone_also_where_they_have_masks(voc_root, tmp_path):
    home = voc_root()
    whole = ids(find_dataset("voc", home).train)
    (home / "ImageSets/Segmentation/test.txt").write_text(f"{whole[0]}\nnot_here\n")
    (home / "ImageSets/Segmentation/train.txt").write_text(f"{whole[1]}\n")
    dataset = find_dataset("voc", home)
    assert ids(dataset.train) == whole[1:]
    assert whole[0] not in ids(dataset.extra)
    tested = home / "ImageSets/Segmentation/test.txt"
    assert f"1 images of {tested}, {whole[0]} for one, are left alone" in dataset.notes
    (home / "ImageSets/Segmentation/train.txt").write_text(f"{whole[0]}\n")
    assert not any("left alone" in note for note in find_dataset("voc", home).notes)  # named by both, trained on
    (tmp_path / "mine.txt").write_text(f"{whole[2]}\n")
    assert ids(find_dataset("voc", home, test_list=tmp_path / "mine.txt").train) == [whole[0], whole[1], *whole[3:]]


def test_classes_have_the_names_of_the_devkit():
    """The order of its VOClabelcolormap and of the masks: alphabetical behind the background."""
    assert CLASSES[0] == "background"
    assert len(CLASSES) == 21
    assert list(CLASSES[1:]) == sorted(CLASSES[1:])
