import shutil

import pytest

from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.errors import UsageError


def ids(samples):
    return [sample.id for sample in samples]


def test_images_masks_classes_and_a_val_list(folder_root):
    root = folder_root(masked=5, bare=3, val=2)
    dataset = find_dataset("folder", root)
    assert ids(dataset.train) == ["a000", "a001", "a002", "a005", "a006", "a007"]
    assert [sample.mask is not None for sample in dataset.train] == [True] * 3 + [False] * 3
    assert ids(dataset.val) == ["a003", "a004"]
    assert dataset.classes == ("ground", "car", "tree")
    assert dataset.palette[1] == (255, 128, 0)
    assert (dataset.notes, dataset.held_out) == ((), False)


@pytest.mark.parametrize(("masked", "held_out"), [(3, 2), (25, 2), (40, 4)])
def test_without_a_val_list_a_tenth_is_held_out(folder_root, masked, held_out):
    root = folder_root(masked=masked, val=0, height=8, width=8)
    dataset = find_dataset("folder", root)
    assert len(dataset.val) == held_out
    assert dataset.held_out
    assert f"{held_out} of {masked} images with masks are held out" in dataset.notes[0]
    assert set(ids(dataset.val)).isdisjoint(ids(dataset.train))
    assert find_dataset("folder", root) == dataset


def test_held_out_images_stay_when_masks_elsewhere_go(folder_root):
    root = folder_root(masked=40, val=0, height=8, width=8)
    before = find_dataset("folder", root)
    for sample in before.train[::2]:
        if sample.mask:
            sample.mask.unlink()
    assert set(ids(find_dataset("folder", root).val)) <= set(ids(before.val))


def test_lists_with_pairs_take_masks_of_any_name(folder_root):
    root = folder_root(masked=4, bare=2, val=0)
    (root / "masks").rename(root / "ground_truth")
    (root / "ground_truth/a000.png").rename(root / "ground_truth/a000_mask.png")
    (root / "train.txt").write_text(
        "images/a000.jpg ground_truth/a000_mask.png\nimages/a005.jpg ground_truth/a005.png\n"
    )
    (root / "val.txt").write_text("/images/a001.jpg\t/ground_truth/a001.png\n")
    dataset = find_dataset("folder", root)
    assert [(s.id, s.mask and s.mask.name) for s in dataset.train] == [("a000", "a000_mask.png"), ("a005", None)]
    assert dataset.val[0].mask == root / "ground_truth/a001.png"
    assert ids(dataset.extra) == ["a002", "a003", "a004"]


def test_lists_alone_without_the_usual_folders(folder_root):
    root = folder_root(masked=4, bare=0, val=0)
    (root / "images").rename(root / "left")
    (root / "train.txt").write_text("left/a000.jpg masks/a000.png\nleft/a003.jpg\n")
    (root / "val.txt").write_text("left/a001.jpg masks/a001.png\n")
    dataset = find_dataset("folder", root)
    assert [(s.id, s.mask is None) for s in dataset.train] == [("left/a000", False), ("left/a003", True)]
    assert ids(dataset.val) == ["left/a001"]


def test_test_list_is_left_alone(folder_root):
    root = folder_root(masked=5, bare=3)
    (root / "test.txt").write_text("a000\na007\nelsewhere\n")
    dataset = find_dataset("folder", root)
    assert not {"a000", "a007"} & {*ids(dataset.train), *ids(dataset.val), *ids(dataset.extra)}


def test_nested_folders_and_chosen_names(folder_root):
    root = folder_root(masked=4, bare=0, val=0)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (root / kind / "day").mkdir()
        (root / kind / f"a000.{suffix}").rename(root / kind / "day" / f"a000.{suffix}")
    (root / "images").rename(root / "photos")
    (root / "masks").rename(root / "truth")
    dataset = find_dataset("folder", root, images="photos", masks="truth")
    assert "day/a000" in {*ids(dataset.train), *ids(dataset.val)}
    assert all(sample.mask for sample in dataset.train)


def test_masks_without_images_are_noted(folder_root):
    root = folder_root()
    (root / "images/a000.jpg").unlink()
    assert "1 masks belong to no image, a000 for one" in find_dataset("folder", root).notes[0]


def break_masks(root):
    for mask in (root / "masks").iterdir():
        mask.rename(mask.with_name(mask.stem + "_mask.png"))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda root: (root / "classes.txt").unlink(), r"class list .*classes\.txt does not exist: write it"),
        (lambda root: shutil.rmtree(root / "masks"), "has no mask"),
        (lambda root: shutil.rmtree(root / "images"), "has no images"),
        (
            lambda root: (root / "val.txt").write_text("a000\na011\n"),
            r"validation image a011 of .*val\.txt has no mask",
        ),
        (lambda root: (root / "val.txt").write_text("b\na000\n"), r"val\.txt, line 1: b is not in .*images"),
        (lambda root: (root / "train.txt").write_text("a001\na006\n"), r"a006 is in .*train\.txt and in .*val\.txt"),
        (
            lambda root: ((root / "val.txt").unlink(), break_masks(root)),
            "no mask in .* has the name of a training image",
        ),
        (lambda root: ((root / "val.txt").unlink(), shutil.rmtree(root / "masks")), "put them in .*masks"),
    ],
)
def test_gaps_are_named(folder_root, damage, what):
    root = folder_root()
    damage(root)
    with pytest.raises(UsageError, match=what):
        find_dataset("folder", root)


@pytest.mark.parametrize(("val", "test"), [("val", "test"), ("Validation", "Testing"), ("valid", "test")])
def test_folders_for_validation_and_testing_mean_what_they_say(folder_root, val, test):
    root = folder_root(masked=8, bare=4, val=0)
    parts = {"train": range(4), val: [*range(4, 7), 8], test: [7, 9]}  # 8 and 9 have no mask
    for part, numbers in parts.items():
        for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
            (root / kind / part).mkdir()
            for number in numbers:
                path = root / kind / f"a{number:03d}{suffix}"
                if path.exists():
                    path.rename(root / kind / part / path.name)
    found = find_dataset("folder", root)
    assert [sample.id for sample in found.val] == [f"{val}/a{number:03d}" for number in (4, 5, 6)]
    ids = [sample.id for sample in (*found.train, *found.extra)]
    assert ids == ["a010", "a011", *(f"train/a{number:03d}" for number in range(4))]
    assert not found.held_out
    assert any("3 images" in note and "validation" in note for note in found.notes)
    assert any("3 images" in note and "left alone" in note for note in found.notes)


def test_lists_win_over_folders(folder_root):
    root = folder_root(masked=8, bare=0, val=0)
    for kind in ("images", "masks"):
        (root / kind / "test").mkdir()
        (root / kind / "val").mkdir()
    for number, part in ((6, "test"), (7, "val")):
        (root / f"images/a{number:03d}.jpg").rename(root / f"images/{part}/a{number:03d}.jpg")
        (root / f"masks/a{number:03d}.png").rename(root / f"masks/{part}/a{number:03d}.png")
    (root / "val.txt").write_text("a000\ntest/a006\n")
    found = find_dataset("folder", root)
    assert [sample.id for sample in found.val] == ["a000", "test/a006"]
    assert "val/a007" in [sample.id for sample in found.train]
