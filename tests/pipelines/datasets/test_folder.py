import os
import re
import shutil

import pytest
from own import IDS, ids, used, write

from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.splits import resolve_split
from semiseg.pipelines.errors import UsageError


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


def test_a_class_whose_name_says_that_it_is_none_is_told(folder_root):
    root = folder_root()
    assert not any("a class like any other" in note for note in find_dataset("folder", root).notes)
    (root / "classes.txt").write_text("ground\ncar\nVoid\n")
    (note,) = [note for note in find_dataset("folder", root).notes if "a class like any other" in note]
    assert note.startswith(f"Void of {root / 'classes.txt'} is a class like any other")
    (root / "classes.txt").write_text("ground\ncar\ntree\n255,void,9,9,9\n")
    assert not any("a class like any other" in note for note in find_dataset("folder", root).notes)


def test_test_list_is_left_alone(folder_root):
    root = folder_root(masked=5, bare=3)
    (root / "test.txt").write_text("a000\na007\nelsewhere\n")
    dataset = find_dataset("folder", root)
    assert not {"a000", "a007"} & {*ids(dataset.train), *ids(dataset.val), *ids(dataset.extra)}
    assert f"2 images of {root / 'test.txt'}, a000 for one, are left alone" in dataset.notes


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


@pytest.mark.parametrize("name", ["labelmap.txt", "class_names.txt", "train/_classes.csv", "labels.txt"])
def test_class_lists_are_found_under_the_names_that_other_programs_give_them(folder_root, name):
    root = folder_root()
    text = "__ignore__\n" + (root / "classes.txt").read_text()
    names = find_dataset("folder", root).classes
    (root / "classes.txt").unlink()
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)
    dataset = find_dataset("folder", root)
    assert dataset.classes == names
    assert f"the classes are those of {root / name}" in used(dataset)[2]


def break_masks(root):
    for mask, name in zip(sorted((root / "masks").iterdir()), "pqrstuvw"):
        mask.rename(mask.with_name(f"{name}.png"))


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


def test_lists_win_over_folders_and_what_they_leave_of_these_is_left_alone(folder_root):
    """A short list for a quick look must not make training images of the rest of the validation folder."""
    root = folder_root(masked=8, bare=0, val=0)
    for kind in ("images", "masks"):
        (root / kind / "test").mkdir()
        (root / kind / "val").mkdir()
    for number, part in ((6, "test"), (7, "val"), (5, "val")):
        (root / f"images/a{number:03d}.jpg").rename(root / f"images/{part}/a{number:03d}.jpg")
        (root / f"masks/a{number:03d}.png").rename(root / f"masks/{part}/a{number:03d}.png")
    (root / "val.txt").write_text("a000\ntest/a006\nval/a007\n")
    found = find_dataset("folder", root)
    assert [sample.id for sample in found.val] == ["a000", "test/a006", "val/a007"]
    assert "val/a005" not in [sample.id for sample in (*found.train, *found.extra)]
    assert "1 images of folders for testing or validation (val) are left alone" in found.notes
    (root / "train.txt").write_text("a001\nval/a005\n")
    assert [sample.id for sample in find_dataset("folder", root).train] == ["a001", "val/a005"]


def test_where_all_masks_lie_in_a_folder_for_validation_its_name_tells_nothing(folder_root):
    """As where somebody takes the validation images of a large data set for a small one."""
    root = folder_root(masked=8, bare=0, val=0)
    for kind in ("images", "masks"):
        (root / kind).rename(root / "moved")
        (root / kind).mkdir()
        (root / "moved").rename(root / kind / "val2017")
    (root / "val.txt").write_text("val2017/a000\nval2017/a001\n")
    found = find_dataset("folder", root)
    assert (len(found.train), len(found.val)) == (6, 2)


@pytest.mark.parametrize("home", ["test/val", "val/test"])
def test_folders_within_those_of_a_part_are_of_that_part(folder_root, home):
    root = folder_root(masked=8, bare=0, val=0)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (root / kind / home).mkdir(parents=True)
        for number in (0, 1):
            (root / kind / f"a00{number}.{suffix}").rename(root / kind / home / f"a00{number}.{suffix}")
    found = find_dataset("folder", root)
    assert not [note for note in found.notes if "are taken for training" in note]
    assert not [sample.id for sample in found.train if "/" in sample.id]


def test_a_closed_folder_beside_the_data_closes_nothing(folder_root, monkeypatch):
    root, closed, look = folder_root(masked=8, bare=0, val=0), ("lost+found", "lists"), os.scandir
    for name in closed:
        (root / name).mkdir()

    def scandir(path):
        if os.path.basename(os.fspath(path)) in closed:  # whoever runs the tests may read everything
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert find_dataset("folder", root).train


