"""Masks as people bring them: palettes in any order, 255 for a class, fractions, losses, a mask as picture."""

import re

import numpy as np
import pytest
from own import COLOURS, ORDERS, VALUES, assert_kept, indexed, masks_of, run
from PIL import Image

from semiseg.engine.data import prepare_manifest
from semiseg.pipelines.datasets import find_dataset, prepare, seen
from semiseg.pipelines.datasets.dataset import voc_colours
from semiseg.pipelines.datasets.doctor import diagnose
from semiseg.pipelines.errors import UsageError


@pytest.fixture
def root(folder_root):
    root = folder_root()
    (root / "classes.txt").write_text("ground\ncar\ntree\n")
    return root


def doubted(root, says):
    """The masks can be looked at, but neither trained on nor judged by."""
    manifest = run(root)
    assert seen(manifest, "a000")[1].shape == VALUES.shape
    (line,) = manifest.doubts
    assert re.search(says, line)
    assert "\n" not in line
    with pytest.raises(UsageError, match=says):
        prepare_manifest(find_dataset("folder", root))


@pytest.mark.parametrize("mistaken", [False, True])
def test_a_file_is_a_picture_and_a_mask_at_once(root, mistaken):
    masks_of(root, lambda path: indexed(path, VALUES, (0, 1, 2)))
    if mistaken:
        with pytest.raises(UsageError):  # pictures are no masks, but the masks were looked at as pictures
            run(root, images="masks", masks="images")
        manifest = run(root)
    else:
        images = sorted((root / "images").iterdir())
        (root / "train.txt").write_text("".join(f"images/{image.name}\n" for image in images[:4]) + "masks/a000.png\n")
        (root / "val.txt").write_text("".join(f"images/{image.name}\n" for image in images[4:6]))
        manifest = run(root)
        as_picture, _ = seen(manifest, "masks/a000")
        assert np.array_equal(as_picture, np.array(COLOURS, np.uint8)[VALUES])
    assert np.array_equal(seen(manifest, "a000")[1], VALUES)
    labelled = sum(sample.mask is not None for sample in manifest.dataset.train)
    assert manifest.histogram == tuple(labelled * np.bincount(VALUES.ravel()))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_palettes_that_disagree_are_read_by_the_colours_of_the_classes(root, suffix):
    (root / "classes.txt").write_text("ground\t#000000\ncar\t#c80000\ntree\t#0000c8\n")
    masks_of(root, lambda path: indexed(path.with_suffix(suffix), VALUES, ORDERS.get(path.stem, (0, 1, 2))))
    manifest = run(root)
    for id in ("a000", "a001", "a002", "a006"):
        assert np.array_equal(seen(manifest, id)[1], VALUES), id
    assert manifest.histogram == tuple(6 * np.bincount(VALUES.ravel()))
    assert any("all 8 indexed masks are read by their colours" in note for note in manifest.notes)
    assert_kept(root, manifest)
    # Other colours are another mapping: what is in the cache does not stand for it.
    (root / "classes.txt").write_text("ground\t#000000\ncar\t#0000c8\ntree\t#c80000\n")
    assert np.array_equal(seen(run(root), "a000")[1], np.array([0, 2, 1], np.uint8)[VALUES])


def test_masks_in_colour_are_read_by_the_colours_of_the_class_list(root):
    """As CVAT exports them, with its class list."""
    (root / "classes.txt").unlink()
    labelmap = "# label:color_rgb:parts:actions\nground:0,0,0::\ncar:{}::\ntree:{}::\n"
    (root / "labelmap.txt").write_text(labelmap.format("200,0,0", "0,0,200"))
    masks_of(root, lambda path: Image.fromarray(np.array(COLOURS, np.uint8)[VALUES]).save(path))
    manifest = run(root)
    assert manifest.dataset.classes == ("ground", "car", "tree")
    assert np.array_equal(seen(manifest, "a000")[1], VALUES)
    assert manifest.histogram == tuple(6 * np.bincount(VALUES.ravel()))
    assert any("8 masks are in colour" in note for note in manifest.notes)
    assert_kept(root, manifest)
    (root / "labelmap.txt").write_text(labelmap.format("0,0,200", "200,0,0"))
    assert np.array_equal(seen(run(root), "a000")[1], np.array([0, 2, 1], np.uint8)[VALUES])
    (root / "labelmap.txt").write_text(labelmap.format("0,0,201", "200,0,0"))
    with pytest.raises(UsageError, match=r"a000.png is in colour and shows #0000c8, .* give each class its colour"):
        run(root)


