import os
import shutil
import unicodedata

import pytest

from semiseg.pipelines.datasets.files import part_of
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.splits import resolve_split
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


def used(dataset):
    """Masks by the id of their image, all ids, and the notes in one."""
    samples = (*dataset.train, *dataset.val, *dataset.extra)
    masks = {sample.id: sample.mask for sample in samples if sample.mask}
    return masks, sorted(sample.id for sample in samples), "\n".join(dataset.notes)


def masks_beside(root, tail="_mask"):
    for mask in list((root / "masks").iterdir()):
        mask.rename(root / "images" / f"{mask.stem}{tail}.png")
    (root / "masks").rmdir()


IDS = [f"a{number:03d}" for number in range(12)]


@pytest.mark.parametrize("masks", [None, "images/masks"])
def test_masks_in_a_folder_of_the_images_are_no_images(folder_root, masks):
    root = folder_root(masked=8, bare=4, val=0)
    (root / "masks").rename(root / "images/masks")
    masks, ids, _ = used(find_dataset("folder", root, masks=masks))
    assert masks == {id: root / f"images/masks/{id}.png" for id in IDS[:8]}
    assert ids == IDS


def test_the_root_may_be_the_images_folder(folder_root):
    root = folder_root(masked=8, bare=4, val=0)
    for image in list((root / "images").iterdir()):
        image.rename(root / image.name)
    masks, ids, _ = used(find_dataset("folder", root, images="."))
    assert (sorted(masks), ids) == (IDS[:8], IDS)


@pytest.mark.parametrize("tail", ["_mask", "-seg", ".label"])
def test_masks_beside_their_images_are_masks_where_there_is_no_folder(folder_root, tail):
    root = folder_root(masked=8, bare=4, val=0)
    masks_beside(root, tail)
    masks, ids, notes = used(find_dataset("folder", root))
    assert masks == {id: root / f"images/{id}{tail}.png" for id in IDS[:8]}
    assert ids == IDS
    assert "8 pictures in" in notes
    assert f"are the masks of others there, or drawings, a000{tail} for one" in notes


def test_copies_of_masks_beside_their_images_are_those_of_the_images(folder_root):
    root = folder_root(masked=6, bare=2, val=0)
    for mask in (root / "masks").iterdir():
        shutil.copy(mask, root / f"images/{mask.stem}_mask.png")
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    masks, known, notes = used(find_dataset("folder", root))
    assert masks == {id: root / f"masks/{id}_mask.png" for id in IDS[:6]}
    assert known == IDS[:8]
    assert "6 pictures in" in notes


def test_two_masks_beside_an_image_are_refused_unless_a_list_names_one(folder_root):
    root = folder_root(masked=4, bare=0, val=0)
    masks_beside(root)
    shutil.copy(root / "images/a001_mask.png", root / "images/a001_seg.png")
    with pytest.raises(UsageError, match="may both be the mask of a001"):
        find_dataset("folder", root)
    (root / "val.txt").write_text("images/a001.jpg images/a001_seg.png\n")
    masks, ids, _ = used(find_dataset("folder", root))
    assert masks["a001"] == root / "images/a001_seg.png"
    assert ids == IDS[:4]


def test_what_looks_like_a_mask_and_has_one_of_its_own_is_an_image(folder_root):
    root = folder_root(masked=8, bare=0, val=0)
    (root / "images/a000.jpg").rename(root / "images/street_label.jpg")  # no street.jpg
    (root / "masks/a000.png").rename(root / "masks/street_label.png")
    (root / "images/a001.jpg").rename(root / "images/a002_label.jpg")  # has a mask
    (root / "masks/a001.png").rename(root / "masks/a002_label.png")
    (root / "images/a003.jpg").rename(root / "images/a004_gt.jpg")  # has none
    masks, ids, notes = used(find_dataset("folder", root))
    assert {"street_label", "a002_label"} <= masks.keys()
    assert "a004_gt" not in ids
    assert "1 pictures in" in notes
    (root / "val.txt").write_text("street_label\n")
    (root / "train.txt").write_text("a002\na004\nimages/a004_gt.jpg\n")
    assert "a004_gt" in used(find_dataset("folder", root))[1]  # a list says what it is


