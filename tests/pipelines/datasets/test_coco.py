import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.datasets.coco import CLASSES, PALETTE
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.manifest import prepare
from semiseg.pipelines.datasets.splits import resolve_split
from semiseg.pipelines.errors import UsageError


def test_classes_follow_the_category_ids():
    """1 to 90, of which these are of no object: 12, 26, 29, 30, 45, 66, 68, 69, 71, 83."""
    ids = [id for id in range(1, 91) if id not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
    category = dict(zip(ids, CLASSES[1:], strict=True))
    named = {1: "person", 13: "stop sign", 27: "backpack", 44: "bottle", 67: "dining table", 72: "tv", 90: "toothbrush"}
    assert {id: category[id] for id in named} == named
    assert CLASSES[0] == "background"
    assert len(CLASSES) == len(set(CLASSES)) == len(PALETTE) == len(set(PALETTE)) == 81


def test_both_parts_have_their_masks_in_one_folder(coco_root):
    root = coco_root()
    for place in (root, root.parent):
        dataset = find_dataset("coco", place)
        assert [sample.id for sample in dataset.train] == ["000000000001", "000000000002", "000000000003"]
        assert [sample.id for sample in dataset.val] == ["000000000004", "000000000005"]
        assert dataset.notes == ()
    histogram = np.array(prepare(dataset).histogram)
    assert np.flatnonzero(histogram).tolist() == [0, 1, 80]


def test_masks_of_the_parts_may_lie_in_folders_of_their_own(coco_root):
    root = coco_root()
    found = find_dataset("coco", root)
    before = [sample.mask.name for sample in found.samples]
    for part, samples in (("train2017", found.train), ("val2017", found.val)):
        (root / "masks" / part).mkdir()
        for sample in samples:
            sample.mask.rename(root / "masks" / part / sample.mask.name)
    after = find_dataset("coco", root)
    assert [sample.mask.name for sample in after.samples] == before
    assert {sample.mask.parent.name for sample in after.val} == {"val2017"}
    assert after.notes == ()


def test_published_lists_fit(coco_root, tmp_path):
    root = coco_root()
    path = tmp_path / "labeled.txt"
    path.write_text("train2017/000000000002.jpg masks/000000000002.png\n")
    split = resolve_split(str(path), find_dataset("coco", root))
    assert split.labeled == ("000000000002",)
    assert set(split.unlabeled) == {"000000000001", "000000000003"}


def test_masks_of_category_ids_are_refused(coco_root):
    root = coco_root()
    Image.fromarray(np.resize(np.uint8([0, 1, 90]), (32, 48))).save(root / "masks/000000000001.png")
    with pytest.raises(UsageError, match="has label values 90 but the 81 classes are 0 to 80"):
        prepare(find_dataset("coco", root))


def test_missing_parts_are_named(coco_root):
    root = coco_root()
    (root / "train2017/000000000001.jpg").unlink()
    (note,) = find_dataset("coco", root).notes
    assert note.startswith("1 masks belong to no image, 000000000001 for one")
    (root / "masks/000000000005.png").unlink()
    with pytest.raises(UsageError, match=r"validation image .*005\.jpg has no mask in .*masks: put masks there that "):
        find_dataset("coco", root)
    for image in (root / "val2017").iterdir():
        image.unlink()
    with pytest.raises(UsageError, match=r"val2017 holds no images: unpack train2017\.zip and val2017\.zip in "):
        find_dataset("coco", root)