def test_masks_of_voc_in_colour_have_the_colours_of_voc(voc_root):
    home = voc_root()
    truth = np.asarray(Image.open(home / "SegmentationClass/2007_000001.png"))
    for path in (home / "SegmentationClass").iterdir():
        values = np.asarray(Image.open(path))
        colours = np.array([*voc_colours(255), (224, 224, 192)], np.uint8)
        Image.fromarray(colours[values]).save(path)
    assert np.array_equal(seen(prepare(find_dataset("voc", home)), "2007_000001")[1], truth)


def test_a_colour_may_be_declared_to_be_ignored(root):
    (root / "classes.txt").write_text("0,ground,0,0,0\n1,car,200,0,0\n255,void,0,0,200\n")
    masks_of(root, lambda path: Image.fromarray(np.array(COLOURS, np.uint8)[VALUES]).save(path))
    assert np.array_equal(seen(run(root), "a000")[1], np.array([0, 1, 255], np.uint8)[VALUES])


@pytest.mark.parametrize("shared", ["c80000", "e0e0c0"])
def test_a_colour_of_two_classes_is_refused(root, shared):
    """That in which VOC shows what is ignored, too."""
    (root / "classes.txt").write_text(f"ground\t#000000\ncar\t#{shared}\ntree\t#{shared}\n")
    colours = np.array([(0, 0, 0), [*bytes.fromhex(shared)], (0, 0, 0)], np.uint8)
    masks_of(root, lambda path: Image.fromarray(colours[VALUES]).save(path))
    with pytest.raises(UsageError, match=f"is in colour and shows #{shared}, which the class list gives no class, or"):
        run(root)


@pytest.mark.parametrize("void", [(0, 0, 0), (200, 0, 0), (7, 7, 7), (224, 224, 192)])
def test_255_is_ignored_in_whatever_colour(root, void):
    (root / "classes.txt").write_text("ground\t#000000\ncar\t#c80000\ntree\t#0000c8\n")
    truth = np.where(np.arange(48) < 9, 255, VALUES).astype(np.uint8)

    def make(path):
        order = ORDERS.get(path.stem, (0, 1, 2))
        table = np.arange(256, dtype=np.uint8)
        table[list(order)] = range(3)
        image = Image.fromarray(table[truth], "P")
        image.putpalette([channel for index in order for channel in COLOURS[index]] + list(void) * 253)
        image.save(path)

    masks_of(root, make)
    manifest = run(root)
    for id in ("a000", "a001", "a002", "a006"):
        assert np.array_equal(seen(manifest, id)[1], truth), id
    assert manifest.survey.counts(manifest.dataset.train)[255] == 6 * 9 * 40
    assert any("are read by their colours" in note for note in manifest.notes)


def test_255_contradicts_no_palette(root):
    masks_of(root, lambda path: indexed(path, VALUES, (0, 1, 2)))
    colours = [(9, 9, 9), *COLOURS[1:], *[(0, 0, 0)] * 253]  # black is 255 here and 0 elsewhere
    image = Image.fromarray(np.where(VALUES, VALUES, 255).astype(np.uint8), "P")
    image.putpalette([channel for colour in colours for channel in colour])
    image.save(root / "masks/a000.png")
    manifest = run(root)
    assert np.array_equal(seen(manifest, "a000")[1], np.where(VALUES, VALUES, 255))
    assert (manifest.notes, manifest.doubts) == ((), ())


def test_palettes_that_disagree_are_refused_where_colours_are_no_classes(root):
    masks_of(root, lambda path: indexed(path, VALUES, ORDERS.get(path.stem, (0, 1, 2))))
    doubted(root, r"a001\.png shows 1 as #c80000 but .*a000\.png as #0000c8: save all")
    assert not diagnose(find_dataset("folder", root)).ok


def test_a_colour_in_two_places_is_a_contradiction_though_no_index_is(root):
    def make(path):
        first = path.stem == "a000"
        image = Image.fromarray(np.where(VALUES == 1, 1 if first else 2, 0).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 200, 0, 0] if first else [0, 0, 0, 9, 9, 9, 200, 0, 0])
        image.save(path)

    masks_of(root, make)
    doubted(root, r"a001\.png has #c80000 as 2 but .*a000\.png as 1")


def test_one_palette_for_all_stays_as_it_is_whatever_its_colours(root):
    masks_of(root, lambda path: indexed(path, VALUES, (0, 1, 2), ((9, 9, 9), (8, 200, 8), (1, 2, 3))))
    manifest = run(root)
    assert np.array_equal(seen(manifest, "a000")[1], VALUES)
    assert manifest.notes == ()


def test_palettes_against_the_class_list_are_read_by_colour_or_refused(root):
    (root / "classes.txt").write_text("ground\t#000000\ncar\t#0000c8\ntree\t#c80000\n")
    masks_of(root, lambda path: indexed(path, VALUES, (0, 1, 2)))
    assert np.array_equal(seen(run(root), "a000")[1], np.array([0, 2, 1], np.uint8)[VALUES])
    (root / "classes.txt").write_text("ground\t#010101\ncar\t#0000c8\ntree\t#c80000\n")
    doubted(root, r"a000\.png shows 1 in the colour of tree in the class list")