def test_masks_named_by_lists_are_no_images(folder_root):
    root = folder_root(masked=8, bare=2, val=0)
    for mask in list((root / "masks").iterdir()):
        mask.rename(root / "images" / f"truth {mask.name}")
    (root / "masks").rmdir()
    lines = [f'"images/a{number:03d}.jpg" "images/truth a{number:03d}.png"\n' for number in range(8)]
    (root / "val.txt").write_text("".join(lines[:2]))
    (root / "train.txt").write_text("".join(lines[2:]))
    dataset = find_dataset("folder", root)
    masks, ids, _ = used(dataset)
    assert (sorted(masks), ids) == (IDS[:8], IDS[:10])
    split = resolve_split(str(root / "train.txt"), dataset)
    assert split.labeled == tuple(IDS[2:8])
    assert split.unlabeled == ("a008", "a009")


def test_a_mask_that_a_list_names_and_that_is_not_there(folder_root):
    root = folder_root(masked=4, bare=1, val=0)
    (root / "train.txt").write_text("images/a000.jpg masks/a000.png\nimages/a004.jpg masks/gone.png\n")
    (root / "val.txt").write_text("a001\n")
    assert "train.txt, line 2: the mask masks/gone.png is not there (1 in all)" in used(find_dataset("folder", root))[2]
    (root / "val.txt").write_text("images/a001.jpg masks/other.png\n")
    with pytest.raises(UsageError, match=r"val.txt, line 1: the mask masks/other.png is not there"):
        find_dataset("folder", root)


def test_a_test_list_that_names_nothing_is_counted(folder_root):
    root = folder_root(masked=5, bare=3)
    (root / "test.txt").write_text("a000\nelsewhere\nnowhere\n")
    assert "2 of 3 lines of" in used(find_dataset("folder", root))[2]


@pytest.mark.parametrize(
    "entry",
    ["b/a000", "images/b/a000.jpg", "images/a000.jpg", "a/a000.jpg", "images/a/b/a000.png", "x" * 5000, "a/" * 500_000],
)
def test_folders_of_a_list_are_those_of_the_image(folder_root, entry):
    root = folder_root(masked=4, bare=0, val=0)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (root / kind / "a").mkdir()
        (root / kind / f"a000.{suffix}").rename(root / kind / f"a/a000.{suffix}")
    (root / "val.txt").write_text(f"{entry}\n")
    if entry == "a/a000.jpg":
        assert ids(find_dataset("folder", root).val) == ["a/a000"]
        return
    with pytest.raises(UsageError, match=r"val.txt, line 1: .* is not in") as error:
        find_dataset("folder", root)
    assert len(str(error.value)) < 500


def test_a_list_names_the_very_file(folder_root):
    root = folder_root(masked=4, bare=0, val=0)
    (root / "other").mkdir()
    shutil.copy(root / "images/a001.jpg", root / "other/a000.jpg")
    shutil.copy(root / "masks/a001.png", root / "other/a000.png")
    (root / "val.txt").write_text("other/a000.jpg,other/a000.png\n")
    (sample,) = find_dataset("folder", root).val
    assert (sample.id, sample.image, sample.mask) == ("other/a000", root / "other/a000.jpg", root / "other/a000.png")


@pytest.mark.parametrize("forms", [("NFD", "NFC", "NFC"), ("NFC", "NFD", "NFD"), ("NFD", "NFD", "NFC")])
def test_names_match_in_any_unicode_form(folder_root, forms):
    root = folder_root(masked=4, bare=0, val=0)
    image, mask, entry = (unicodedata.normalize(form, "Bär パピ") for form in forms)
    (root / "images/a000.jpg").rename(root / f"images/{image}.jpg")
    (root / "masks/a000.png").rename(root / f"masks/{mask}.png")
    (root / "val.txt").write_text(f"images/{entry}.jpg\n")
    (sample,) = find_dataset("folder", root).val
    assert sample.id == unicodedata.normalize("NFC", image)
    assert (sample.image.name, sample.mask.name) == (f"{image}.jpg", f"{mask}.png")
    assert sample.image.exists()


