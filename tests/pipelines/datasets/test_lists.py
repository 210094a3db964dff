import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg.pipelines.datasets.lists import Names, plain_ids, read_ids, read_ids_present, read_list
from semiseg.pipelines.errors import UsageError

CITY = "strasbourg_000001_006562"
LINES = {
    "cac voc": ("/JPEGImages/2009_000898.jpg /SegmentationClassAug/2009_000898.png", "2009_000898"),
    "u2pl, unimatch voc": ("JPEGImages/2011_001641.jpg SegmentationClass/2011_001641.png", "2011_001641"),
    "cps voc": ("2007_000032", "2007_000032"),
    "cps voc, second field": ("2007_000032\t./somewhere/2007_000032.png", "2007_000032"),
    "cac cityscapes": (
        f"leftImg8bit/train/strasbourg/{CITY}_leftImg8bit.png gtFine/train/strasbourg/{CITY}_gtFine_labelTrainIds.png",
        CITY,
    ),
    "raw ids": (
        f"leftImg8bit/train/strasbourg/{CITY}_leftImg8bit.png gtFine/train/strasbourg/{CITY}_gtFine_labelIds.png",
        CITY,
    ),
    "cps cityscapes": (f"/images/train/{CITY}.png\t/segmentation/train/{CITY}_gtFine.png", CITY),
    "folder": ("images/day one/b.JPG labels/day one/b.png", "day one/b"),
    "folder, bare": ("day one/b", "day one/b"),
    "last part only": ("b.jpg", "day one/b"),
    "windows": (r"images\day one\b.jpg", "day one/b"),
    "dots": ("frame.0012", "frame.0012"),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("name", LINES)
def test_published_formats(tmp_path, name, end):
    line, id = LINES[name]
    path = tmp_path / "list.txt"
    path.write_bytes(("\ufeff" + line + end + end).encode())
    assert read_ids(path, {id for _, id in LINES.values()}, "here") == (id,)


@pytest.mark.parametrize("name", LINES)
def test_published_formats_without_a_data_set(tmp_path, name):
    line, id = LINES[name]
    path = tmp_path / "list.txt"
    path.write_bytes(f"{line}\r\n\r\n{line}\r\n".encode())
    assert plain_ids(path) == (id.rpartition("/")[2],) * 2


def test_order_is_kept_and_repeats_are_not(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("c\n\n  a\nb\na\n")
    assert read_ids(path, "abcd", "here") == ("c", "a", "b")
    assert [entry.line for entry in read_list(path)] == [1, 3, 4, 5]


def test_missing_names_say_line_and_count(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a\nx\ny\n")
    with pytest.raises(UsageError, match=r"list\.txt, line 2: x is not among the images \(nor are 1 more\)"):
        read_ids(path, "abc", "the images")


def test_image_with_the_label_of_another(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("images/a.jpg labels/b.png\n")
    with pytest.raises(UsageError, match="line 1: pairs the image a with the label of b"):
        read_ids(path, "ab", "here")


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "is empty"), (b"\xff\xfe\x00", "cannot be read"), (None, "does not exist")]
)
def test_unreadable_lists(tmp_path, content, what):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=what):
        read_list(path)


def test_a_last_part_that_two_ids_share_means_neither():
    names = Names(["day/b", "night/b"])
    assert names.match("b") is None
    assert names.match("night/b.png") == "night/b"


PART = st.text("abc _-é7", min_size=1, max_size=6).map(str.strip).filter(bool)


@given(st.lists(PART, min_size=1, max_size=3).map("/".join), st.sampled_from(["", "/", "images/", "/x/y/", "./"]))
def test_any_id_is_found_below_any_prefix(id, prefix):
    names = Names([id])
    for text in (prefix + id, prefix + id + ".jpg", prefix + id + ".PNG"):
        assert names.match(text) == id


def test_names_without_a_folder_say_which_they_may_mean(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a\nb.jpg\n")
    with pytest.raises(UsageError, match=r"line 2: b\.jpg is not among here \(it may be day/b or night/b: write"):
        read_ids(path, ["a", "day/b", "night/b"], "here")


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("a/x.jpg", "a/x"),
        ("c/x.jpg", None),
        ("images/c/x.jpg", None),
        ("x.jpg", None),  # two
        ("images/x.jpg", None),
        ("images/a/x.jpg", "a/x"),
        ("/home/anna/images/a/x.jpg", "a/x"),
        ("/home/anna/old/a/x.jpg", "a/x"),
        ("images/b/a/x.jpg", None),
        ("y.jpg", "deep/er/y"),
        ("er/y.jpg", "deep/er/y"),
        ("images/er/y.jpg", None),
        ("other/y.jpg", None),
        ("z.jpg", "z"),
        ("images/z.jpg", "z"),
        ("images/a/z.jpg", None),
    ],
)
def test_folders_of_an_entry_are_those_of_the_image(text, id):
    ids = ("a/x", "b/x", "deep/er/y", "z")
    names = Names({id: Path(f"/data/own/images/{id}.jpg") for id in ids})
    assert names.match(text) == id