def test_a_class_list_that_states_the_very_colours_of_voc_states_them(root):
    voc = voc_colours(3)
    masks_of(root, lambda path: indexed(path, VALUES, (0, 2, 1), voc))
    assert np.array_equal(seen(run(root), "a000")[1], np.array([0, 2, 1], np.uint8)[VALUES])
    (root / "classes.txt").write_text("ground\t#000000\ncar\t#800000\ntree\t#008000\n")
    manifest = run(root)
    assert manifest.dataset.palette == voc
    assert np.array_equal(seen(manifest, "a000")[1], VALUES)
    assert manifest.doubts == ()


def test_a_class_without_a_stated_colour_contradicts_no_palette(root):
    (root / "classes.txt").write_text("ground\t#010101\ncar\ntree\n")
    masks_of(root, lambda path: indexed(path, VALUES, (0, 2, 1), voc_colours(3)))
    assert np.array_equal(seen(run(root), "a000")[1], np.array([0, 2, 1], np.uint8)[VALUES])


def test_black_and_white_in_either_order(folder_root):
    root = folder_root()
    (root / "classes.txt").write_text("ground\ncrack\n")
    truth = (VALUES > 0).astype(np.uint8)
    bw = ((0, 0, 0), (255, 255, 255))
    masks_of(root, lambda path: indexed(path, truth, (1, 0) if path.stem == "a000" else (0, 1), bw))
    doubted(root, r"shows 0 as #000000 but .* as #ffffff")
    (root / "classes.txt").write_text("ground\t#000000\ncrack\t#ffffff\n")
    assert np.array_equal(seen(run(root), "a000")[1], truth)
    (root / "classes.txt").write_text("ground\ncrack\n")
    masks_of(root, lambda path: indexed(path, truth, (1, 0), bw))
    manifest = run(root)
    assert np.array_equal(seen(manifest, "a000")[1], 1 - truth)
    assert any("white is taken for ground, black for crack" in note for note in manifest.notes)


def test_the_published_palette_stays(voc_root):
    home = voc_root()
    colours = voc_colours(256)
    for path in (home / "SegmentationClass").iterdir():
        image = Image.open(path).copy()
        image.putpalette([channel for colour in colours for channel in colour])
        image.save(path)
    manifest = prepare(find_dataset("voc", home))
    assert manifest.notes == ()
    assert np.array_equal(seen(manifest, "2007_000001")[1], np.asarray(Image.open(path.with_name("2007_000001.png"))))


def as_255(path):
    mask = np.asarray(Image.open(path)).copy()
    mask[mask == 1] = 255
    Image.fromarray(mask).save(path)


@pytest.mark.parametrize(
    ("classes", "chosen", "refused", "says"),
    [
        (2, range(6), True, "training masks mark car by 255"),
        (2, range(3), False, "3 of 6 training masks hold nothing but 0 and 255"),
        (2, range(5), False, "5 of 6 training masks hold nothing but 0 and 255"),
        (2, (6, 7), True, "validation masks mark car by 255"),
        (2, (6,), False, "1 of 2 validation masks hold nothing but 0 and 255"),
        (3, range(8), False, "car occurs in no training mask while 6 of 6 hold 255"),
    ],
)
def test_a_class_written_as_255_is_named(root, classes, chosen, refused, says):
    (root / "classes.txt").write_text("\n".join(("ground", "car", "tree")[:classes]))
    for number in range(8):
        path = root / f"masks/a00{number}.png"
        Image.fromarray(VALUES % classes).save(path)
        if number in chosen:
            as_255(path)
    if refused:
        with pytest.raises(UsageError, match=says):
            run(root)
    else:
        assert any(says in note for note in run(root).notes)
    findings = diagnose(find_dataset("folder", root)).to_dict()["findings"]
    assert any(says in f"{f['text']} {f['details']}" and f["level"] != "ok" for f in findings)


def test_a_split_whose_labelled_masks_alone_hold_255(root, monkeypatch):
    (root / "classes.txt").write_text("ground\ncar\n")
    for number in range(8):
        path = root / f"masks/a00{number}.png"
        Image.fromarray(VALUES % 2).save(path)
        if number < 2:
            as_255(path)
    (root / "few.txt").write_text("a000\na001\n")
    monkeypatch.chdir(root)
    report = diagnose(find_dataset("folder", root), split="few.txt")
    assert not report.ok
    assert any("the labelled masks of few" in f.text for f in report.findings)


