import json
import shutil

import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.datasets.doctor import diagnose
from semiseg.pipelines.datasets.layouts import find_dataset


def texts(report, level):
    return [finding.text for finding in report.findings if finding.level == level]


def has(report, level, part):
    return any(part in text for text in texts(report, level))


def test_healthy_data_set_and_nothing_written(voc_root, own_cache):
    home = voc_root()
    before = sorted(home.rglob("*"))
    report = diagnose({"layout": "voc", "root": home}, split="draw:1/2@0")
    assert report.ok
    assert report.counts["training_images"] == report.counts["with_masks"] == 6
    assert has(report, "ok", "9 masks will be converted to 8-bit gray")
    assert has(report, "ok", "split draw:1/2@0: 3 labelled, 3 unlabelled images")
    assert has(report, "warning", "17 classes occur in no training mask")
    assert not own_cache.exists()
    assert sorted(home.rglob("*")) == before


def test_class_counts_are_those_of_the_masks(folder_root):
    root = folder_root()
    report = diagnose(find_dataset("folder", root))
    masks = [np.asarray(Image.open(root / f"masks/a00{n}.png")) for n in range(6)]
    assert [c.pixels for c in report.classes] == [sum((m == v).sum() for m in masks) for v in range(3)]
    assert sum(c.share for c in report.classes) == pytest.approx(1)
    assert [(c.images, c.val_images) for c in report.classes] == [(6, 2)] * 3
    assert has(report, "ok", "4 training images have no mask")


def test_every_fault_is_listed(folder_root):
    root = folder_root()
    (root / "images/a000.jpg").write_text("not a picture")
    for name in ("a001", "a002"):
        Image.fromarray(np.full((40, 48), 9, np.uint8)).save(root / f"masks/{name}.png")
    Image.fromarray(np.full((40, 48, 3), (9, 0, 0), np.uint8)).save(root / "masks/a003.png")
    Image.fromarray(np.zeros((4, 48), np.uint8)).save(root / "masks/a004.png")
    report = diagnose(find_dataset("folder", root))
    assert not report.ok
    assert sorted(texts(report, "error")) == [
        "1 files that cannot be decoded",
        "1 masks of another size than their image",
        "1 masks with several channels",
        "2 masks with values outside the classes",
    ]
    values = next(f for f in report.findings if "outside" in f.text)
    assert len(values.details) == 2
    assert "a001.png has label values 9" in values.details[0]
    assert values.cure


def test_what_is_no_fault_but_worth_knowing(folder_root):
    root = folder_root(masked=8, bare=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "images/a008.jpg").save(root / "images/phone.jpg", exif=exif)
    shutil.copy(root / "images/a006.jpg", root / "images/again.jpg")  # a006 is for validation
    shutil.copy(root / "masks/a000.png", root / "masks/orphan.png")
    for n in range(6):
        Image.fromarray(np.where(np.arange(48) < 10, n == 0, 255).astype(np.uint8)[None].repeat(40, 0)).save(
            root / f"masks/a00{n}.png"
        )
    report = diagnose(find_dataset("folder", root))
    assert report.ok
    for part in (
        "1 images carry an EXIF orientation",
        "have a side below 64 pixels",
        "1 images are, byte for byte, also validation images",
        "1 masks belong to no image",
        "1 classes occur in no training mask",
        "79% of the training pixels are ignored",
    ):
        assert has(report, "warning", part), part


def test_a_note_that_is_a_warning_already_is_called_so_once(folder_root):
    root = folder_root(masked=8, bare=0, val=2)
    (root / "train.txt").write_text("a000\na001\na002\n")
    (root / "test.txt").write_text("a002\n")
    report = diagnose(find_dataset("folder", root))
    (finding,) = (finding for finding in report.findings if "are trained on" in finding.text)
    assert finding.level == "warning"
    assert finding.text.startswith("1 images of ")


def test_masks_of_images_that_nobody_labelled_may_be_empty(folder_root):
    root = folder_root(masked=8, bare=2)
    for n in (1, 4):
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(root / f"masks/a00{n}.png")
    report = diagnose(find_dataset("folder", root))
    (empty,) = (one for one in report.findings if "masks hold nothing but" in one.text)
    assert empty.text.startswith("2 of 6 training masks")
    assert empty.details == ("a001", "a004")
    assert (empty.level, empty.cure[:6]) == ("ok", "delete")


def test_two_classes_as_0_and_255(folder_root):
    root = folder_root()
    (root / "classes.txt").write_text("ground\ncrack\n")
    for path in (root / "masks").iterdir():
        Image.fromarray(np.where(np.arange(48) < 30, 0, 255).astype(np.uint8)[None].repeat(40, 0)).save(path)
    report = diagnose(find_dataset("folder", root))
    assert has(report, "error", "masks that mark the second class by 255")