@pytest.mark.parametrize(("suffix", "said"), [(".npy", "are .npy: save them as PNG"), (".json", "are .json")])
def test_masks_that_are_not_read_are_named(folder_root, suffix, said):
    root = folder_root(masked=5, bare=1, val=0)
    masks = list((root / "masks").iterdir())
    masks[0].rename(masks[0].with_suffix(suffix))
    if suffix == ".npy":
        assert "(1 .npy): save them as PNG" in used(find_dataset("folder", root))[2]
    for mask in masks[1:]:
        mask.rename(mask.with_suffix(suffix))
    with pytest.raises(UsageError, match=said):
        find_dataset("folder", root)


def test_images_that_are_not_read_are_counted(folder_root):
    root = folder_root(masked=4, bare=1, val=0)
    (root / "images/a004.jpg").rename(root / "images/a004.heic")
    assert "(1 .heic): save them as PNG or JPEG" in used(find_dataset("folder", root))[2]
    for image in (root / "images").glob("*.jpg"):
        image.rename(image.with_suffix(".heic"))
    with pytest.raises(UsageError, match=r"all images in .* are in formats that are not read \(5 .heic\)"):
        find_dataset("folder", root)


def test_masks_in_a_folder_of_each_folder_of_images(folder_root):
    root = folder_root(masked=8, bare=2, val=0)
    for number in range(10):
        day = root / f"images/day{number % 2}"
        (day / "masks").mkdir(parents=True, exist_ok=True)
        (root / f"images/a{number:03d}.jpg").rename(day / f"a{number:03d}.jpg")
        if number < 8:
            (root / f"masks/a{number:03d}.png").rename(day / f"masks/a{number:03d}.png")
    (root / "masks").rmdir()
    masks, ids, _ = used(find_dataset("folder", root))
    assert masks == {f"day{n % 2}/a{n:03d}": root / f"images/day{n % 2}/masks/a{n:03d}.png" for n in range(8)}
    assert len(ids) == 10


@pytest.mark.parametrize("name", ["val.txt", "train.txt", "test.txt"])
def test_a_list_that_cannot_be_read_is_not_passed_over(folder_root, name):
    root = folder_root(val=0)
    (root / name).symlink_to("nowhere")
    with pytest.raises(UsageError, match=f"the list .*{name} does not exist"):
        find_dataset("folder", root)
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(UsageError, match=f"the list .*{name} is no file"):
        find_dataset("folder", root)


def test_an_empty_folder_for_masks_is_none(folder_root):
    root = folder_root(masked=8, bare=4, val=0)
    masks_beside(root)
    (root / "masks").mkdir()
    masks, ids, _ = used(find_dataset("folder", root))
    assert (sorted(masks), ids) == (IDS[:8], IDS)


def test_lists_alone_name_folders_as_they_like(folder_root):
    root = folder_root(masked=4, bare=0, val=0)
    (root / "images").rename(root / "val")
    (root / "train.txt").write_text("".join(f"val/{id}.jpg masks/{id}.png\n" for id in IDS[:4]))
    dataset = find_dataset("folder", root)
    assert (len(dataset.train), len(dataset.val), dataset.held_out) == (2, 2, True)


def test_a_list_of_another_copy_of_the_data_means_this_one(folder_root):
    old, root = folder_root(masked=4, bare=0, val=0, root="old"), folder_root(masked=4, bare=0, val=0)
    (root / "val.txt").write_text(f"{old}/images/a001.jpg\n")
    (sample,) = find_dataset("folder", root).val
    assert (sample.image, sample.mask) == (root / "images/a001.jpg", root / "masks/a001.png")


