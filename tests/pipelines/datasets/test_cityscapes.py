import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.datasets.cityscapes import CLASSES, PALETTE, RAW_IDS, TRAIN_ID
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.manifest import prepare
from semiseg.pipelines.datasets.splits import resolve_split
from semiseg.pipelines.errors import UsageError

AACHEN = "aachen_000000_000019"


def test_label_table():
    named = {7: "road", 11: "building", 23: "sky", 24: "person", 26: "car", 31: "train", 33: "bicycle"}
    assert {raw: CLASSES[TRAIN_ID[raw]] for raw in named} == named
    assert sorted(TRAIN_ID[TRAIN_ID != 255]) == list(range(19))
    assert TRAIN_ID[[0, 4, 9, 18, 29, 30, 255]].tolist() == [255] * 7
    assert len(CLASSES) == len(PALETTE) == len(set(PALETTE)) == 19


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_finds_either_kind_of_mask(cityscapes_root, kind):
    dataset = find_dataset("cityscapes", cityscapes_root(kind))
    assert [sample.id for sample in dataset.train] == [
        AACHEN, "aachen_000002_000019", "bremen_000001_000019", "bremen_000003_000019",
    ]  # fmt: skip
    assert [sample.id for sample in dataset.val] == ["frankfurt_000000_000019", "frankfurt_000001_000019"]
    assert all(sample.mask.name == f"{sample.id}_gtFine_{kind}.png" for sample in (*dataset.train, *dataset.val))
    assert {sample.remap for sample in (*dataset.train, *dataset.val)} == {RAW_IDS if kind == "labelIds" else None}


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
@pytest.mark.parametrize(
    "line",
    [
        f"leftImg8bit/train/aachen/{AACHEN}_leftImg8bit.png gtFine/train/aachen/{AACHEN}_gtFine_labelTrainIds.png",
        f"leftImg8bit/train/aachen/{AACHEN}_leftImg8bit.png gtFine/train/aachen/{AACHEN}_gtFine_labelIds.png",
        f"/images/train/{AACHEN}.png\t/segmentation/train/{AACHEN}_gtFine.png",
    ],
)
def test_lists_of_either_kind_fit_either_disk(cityscapes_root, tmp_path, kind, line):
    path = tmp_path / "labelled.txt"
    path.write_text(line + "\n")
    split = resolve_split(str(path), find_dataset("cityscapes", cityscapes_root(kind)))
    assert split.labeled == (AACHEN,)
    assert len(split.unlabeled) == 3


def test_raw_ids_are_mapped_into_the_cache(cityscapes_root, own_cache):
    root = cityscapes_root("labelIds")
    dataset = find_dataset("cityscapes", root)
    record = prepare(dataset).records[AACHEN]
    raw, mapped = np.asarray(Image.open(dataset.train[0].mask)), np.asarray(Image.open(record.mask))
    assert record.mask.is_relative_to(own_cache)
    assert set(np.unique(raw)) == {0, 4, 7, 8, 11, 23, 26, 33}
    for before, after in {0: 255, 4: 255, 7: 0, 8: 1, 11: 2, 23: 10, 26: 13, 33: 18}.items():
        assert (mapped[raw == before] == after).all()


def test_raw_ids_that_a_program_saved_in_three_channels_are_mapped_alike(cityscapes_root):
    """As OpenCV's imread and imwrite leave them."""
    dataset = find_dataset("cityscapes", cityscapes_root("labelIds"))
    path = dataset.train[0].mask
    before, raw = np.asarray(Image.open(prepare(dataset).records[AACHEN].mask)), np.asarray(Image.open(path))
    Image.fromarray(np.stack([raw] * 3, -1)).save(path)
    assert np.array_equal(Image.open(prepare(dataset).records[AACHEN].mask), before)
    Image.fromarray(np.stack([raw, raw, 0 * raw], -1)).save(path)
    with pytest.raises(UsageError, match="is in colour where it should hold raw Cityscapes ids"):
        prepare(dataset)