def test_images_for_training_and_testing_are_told(folder_root):
    root = folder_root(masked=8, bare=0, val=0)
    for part, names in (("train", "a000\na001\na002\na003\n"), ("val", "a004\n"), ("test", "a002\na003\na004\na005\n")):
        (root / f"{part}.txt").write_text(names)
    found = find_dataset("folder", root)
    assert [sample.id for sample in found.train] == ["a000", "a001", "a002", "a003"]
    told = [note for note in found.notes if "test.txt" in note]
    assert re.search(r"^1 images of .*test\.txt, a005 for one, are left alone", told[0])
    assert re.search(
        r"^warning: 2 images of .*test\.txt, a002 for one, are trained on, as a list for training", told[1]
    )


@pytest.mark.parametrize(
    ("folder", "file", "said"),
    [
        ("s1/val", None, r"^images in s1/val are taken for training: only folders directly below"),
        (None, "splits/val.txt", r"^not read: .*splits/val\.txt; lists are text and lie in"),
        (None, "val.csv", r"^not read: .*val\.csv; lists are text"),
    ],
)
def test_what_seems_to_be_for_validation_and_is_not_taken_for_it_is_told(folder_root, folder, file, said):
    root = folder_root(masked=8, bare=0, val=0)
    assert not [note for note in find_dataset("folder", root).notes if re.search(said, note)]
    if folder:
        for kind, name in (("images", "a000.jpg"), ("masks", "a000.png")):
            (root / kind / folder).mkdir(parents=True)
            (root / kind / name).rename(root / kind / folder / name)
    if file:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text("a000\n")
    assert [note for note in find_dataset("folder", root).notes if re.search(said, note)]


@pytest.mark.parametrize("names", [("Images", "MASKS"), ("JPEGImages", "SegmentationClassPNG"), ("img_dir", "ann_dir")])
def test_usual_folders_are_found_in_any_letter_case_where_they_hold_pictures(folder_root, names):
    root = folder_root(masked=6, bare=2, val=0)
    for before, now in zip(("images", "masks"), names, strict=True):
        (root / before).rename(root / now)
    for other, file in (("labels", "a000.txt"), ("SegmentationClass", "a000.npy"), ("annotations", "all.json")):
        (root / other).mkdir()
        (root / other / file).touch()
    masks, known, _ = used(find_dataset("folder", root))
    assert (sorted(masks), known) == (IDS[:6], IDS[:8])


def test_folders_of_parts_below_the_root_hold_the_images(folder_root):
    """As Roboflow exports them."""
    root = folder_root(masked=6, bare=2, val=0)
    for part, names in (("train", (*IDS[:4], *IDS[6:8])), ("valid", IDS[4:5]), ("test", IDS[5:6])):
        (root / part).mkdir()
        for id in names:
            (root / f"images/{id}.jpg").rename(root / f"{part}/{id}.jpg")
            if id < IDS[6]:
                (root / f"masks/{id}.png").rename(root / f"{part}/{id}_mask.png")
    for folder in ("images", "masks"):
        (root / folder).rmdir()
    dataset = find_dataset("folder", root)
    assert ids(dataset.train) == [f"train/{id}" for id in (*IDS[:4], *IDS[6:8])]
    assert ids(dataset.val) == ["valid/a004"]
    assert dataset.extra == ()


@pytest.mark.parametrize("names", [("{}_images", "{}_masks"), ("{}", "{}_masks"), ("{}", "{}annot")])
@pytest.mark.parametrize("end", ["", "_mask"])
def test_folders_of_masks_called_after_those_of_images(folder_root, names, end):
    """As at Kaggle."""
    root = folder_root(masked=6, bare=2, val=0)
    for part, own in (("train", (*IDS[:4], *IDS[6:7])), ("val", IDS[4:6]), ("test", IDS[7:8])):
        for name in names:
            (root / name.format(part)).mkdir()
        for id in own:
            (root / f"images/{id}.jpg").rename(root / names[0].format(part) / f"{id}.jpg")
            if id < IDS[6]:
                (root / f"masks/{id}.png").rename(root / names[1].format(part) / f"{id}{end}.png")
    for folder in ("images", "masks"):
        (root / folder).rmdir()
    dataset = find_dataset("folder", root)
    train, val = (names[0].format(part) for part in ("train", "val"))
    assert ids(dataset.train) == [f"{train}/{id}" for id in (*IDS[:4], IDS[6])]
    assert [sample.mask is not None for sample in dataset.train] == [True] * 4 + [False]
    assert ids(dataset.val) == [f"{val}/{id}" for id in IDS[4:6]]
    assert dataset.extra == ()


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("photos", "truth"), r"has no images: .*pictures lie in photos \(6\), truth \(4\)$"),
        (("mine/images", "mine/masks"), r"has no images: .*pictures lie in mine/images \(6\), mine/masks \(4\)$"),
        (("images", "truth"), r"has no masks: .*pictures lie in truth \(4\)$"),
    ],
)
def test_where_pictures_lie_instead_is_told(folder_root, folders, said):
    root = folder_root(masked=4, bare=2, val=0)
    for before, now in zip(("images", "masks"), folders, strict=True):
        (root / now).parent.mkdir(exist_ok=True)
        (root / before).rename(root / now)
    with pytest.raises(UsageError, match=said):
        find_dataset("folder", root)


