"""Pictures below folders, and text files."""

import os
import unicodedata

import pytest

from semiseg.pipelines.datasets.files import (
    find_pictures,
    holds_pictures,
    part_of,
    read_lines,
    walked,
)
from semiseg.pipelines.errors import UsageError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_every_kind_of_picture_is_found_at_any_depth(tmp_path):
    suffixes = [
        ".jpg", ".JPEG", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jfif", ".JPE", ".gif", ".ppm", ".pgm", ".pbm",
        ".pnm", ".avif", ".jp2", ".j2k",
    ]  # fmt: skip
    names = [f"day/{number:02d}{suffix}" for number, suffix in enumerate(suffixes)]
    touch(tmp_path, *names, "notes.txt")
    found = find_pictures(tmp_path)
    assert found.names == names
    assert list(found.notes()) == []


def test_pictures_that_are_not_read_are_counted(tmp_path):
    touch(tmp_path, "a.jpg", "b.heic", "c.HEIC", "d.npy", "e.nii.gz", "f.tar.gz", "g.json")
    found = find_pictures(tmp_path)
    assert found.names == ["a.jpg"]
    (note,) = found.notes()
    assert "(2 .heic, 1 .nii.gz, 1 .npy): save them as PNG or JPEG" in note


def test_what_systems_leave_behind_is_no_picture(tmp_path):
    touch(tmp_path, "a.jpg", "._a.jpg", ".ipynb_checkpoints/a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_S.jpg")
    touch(tmp_path, "day/__MACOSX/a.jpg", "#recycle/a.jpg", "Thumbs.db", ".hidden/deep/a.jpg", "$RECYCLE.BIN/a.png")
    found = find_pictures(tmp_path)
    assert (found.names, list(found.notes())) == (["a.jpg"], [])


def test_what_was_written_by_a_prediction_or_a_run_is_noted(tmp_path):
    touch(tmp_path, "a.jpg", "out/masks/a.png", "out/colours/a.png", "out/overlays/a.png", "out/b.jpg")
    touch(tmp_path, "runs/x/recipe.json", "runs/x/environment.json", "runs/x/samples/a.png")
    touch(tmp_path, "dish/recipe.json", "dish/c.jpg")  # a recipe of another kind
    found = find_pictures(tmp_path)
    assert found.names == ["a.jpg", "dish/c.jpg", "out/b.jpg"]
    assert any("out/masks/" in note for note in found.notes())
    assert "runs/x/" in found.results
    assert find_pictures(tmp_path, results=True).names == found.names
    assert find_pictures(tmp_path / "out").names == ["b.jpg"]
    named = find_pictures(tmp_path / "out", results=True).names
    assert named == ["b.jpg", "colours/a.png", "masks/a.png", "overlays/a.png"]


def test_linked_folders_are_walked(tmp_path):
    touch(tmp_path, "elsewhere/a.jpg", "images/b.jpg")
    (tmp_path / "images/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/c.jpg").symlink_to(tmp_path / "elsewhere/a.jpg")
    assert find_pictures(tmp_path / "images").names == ["b.jpg", "c.jpg", "more/a.jpg"]


@pytest.mark.parametrize("target", [".", "..", "/", "loop", "../../images", "../twin"])
def test_a_circle_of_links_is_named(tmp_path, target):
    touch(tmp_path, "images/a.jpg")
    (tmp_path / "twin").mkdir()
    (tmp_path / "twin/back").symlink_to(tmp_path / "images")
    if target == "../../images":
        (tmp_path / "images/day").mkdir()
        (tmp_path / "images/day/loop").symlink_to(target)
    else:
        (tmp_path / "images/loop").symlink_to(target)
    with pytest.raises(UsageError, match=r"the link .*(loop|back) leads .*: remove the link") as error:
        find_pictures(tmp_path / "images")
    assert len(str(error.value)) < 300


def test_what_is_no_file_is_counted_and_never_read(tmp_path):
    touch(tmp_path, "a.jpg", "full.jpg/b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.png").mkdir()
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    found = find_pictures(tmp_path)
    assert found.names == ["a.jpg", "full.jpg/b.jpg"]
    assert sorted(found.odd) == ["empty.png", "lost.jpg", "pipe.jpg", "zero.jpg"]
    assert any(note.startswith("4 names") for note in found.notes())


