import hashlib
import itertools
import shutil
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.registry import SPLITS, PublishedSplit, checksum
from semiseg.pipelines.datasets.splits import absolute_spec, check_lists, draw, published_share, resolve_split
from semiseg.pipelines.errors import UsageError

IDS = st.lists(st.text("0123456789_", min_size=1, max_size=8), min_size=1, max_size=80, unique=True)


@given(IDS, st.integers(1, 16), st.integers(0, 2**32))
def test_draw_counts_nests_and_ignores_order(ids, ratio, seed):
    if len(ids) < 2 * ratio:
        return
    large, small = draw(ids, Fraction(1, ratio), seed), draw(ids, Fraction(1, 2 * ratio), seed)
    assert len(large) == len(ids) // ratio
    assert set(small) <= set(large) <= set(ids)
    assert draw(reversed(ids), len(large), seed) == large == tuple(sorted(large))


def test_draws_depend_on_the_seed_and_stay_what_they_are():
    ids = [f"{number:03d}" for number in range(100)]
    assert len({draw(ids, 10, seed) for seed in range(20)}) == 20
    assert draw(ids, 3, 0) == ("000", "031", "072")  # a release that changes this breaks every drawn split in use


@pytest.mark.parametrize("share", [0, 11, Fraction(1, 16)])
def test_draw_refuses_impossible_counts(share):
    with pytest.raises(UsageError, match="of 10 images"):
        draw(map(str, range(10)), share, 0)


@pytest.fixture
def folder(folder_root):
    """Six masked and four bare images in the pool, a006 and a007 for validation."""
    return find_dataset("folder", folder_root())


def listed(tmp_path, name, *ids):
    path = tmp_path / name
    path.write_text("\n".join(ids))
    return str(path)


def test_all(folder):
    split = resolve_split("all", folder)
    assert split.labeled == tuple(f"a00{n}" for n in range(6))
    assert split.unlabeled == ("a008", "a009", "a010", "a011")


@pytest.mark.parametrize(("spec", "count"), [("draw:1/3@1", 2), ("draw:5@1", 5), ("draw:0.5@1", 3), ("draw:1/1@0", 6)])
def test_draw_takes_masked_images_only(folder, spec, count):
    split = resolve_split(spec, folder)
    assert len(split.labeled) == count
    assert set(split.labeled) <= {f"a00{n}" for n in range(6)}
    assert set(split.labeled).isdisjoint(split.unlabeled)
    assert len(split.labeled) + len(split.unlabeled) == 10


def test_draw_from_a_list_without_all_masks(folder_root):
    root = folder_root(masked=8, bare=30, height=8, width=8)
    (root / "train.txt").write_text("\n".join(f"a{n:03d}" for n in (*range(6), *range(8, 38))))
    split = resolve_split("draw:1/2@0", find_dataset("folder", root))
    assert len(split.labeled) == 3
    assert len(split.unlabeled) == 33


def test_draw_is_found_again_without_the_other_masks(voc_root):
    home = voc_root(train=24)
    before = resolve_split("draw:1/4@7", find_dataset("voc", home))
    assert len(before.labeled) == 6
    for id in before.unlabeled:
        (home / "SegmentationClass" / f"{id}.png").unlink()
    assert resolve_split("draw:1/4@7", find_dataset("voc", home)) == before


@pytest.mark.parametrize("seed", range(12))
def test_smaller_draws_are_part_of_larger_ones_also_where_some_masks_are_missing(folder_root, seed):
    root = folder_root(masked=66, bare=0, val=2, height=4, width=4)
    (root / "train.txt").write_text("\n".join(f"a{n:03d}" for n in range(64)))
    for n in (3, 20, 40, 63):
        (root / f"masks/a{n:03d}.png").unlink()
    dataset = find_dataset("folder", root)
    drawn = [set(resolve_split(f"draw:1/{n}@{seed}", dataset).labeled) for n in (16, 8, 4, 2)]
    for small, large in itertools.pairwise(drawn):
        assert small < large
    if len(drawn[1]) < 8:  # it is of the images with masks
        return
    for sample in dataset.train:
        if sample.id not in drawn[1] and sample.mask:
            sample.mask.unlink()
    dataset = find_dataset("folder", root)
    left = [set(resolve_split(f"draw:1/{n}@{seed}", dataset).labeled) for n in (16, 8, 4, 2)]
    assert left == [*drawn[:2], drawn[1], drawn[1]]


