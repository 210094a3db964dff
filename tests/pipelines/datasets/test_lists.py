import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg.pipelines.datasets.lists import Names, plain_ids, read_ids, read_list
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