def test_a_validation_folder_without_masks_is_left_alone(folder_root):
    root = folder_root(masked=6, bare=2, val=0)
    (root / "images/val").mkdir()
    for id in IDS[6:8]:
        (root / f"images/{id}.jpg").rename(root / f"images/val/{id}.jpg")
    masks, known, notes = used(find_dataset("folder", root))
    assert (sorted(masks), known) == (IDS[:6], IDS[:6])
    assert "2 images of folders for testing or validation (val) are left alone" in notes


@pytest.mark.parametrize("home", ["list", "folders"])
def test_where_all_that_has_masks_is_for_validation_nothing_can_be_trained(folder_root, home):
    root = folder_root(masked=4, bare=2, val=0)
    if home == "list":
        write(root / "val.txt", "\n".join(IDS[:4]))
    for kind, suffix in (("images", "jpg"), ("masks", "png")) if home == "folders" else ():
        (root / kind / "val").mkdir()
        for id in IDS[:4]:
            (root / f"{kind}/{id}.{suffix}").rename(root / f"{kind}/val/{id}.{suffix}")
    dataset = find_dataset("folder", root)
    assert (len(dataset.val), len(dataset.train), dataset.held_out) == (4, 2, False)
    with pytest.raises(UsageError, match=r"none of the 2 .* has a mask; .* leave some of the 4 for validation"):
        resolve_split("all", dataset)


def test_what_is_for_testing_is_kept_aside(folder_root):
    root = folder_root(masked=6, bare=2, val=2)
    write(root / "test.txt", f"{IDS[0]}\n{IDS[7]}")
    (root / "images/test").mkdir()
    (root / f"images/{IDS[6]}.jpg").rename(root / f"images/test/{IDS[6]}.jpg")
    dataset = find_dataset("folder", root)
    assert [(sample.id, sample.mask is not None) for sample in dataset.test] == [
        (IDS[0], True),
        (IDS[7], False),
        (f"test/{IDS[6]}", False),
    ]
    assert not {sample.id for sample in dataset.test} & {sample.id for sample in dataset.samples}


@pytest.mark.parametrize("home", ["", "ImageSets/Segmentation"])
@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "Validation", "Test"), ("training", "VALID", "testing")]
)
def test_lists_are_found_in_other_spellings_and_places(folder_root, home, names):
    root = folder_root(masked=8, bare=4, val=0)
    (root / home).mkdir(parents=True, exist_ok=True)
    for name, part in zip(names, (IDS[:4], IDS[4:6], IDS[6:7]), strict=True):
        write(root / home / f"{name}.txt", "\n".join(part))
    write(root / "evaluation.txt", "mIoU 0.5")  # no list, as are others of more than the name
    write(root / "train_1.txt", "not here")
    dataset = find_dataset("folder", root)
    assert (ids(dataset.train), ids(dataset.val)) == (IDS[:4], IDS[4:6])
    assert ids(dataset.extra) == IDS[7:]
    other = write(root / "other.txt", "\n".join(IDS[8:]))
    assert ids(find_dataset("folder", root, test_list=other).extra) == IDS[6:8]


def test_two_lists_of_one_part_are_refused_unless_one_is_called_as_usual(folder_root):
    root = folder_root(masked=8, bare=0, val=0)
    write(root / "valid.txt", IDS[0])
    write(root / "validation.txt", IDS[1])
    with pytest.raises(UsageError, match=r"holds valid.txt and validation.txt: say with --files.val-list which counts"):
        find_dataset("folder", root)
    write(root / "val.txt", IDS[2])
    assert ids(find_dataset("folder", root).val) == [IDS[2]]


def test_the_masks_of_linked_folders_are_the_masks(folder_root):
    """`masks/` is looked for before `labels/`, also where it holds nothing but links to the pictures."""
    root = folder_root()
    (root / "masks").rename(root.parent / "elsewhere")
    (root / "masks").mkdir()
    (root / "masks/a").symlink_to(root.parent / "elsewhere")
    (root / "images").rename(root.parent / "pictures")
    (root / "images").mkdir()
    (root / "images/a").symlink_to(root.parent / "pictures")
    shutil.copytree(root.parent / "elsewhere", root / "labels/a")
    (root / "val.txt").unlink()
    dataset = find_dataset("folder", root)
    assert {sample.mask.parent for sample in dataset.samples if sample.mask} == {root / "masks/a"}