def test_labelled_file(folder, tmp_path):
    split = resolve_split(listed(tmp_path, "mine.txt", "images/a003.jpg masks/a003.png", "a001"), folder)
    assert split.name == "mine"
    assert split.labeled == ("a001", "a003")
    assert len(split.unlabeled) == 8
    assert split.checksum == hashlib.md5(b"a001\na003").hexdigest()[:8]


def test_two_files(folder, tmp_path):
    spec = listed(tmp_path, "one", "a001") + "," + listed(tmp_path, "two", "a009", "a002")
    split = resolve_split(spec, folder)
    assert (split.labeled, split.unlabeled) == (("a001",), ("a002", "a009"))


def test_whole_pool_labelled_leaves_the_images_beside_it(voc_root, tmp_path):
    home = voc_root(train=3)
    for name in ("x", "y"):
        shutil.copy(home / "JPEGImages/2007_000001.jpg", home / f"JPEGImages/{name}.jpg")
    dataset = find_dataset("voc", home)
    spec = listed(tmp_path, "all-of-it", *(sample.id for sample in dataset.train))
    assert resolve_split(spec, dataset).unlabeled == ("x", "y")
    assert resolve_split("all", dataset).unlabeled == ()


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "what"),
    [
        (["a001", "a006"], None, "a006 is labelled in .* and in val"),
        (["a001", "a002"], ["a002"], "a002 is in .* and in .*"),
        (["a001"], ["a007"], "a007 is in .* and in val"),
        (["a001", "a009"], None, "a009 is labelled in .* but has no mask"),
        (["a001", "b"], None, "line 2: b is not among"),
    ],
)
def test_leaks_and_gaps_are_refused(folder, tmp_path, labeled, unlabeled, what):
    spec = listed(tmp_path, "labeled.txt", *labeled)
    if unlabeled:
        spec += "," + listed(tmp_path, "unlabeled.txt", *unlabeled)
    with pytest.raises(UsageError, match=what):
        resolve_split(spec, folder)


def test_held_out_image_that_is_labelled_says_how_to_choose(folder_root, tmp_path):
    dataset = find_dataset("folder", folder_root(val=0))
    with pytest.raises(UsageError, match=r"write val\.txt"):
        resolve_split(listed(tmp_path, "labeled.txt", dataset.val[0].id), dataset)


@pytest.mark.parametrize(
    "spec", ["", "1/8", "draw:1/8", "draw:@3", "draw:1/0@3", "draw:9/8@0", "draw:0@0", "nofile.txt"]
)
def test_other_forms_are_refused_with_the_list_of_forms(folder, spec):
    with pytest.raises(UsageError, match="LABELLED_FILE,UNLABELLED_FILE"):
        resolve_split(spec, folder)


VOC_FORMS = {
    "cac": "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png\n",
    "u2pl": "JPEGImages/{0}.jpg SegmentationClass/{0}.png\n",
    "cps": "{0}\n",
    "cps few labels": "{0}\r\n",
}
CITY_FORMS = {
    "cac": "leftImg8bit/train/aachen/{0}_leftImg8bit.png gtFine/train/aachen/{0}_gtFine_labelTrainIds.png\n",
    "fork": "leftImg8bit/train/aachen/{0}_leftImg8bit.png gtFine/train/aachen/{0}_gtFine_labelIds.png\n",
    "cps": "/images/train/{0}.png\t/segmentation/train/{0}_gtFine.png\n",
}


