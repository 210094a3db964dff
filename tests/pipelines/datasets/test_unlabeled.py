import os

import numpy as np
import pytest
from own import ids
from PIL import Image

from semiseg.pipelines.datasets import resolve_split
from semiseg.pipelines.datasets.doctor import diagnose
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.splits import check_lists
from semiseg.pipelines.datasets.unlabeled import left_out
from semiseg.pipelines.errors import UsageError

FURTHER = ["further/b000", "further/night/b001"]


def put(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)).save(path)


@pytest.fixture
def further(tmp_path):
    """A folder below a data set's root with FURTHER, and one with pictures outside."""

    def build(root):
        for seed, id in enumerate(FURTHER):
            put(root / f"{id}.jpg", 20 + seed)
        put(tmp_path / "pool/c000.jpg", 30)
        return root

    return build


def test_a_folder_of_unlabelled_images_is_unlabelled_in_every_split(folder_root, further, tmp_path):
    root = further(folder_root())
    without, dataset = find_dataset("folder", root), find_dataset("folder", root, unlabeled="further")
    assert ids(dataset.unlabeled) == FURTHER
    assert all(sample.mask is None for sample in dataset.unlabeled)
    assert (dataset.train, dataset.val, dataset.extra) == (without.train, without.val, without.extra)
    (tmp_path / "some.txt").write_text("a000\na001\n")
    for spec in ("all", "draw:3@1", "draw:1/2@0", str(tmp_path / "some.txt")):
        before, split = resolve_split(spec, without), resolve_split(spec, dataset)
        assert split.labeled == before.labeled
        assert split.unlabeled == tuple(sorted((*before.unlabeled, *FURTHER)))


def test_lists_may_name_them_and_none_may_label_them(folder_root, further, tmp_path):
    dataset = find_dataset("folder", further(folder_root()), unlabeled="further")
    (tmp_path / "l.txt").write_text("a000\n")
    (tmp_path / "u.txt").write_text("a001\nfurther/b000\n")
    split = resolve_split(f"{tmp_path / 'l.txt'},{tmp_path / 'u.txt'}", dataset)
    assert split.unlabeled == ("a001", "further/b000")
    (tmp_path / "l.txt").write_text("a000\nfurther/b000\n")
    with pytest.raises(UsageError, match=r"further/b000 is not among the images of"):
        resolve_split(str(tmp_path / "l.txt"), dataset)
    assert [fault.kind for fault in check_lists(tmp_path / "l.txt", dataset=dataset)] == ["unknown"]
    (tmp_path / "l.txt").write_text("a000\n")
    assert check_lists(tmp_path / "l.txt", tmp_path / "u.txt", dataset=dataset) == []


def test_lists_of_labelled_images_mean_what_they_meant_without_the_folder(folder_root, further, tmp_path):
    root = further(folder_root())
    put(root / "further/day/a000.jpg", 1)
    (tmp_path / "l.txt").write_text("/elsewhere/a000.jpg\nday/a001\n")
    without, dataset = find_dataset("folder", root), find_dataset("folder", root, unlabeled="further")
    before, split = (resolve_split(str(tmp_path / "l.txt"), one) for one in (without, dataset))
    assert split.labeled == before.labeled == ("a000", "a001")


def test_images_that_a_list_for_testing_names_are_left_alone(folder_root, voc_root, further):
    for layout, root, lists in (("folder", folder_root(), ""), ("voc", voc_root(), "ImageSets/Segmentation")):
        (further(root) / lists / "test.txt").write_text("further/night/b001.jpg\n")
        dataset = find_dataset(layout, root, unlabeled="further")
        assert ids(dataset.unlabeled) == FURTHER[:1]
        assert any("1 images of" in note and "b001 for one, are left alone" in note for note in dataset.notes)


def test_a_folder_is_the_same_by_whatever_links(folder_root, further, tmp_path):
    root = further(folder_root())
    (root / "further").rename(root / "unlabeled")
    (tmp_path / "link").symlink_to(root)
    for data, folder in ((tmp_path / "link", root / "unlabeled"), (root, tmp_path / "link/unlabeled")):
        dataset = find_dataset("folder", data, unlabeled=folder)
        assert ids(dataset.unlabeled) == ["unlabeled/b000", "unlabeled/night/b001"]
        assert not list(left_out(dataset))


