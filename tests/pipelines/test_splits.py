import hashlib
import shutil
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg.pipelines.dataset import find_dataset
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.splits import draw, resolve_split

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