def write(path, ids, form="{0}\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(form.format(id) for id in ids).encode())
    return path


@pytest.fixture
def publish(monkeypatch):
    """`publish(name, dataset, 1/4)` draws a split of the data set's pool and registers it; returns the labelled ids."""

    def register(name, dataset, share=Fraction(1, 4), pool=None):
        ids = draw((sample.id for sample in dataset.train), share, 5)
        values = dict(labeled=len(ids), pool=pool or len(dataset.train), checksum=checksum(ids), share=share)
        published = PublishedSplit(name, dataset.layout, **values, clean=None, shipped_by=("CPS",))
        monkeypatch.setitem(SPLITS, name, published)
        return ids

    return register


@pytest.mark.parametrize("form", [*VOC_FORMS.values(), *CITY_FORMS.values()], ids=[*VOC_FORMS, *CITY_FORMS])
def test_a_published_name_finds_the_copy_in_any_format(voc_root, cityscapes_root, publish, tmp_path, form):
    city = form in CITY_FORMS.values()
    dataset = find_dataset("cityscapes", cityscapes_root(train=8)) if city else find_dataset("voc", voc_root(train=8))
    ids = publish("test-1/4", dataset)
    rest = [sample.id for sample in dataset.train if sample.id not in ids]
    file = write(tmp_path / "lists/some/labeled.txt", ids, form)
    split = resolve_split("test-1/4", dataset, tmp_path / "lists")
    assert (split.labeled, split.unlabeled) == (ids, tuple(rest))
    assert (split.name, split.names, split.checksum) == ("test-1/4", ("test-1/4",), checksum(ids))
    assert "the rest of the training images" in split.notes[0]
    other = write(tmp_path / "lists/some/unlabeled.txt", rest, form)
    assert str(other) in resolve_split("test-1/4", dataset, tmp_path / "lists").notes[0]
    by_file = resolve_split(str(file), dataset)
    assert (by_file.name, by_file.names, by_file.unlabeled) == ("test-1/4", ("test-1/4",), tuple(rest))
    assert published_share(str(file)) == published_share("test-1/4") == "1/4"


def test_a_pool_of_another_size_is_refused_until_its_list_is_there(voc_root, publish, tmp_path):
    dataset = find_dataset("voc", voc_root(train=12))
    ids = publish("test-few", dataset, pool=8)
    publish("test-all", dataset)
    rest = [sample.id for sample in dataset.train if sample.id not in ids]
    write(tmp_path / "lists/labeled.txt", ids)
    with pytest.raises(
        UsageError, match=r"test-few has 5 unlabelled images, and .* has 9 for training.*or take test-all"
    ):
        resolve_split("test-few", dataset, tmp_path / "lists")
    assert len(resolve_split("test-all", dataset, tmp_path / "lists").unlabeled) == 9
    pair = write(tmp_path / "lists/unlabeled.txt", [*rest[:5], ids[0]])
    split = resolve_split("test-few", dataset, tmp_path / "lists")
    assert split.unlabeled == tuple(rest[:5])
    assert "1 of them labelled too" in split.notes[0]
    with pytest.raises(UsageError, match=f"{ids[0]} is in .* use --split test-few, which keeps it labelled"):
        resolve_split(f"{tmp_path / 'lists/labeled.txt'},{pair}", dataset)


def test_further_unlabelled_images_stand_beside_those_of_a_published_split(voc_root, publish, tmp_path):
    home = voc_root(train=8)
    (home / "pool").mkdir()
    shutil.copy(home / "JPEGImages/2007_000001.jpg", home / "pool/more.jpg")
    dataset = find_dataset("voc", home, unlabeled="pool")
    write(tmp_path / "lists/labeled.txt", ids := publish("test-1/4", dataset))
    split = resolve_split("test-1/4", dataset, tmp_path / "lists")
    rest = {sample.id for sample in dataset.train} - {*ids}
    assert (split.name, split.names, split.labeled) == ("test-1/4", (), ids)
    assert split.unlabeled == (*sorted(rest), "pool/more")
    assert "beside them 1 unlabelled images that the published results did not have" in split.notes[0]


def test_a_published_list_that_holds_validation_images_is_refused(voc_root, publish, tmp_path):
    home = voc_root(train=8)
    dataset = find_dataset("voc", home)
    ids = publish("test-1/4", dataset)
    write(tmp_path / "lists/labeled.txt", ids)
    val = home / "ImageSets/Segmentation/val.txt"
    val.write_text(val.read_text() + f"{ids[0]}\n")
    with pytest.raises(UsageError, match=f"{ids[0]} is labelled in .* and in val"):
        resolve_split("test-1/4", find_dataset("voc", home), tmp_path / "lists")


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("1/8", "voc-cps-1/8, voc-u2pl-1/8, voc-cac-0-1/8, voc-cac-1-1/8, voc-cac-2-1/8, or draw:1/8@SEED"),
        ("92", "voc-original-92, voc-cps-pseudoseg-92"),
        ("city-cps-1/8", "is one of cityscapes and the data set is of layout voc"),
        ("voc-cps-1-8", "no published split is called 'voc-cps-1-8'.*voc-cps-1/8"),
    ],
)
def test_ambiguous_and_unknown_names_are_refused_with_those_there_are(voc_root, spec, what):
    with pytest.raises(UsageError, match=what):
        resolve_split(spec, find_dataset("voc", voc_root()))