def test_draws_of_voc_stay_what_they_are_and_the_published_count_is_of_its_own_images(voc_root, further):
    root = further(voc_root(train=6, val=3))
    (root / "SegmentationClass/2007_000002.png").unlink()
    without, dataset = find_dataset("voc", root), find_dataset("voc", root, unlabeled="further")
    for spec in ("draw:1/2@0", "draw:2@3", "all"):
        assert resolve_split(spec, dataset).labeled == resolve_split(spec, without).labeled
    assert set(resolve_split("all", dataset).unlabeled) == {"2007_000002", *FURTHER}


def test_a_folder_anywhere(folder_root, further, tmp_path, monkeypatch):
    root, pool = further(folder_root()), tmp_path / "pool"
    id = "pool/c000"
    assert ids(find_dataset("folder", root, unlabeled=pool).unlabeled) == [id]
    monkeypatch.chdir(tmp_path)
    assert ids(find_dataset("folder", root, unlabeled="pool").unlabeled) == [id]
    assert ids(find_dataset("folder", root, unlabeled="../pool").unlabeled) == [id]


def test_masks_and_results_in_it_are_no_images(folder_root, further, tmp_path):
    root, pool = further(folder_root()), tmp_path / "pool"
    put(pool / "c000_mask.png", 1)
    for name in ("masks/c000.png", "colours/c000.png", "overlays/c000.jpg"):
        put(pool / "seen" / name, 1)
    dataset = find_dataset("folder", root, unlabeled=pool)
    assert len(dataset.unlabeled) == 1
    assert f"1 pictures in {pool} are masks or drawings, not images" in dataset.notes
    assert f"{pool} holds results of semiseg, which are passed over: seen/colours/" in "\n".join(dataset.notes)


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("nowhere", r"nowhere does not exist: correct --files\.unlabeled$"),
        ("further/b000.jpg", r"b000\.jpg does not exist"),
        ("images", r"images holds images or masks of the data set, a0\d\d\.jpg for one: pass a folder of others"),
        ("masks", r"masks holds images or masks of the data set, a0\d\d\.png for one"),
        (".", "own holds images or masks of the data set"),
        ("masked", "masked holds no pictures that are read"),
        ("link", "link holds images or masks of the data set"),
    ],
)
def test_what_is_no_folder_of_unlabelled_images_is_refused(folder_root, further, folder, said):
    root = further(folder_root())
    (root / "masked").mkdir()
    (root / "link").symlink_to("images")
    with pytest.raises(UsageError, match=said):
        find_dataset("folder", root, unlabeled=folder)


def test_an_id_means_one_image(folder_root, further):
    root = further(folder_root())
    put(root / "images/further/b000.jpg", 1)
    with pytest.raises(UsageError, match=r"b000\.jpg has the id of .*images/further/b000\.jpg \(further/b000\)"):
        find_dataset("folder", root, unlabeled="further")


@pytest.mark.parametrize(("name", "told"), [("unlabeled", True), ("Images_Unlabelled", True), ("drawings", False)])
def test_a_folder_that_seems_to_hold_unlabelled_images_is_told_until_it_is_used(folder_root, name, told):
    root = folder_root()
    put(root / name / "b000.jpg", 20)
    note = f"not used: the pictures in {root / name}; --files.unlabeled FOLDER takes them"
    dataset = find_dataset("folder", root)
    assert len(dataset.samples) == 12
    assert list(left_out(dataset)) == ([note] if told else [])
    assert (note in [finding.text for finding in diagnose(dataset).findings]) is told
    assert not list(left_out(find_dataset("folder", root, unlabeled=name)))


def test_a_closed_folder_beside_the_data_closes_nothing(folder_root, monkeypatch):
    root, look = folder_root(), os.walk
    (root / "unlabeled").mkdir()
    dataset = find_dataset("folder", root)

    def walk(folder, **options):
        if os.path.basename(folder) == "unlabeled":  # whoever runs the tests may read everything
            raise UsageError("closed")
        return look(folder, **options)

    monkeypatch.setattr(os, "walk", walk)
    assert not list(left_out(dataset))


def test_the_doctor_counts_them_and_knows_copies_of_validation_images(folder_root, further):
    root = further(folder_root())
    (root / "further/b000.jpg").write_bytes((root / "images/a006.jpg").read_bytes())
    report = diagnose(find_dataset("folder", root, unlabeled="further"), split="all")
    assert report.counts["further_unlabeled_images"] == 2
    told = "\n".join(report.lines())
    assert "2 images of --files.unlabeled, all unlabelled" in told
    assert "further/b000 is a006" in told