def other_set(folder_root, root="other"):
    """A data set of other pictures whose files have the same names."""
    other = folder_root(masked=4, bare=0, val=0, root=root)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        files = [other / kind / f"a{number:03d}.{suffix}" for number in range(4)]
        contents = [file.read_bytes() for file in files]
        for file, content in zip(files, contents[::-1], strict=True):
            file.write_bytes(content)
    return other


@pytest.mark.parametrize("name", ["val.txt", "train.txt"])
@pytest.mark.parametrize("images", ["images", "frames"])
def test_a_list_of_another_data_set_takes_image_and_mask_from_there(folder_root, name, images):
    other, root = other_set(folder_root), folder_root(masked=4, bare=0, val=0)
    (other / "images").rename(other / images)
    (root / name).write_text("".join(f"{other}/{images}/{id}.jpg {other}/masks/{id}.png\n" for id in IDS[:4]))
    dataset = find_dataset("folder", root)
    found = (*dataset.train, *dataset.val) if name == "train.txt" else dataset.val
    assert sorted((s.image, s.mask) for s in found) == [
        (other / f"{images}/{id}.jpg", other / f"masks/{id}.png") for id in IDS[:4]
    ]
    assert f"{name} names 4 images outside {root / 'images'} that are called like some there" in used(dataset)[2]


def test_an_image_of_another_data_set_is_no_image_of_this_one(folder_root, tmp_path):
    other, root = other_set(folder_root), folder_root(masked=4, bare=0, val=0)
    (root / "val.txt").write_text(f"{other}/images/a001.jpg\n")
    with pytest.raises(UsageError, match=r"validation image .*other/images/a001 of .* has no mask"):
        find_dataset("folder", root)
    (root / "val.txt").unlink()
    (root / "test.txt").write_text(f"{other}/images/a001.jpg\n")
    dataset = find_dataset("folder", root)
    assert used(dataset)[1] == IDS[:4]
    assert "1 of 1 lines of" in used(dataset)[2]
    (tmp_path / "few.txt").write_text(f"{other}/images/a001.jpg\n")
    with pytest.raises(UsageError, match=r"line 1: .*other/images/a001.jpg is not among the images"):
        resolve_split(str(tmp_path / "few.txt"), dataset)


def test_a_list_of_another_copy_takes_no_mask_from_there(folder_root):
    old, root = folder_root(masked=4, bare=0, val=0, root="old"), folder_root(masked=4, bare=0, val=0)
    (root / "val.txt").write_text(f"{old}/images/a001.jpg {old}/masks/a001.png\n")
    (sample,) = find_dataset("folder", root).val
    assert (sample.image, sample.mask) == (root / "images/a001.jpg", root / "masks/a001.png")
    shutil.copy(root / "masks/a002.png", root / "masks/a001.png")  # mended here
    for missing in (False, True):
        with pytest.raises(
            UsageError, match=r"line 1: the image is .*own/images/a001.jpg, but its mask .*old/masks/a001"
        ):
            find_dataset("folder", root)
        if not missing:
            (old / "images/a001.jpg").unlink()
    (old / "masks/a001.png").unlink()
    (sample,) = find_dataset("folder", root).val
    assert (sample.image, sample.mask) == (root / "images/a001.jpg", root / "masks/a001.png")


def test_a_root_that_is_a_link_is_the_place_that_lists_name(folder_root, tmp_path):
    root = folder_root(masked=4, bare=0, val=0)
    (root / "fine").mkdir()
    shutil.copy(root / "masks/a000.png", root / "fine/a001.png")
    (root / "val.txt").write_text(f"{root}/images/a001.jpg {root}/fine/a001.png\n{root}/images/a002.jpg\n")
    (tmp_path / "link").symlink_to(root)
    samples = find_dataset("folder", tmp_path / "link").val
    assert [(s.id, s.mask.resolve()) for s in samples] == [
        ("a001", root / "fine/a001.png"),
        ("a002", root / "masks/a002.png"),
    ]


