import hashlib
import os
import re
from fractions import Fraction
from pathlib import Path

import pytest

from semiseg.pipelines.datasets.registry import (
    POOLS,
    SPLITS,
    PublishedSplit,
    checksum,
    closest,
    find_lists,
    identify,
    names_of_share,
)
from semiseg.pipelines.errors import UsageError

ROOT = Path(__file__).parents[3]
# Checksums as they were computed from the lists in the repositories, in the order of the counts.
FAMILIES = {
    "voc-original": ("92 183 366 732 1464", "a263bde1 35d7cfa7 0345f520 38ff2feb 68b6e0f9"),
    "voc-cps": ("662 1323 2646 5291", "be6f83c5 ae121d03 22873233 fca1a3b4"),
    "voc-u2pl": ("662 1323 2646 5291", "76366136 03dafb12 78ee3fd3 e888f0f1"),
    "voc-cac-0": ("662 1323 2645", "d0b94e8a 9cec728d 133ac88a"),
    "voc-cac-1": ("662 1323 2645", "dddde548 b4fe6069 2ae0c615"),
    "voc-cac-2": ("662 1323 2645", "fb6a2104 14075724 08b120d9"),
    "voc-cps-pseudoseg": ("92 183 366 732", "a263bde1 35d7cfa7 0345f520 caba96a8"),
    "city-cps": ("186 372 744 1488", "11c432d4 6c66d883 6eccbc90 5f14f489"),
    "city-u2pl": ("186 372 744 1488", "fb856f76 7b81e30e 5a287df1 f36fd319"),
    "city-cac-0": ("372 744", "7b81e30e 945a7b13"),
    "city-cac-1": ("372 744", "b0704645 47f3ece4"),
    "city-cac-2": ("372 744", "36fcc24c 8e8f596f"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_list_is_registered(family):
    counts, checksums = (text.split() for text in FAMILIES[family])
    pool = 1464 if "pseudoseg" in family else POOLS["voc" if family.startswith("voc") else "cityscapes"]
    for count, md5 in zip(map(int, counts), checksums, strict=True):
        few = "original" in family or "pseudoseg" in family
        ratio = min((16, 8, 4, 2), key=lambda ratio: abs(pool / ratio - count))
        split = SPLITS[f"{family}-{count if few else f'1/{ratio}'}"]
        assert (split.labeled, split.checksum, split.pool) == (count, md5, pool)
        assert split.share == (None if few else Fraction(1, ratio))
        assert split.shipped_by


def test_only_the_known_lists_share_a_checksum():
    by_checksum: dict[str, list[str]] = {}
    for name, split in SPLITS.items():
        assert split.name == name
        by_checksum.setdefault(split.checksum, []).append(name)
    assert sorted(names for names in by_checksum.values() if len(names) > 1) == [
        ["city-u2pl-1/8", "city-cac-0-1/8"],
        ["voc-cps-pseudoseg-732", "voc-cps-732"],
        ["voc-original-1464", "voc-cac-0-1464"],
        ["voc-original-183", "voc-cps-pseudoseg-183"],
        ["voc-original-366", "voc-cps-pseudoseg-366"],
        ["voc-original-92", "voc-cps-pseudoseg-92"],
    ]


def test_clean_shares():
    assert SPLITS["voc-u2pl-1/8"].clean_share == (1, 1)
    assert SPLITS["voc-u2pl-1/4"].clean == (1464, 1464)
    low, high = SPLITS["voc-cps-1/8"].clean_share
    assert low == high == pytest.approx(0.146, abs=1e-3)
    assert SPLITS["voc-cac-1-1/16"].clean == (85, 105)
    assert SPLITS["city-cps-1/8"].clean_share is None
    for split in SPLITS.values():
        if split.clean:
            assert split.clean[0] <= split.clean[1] <= min(split.labeled, 1464)


def test_checksum_is_the_md5_of_the_sorted_ids_one_a_line():
    assert checksum(["2008_2", "2007_1"]) == hashlib.md5(b"2007_1\n2008_2").hexdigest()[:8]


IDS = [f"2007_{number:06d}" for number in range(1, 13)]


@pytest.fixture
def publish(monkeypatch):
    """`publish(name, ids, pool=12)` registers a list of ids of one's own."""

    def register(name, ids, pool=12, layout="voc", share=Fraction(1, 4)):
        split = PublishedSplit(name, layout, len(ids), pool, checksum(ids), share, None, ("CPS", "U2PL"))
        monkeypatch.setitem(SPLITS, name, split)
        return split

    return register


def test_the_number_of_unlabelled_images_tells_pools_apart(publish):
    small, large = publish("voc-small-3", IDS[:3], pool=6), publish("voc-large-3", IDS[:3], pool=12)
    assert identify(reversed(IDS[:3])) == (small, large)
    assert identify(IDS[:3], IDS[3:6]) == (small,)
    assert identify(IDS[:3], IDS[2:6]) == (small,), "an id on both sides is a labelled one"
    assert identify(IDS[:3], IDS) == (large,)
    assert identify(IDS[:3], IDS[3:7]) == identify(IDS[:4]) == ()


def test_names_of_a_share_and_closest_counts():
    assert names_of_share("1/2", "cityscapes") == ("city-cps-1/2", "city-u2pl-1/2")
    assert names_of_share("732", "voc") == ("voc-original-732", "voc-cps-pseudoseg-732", "voc-cps-732")
    assert names_of_share("1/8", "folder") == names_of_share("1/3", "voc") == ()
    assert {split.labeled for split in closest(1300)} == {1323}


def write(path, ids, form="{}", end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(form.format(id) + end for id in ids).encode())
    return path


def test_the_users_copy_is_found_by_its_checksum_beside_its_unlabelled_list(publish, tmp_path):
    split = publish("voc-test-1/4", IDS[:3])
    write(tmp_path / "README.txt", ["three", "other", "lines"])
    (tmp_path / "noise.txt").write_bytes(b"\xff\xfe\n\n\n")
    write(tmp_path / "a/labeled.txt", IDS[1:4])
    write(tmp_path / "a/unlabeled.txt", IDS[4:])
    write(tmp_path / "b/.hidden/labeled.txt", IDS[:3])
    with pytest.raises(
        UsageError, match=rf"no list under .* is voc-test-1/4 \(3 .*{split.checksum}.*of 4 text files 2"
    ):
        find_lists(split, tmp_path)
    mine = write(tmp_path / "z/deep/1_4.txt", IDS[:3], "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png", "\r\n")
    assert find_lists(split, tmp_path) == (mine, None)
    everything = write(tmp_path / "a/train_aug.txt", IDS)
    assert find_lists(split, tmp_path) == (mine, everything)
    write(tmp_path / "y/rest.txt", IDS[3:])
    beside = write(tmp_path / "z/deep/rest.txt", IDS[3:])
    assert find_lists(split, tmp_path) == (mine, beside)


def test_a_pipe_among_lists_is_none(publish, tmp_path):
    split = publish("voc-test-1/4", IDS[:3])
    mine = write(tmp_path / "labeled.txt", IDS[:3])
    os.mkfifo(tmp_path / "a.txt")
    assert find_lists(split, tmp_path) == (mine, None)


def test_the_pool_decides_between_unlabelled_lists(publish, tmp_path):
    small, large = publish("voc-small-3", IDS[:3], pool=6), publish("voc-large-3", IDS[:3], pool=12)
    mine = write(tmp_path / "labeled.txt", IDS[:3])
    few, many = write(tmp_path / "few.txt", IDS[2:6]), write(tmp_path / "many.txt", IDS[3:])
    assert find_lists(small, tmp_path) == (mine, few)
    assert find_lists(large, tmp_path) == (mine, many)


def test_the_folder_comes_from_the_environment_too(publish, tmp_path, monkeypatch):
    split = publish("voc-test-1/4", IDS[:3])
    monkeypatch.delenv("SEMISEG_LISTS", raising=False)
    with pytest.raises(UsageError, match=r"shipped by CPS, U2PL.*--lists FOLDER or \$SEMISEG_LISTS"):
        find_lists(split, None)
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path / 'none'} is not a folder")):
        find_lists(split, tmp_path / "none")
    mine = write(tmp_path / "labeled.txt", IDS[:3])
    monkeypatch.setenv("SEMISEG_LISTS", str(tmp_path))
    assert find_lists(split, None) == (mine, None)


def test_the_docs_name_every_published_split():
    rows = re.findall(r"^\| `((?:voc|city)-[^`]+)` \|", (ROOT / "docs/data.md").read_text(), re.MULTILINE)
    named = [name for row in rows for name in expanded(row)]
    assert sorted(set(named)) == sorted(SPLITS)


def expanded(text: str) -> list[str]:
    """`a-{b,c}` as a shell expands it."""
    if braces := re.search(r"\{([^}]*)\}", text):
        return [name for word in braces[1].split(",") for name in expanded(text.replace(braces[0], word, 1))]
    return [text]


def test_lists_in_linked_folders_are_found(publish, tmp_path):
    split = publish("voc-test-1/4", IDS[:3])
    write(tmp_path / "disk/some/labeled.txt", IDS[:3])
    write(tmp_path / "lists/unlabeled.txt", IDS[3:])
    (tmp_path / "lists/linked").symlink_to(tmp_path / "disk")
    mine = tmp_path / "lists/linked/some/labeled.txt"
    assert find_lists(split, tmp_path / "lists") == (mine, tmp_path / "lists/unlabeled.txt")