def test_shares_of_published_kinds_of_split():
    assert published_share("voc-u2pl-1/16") == "1/16"
    assert published_share("voc-original-92") == "few"
    assert published_share("draw:2/16@3") == published_share("draw:0.125@3") == "1/8"
    others = ("all", "draw:30@0", "no file", "voc-original-1464", "voc-cac-0-1464")
    assert [published_share(spec) for spec in others] == [None] * len(others)
    with pytest.raises(UsageError, match="draw:1/0@0"):
        published_share("draw:1/0@0")


def test_check_names_every_kind_of_fault(folder, tmp_path):
    labeled = write(tmp_path / "labeled.txt", ["a001", "images/a002.jpg masks/a002.png", "a001", "a003", "a007"])
    unlabeled = write(tmp_path / "unlabeled.txt", ["a002", "a004", "a006", "b"])
    val = write(tmp_path / "val.txt", ["a003"])
    twice, both = ("twice", labeled, ("a001",)), ("labelled and unlabelled", unlabeled, ("a002",))
    seen = [(fault.kind, fault.file, fault.ids) for fault in check_lists(labeled, unlabeled, val=val)]
    assert seen == [twice, both, ("in val", labeled, ("a003",))]
    seen = [(fault.kind, fault.file, fault.ids) for fault in check_lists(labeled, unlabeled, dataset=folder)]
    in_val = [("in val", labeled, ("a007",)), ("in val", unlabeled, ("a006",))]
    assert seen == [twice, ("unknown", unlabeled, ("b",)), both, *in_val]
    seen = [(fault.kind, fault.file, fault.ids) for fault in check_lists(unlabeled, val=labeled, dataset=folder)]
    assert ("in val", unlabeled, ("a002", "a006")) in seen
    bare = write(tmp_path / "bare.txt", ["a009"])
    assert [(fault.kind, fault.ids) for fault in check_lists(bare, dataset=folder)] == [("without mask", ("a009",))]
    assert check_lists(write(tmp_path / "good.txt", ["a001", "a002"]), bare, dataset=folder) == []
    pairs = ["/JPEGImages/a001.jpg /SegmentationClassAug/a001.png", "JPEGImages/a002.jpg SegmentationClassAug/a003.png"]
    (fault,) = check_lists(write(tmp_path / "pairs.txt", pairs))
    assert (fault.kind, fault.ids) == ("with the label of another", ("a002",))
    (fault,) = check_lists(write(tmp_path / "spelled.txt", ["/JPEGImages/a001.jpg", "a001", "a002"]))
    assert (fault.kind, fault.ids) == ("twice", ("a001",))