@pytest.mark.parametrize(
    ("line", "mask"),
    [
        ("/gone/data/images/a001.jpg /gone/data/masks/a001.png", "masks"),
        (r"C:\data\images\a001.jpg C:\data\masks\a001.tif", "masks"),
        ("JPEGImages/a001.jpg SegmentationClass/a001.png", "masks"),
        ("images/a001.jpg a001.png", "masks"),
        ("images/a001.jpg fine/a001.png", None),
        ("a001.jpg fine/a001.png", None),
        ("/gone/data/images/a001.jpg /gone/data/fine/a001.png", None),
    ],
)
def test_a_mask_that_is_not_where_a_list_says(folder_root, tmp_path, line, mask):
    root = folder_root(masked=4, bare=0, val=0)
    (tmp_path / "few.txt").write_text(f"{line}\n")
    dataset = find_dataset("folder", root, val_list=write(tmp_path / "others.txt", "a003\n"))
    (root / "val.txt").write_text(f"{line}\n")
    if mask:
        assert find_dataset("folder", root).val[0].mask == root / mask / "a001.png"
        assert resolve_split(str(tmp_path / "few.txt"), dataset).labeled == ("a001",)
        return
    with pytest.raises(UsageError, match=r"val.txt, line 1: the mask .*fine/a001.png is not there"):
        find_dataset("folder", root)
    with pytest.raises(UsageError, match=r"few.txt, line 1: gives a001 the mask .*fine/a001.png, but it has"):
        resolve_split(str(tmp_path / "few.txt"), dataset)


def write(path, text):
    path.write_text(text)
    return path


def test_a_working_folder_is_no_place_of_a_list(folder_root, monkeypatch):
    other, root = other_set(folder_root), folder_root(masked=4, bare=0, val=0)
    (other / "images").rename(other / "frames")
    monkeypatch.chdir(other)
    (root / "val.txt").write_text("frames/a001.jpg\n")
    (sample,) = find_dataset("folder", root).val
    assert sample.image == root / "images/a001.jpg"


def test_a_split_names_the_masks_that_the_data_set_has(folder_root, monkeypatch):
    root = folder_root(masked=6, bare=0, val=0)
    (root / "masks_fine").mkdir()
    shutil.copy(root / "masks/a000.png", root / "masks_fine/a001.png")
    (root / "val.txt").write_text("a005\n")
    fine = str(write(root / "fine.txt", "images/a001.jpg masks_fine/a001.png\nimages/a002.jpg masks/a003.png\n"))
    with pytest.raises(
        UsageError, match=r"line 1: gives a001 the mask masks_fine/a001.png, but it has .*own/masks/a001"
    ):
        resolve_split(fine, find_dataset("folder", root))
    dataset = find_dataset("folder", root, train_list=root / "fine.txt")
    assert resolve_split(fine, dataset).labeled == ("a001", "a002")
    (root / "lists").mkdir()
    (root / "lists/few.txt").write_text("../images/a001.jpg ../masks_fine/a001.png\n")
    monkeypatch.chdir(root / "lists")
    assert resolve_split("few.txt", dataset).labeled == ("a001",)
    assert "fine.txt gives 1 images masks that are called like other images, a002 the one of a003" in used(dataset)[2]


@pytest.mark.parametrize("name", ["train.txt", "val.txt"])
def test_one_image_has_one_mask(folder_root, name):
    root = folder_root(masked=4, bare=0, val=0)
    (root / "masks_fine").mkdir()
    shutil.copy(root / "masks/a000.png", root / "masks_fine/a001.png")
    lines = ["images/a001.jpg masks/a001.png", "a002\na003", "images/a001.jpg masks_fine/a001.png"]
    (root / name).write_text("\n".join(lines))
    with pytest.raises(
        UsageError, match=rf"{name}, line 4: gives a001 the mask masks_fine/a001.png and line 1 gives it"
    ):
        find_dataset("folder", root)
    (root / name).write_text("\n".join((lines[0], lines[1], "a001")))
    assert used(find_dataset("folder", root))[0]["a001"] == root / "masks/a001.png"


