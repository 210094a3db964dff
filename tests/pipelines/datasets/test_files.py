"""Class lists of every program, and colours."""

import pytest

from semiseg.pipelines.datasets.files import read_classes, voc_colours
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


NAMES = ("ground", "car", "tree")


@pytest.mark.parametrize(
    "text",
    [
        "ground\ncar\ntree\n",
        "# my classes\nground\n\n# moving\ncar\ntree\n",
        "0: ground\n1: car\n2: tree\n",
        "0, ground\n1, car\n2, tree\n",
        "2;tree\n0;ground\n1;car\n",
        "0\tground\n1\tcar\n2\ttree\n",
        "Pixel Value, Class\n0, ground\n1, car\n2, tree\n",
        "name,id\nground,0\ncar,1\ntree,2\n",
        '"id","name"\n0,"ground"\n1,"car"\n2,"tree"\n',
        "# label:color_rgb:parts:actions\nground:0,0,0::\ncar:255,128,0::\ntree:::\n",
        "\ufeffground\r\ncar\r\ntree\r\n",
    ],
)
def test_class_lists_of_other_programs_are_read(tmp_path, text):
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    names, colours = read_classes(path)
    assert names == NAMES
    assert colours[1] == ((255, 128, 0) if "128" in text else voc_colours(2)[1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class\nground\ncar\n", "line 1: 'class' looks like a header"),
        ("Class_Name\nground\ncar\n", "line 1: 'Class_Name' looks like a header"),
        ("1: ground\n2: car\n3: tree\n", "line 3: the label values of 3 classes are 0 to 2"),
        ("0: ground\n0: car\n2: tree\n", "line 1: the label values of 3 classes are 0 to 2"),
        ("0, ground\n1, car\n255, ignore\n", "line 3: the label values of 3 classes are 0 to 2"),
        ("0, ground\n1, car\ntree\n", "line 3: gives no label value"),
        ("id, name\n0, ground\ncar\n2, tree\n", "line 3: gives no label value"),
    ],
)
def test_a_class_list_that_would_shift_names_is_refused(tmp_path, text, said):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_classes(tmp_path / "classes.txt")


def test_names_with_numbers_and_commas_stay_names(tmp_path):
    (tmp_path / "classes.txt").write_text("2 wheeler\nroad, paved\n3d print\n4\t#ff0000\n")
    names, colours = read_classes(tmp_path / "classes.txt")
    assert names == ("2 wheeler", "road, paved", "3d print", "4")
    assert colours[3] == (255, 0, 0)