def test_check_finds_what_training_refuses(voc_root, tmp_path):
    dataset = find_dataset("voc", voc_root())
    one, other = (sample.id for sample in dataset.train[:2])
    list_file = write(tmp_path / "pairs.txt", [f"/JPEGImages/{one}.jpg /SegmentationClassAug/{other}.png"])
    (fault,) = check_lists(list_file, dataset=dataset)
    assert (fault.kind, fault.ids) == ("with the label of another", (one,))
    with pytest.raises(UsageError, match=f"pairs the image {one} with the label of {other}"):
        resolve_split(str(list_file), dataset)


def test_check_knows_images_of_folders_again(folder_root, tmp_path):
    root = folder_root(val=2)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (root / kind / "day").mkdir()
        for id in ("a000", "a001"):
            (root / kind / f"{id}.{suffix}").rename(root / kind / "day" / f"{id}.{suffix}")
    labeled = write(tmp_path / "labeled.txt", ["day/a000", "a002"])
    val = write(tmp_path / "val.txt", ["images/day/a000.jpg", "night/a000"])
    faults = check_lists(labeled, val=val, dataset=find_dataset("folder", root))
    assert [(one.kind, one.file, one.ids) for one in faults] == [
        ("unknown", val, ("night/a000",)),
        ("in val", labeled, ("day/a000",)),
    ]


def test_check_without_a_data_set_wants_file_names_that_stand_for_one_image(tmp_path):
    file = write(tmp_path / "labeled.txt", ["day/a.jpg", "night/a.jpg"])
    with pytest.raises(UsageError, match=r"line 2: night/a\.jpg and day/a\.jpg have one file name: pass --layout"):
        check_lists(file)


@pytest.mark.parametrize("name", ["\0", "a\0b.txt", "\ud800", "none.txt"])
def test_a_second_list_under_a_name_that_no_file_can_have_is_not_there(folder, tmp_path, name):
    first = listed(tmp_path, "labeled.txt", folder.train[0].id)
    with pytest.raises(UsageError, match=r"^the list .* does not exist: check the path$"):
        resolve_split(f"{first},{name}", folder)


@pytest.mark.parametrize("spec", ["draw:1/{}@0", "draw:{}@0", "draw:0.{}@0", "draw:1/2@{}"])
def test_numbers_of_thousands_of_digits_are_refused(folder, spec):
    with pytest.raises(UsageError, match="cannot read the split 'draw:") as error:
        resolve_split(spec.format("9" * 5000), folder)
    assert len(str(error.value)) < 500


def test_a_labelled_list_may_not_give_another_mask(folder, tmp_path):
    file = write(tmp_path / "labeled.txt", ["/old/images/a001.jpg /old/masks/a001.png", "images/a002.jpg masks/z.png"])
    with pytest.raises(UsageError, match=r"line 2: gives a002 the mask masks/z.png, but it has .*a002.png"):
        resolve_split(str(file), folder)


def test_a_labelled_list_that_alone_knows_the_mask(folder, tmp_path):
    file = write(tmp_path / "labeled.txt", ["images/a009.jpg other/m9.png"])
    with pytest.raises(UsageError, match=r"a009 is labelled in .* no mask: .*pass the list as --files.train-list too"):
        resolve_split(str(file), folder)


def test_specs_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.txt", ["x"])
    write(tmp_path / "b.txt", ["y"])
    assert absolute_spec("a.txt") == str(tmp_path / "a.txt")
    assert absolute_spec("a.txt, b.txt") == f"{tmp_path / 'a.txt'},{tmp_path / 'b.txt'}"
    for spec in ("all", "draw:1@0", "voc-original-92"):
        write(tmp_path / spec, ["x"])
    for spec in ("all", "draw:1@0", "draw:1/8@0", "voc-original-92", "voc-cps-1/8", "none.txt"):
        assert absolute_spec(spec) == spec, "a form of its own is no file, whatever lies about"


def test_all_of_a_pool_without_masks_is_refused(voc_root):
    root = voc_root()
    for id in (root / "ImageSets/Segmentation/train.txt").read_text().split():
        (root / f"SegmentationClass/{id}.png").unlink()
    with pytest.raises(UsageError, match="the split all: none of the 6 images of the pool has a mask; add masks"):
        resolve_split("all", find_dataset("voc", root))
