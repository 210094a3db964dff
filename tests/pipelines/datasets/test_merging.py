"""Class lists that make several label values one class, or none: every kind of mask is read so, and nothing else is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own import COLOURS, ORDERS, VALUES, assert_kept, indexed, masks_of, run
from PIL import Image

from semiseg.pipelines.datasets import find_dataset, prepare, seen
from semiseg.pipelines.datasets.doctor import diagnose
from semiseg.pipelines.errors import UsageError

VALUED = "0: ground\t{}\n1: car\t{}\n2: car\t{}\n"
IGNORING = "0: __ignore__\t{}\n1: car\t{}\n2: tree\t{}\n"
COLOURED = "ground\t{}\ncar\t{}\ncar\t{}\n"
SHOWN = ("#000000", "#c80000", "#0000c8")


@pytest.fixture
def root(folder_root):
    return folder_root()


def in_colour(path):
    Image.fromarray(np.array(COLOURS, np.uint8)[VALUES]).save(path)


def in_gray_levels(path):
    Image.fromarray(np.array((0, 64, 128), np.uint8)[VALUES]).save(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: Image.fromarray(VALUES).save(path),
        lambda path: indexed(path, VALUES, (0, 1, 2)),
        lambda path: indexed(path, VALUES, ORDERS.get(path.stem, (0, 1, 2))),
        in_colour,
        in_gray_levels,
    ],
    ids=["indices", "palettes", "palettes that disagree", "colours", "gray levels"],
)
@pytest.mark.parametrize(
    ("text", "table", "names"),
    [
        (VALUED, (0, 1, 1), ("ground", "car")),
        (IGNORING, (255, 0, 1), ("car", "tree")),
        (COLOURED, (0, 1, 1), ("ground", "car")),
    ],
    ids=["values", "ignored", "by colour"],
)
def test_values_of_one_name_are_one_class_however_masks_hold_them(root, make, text, table, names):
    colours = ("#000000", "#404040", "#808080") if make is in_gray_levels else SHOWN
    (root / "classes.txt").write_text(text.format(*colours))
    masks_of(root, make)
    manifest = run(root)
    truth = np.array(table, np.uint8)[VALUES]
    assert manifest.dataset.classes == names
    assert not manifest.doubts
    for id in ("a000", "a001", "a005"):
        assert np.array_equal(seen(manifest, id)[1], truth), id
    assert manifest.histogram == tuple(6 * np.bincount(truth[truth < 255], minlength=len(names)))
    assert_kept(root, manifest)
    assert len([note for note in manifest.dataset.notes if "one class" in note or "ignores pixels" in note]) == 1
    # Other names are another mapping: what is in the cache does not stand for it.
    (root / "classes.txt").write_text("0: ground\t{}\n1: car\t{}\n2: tree\t{}\n".format(*colours))
    assert np.array_equal(seen(run(root), "a000")[1], VALUES)


STORED = np.array([3, 10, 200], np.uint8)
"""Label values that leave gaps, also before the first."""


@pytest.mark.parametrize(
    "make",
    [
        lambda path: Image.fromarray(STORED[VALUES]).save(path),
        lambda path: with_palette(path, STORED),
        lambda path: with_palette(path, STORED if path.stem != "a000" else STORED[::-1]),
        in_colour,
        in_gray_levels,
    ],
    ids=["values", "palettes", "palettes that disagree", "colours", "gray levels"],
)
@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("3: ground\t{}\n10: car\t{}\n200: tree\t{}\n", (0, 1, 2)),
        ("200: tree\t{2}\n3: ground\t{0}\n10: tree\t{1}\n", (0, 1, 1)),
        ("3: __ignore__\t{}\n10: car\t{}\n200: tree\t{}\n255: void\n", (255, 0, 1)),
    ],
    ids=["gaps", "and merged", "and ignored"],
)
def test_values_may_leave_gaps_however_masks_hold_them(root, make, text, table):
    colours = ("#000000", "#404040", "#808080") if make is in_gray_levels else SHOWN
    (root / "classes.txt").write_text(text.format(*colours))
    masks_of(root, make)
    manifest = run(root)
    truth = np.array(table, np.uint8)[VALUES]
    assert not manifest.doubts
    for id in ("a000", "a001", "a005"):
        assert np.array_equal(seen(manifest, id)[1], truth), id
    classes = len(manifest.dataset.classes)
    assert manifest.histogram == tuple(6 * np.bincount(truth[truth < 255], minlength=classes))
    assert_kept(root, manifest)


def with_palette(path, stored):
    """VALUES, by palette indices of these, which show the same colours."""
    image = Image.fromarray(stored[VALUES], "P")
    palette = np.zeros((256, 3), np.uint8)
    palette[stored] = COLOURS
    image.putpalette(palette.tobytes())
    image.save(path)


@pytest.mark.parametrize("value", [0, 4, 199, 201, 254])
def test_a_value_that_a_list_passes_over_is_refused(root, value):
    (root / "classes.txt").write_text("3: ground\n10: car\n200: tree\n")
    stored = STORED[VALUES]
    masks_of(root, lambda path: Image.fromarray(stored).save(path))
    run(root)
    stored[-1, -1] = value
    Image.fromarray(stored).save(root / "masks/a003.png")
    said = rf"a003\.png has label values {value} but the class list gives 3, 10, 200 \(255 ignored\)"
    with pytest.raises(UsageError, match=rf"{said}: .*'{value}: __ignore__' there"):
        run(root)
    (root / "classes.txt").write_text(f"3: ground\n10: car\n200: tree\n{value}: __ignore__\n")
    assert seen(run(root), "a003")[1][-1, -1] == 255


def test_values_that_leave_gaps_are_none_that_begin_at_1(root):
    (root / "classes.txt").write_text("0: ground\n10: car\n20: tree\n")
    masks_of(root, lambda path: Image.fromarray((VALUES % 2 * 10 + 10).astype(np.uint8)).save(path))
    assert not [note for note in run(root).notes if "begin at 1" in note]


def test_objects_by_255_beside_values_that_leave_gaps(root):
    (root / "classes.txt").write_text("0: ground\n100: car\n")
    masks_of(root, lambda path: Image.fromarray(VALUES % 2 * np.uint8(255)).save(path))
    with pytest.raises(UsageError, match="mark car by 255, which means ignore, and never by 100: write 100 instead"):
        run(root)


@given(
    names=st.dictionaries(
        st.integers(0, 254), st.sampled_from(["ground", "car", "tree", "__ignore__"]), min_size=3, max_size=9
    ),
    seed=st.integers(0, 99),
)
def test_any_names_of_values_are_looked_up(root, names, seed):
    by_value = [names[value] for value in sorted(names)]
    classes = [name for name in dict.fromkeys(by_value) if name != "__ignore__"]
    (root / "classes.txt").write_text("".join(f"{value}: {name}\n" for value, name in names.items()))
    places = np.random.default_rng(seed).integers(0, len(names), VALUES.shape)
    places[0] = np.arange(48) % len(names)
    stored = np.array(sorted(names), np.uint8)[places]
    masks_of(root, lambda path: Image.fromarray(stored).save(path))
    if len(classes) < 2:
        with pytest.raises(UsageError, match=f"names {len(classes)} classes"):
            run(root)
        return
    truth = np.array([classes.index(name) if name in classes else 255 for name in by_value], np.uint8)[places]
    manifest = run(root)
    assert np.array_equal(seen(manifest, "a003")[1], truth)
    assert manifest.dataset.classes == tuple(classes)


def test_values_that_are_merged_otherwise_are_other_data_though_each_class_has_as_many_pixels(root):
    quarters = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48) % 4
    masks_of(root, lambda path: Image.fromarray(quarters).save(path))
    held = []
    for names in (("a", "a", "b", "b"), ("a", "b", "a", "b")):
        (root / "classes.txt").write_text("".join(f"{value}: {name}\n" for value, name in enumerate(names)))
        manifest = run(root)
        assert manifest.histogram == (6 * 960, 6 * 960)
        held.append(manifest.contents(["a000"], masks=True))
    assert held[0] != held[1]


def test_what_255_means_is_asked_of_values_as_they_are_stored(root):
    """An ignored value is no class that somebody wrote as 255, and no file holds that."""
    (root / "classes.txt").write_text("0: __ignore__\n1: car\n2: tree\n")
    masks_of(root, lambda path: Image.fromarray(VALUES if path.stem > "a001" else VALUES % 2).save(path))
    (root / "list.txt").write_text("a000\na001\n")
    report = diagnose({"layout": "folder", "root": root}, split=str(root / "list.txt"))
    assert report.ok
    assert not [finding for finding in report.findings if "255 means" in finding.text + finding.cure]
    assert not [finding for finding in report.findings if "begin at 1" in finding.text]
    masks_of(root, lambda path: Image.fromarray(VALUES % 2 * np.uint8(255)).save(path))
    with pytest.raises(UsageError, match="training masks mark objects by 255"):
        run(root)


def test_values_that_begin_at_1_are_none_where_0_is_ignored(root):
    (root / "classes.txt").write_text("0: __ignore__\n1: car\n2: tree\n")
    masks_of(root, lambda path: Image.fromarray(VALUES % 2 + 1).save(path))
    assert not [note for note in run(root).notes if "begin at 1" in note]


def test_masks_that_hold_the_first_value_alone_are_named_by_it(root):
    (root / "classes.txt").write_text("0: __ignore__\n1: car\n2: tree\n")
    masks_of(root, lambda path: Image.fromarray(VALUES * (path.stem != "a000")).save(path))
    report = diagnose({"layout": "folder", "root": root})
    (found,) = [finding for finding in report.findings if "hold nothing but" in finding.text]
    assert found.text == "1 of 6 training masks hold nothing but __ignore__"
    assert found.details == ("a000",)


@pytest.mark.parametrize("text", ["0: ground\n1: ground\n2: tree\n", "0: __ignore__\n1: ground\n2: tree\n"])
def test_a_value_beyond_a_list_that_merges_is_refused(root, text):
    (root / "classes.txt").write_text(text)
    masks_of(root, lambda path: Image.fromarray(VALUES + 1).save(path))
    with pytest.raises(UsageError, match=r"has label values 3 but those of the class list are 0 to 2 \(255 ignored\)"):
        run(root)


def test_what_is_read_again_is_counted_by_files(root):
    """A mask is decoded once for its values and once for its classes."""
    (root / "classes.txt").write_text("0: ground\n1: car\n2: car\n")
    masks_of(root, lambda path: Image.fromarray(VALUES).save(path))
    run(root)
    Image.fromarray(VALUES[::-1].copy()).save(root / "masks/a000.png")
    note = prepare(find_dataset("folder", root), verify=True).notes[-1]
    assert note.startswith("20 files were read again: 1 of them holds other bytes")