def test_two_files_of_one_id_are_refused(folder_root):
    root = folder_root(masked=4, bare=0, val=0)
    for place in ("images/other", "other"):
        (root / place).mkdir()
        shutil.copy(root / "images/a000.jpg", root / place / "b.jpg")
    shutil.copy(root / "images/a001.jpg", root / "other/b.jpg")
    (root / "train.txt").write_text("a000\na001\na002\nother/b.jpg\n")
    with pytest.raises(UsageError, match=r"names .*own/other/b.jpg, which has the id of .*images/other/b.jpg"):
        find_dataset("folder", root)


def test_ids_that_end_like_files_come_back_as_they_were_written(folder_root):
    root = folder_root(masked=6, bare=0, val=0)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        for number in (0, 1):  # a000.jpg.png is beside a000.jpg, a001.jpg.png is not
            file = root / kind / f"a{number:03d}.{suffix}"
            shutil.copy(root / kind / f"a{number + 2:03d}.{suffix}", root / kind / f"a{number:03d}.jpg.png")
            if number:
                file.unlink()
    (root / "val.txt").write_text("a005\n")
    dataset = find_dataset("folder", root)
    written = resolve_split("all", dataset).labeled
    assert written == ("a000", "a000.jpg", "a001.jpg", "a002", "a003", "a004")
    assert "images holds a000.jpg and a picture with one more extension" in used(dataset)[2]
    for id in written:
        for text in (id, f"{id}.png", f"images/{id}.png"):
            if text != "a000.png":
                assert resolve_split(str(write(root / "few.txt", text)), dataset).labeled == (id,), text
    assert resolve_split(str(write(root / "few.txt", "images/a000.jpg")), dataset).labeled == ("a000",)


def test_masks_that_differ_from_their_images_by_one_ending_are_theirs(folder_root):
    root = folder_root(masked=4, bare=3, val=0)
    for mask in (root / "masks").iterdir():
        mask.rename(mask.with_name(f"{mask.stem}_L.png"))
    masks, known, notes = used(find_dataset("folder", root))
    assert masks == {id: root / f"masks/{id}_L.png" for id in IDS[:4]}
    assert known == IDS[:7]
    assert f"{root / 'masks/a000_L.png'} is the mask of {root / 'images/a000.jpg'}" in notes
    (root / "masks/a005.png").write_bytes((root / "masks/a000_L.png").read_bytes())
    with pytest.raises(UsageError, match="has 1 images with masks"):  # called as it should be: the others are strange
        find_dataset("folder", root)


def test_masks_called_like_whole_files_are_those_of_the_files(folder_root):
    root = folder_root(masked=4, bare=0, val=2)
    for mask in (root / "masks").iterdir():
        mask.rename(mask.with_name(f"{mask.stem}.jpg.png"))
    masks, _, notes = used(find_dataset("folder", root))
    assert masks == {id: root / f"masks/{id}.jpg.png" for id in IDS[:4]}
    assert "4 masks are called after their images" in notes


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
    assert "2 images of folders for testing or validation are left alone" in notes


def test_a_validation_list_of_all_that_has_masks_is_refused(folder_root):
    root = folder_root(masked=4, bare=2, val=0)
    write(root / "val.txt", "\n".join(IDS[:4]))
    with pytest.raises(UsageError, match=r"val.txt names all images with masks: leave some"):
        find_dataset("folder", root)


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


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(("train", "train"), ("training", "train"), ("train2017", "train"), ("Train_Set", "train")),
        *(("val", "val"), ("valid", "val"), ("validation", "val"), ("VAL", "val"), ("val2017", "val")),
        *(("eval", "val"), ("dev", "val"), ("holdout", "val"), ("hold-out", "val"), ("val_images", "val")),
        *(("test", "test"), ("tests", "test"), ("testing", "test"), ("test_images", "test"), ("Test-1", "test")),
        *((name, None) for name in ("", "trains", "trainval", "value", "valley", "test_drive", "2017", "street")),
    ],
)
def test_the_part_of_a_data_set_by_a_name(name, part):
    assert part_of(name) == part