def test_raw_cityscapes_ids_are_told(cityscapes_root):
    report = diagnose({"layout": "cityscapes", "root": cityscapes_root("labelIds")})
    assert report.ok
    assert has(report, "ok", "6 masks hold raw Cityscapes ids")
    assert report.classes[0].pixels > 0


@pytest.mark.parametrize(
    ("split", "level", "part"),
    [
        ("leak.txt", "error", "a006 is labelled in"),
        ("draw:1/9", "error", "cannot read the split"),
        ("everything.txt,half.txt", "error", "is in"),
        ("everything.txt", "warning", "leaves no unlabelled images"),
        ("half.txt", "ok", "3 labelled, 3 unlabelled"),
    ],
)
def test_splits_are_checked(folder_root, monkeypatch, split, level, part):
    root = folder_root(bare=0)
    monkeypatch.chdir(root)
    ids = [f"a00{n}" for n in range(6)]
    for name, chosen in {"leak.txt": [*ids, "a006"], "everything.txt": ids, "half.txt": ids[:3]}.items():
        (root / name).write_text("\n".join(chosen))
    report = diagnose(find_dataset("folder", root), split=split)
    assert has(report, level, part)
    assert report.ok == (level != "error")


def test_images_beside_the_pool_are_looked_at_too(folder_root, tmp_path):
    """A list may label them."""
    root = folder_root(bare=0)
    (root / "train.txt").write_text("a000\na001\n")
    (tmp_path / "labeled.txt").write_text("a002\na003\n")
    shutil.copy(root / "images/a006.jpg", root / "images/a005.jpg")  # a006 is for validation
    report = diagnose(find_dataset("folder", root), split=str(tmp_path / "labeled.txt"))
    assert not has(report, "warning", "occur in none of the labelled images")
    assert has(report, "warning", "1 images are, byte for byte, also validation images")


def test_missing_data_is_a_finding(tmp_path):
    report = diagnose({"layout": "voc", "root": tmp_path / "nowhere"})
    assert not report.ok
    assert report.findings[0].text.endswith("pass the root of the data set with --data ROOT")


@pytest.mark.parametrize("name", ["a", "a: b"])
def test_what_is_said_of_a_place_is_told_whole(tmp_path, name):
    """A colon in a name, or in what is to be written, is not where the cure begins."""
    (tmp_path / name).mkdir()
    report = diagnose({"layout": "folder", "root": tmp_path / name})
    assert f"put them in {tmp_path / name}/images" in report.findings[0].text
    assert report.findings[0].cure == ""
    assert list(report.lines())[-1].startswith("not ready")


def test_report_as_text_and_json(folder_root):
    root = folder_root()
    for name in ("a000", "a001", "a002", "a003", "a004", "a005"):
        Image.fromarray(np.full((40, 48), 9, np.uint8)).save(root / f"masks/{name}.png")
    report = diagnose(find_dataset("folder", root))
    lines = list(report.lines())
    assert lines[1].startswith("10 training images, 6 with masks, 2 validation images")
    assert any("and 1 more" in line for line in lines)
    document = json.loads(json.dumps(report.to_dict()))
    assert document["ok"] is False
    assert [c["name"] for c in document["classes"]] == ["ground", "car", "tree"]
    assert {f["level"] for f in document["findings"]} <= {"ok", "warning", "error"}


VALUES = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48) % 3
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)


def a_mask(save, suffix=".png", **options):
    """Makes or mends the mask of a000."""

    def act(root, good):
        for path in (root / "masks").glob("a000.*"):
            path.unlink()
        if good:
            Image.fromarray(VALUES).save(root / "masks/a000.png")
        else:
            save(root / f"masks/a000{suffix}", **options)

    return act


def a_picture(save, suffix=".png"):
    """Makes or mends the picture of a000."""

    def act(root, good):
        for path in (root / "images").glob("a000.*"):
            path.unlink()
        if good:
            Image.fromarray(PIXELS).save(root / "images/a000.jpg")
        else:
            save(root / f"images/a000{suffix}")

    return act


def indexed(path, colours=(0, 0, 0, 0, 0, 200, 200, 0, 0)):
    image = Image.fromarray(VALUES)
    image.putpalette(colours)
    image.save(path)


def palettes(root, good):
    indexed(root / "masks/a000.png")
    indexed(root / "masks/a001.png", (0, 0, 0, 200, 0, 0, 0, 0, 200))
    if good:
        (root / "classes.txt").write_text("ground\t#000000\ncar\t#c80000\ntree\t#0000c8\n")


def binary(root, good):
    (root / "classes.txt").write_text("ground\ncar\n")
    for path in (root / "masks").iterdir():
        values = VALUES % 2
        Image.fromarray(values if good else values * 255).save(path)


def damaged(path):
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:-12])


