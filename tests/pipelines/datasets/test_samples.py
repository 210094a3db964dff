"""Images and masks of a folder by their names, and by lists that name files."""

import os
import shutil
import unicodedata

import pytest
from own import IDS, ids, used, write

from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.splits import resolve_split
from semiseg.pipelines.errors import UsageError


def masks_beside(root, tail="_mask"):
    for mask in list((root / "masks").iterdir()):
        mask.rename(root / "images" / f"{mask.stem}{tail}.png")
    (root / "masks").rmdir()


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


def test_ids_that_end_like_files_come_back_where_the_root_holds_the_images(folder_root):
    root = folder_root(masked=4, bare=0, val=0)
    for file in (root / "images").iterdir():
        file.rename(root / file.name)
    for kind, suffix in ((root, "jpg"), (root / "masks", "png")):
        shutil.copy(kind / f"a001.{suffix}", kind / "a000.jpg.png")
    (root / "val.txt").write_text("a003\n")
    dataset = find_dataset("folder", root, images=".")
    written = resolve_split("all", dataset).labeled
    assert written == ("a000", "a000.jpg", "a001", "a002")
    assert resolve_split(str(write(root / "few.txt", "\n".join(written))), dataset).labeled == written


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