@pytest.mark.parametrize(
    ("value", "says"),
    [(0.5, "0.5, which are no whole numbers"), (np.nan, "nan, which are no whole"), (-1, "-1, which no class has")],
)
def test_float_masks_hold_whole_numbers(root, value, says):
    path = root / "masks/a000.tif"
    path.with_suffix(".png").unlink()
    values = VALUES.astype(np.float32)
    Image.fromarray(values).save(path)
    assert np.array_equal(seen(run(root), "a000")[1], VALUES)
    values[3, 3] = value
    Image.fromarray(values).save(path)
    with pytest.raises(UsageError, match=rf"a000\.tif has label values {says}"):
        run(root)


@pytest.mark.parametrize(
    ("suffix", "options", "says"),
    [
        (".tif", {"compression": "jpeg"}, "a TIFF file compressed by jpeg"),
        (".webp", {"quality": 80}, "a WebP file with losses"),
        (".png", {"format": "JPEG2000"}, "a JPEG2000 file"),
        (".png", {"format": "JPEG"}, "a JPEG file"),
    ],
)
def test_containers_with_losses_are_refused_and_not_to_be_converted(root, suffix, options, says):
    path = root / "masks/a000.png"
    path.unlink()
    Image.fromarray(VALUES).save(path.with_suffix(suffix), **options)
    with pytest.raises(UsageError, match=f"is {says}, which changes label values: export it anew.*keeps the changed"):
        run(root)


def test_lossless_tiff_stays(root):
    (root / "masks/a000.png").unlink()
    Image.fromarray(VALUES).save(root / "masks/a000.tif", compression="tiff_lzw")
    assert np.array_equal(seen(run(root), "a000")[1], VALUES)


def several(path, first, others, **options):
    first.save(path, save_all=True, append_images=others, **options)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_masks_of_several_pages_are_refused(root, suffix):
    (root / "masks/a000.png").unlink()
    path, options = root / f"masks/a000{suffix}", {"lossless": True} if suffix == ".webp" else {}
    several(path, Image.fromarray(VALUES), [Image.fromarray(2 - VALUES)], **options)
    with pytest.raises(UsageError, match=r"a000\.\w+ holds several pages or frames, .*: save that one by itself"):
        run(root)


def test_smaller_copies_within_a_tiff_are_no_other_masks(root):
    (root / "masks/a000.png").unlink()
    path = root / "masks/a000.tif"
    small = Image.fromarray(VALUES[::2, ::2].copy())
    small.encoderinfo = {"tiffinfo": {254: 1}}
    several(path, Image.fromarray(VALUES), [small], compression="tiff_lzw")
    assert Image.open(path).n_frames == 2
    manifest = run(root)
    assert np.array_equal(seen(manifest, "a000")[1], VALUES)
    assert manifest.notes == ()


def pgm(path, values, white):
    path.write_bytes(b"P5\n# a mask\n48 40\n%d\n" % white + values.astype(np.uint8 if white < 256 else ">u2").tobytes())


@pytest.mark.parametrize("white", [2, 3, 127, 255, 256, 65535])
def test_a_pgm_holds_its_values_whatever_it_calls_white(root, white):
    (root / "masks/a000.png").unlink()
    pgm(root / "masks/a000.pgm", VALUES, white)
    assert np.array_equal(seen(run(root), "a000")[1], VALUES)


def test_gray_levels_that_two_classes_have_are_refused(root):
    (root / "classes.txt").write_text("ground\t#000000\ncar\t#808080\ntree\t#808080\n")
    masks_of(root, lambda path: Image.fromarray(np.where(VALUES, 128, 0).astype(np.uint8)).save(path))
    with pytest.raises(UsageError, match="holds gray levels, 128 among them that two classes have: give each class"):
        run(root)


def test_gray_levels_are_as_they_are_stored_though_white_is_0(root):
    (root / "classes.txt").write_text("ground\ncrack\n")
    masks_of(root, lambda path: Image.fromarray(VALUES % 2).save(path))
    (root / "masks/a000.png").unlink()
    bits = np.packbits(VALUES % 2, axis=1).tobytes()
    (root / "masks/a000.pbm").write_bytes(b"P4\n48 40\n" + bits)
    manifest = run(root)
    assert np.array_equal(seen(manifest, "a000")[1], VALUES % 2)
    assert any("a000.pbm for one, have white as 0: white is taken for ground" in note for note in manifest.notes)


def test_masks_that_begin_at_1_where_0_is_not_labelled_are_read_by_gray_levels(root):
    """As docs/data.md says it of them."""
    (root / "classes.txt").write_text("__ignore__ #000000\nroad #010101\ncar #020202\n")
    masks_of(root, lambda path: Image.fromarray(VALUES).save(path))
    manifest = run(root)
    assert manifest.dataset.classes == ("road", "car")
    assert np.array_equal(seen(manifest, "a000")[1], np.array([255, 0, 1], np.uint8)[VALUES])