def test_names_that_are_not_utf8_are_refused(tmp_path):
    touch(tmp_path, "a.jpg")
    open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "w").close()
    assert find_pictures(tmp_path).names == ["a.jpg"]
    open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "w").close()
    with pytest.raises(UsageError, match=r"caf\\xe9\.jpg.* is not UTF-8: rename") as error:
        find_pictures(tmp_path)
    str(error.value).encode()


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\rb.jpg", "a\nb/c.jpg"])
def test_names_with_a_line_break_are_refused(tmp_path, name):
    """A list would hold two names."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError, match=r"a\\[nr]b.* holds a line break: rename the file or its folder") as error:
        find_pictures(tmp_path)
    assert not set("\r\n") & set(str(error.value))


def test_unreadable_folders_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"folder .*gone cannot be read"):
        find_pictures(tmp_path / "gone")


def test_stems_are_composed_and_refuse_two_forms(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))
    touch(tmp_path, f"{decomposed}.jpg")
    assert find_pictures(tmp_path).by_stem() == {composed: tmp_path / f"{decomposed}.jpg"}
    touch(tmp_path, f"{composed}.jpg")
    with pytest.raises(UsageError, match=r"in two Unicode forms.*keep one of them"):
        find_pictures(tmp_path).by_stem()


def test_a_usual_extension_wins_over_another(tmp_path):
    touch(tmp_path, "a.gif", "a.jpg", "b.avif")
    found = find_pictures(tmp_path)
    assert [path.name for path in found.by_stem().values()] == ["a.jpg", "b.avif"]
    assert any("a.gif beside one of a more usual extension" in note for note in found.notes())
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match=r"holds both a\.jpg and a\.png"):
        find_pictures(tmp_path).by_stem()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("p00\r\n".encode("utf-16"), "it is UTF-16"),
        ("p00\n".encode("utf-16-be"), "line 1, holds zero bytes .UTF-16"),
        (b"p00\ncaf\xe9\n", "line 2 is not UTF-8"),
        (b"p00\np\0\n", "line 2, holds zero bytes"),
        (None, "does not exist"),
    ],
)
def test_text_that_is_not_utf8_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(UsageError, match=f"the list .*x.txt.*{said}"):
        read_lines(tmp_path / "x.txt", "list")


def test_a_pipe_is_no_text(tmp_path):
    os.mkfifo(tmp_path / "x.txt")
    with pytest.raises(UsageError, match="is no file"):
        read_lines(tmp_path / "x.txt", "list")


def test_lines_end_in_any_way(tmp_path):
    (tmp_path / "x.txt").write_bytes("\ufeffa\r\nb\u2028c\rd\n".encode())
    assert read_lines(tmp_path / "x.txt", "list") == ["a", "b\u2028c", "d", ""]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(("train", "train"), ("training", "train"), ("train2017", "train"), ("Train_Set", "train")),
        *(("val", "val"), ("valid", "val"), ("validation", "val"), ("VAL", "val"), ("val2017", "val")),
        *(("eval", "val"), ("dev", "val"), ("holdout", "val"), ("hold-out", "val"), ("val_images", "val")),
        *(("test", "test"), ("tests", "test"), ("testing", "test"), ("test_images", "test"), ("Test-1", "test")),
        *((name, None) for name in ("", "trains", "trainval", "value", "valley", "test_drive", "2017", "street")),
    ],
)
def test_the_part_of_a_data_set_by_a_name(name, part):
    assert part_of(name) == part


def test_folders_are_walked_once_through_any_links(tmp_path):
    """Two links to a folder above would otherwise be walked again and again, doubling at each level."""
    (tmp_path / "set/b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/one.png").touch()
    for name, target in (("a", "../elsewhere"), ("again", "../elsewhere"), ("up", ".."), ("self", "."), ("gone", "no")):
        (tmp_path / "set" / name).symlink_to(target)
    found = [(os.path.relpath(home, tmp_path / "set"), names) for home, names in walked(tmp_path / "set")]
    assert found == [(".", ["gone"]), ("a", ["one.png"]), ("b", []), ("up", [])]
    assert holds_pictures(tmp_path / "set")
    assert not holds_pictures(tmp_path / "set/b")