def test_ids_of_no_class_are_not_taken_for_a_255_that_marks_one(cityscapes_root):
    """Where the masks lack one class alone."""
    root = cityscapes_root("labelIds", height=32, width=64)
    ids = [raw for raw in range(34) if TRAIN_ID[raw] != CLASSES.index("bicycle")]
    for path in (root / "gtFine").glob("*/*/*.png"):
        Image.fromarray(np.resize(np.uint8(ids), (32, 64))).save(path)
    assert prepare(find_dataset("cityscapes", root)).notes == ()


def test_train_ids_are_used_as_they_are_and_preferred(cityscapes_root):
    root = cityscapes_root("labelTrainIds")
    dataset = find_dataset("cityscapes", root)
    assert prepare(dataset).records[AACHEN].mask == dataset.train[0].mask
    raw = dataset.train[0].mask.with_name(f"{AACHEN}_gtFine_labelIds.png")
    shutil.copy(dataset.train[0].mask, raw)
    assert find_dataset("cityscapes", root).train[0].mask.name.endswith("labelTrainIds.png")


def test_masks_surveyed_without_their_mapping_or_with_another_are_decoded_again(cityscapes_root):
    mapped = find_dataset("cityscapes", cityscapes_root("labelIds"))
    plain = replace(mapped, train=tuple(replace(s, remap=None) for s in mapped.train), val=())
    with pytest.raises(UsageError, match="has label values 23, 26, 33"):
        prepare(plain)
    first = prepare(mapped)
    assert sum(first.histogram) > 0
    steps = []
    assert prepare(mapped, on_progress=lambda *step: steps.append(step)) == first
    assert steps == []
    with pytest.raises(UsageError, match="has label values 23, 26, 33"):
        prepare(plain)
    assert prepare(mapped) == first


def test_file_named_label_ids_with_other_values_is_refused(cityscapes_root):
    dataset = find_dataset("cityscapes", cityscapes_root("labelIds"))
    Image.fromarray(np.full((32, 64), 70, np.uint8)).save(dataset.train[0].mask)
    with pytest.raises(UsageError, match="has the value 70 but raw Cityscapes ids end at 33"):
        prepare(dataset)
    Image.fromarray(np.full((32, 64), 255, np.uint8)).save(dataset.train[0].mask)  # of train ids alone
    with pytest.raises(UsageError, match=r"has the value 255 but raw .*, or call it \*_labelTrainIds\.png"):
        prepare(dataset)


def test_images_of_any_format_are_found_and_masks_without_one_are_noted(cityscapes_root):
    root = cityscapes_root()
    before = find_dataset("cityscapes", root)
    assert before.notes == ()
    for sample in (before.val[0], before.train[0]):
        Image.open(sample.image).save(sample.image.with_suffix(".jpg"))
        sample.image.unlink()
    after = find_dataset("cityscapes", root)
    assert [sample.id for sample in after.val] == [sample.id for sample in before.val]
    assert [sample.id for sample in after.train] == [sample.id for sample in before.train]
    before.train[1].image.unlink()
    (note,) = find_dataset("cityscapes", root).notes
    assert note.startswith("1 masks belong to no image, ")
    assert before.train[1].id in note


@pytest.mark.parametrize(
    ("remove", "what"),
    [
        ("gtFine", "has no gtFine"),
        ("leftImg8bit/val", r"holds no \*_leftImg8bit\.png"),
        ("gtFine/val", r"validation image .* has no \*_gtFine_labelTrainIds\.png or \*_gtFine_labelIds\.png"),
    ],
)
def test_missing_parts_are_named(cityscapes_root, remove, what):
    root = cityscapes_root()
    shutil.rmtree(root / remove)
    with pytest.raises(UsageError, match=what):
        find_dataset("cityscapes", root)


def test_training_images_without_masks_stay_in_the_pool(cityscapes_root):
    root = cityscapes_root()
    shutil.rmtree(root / "gtFine/train/bremen")
    split = resolve_split("all", find_dataset("cityscapes", root))
    assert (len(split.labeled), len(split.unlabeled)) == (2, 2)


def test_every_raw_id_has_its_name():
    """labels.py of cityscapesScripts."""
    names = "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car "
    names += "truck bus train motorcycle bicycle"
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [CLASSES[TRAIN_ID[raw]] for raw in ids] == [name.replace("_", " ") for name in names.split()]