def test_forms_of_unicode_are_one():
    composed, decomposed = (unicodedata.normalize(form, "tag/Bär") for form in ("NFC", "NFD"))
    for known, said in ((composed, decomposed), (decomposed, composed)):
        assert Names([known]).match(f"{said}.jpg") == known


@pytest.mark.parametrize(
    ("text", "id"),
    [("a.jpg", "a.jpg"), ("a.jpg.png", "a.jpg"), ("a.png", "a"), ("images/a.jpg", "a.jpg"), ("b.jpg", "day/b.jpg"),
     ("day/b.jpg.png", "day/b.jpg"), ("day/a.jpg", "day/a"), ("c.jpg", "c")],
)  # fmt: skip
def test_an_id_may_end_like_a_file(text, id):
    assert Names(["a", "a.jpg", "day/b.jpg", "day/a", "c"]).match(text) == id


NAMES = [" a", "a ", " a ", " ", "  ", "a", "a\t", "\ta", "a\x0b", "a\x85", "a\u2028", "\xa0a", "b", "b/a ", "b /a"]
NAMES += ["a\\b", "image,mask", "image\tmask", '"a"', "a.jpg", "a.jpg b", "a;b", "-a", ".a"]


@pytest.mark.parametrize("names", [*([name] for name in NAMES), NAMES])
def test_whatever_it_is_called_an_id_alone_in_its_line_is_that(tmp_path, names):
    path = tmp_path / "list.txt"
    for ids in (names, names[::-1]):
        path.write_text("".join(f"{id}\n" for id in ids))
        assert read_ids(path, ids, "here") == tuple(ids)
        assert read_ids_present(path, Names(ids)) == (set(ids), [])


def test_blanks_at_the_ends_of_a_line_are_no_part_of_a_name_that_has_none(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a \n\tb\t\n c.jpg\td.png \n   \n")
    assert read_ids(path, ["a", " b", "b", "c", " "], "here") == ("a", "b", "c")


def test_a_line_that_is_an_id_is_no_pair(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg copy\nb.jpg copy\n")
    entries = read_list(tmp_path / "list.txt", {"a.jpg copy"})
    assert entries == [(1, "a.jpg copy", None), (2, "b.jpg", "copy")]


PAIRS = {
    "space": "images/a.jpg masks/b.png",
    "tab": "images/a.jpg\tmasks/b.png",
    "comma": "images/a.jpg,masks/b.png",
    "comma and space": "images/a.jpg, masks/b.png",
    "semicolon": "images/a.jpg;masks/b.png",
    "quotes": '"images/a.jpg" "masks/b.png"',
    "quotes and comma": '"images/a.jpg","masks/b.png"',
    "quotes and tab": '"images/a.jpg"\t"masks/b.png"',
}


@pytest.mark.parametrize(
    "header", ["", "image,mask\n", "image\tlabel\r\n", '"image_path";"mask_path"\n', "File Name, GT\n"]
)
@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_in_any_notation(tmp_path, kind, header):
    path = tmp_path / "list.txt"
    path.write_bytes((header + PAIRS[kind] + "\r\n").encode())
    ((_, image, label),) = read_list(path)
    assert (image, label) == ("images/a.jpg", "masks/b.png")


@pytest.mark.parametrize("line", ["a, b", "it's", "my image.v2, old.jpg", '"quoted name"', "x.jpg.orig.png", "p.jfif"])
def test_names_stay_whole(tmp_path, line):
    (tmp_path / "list.txt").write_text(line)
    ((_, image, label),) = read_list(tmp_path / "list.txt")
    assert (image, label) == (line.strip('"'), None)


def test_a_third_column_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg,a.png\nb.jpg,b.png,train\n")
    with pytest.raises(UsageError, match=r"line 2: b.jpg,b.png,train names more than an image and its mask"):
        read_list(tmp_path / "list.txt")


@pytest.mark.parametrize("entry", ["a/" * 500_000, "x" * 300, "../" * 100_000 + "x.jpg"])
def test_long_lines_are_told_short_and_soon(tmp_path, entry):
    path = tmp_path / "list.txt"
    path.write_text(f"b\n{entry}\n")
    start = time.perf_counter()
    with pytest.raises(UsageError, match="line 2") as error:
        read_ids(path, ["b", "day/c"], "here")
    assert time.perf_counter() - start < 5  # quadratic time would be minutes
    assert len(str(error.value)) < 400


def test_what_a_list_names_beside_the_known_is_counted(tmp_path):
    (tmp_path / "list.txt").write_text("a\nx\nb\ny\n")
    ids, notes = read_ids_present(tmp_path / "list.txt", Names("ab"))
    assert ids == {"a", "b"}
    assert notes == [f"2 of 4 lines of {tmp_path / 'list.txt'} name no image, x for one"]
