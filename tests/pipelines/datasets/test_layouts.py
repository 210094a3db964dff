import pytest

from semiseg.pipelines.datasets.files import files_by_stem, read_classes, voc_colours
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.errors import UsageError


def test_voc_colours():
    colours = voc_colours(256)
    assert colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert colours[20] == (0, 64, 128)
    assert colours[255] == (224, 224, 192)  # the border of the palette masks
    assert len(set(colours)) == 256


def test_class_list(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffsky\r\n\r\ntraffic light\t#FA00b4\r\nroad \r\n".encode())
    names, colours = read_classes(path)
    assert names == ("sky", "traffic light", "road")
    assert colours == ((0, 0, 0), (250, 0, 180), (0, 128, 0))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sky\n", "names 1 classes"),
        ("sky\nsky\n", "line 2: the class 'sky' stands there twice"),
        ("sky\ncar\tred\n", "line 2: 'red' is not a colour"),
        ("\n".join(map(str, range(256))), "names 256 classes"),
    ],
)
def test_bad_class_lists(tmp_path, text, what):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=what):
        read_classes(path)


def test_files_by_stem_nests_skips_and_refuses_twins(tmp_path):
    for name in ("a.jpg", "day/b.PNG", "day/.hidden.png", "notes.txt", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert files_by_stem(tmp_path) == {"a": tmp_path / "a.jpg", "day/b": tmp_path / "day/b.PNG"}
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match=r"holds both a\.jpg and a\.png"):
        files_by_stem(tmp_path)


@pytest.mark.parametrize(
    ("layout", "root", "options", "what"),
    [
        ("coco", ".", {}, "unknown layout 'coco': choose one of voc, cityscapes, folder, shapes"),
        ("voc", None, {}, "pass --data ROOT"),
        ("voc", "nowhere", {}, "nowhere is not a folder"),
        ("voc", ".", {"images": "x"}, "--files.images has no meaning for the layout voc"),
        ("cityscapes", ".", {"classes": "x"}, "--files.classes has no meaning"),
        ("voc", ".", {}, "no Pascal VOC data set in .*looked for JPEGImages, VOCdevkit/VOC2012/JPEGImages"),
        ("cityscapes", ".", {}, "looked for leftImg8bit"),
        ("folder", ".", {}, "has no images: put them in .*images"),
    ],
)
def test_unusable_arguments(tmp_path, layout, root, options, what):
    with pytest.raises(UsageError, match=what):
        find_dataset(layout, root and tmp_path / root, **options)


def test_list_files_may_be_relative_to_the_root(folder_root):
    root = folder_root(val=0)
    (root / "lists").mkdir()
    (root / "lists/v.txt").write_text("a000\na001\n")
    dataset = find_dataset("folder", root, val_list="lists/v.txt")
    assert [sample.id for sample in dataset.val] == ["a000", "a001"]