KINDS = {
    "palettes that disagree": palettes,
    "mark the second class by 255": binary,
    "make them the same size": a_mask(lambda path: Image.fromarray(VALUES[:30]).save(path)),
    "one of them lies on its side": a_mask(lambda path: Image.fromarray(VALUES.T.copy()).save(path)),
    "rounding would make up classes": a_mask(lambda path: Image.fromarray(VALUES / np.float32(4)).save(path), ".tif"),
    "correct the mask or the class list": a_mask(lambda path: Image.fromarray(VALUES * 3).save(path)),
    "masks saved with losses": a_mask(lambda path: Image.fromarray(VALUES).save(path), ".jpg"),
    "masks with several channels": a_mask(lambda path: Image.fromarray(PIXELS).save(path)),
    "several pages": a_mask(
        lambda path: Image.fromarray(VALUES).save(path, save_all=True, append_images=[Image.fromarray(VALUES)]), ".tif"
    ),
    "do not use their range": a_picture(lambda path: Image.fromarray(VALUES.astype(np.uint16)).save(path)),
    "cannot be decoded": a_picture(damaged),
    "too many pixels": a_picture(lambda path: Image.new("L", (400, 400)).save(path)),
}


@pytest.mark.parametrize("says", KINDS)
def test_each_kind_is_named_and_gone_when_its_cure_was_followed(folder_root, says):
    root = folder_root()
    KINDS[says](root, good=False)
    report = diagnose(dict(layout="folder", root=root, max_megapixels=0.1))
    (error,) = [finding for finding in report.findings if finding.level == "error"]
    assert says in f"{error.text}: {error.cure}"
    KINDS[says](root, good=True)
    report = diagnose(dict(layout="folder", root=root, max_megapixels=0.1))
    assert report.ok, report.findings


def test_one_report_names_every_kind_worst_first(folder_root):
    root = folder_root(masked=26)
    for number, make in enumerate(KINDS.values()):
        if make in (palettes, binary):
            continue
        make(root, good=False)
        for folder in ("images", "masks"):
            for path in (root / folder).glob("a000.*"):
                for old in (root / folder).glob(f"a0{number + 10}.*"):
                    old.unlink()
                path.rename(path.with_name(f"a0{number + 10}{path.suffix}"))
        a_mask(None)(root, good=True)
        a_picture(None)(root, good=True)
    palettes(root, good=False)
    report = diagnose(dict(layout="folder", root=root, max_megapixels=0.1))
    lines = list(report.lines())
    assert len(lines) < 60
    errors = [line for line in lines if line.startswith("  error")]
    wanted = [says for says, make in KINDS.items() if make is not binary]
    assert len(errors) == len(wanted)
    for line, says in zip(errors, wanted):
        assert says in line
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels, key=("error", "warning", "ok").index)


@pytest.mark.parametrize(("part", "count"), [("train", 6), ("val", 3)])
def test_masks_of_which_nothing_counts_are_an_error(voc_root, part, count):
    root = voc_root()
    for id in (root / f"ImageSets/Segmentation/{part}.txt").read_text().split():
        path = root / f"SegmentationClass/{id}.png"
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    report = diagnose(find_dataset("voc", root))
    words = {"train": "training", "val": "validation"}[part]
    assert [finding.text for finding in report.findings if finding.level == "error"] == [
        f"no pixel of the {count} {words} masks has a class, all are ignored (255)"
    ]
    assert not report.ok


def test_nothing_is_said_of_what_refused_masks_hold(folder_root):
    root = folder_root()
    for path in (root / "masks").iterdir():
        Image.fromarray(np.full((40, 48, 3), (9, 8, 7), np.uint8)).save(path)
    report = diagnose(find_dataset("folder", root))
    (error,) = [finding.text for finding in report.findings if finding.level == "error"]
    assert error == "8 masks with several channels"
    assert not any("occur in no" in finding.text for finding in report.findings)


def test_values_that_seem_to_begin_at_1_are_told(folder_root):
    root = folder_root()
    for path in (root / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 2, 255, mask + 1).astype(np.uint8)).save(path)
    texts = [finding.text for finding in diagnose(find_dataset("folder", root)).findings]
    assert sum(text.startswith("no mask holds 0, the value of ground: if values begin at 1") for text in texts) == 1
    Image.fromarray(np.full((40, 48), 3, np.uint8)).save(root / "masks/a001.png")
    (error,) = [finding for finding in diagnose(find_dataset("folder", root)).findings if finding.level == "error"]
    assert "correct the mask or the class list, whose values begin at 0" in str(error)


def test_a_pool_without_a_mask_is_an_error(voc_root):
    home = voc_root()
    (home / "SegmentationClassAug/deeper").mkdir(parents=True)
    for number in range(1, 7):
        mask = home / f"SegmentationClass/2007_{number:06d}.png"
        mask.rename(home / "SegmentationClassAug/deeper" / mask.name)
    (home / "ImageSets/Segmentation/train.txt").write_text("".join(f"2007_{number:06d}\n" for number in range(1, 7)))
    report = diagnose({"layout": "voc", "root": home})
    assert texts(report, "error") == ["no training image has a mask"]
    assert has(report, "warning", "6 masks belong to no image")
