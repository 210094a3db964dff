import shutil

import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.datasets.ade20k import CLASS_OF, CLASSES, PALETTE
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.manifest import prepare
from semiseg.pipelines.datasets.splits import resolve_split
from semiseg.pipelines.errors import UsageError


def test_classes_have_the_values_of_the_challenge():
    """objectInfo150.txt: the first word of each name."""
    named = {1: "wall", 3: "sky", 13: "person", 21: "car", 67: "flower", 100: "buffet", 128: "bicycle", 150: "flag"}
    assert {value: CLASSES[CLASS_OF[value]] for value in named} == named
    assert len(CLASSES) == len(set(CLASSES)) == len(PALETTE) == len(set(PALETTE)) == 150
    assert np.flatnonzero(CLASS_OF == 255).tolist() == [0, *range(151, 256)]
    assert sorted(CLASS_OF[CLASS_OF != 255]) == list(range(150))


@pytest.mark.parametrize("above", [0, 1, 2])
def test_is_found_from_the_folders_above(ade20k_root, above):
    root = ade20k_root()
    dataset = find_dataset("ade20k", [root, *root.parents][above])
    assert dataset.root == root
    assert [sample.id for sample in dataset.train] == [f"ADE_train_{n:08d}" for n in range(1, 5)]
    assert [sample.id for sample in dataset.val] == ["ADE_val_00000001", "ADE_val_00000002"]
    assert dataset.notes == ()


def test_masks_become_class_indices(ade20k_root):
    root = ade20k_root()
    dataset = find_dataset("ade20k", root)
    records = prepare(dataset).records
    for sample in (*dataset.train, *dataset.val):
        stored, used = np.asarray(Image.open(sample.mask)), np.asarray(Image.open(records[sample.id].mask))
        assert set(np.unique(stored)) == {0, 1, 2, 13, 150}
        for value, index in {0: 255, 1: 0, 2: 1, 13: 12, 150: 149}.items():
            assert (used[stored == value] == index).all()


@pytest.mark.parametrize(("values", "wrong"), [((0, 1, 149, 255), 255), ((1, 151), 151)])
def test_masks_with_values_of_another_count_are_refused(ade20k_root, values, wrong):
    """As those that UniMatch V2 ships, from 0 and with 255: every class would be taken for the one before it."""
    root = ade20k_root()
    path = root / "annotations/training/ADE_train_00000003.png"
    Image.fromarray(np.resize(np.uint8(values), (32, 48))).save(path)
    with pytest.raises(UsageError, match=f"has the value {wrong} but label values of ADE20K end at 150: restore"):
        prepare(find_dataset("ade20k", root))


@pytest.mark.parametrize("values", [(0, 1), (0, *range(2, 151)), tuple(range(150))])
def test_pixels_of_no_class_are_not_taken_for_a_255_that_marks_objects(ade20k_root, values):
    """Where masks hold two values, or lack one class, as the 255 of masks of indices is."""
    root = ade20k_root(height=30, width=60)
    for path in (root / "annotations").glob("*/*.png"):
        Image.fromarray(np.resize(np.uint8(values), (30, 60))).save(path)
    assert prepare(find_dataset("ade20k", root)).notes == ()


def test_lists_say_what_validation_is(ade20k_root, tmp_path):
    root = ade20k_root()
    names = [f"ADE_train_{number:08d}" for number in range(1, 5)]
    path = tmp_path / "val.txt"
    path.write_text("\n".join(names[:1]))
    dataset = find_dataset("ade20k", root, val_list=path)
    assert ([s.id for s in dataset.val], [s.id for s in dataset.train]) == (names[:1], names[1:])
    path.write_text("\n".join(names))
    with pytest.raises(UsageError, match=r"val\.txt names all training images for validation: name fewer there"):
        find_dataset("ade20k", root, val_list=path)
    shutil.copy(root / f"images/training/{names[0]}.jpg", root / "images/validation")
    with pytest.raises(UsageError, match=f"training and .*validation both hold {names[0]}: keep it in one of them"):
        find_dataset("ade20k", root)


def test_published_lists_fit(ade20k_root, tmp_path):
    root = ade20k_root()
    lists = [tmp_path / "labeled.txt", tmp_path / "unlabeled.txt"]
    for path, numbers in zip(lists, ((3, 1), (2, 4)), strict=True):
        names = (f"ADE_train_{number:08d}" for number in numbers)
        lines = (f"images/training/{name}.jpg annotations/training/{name}.png\n" for name in names)
        path.write_text("".join(lines))
    split = resolve_split(",".join(map(str, lists)), find_dataset("ade20k", root))
    assert set(split.labeled) == {"ADE_train_00000001", "ADE_train_00000003"}
    assert set(split.unlabeled) == {"ADE_train_00000002", "ADE_train_00000004"}


def test_missing_parts_are_named(ade20k_root):
    root = ade20k_root()
    (root / "annotations/training/ADE_train_00000002.png").unlink()
    split = resolve_split("all", find_dataset("ade20k", root))
    assert split.unlabeled == ("ADE_train_00000002",)
    (root / "images/training/ADE_train_00000001.jpg").unlink()
    (note,) = find_dataset("ade20k", root).notes
    assert note.startswith("1 masks belong to no image, ADE_train_00000001 for one")
    mask = root / "annotations/validation/ADE_val_00000001.png"
    mask.unlink()
    with pytest.raises(UsageError, match=r"validation image .*ADE_val_00000001\.jpg has no mask in .*annotations"):
        find_dataset("ade20k", root)
    for image in (root / "images/validation").iterdir():
        image.unlink()
    with pytest.raises(UsageError, match=r"validation holds no images: unpack ADEChallengeData2016\.zip there"):
        find_dataset("ade20k", root)
