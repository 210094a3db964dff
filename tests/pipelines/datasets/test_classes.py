"""Class lists of every program."""

import pytest

from semiseg.pipelines.datasets.classes import read_classes, value_notes
from semiseg.pipelines.datasets.dataset import voc_colours
from semiseg.pipelines.errors import UsageError


def test_class_list(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffsky\r\n\r\ntraffic light\t#FA00b4\r\nroad \r\n".encode())
    names, colours, *_ = read_classes(path)
    assert names == ("sky", "traffic light", "road")
    assert colours == ((0, 0, 0), (250, 0, 180), (0, 128, 0))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sky\n", "names 1 classes"),
        ("sky\nsky\ncar\n", "line 2: the class 'sky' stands there twice: .* all lines values"),
        ("sky\t#000001\nsky\ncar\n", "line 2: the class 'sky' stands there twice"),
        ("sky\t#000001\ncar\nsky\t#000001\n", "line 3: the class 'sky' stands there twice"),
        ("0: sky\n1: sky\n", "names 1 classes"),
        ("0: sky\n1: __ignore__\n", "names 1 classes"),
        *(
            (text, "several lines name 'car', with numbers that may be label values: write these as '0: car'")
            for text in (
                "0 sky\n1 car\n2 car\n",
                "0 car\n1 car\n2 car\n3 sky\n4 sky\n5 sky\n",
                "2. car\n1. sky\n0. car\n",
                "id name\n0 car\n1 car\n2 sky\n",
                "car 0\ncar 1\nsky 2\n",
                "0 car #000001\n1 car #000002\n2 sky #000003\n",
            )
        ),
        (
            "0 __ignore__\n1 car\n2 car\n3 sky\n",
            "line 1: __ignore__ has a number: write label values as '0: __ignore__'",
        ),
        ('sky\n"__ignore__"\ncar\n', "__ignore__ stands between classes"),
        ("sky\n__ignore__,\ncar\n", "__ignore__ stands between classes"),
        ("0, sky, #00ff00\n", "gives a number"),
        ("sky\ncar\tred\n", "line 2: 'red' is not a colour"),
        ("# label:color_rgb:parts:actions\nsky:0,0,9::\nroad:300,0,0::\n", r"line 3: \(300, 0, 0\) is not a colour"),
        ("0 0 9 sky\n0 0 300 road\n", r"line 2: \(0, 0, 300\) is not a colour"),
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
        "nc: 3\nnames:\n- ground\n- car\n- tree\n",
        "names:\n  0: ground\n  1: car\n  2: tree\nnc: 3\n",
        "tree: 2\nground: 0\ncar: 1\n",
        "2 tree\n0 ground\n1 car\n",
        "car 1\ntree 2\nground 0\n",
        "id name\n2 tree\n0 ground\n1 car\n",
        "2) tree\n0) ground\n1) car\n",
        "name,r,g,b\nground,0,0,0\ncar,255,128,0\ntree,0,0,128\n",
        "2;tree;#000080\n0;ground;#000000\n1;car;#ff8000\n",
        "name,hex\nground,#000000\ncar,#ff8000\ntree,#000080\n",
        "Class;Colour\nground;#000000\ncar;#ff8000\ntree;#000080\n",
        "id,name,color\n2,tree,#000080\n0,ground,#000000\n1,car,#ff8000\n",
        "class_name,class_color\nground,0 0 0\ncar,255 128 0\ntree,0 0 128\n",
        'name,color\nground,"rgb(0,0,0)"\ncar,"rgb(255, 128, 0)"\ntree,"(0, 0, 128)"\n',
        "'ground'\n'car'\n'tree'\n",
        "ground,\ncar,\ntree,\n",
        "__ignore__\nground\ncar\ntree\n",
        "0: ground\n1: car\n2: tree\n255: void\n",
        "# not from -1\nground\ncar\ntree\n",
        "ground\ncar\n255,void,9,9,9\ntree\n",
        "ground 0 0 0\ncar 255 128 0\ntree 0 0 128\n255 void 9 9 9\n",
        "255: void\nground\t#000000\ncar\t#ff8000\ntree\t#000080\n",
        "ground  # all else\ncar\t#ff8000 # and vans\ntree\n",
        "red,green,blue,name\n0,0,0,ground\n255,128,0,car\n0,0,128,tree\n",
    ],
)
def test_class_lists_of_other_programs_are_read(tmp_path, text):
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    names, colours, *_ = read_classes(path)
    assert names == NAMES
    assert colours[1] == ((255, 128, 0) if "128" in text or "#ff8000" in text else voc_colours(2)[1])


def test_what_is_no_class_may_have_a_colour(tmp_path):
    path = tmp_path / "classes.txt"
    of_classes, ignored = ((128, 64, 128), (64, 0, 128)), ((9, 9, 9),)
    path.write_text("255,void,9,9,9\n1,car,64,0,128\n0,road,128,64,128\n")
    assert read_classes(path) == (("road", "car"), of_classes, of_classes, ignored, "void")
    for void, name in {
        "__ignore__\t#090909": "",
        "255,void,9,9,9": "void",
        "255 void 9 9 9": "void",
        "255, void, #090909": "void",
    }.items():
        path.write_text(f"road\t#804080\n{void}\ncar\t#400080\n")
        assert read_classes(path) == (("road", "car"), of_classes, of_classes, ignored, name)
    path.write_text("road 128 64 128\n255 void 9 9 9\ncar 64 0 128\n")
    assert read_classes(path) == (("road", "car"), of_classes, of_classes, ignored, "void")


@pytest.mark.parametrize(
    ("text", "names", "table"),
    [
        ("0: ground\n1: car\n2: car\n3: tree\n", ("ground", "car", "tree"), (0, 1, 1, 2)),
        ("3,ground\n2,car\n1,tree\n0,car\n", ("car", "tree", "ground"), (0, 1, 0, 2)),
        ("0: __ignore__\n1: ground\n2: car\n3: __ignore__\n255: void\n", ("ground", "car"), (255, 0, 1, 255)),
        ("ground\t#000000\ncar\t#000001\ncar\t#000002\n", ("ground", "car"), (0, 1, 1)),
        ("car #000001\nground #000000\n__ignore__ #000009\ncar #000002\n", ("car", "ground"), (0, 1, 0)),
        ("0 0 0 ground\n0 0 1 car\n0 0 2 car\n", ("ground", "car"), (0, 1, 1)),
        ("ground 0 0 0\ncar 0 0 1\ncar 0 0 2\n", ("ground", "car"), (0, 1, 1)),
        ("0 0 0 0 ground\n1 0 0 1 car\n2 0 0 1 car\n", ("ground", "car"), (0, 1, 1)),
        ("0: __IGNORE__\n1: ground\n2: car\n", ("ground", "car"), (255, 0, 1)),
        ("0 one\n1 two\n2 three\n", ("one", "two", "three"), (0, 1, 2)),
        ("2 wheeler\n4 wheeler\ncar\n", ("2 wheeler", "4 wheeler", "car"), (0, 1, 2)),
        ("0 stars\n1 stars\n2 stars\n", ("0 stars", "1 stars", "2 stars"), (0, 1, 2)),
        ("ground\ncar\ntree\n", ("ground", "car", "tree"), (0, 1, 2)),
    ],
)
def test_lines_of_one_name_are_one_class(tmp_path, text, names, table):
    """In the order of first values; a value beyond the list stays what it is, so that it is found."""
    (tmp_path / "classes.txt").write_text(text)
    found = read_classes(tmp_path / "classes.txt")
    assert tuple(found.classes) == names
    assert found.table.tolist() == [*table, *range(len(table), 256)]


@pytest.mark.parametrize("last", ["__ignore__", "void"])
def test_all_values_of_a_byte_may_be_listed(tmp_path, last):
    lines = [f"{value}: {'ground' if value < 9 else 'car'}\n" for value in range(255)]
    (tmp_path / "classes.txt").write_text("".join([*lines, f"255: {last}\n"]))
    found = read_classes(tmp_path / "classes.txt")
    assert found.table.tolist() == [0] * 9 + [1] * 246 + [255]


def test_what_a_list_merges_is_told(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("0: ground\n1: car\n2: __ignore__\n3: car\n")
    one, ignored = value_notes(path, read_classes(path))
    assert one == f"car stands in 2 lines of {path}: values 1, 3 are one class"
    assert ignored == f"{path} ignores pixels of value 2"
    path.write_text("0: ground\n1: car\n255: void\n")
    assert not [*value_notes(path, read_classes(path))]
    for text in ("0: ground\n1: car\n255: edge\n", "ground,0,0,0\ncar,9,9,9\n255,edge,1,1,1\n"):
        path.write_text(text)
        (told,) = value_notes(path, read_classes(path))
        assert told == f"{path} calls 255 'edge': in masks of indices 255 means ignore, and counts nowhere"
    path.write_text("10: ground\n30: car\n")
    assert [*value_notes(path, read_classes(path))] == [
        f"label values of {path}: 10, 30; masks of indices that hold others are refused"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "10: ground\n30: car\n12: tree\n",
        "ground,10\ntree,12\ncar,30\n",
        "Pixel Value, Class\n12, tree\n10, ground\n30, car",
    ],
)
def test_label_values_may_leave_gaps(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    found = read_classes(tmp_path / "classes.txt")
    assert found.given == [10, 12, 30]
    assert [*found.classes] == ["ground", "tree", "car"]
    assert found.of_classes == (10, 12, 30)
    assert found.table[[10, 12, 30]].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "text", ["0,ground,\n10,car,\n255,void,\n", "value,name\n0: ground\n10: car\n255: void, edge\n"]
)
def test_names_of_255_may_have_commas(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text.replace("10", "1"))
    assert read_classes(tmp_path / "classes.txt").names == ("ground", "car")
    (tmp_path / "classes.txt").write_text(text.replace(", edge", ""))
    assert read_classes(tmp_path / "classes.txt").given == [0, 10]


def test_a_class_of_several_colours_is_shown_in_that_of_its_first_value(tmp_path):
    (tmp_path / "classes.txt").write_text("ground\t#000000\ncar\t#000001\ncar\t#000002\ntree\t#000003\n")
    assert read_classes(tmp_path / "classes.txt").classes == {"ground": (0, 0, 0), "car": (0, 0, 1), "tree": (0, 0, 3)}


def test_a_first_class_without_a_colour_is_no_header(tmp_path):
    for name in ("the ground", "red label"):
        (tmp_path / "classes.txt").write_text(f"{name}\ncar\t#400080\n")
        assert read_classes(tmp_path / "classes.txt").names == (name, "car")


@pytest.mark.parametrize(
    "names",
    [
        ("255 avenue", "road", "car"),
        ("road", "255 seats bus", "tram"),
        ("class b", "class a", "other"),
        ("2-wheeler", "4-seater", "tram"),
        ("0-10 years", "11-20 years", "21-30 years"),
        ("24/7 shop", "7/11 shop", "kiosk"),
        ("1.5 ton truck", "2.5 ton van", "car"),
        ("10% tumor", "50% necrosis", "none"),
        ("3d printer", "1st floor", "stairs"),
        ("category a", "2 wheeler", "4 wheeler"),
    ],
)
def test_names_may_hold_numbers_and_words_of_headers(tmp_path, names):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(names))
    assert read_classes(path).names == names
    path.write_text("".join(f"{name}:{value},0,0::\n" for value, name in enumerate(names)))
    assert read_classes(path).names == names


@pytest.mark.parametrize(
    "names",
    [
        ("class 1", "class 2", "class 3"), ("object", "background"), ("train", "car"), ("my car", "road"),
        ("3", "1", "2"), ("type", "other type"), ("class_a", "class_b"), ("0_ground", "1_car"), ("list", "name"),
        ("class_1", "background"), ("class 1", "other", "unknown"), ("label1", "rest"), ("class\u00e9", "autre"),
        ("\u9053\u8def (id)", "\u6b69\u9053"), ("id", "photo", "signature"),
    ],
)  # fmt: skip
def test_names_of_classes_that_are_like_headers_stay_names(tmp_path, names):
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    assert read_classes(tmp_path / "classes.txt").names == names


@pytest.mark.parametrize(
    "text", ["id:0,0,0::\nphoto:1,1,1::\n", "id #000000\nphoto #ff0000\n", "name,r,g,b\nid,0,0,0\nphoto,1,1,1\n"]
)
def test_a_line_with_a_colour_or_below_a_header_is_a_class(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    assert read_classes(tmp_path / "classes.txt").names == ("id", "photo")


def test_names_are_composed_so_that_those_that_look_alike_are_alike(tmp_path):
    (tmp_path / "classes.txt").write_text("Boden\nBa\u0308r\n", encoding="utf-8")
    assert read_classes(tmp_path / "classes.txt").names == ("Boden", "B\u00e4r")


def test_a_class_may_have_the_name_of_a_header_where_values_are_given(tmp_path):
    (tmp_path / "classes.txt").write_text("0: category\n1: dog\n")
    assert read_classes(tmp_path / "classes.txt").names == ("category", "dog")


def test_a_name_in_quotes_may_hold_what_stands_between_columns(tmp_path):
    (tmp_path / "classes.txt").write_text('id,name\n0,"car, parked"\n1,car\n')
    assert read_classes(tmp_path / "classes.txt").names == ("car, parked", "car")


@pytest.mark.parametrize(
    "rows",
    ["128 64 128 road\n64 0 128 car\n", "0,road,128,64,128\n1,car,64,0,128\n", "128,64,128,road\n64,0,128,car\n"],
)
def test_what_is_ignored_has_a_line_in_any_list(tmp_path, rows):
    (tmp_path / "classes.txt").write_text(rows + "255, void, #090909\n")
    found = read_classes(tmp_path / "classes.txt")
    assert (found.names, found.stated, found.void) == (("road", "car"), ((128, 64, 128), (64, 0, 128)), ((9, 9, 9),))


def test_names_in_labelmaps_may_hold_colons(tmp_path):
    (tmp_path / "labelmap.txt").write_text("ground:0,0,0::\ntraffic light: red:1,2,3::\n")
    names, colours, *_ = read_classes(tmp_path / "labelmap.txt")
    assert (names, colours[1]) == (("ground", "traffic light: red"), (1, 2, 3))


HEADERS = (
    "ID Name", "class label", "trainId name", "Object class", "class list", "My classes:", "Classes (2)", "Label,Count",
    "semantic_class", "Klassen", "list of classes", "Object classes (2)",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class\nground\ncar\n", "line 1: 'class' looks like a header"),
        ("Class_Name\nground\ncar\n", "line 1: 'Class_Name' looks like a header"),
        ("0: ground\n0: car\n2: tree\n", "line 1: the label value 0 stands in several lines"),
        ("0: ground\n1: car\n256: tree\n", "line 3: the label value 256 is no value of a mask of 8 bits"),
        ("0: ground\n255: car\n", "line 2: 255 means ignore and cannot be car: call it void, or .*'car #ffffff'"),
        ("0: ground\n128: tree\n255: car\n", "line 3: 255 means ignore and cannot be car"),
        ("ground: 0\ntree: 128\n255: car\n", "line 3: 255 means ignore and cannot be car"),
        ("klasse,farbe\nground,#000000\ncar,#ff8000\n", "line 1: gives no colour, as the other lines do"),
        ("ground,0.0,0.0,0.0\ncar,0.5,0.5,0.5\n", "line 1: 'ground,0.0,0.0,0.0' is no name of a class"),
        ("ground,rgb(0,0,0)\ncar,rgb(0,0,300)\n", "line 2: 'car,rgb\\(0,0,300\\)' is no name of a class"),
        ('{"ground": [0, 0, 0],\n "car": [1, 1, 1]}\n', "is JSON, which is not read"),
        ('["ground", "car"]', "is JSON, which is not read"),
        ("ground\n__ignore__\ncar\n", "__ignore__ stands between classes"),
        ("masks/p0.png\nmasks/p1.png\n", "line 1: 'masks/p0.png' is a file, not a class"),
        ("Classes:\nground\ncar\n", "line 1: 'Classes:' looks like a header"),
        ("0,ground,0,0,0\n1,car,9,9,9\n255,void,0,0,0\n", "ground has the colour of what is no class"),
        ("0, ground\n1, car\ntree\n", "line 3: gives no label value"),
        ("ground\n0: car\n1: tree\n", "line 1: gives no label value"),
        (
            "1 ground\n2 car\n3 tree\n",
            "line 1: label values would not be 0, 1, 2 .*write '1: ground' .*'0: NAME' where",
        ),
        ("10 ground\n20 car\n30 tree\n", "line 1: label values would not be 0, 1, 2"),
        ("[1] car\n[0] ground\n", "line 1: seems to give a label value"),
        ("0,7,ground\n1,8,car\n", "line 2: more numbers than a value or a colour"),
        ("names: [ground, car]\n", "line 1: names all classes at once"),
        ("id, name\n0, ground\ncar\n2, tree\n", "line 3: gives no label value"),
        ("-1 void\n0 ground\n1 car\n", "line 1: has a value below 0"),
        ("ground 0\ncar 1\nvoid -1\n", "line 3: has a value below 0"),
        ("1 ground\n0 sky\ncar\n", "line 1: gives a number, as other lines do not"),
        ("ground\n2 sky\n1 car\n", "line 2: gives a number, as other lines do not"),
        ("3: road\nground\ncar\nbus\n", "line 1: gives a number, as other lines do not"),
        ("2: road\nground\n0: car\nbus\n", "line 2: gives no label value"),
        ("name,blue,green,red\nground,0,0,0\ncar,0,0,255\n", "line 1: has colours in another order"),
        ("b;g;r;name\n0;0;0;ground\n0;0;255;car\n", "line 1: has colours in another order"),
        ("ground\n#ff0000 crack\nhole\n", "line 2: begins as comments do: write the name first"),
        ("ground\n#1 screw\nrust\n", "line 2: begins as comments do"),
        ("// my classes\nground\ncar\n", "line 1: seems to be a comment"),
        ("% my classes\nground\ncar\n", "line 1: seems to be a comment"),
        ("0 0 0 0\n1 128 64 128\n", "line 1: holds numbers alone"),
        ("id,color,name\n0,#000000,ground\n1,#ff0000,car\n", "line 1: 'id,color,name' looks like a header"),
        ("1,#ff0000,car\n0,#000000,ground\n", "line 1: '1,#ff0000,car' is no name of a class"),
        ("name,hex,id\nground,#000000,1\ncar,#ff0000,0\n", "'car,#ff0000' is in several columns"),
        ("name,color\nground,black\ncar,red\n", "line 1: 'name,color' looks like a header"),
        ("label;name\nground;floor\ncar;vehicle\n", "line 1: 'label;name' looks like a header"),
        ("class,group\nground,flat\ncar,vehicle\n", "line 1: 'class,group' looks like a header"),
        ("id,name\n0.0,ground\n1.0,car\n", "line 2: begins with a number that is no whole one"),
        ("1.0,car\n0.0,ground\n", "line 1: begins with a number that is no whole one"),
        ("id,name,supercategory\n0,ground,flat\n1,car,vehicle\n", "line 2: 'ground,flat' is in several columns"),
        ("name,description,color\nground,paved,#010203\ncar,old,#040506\n", "line 2: 'ground,paved' is in several"),
        ("Category\nground\ncar\n", "line 1: 'Category' looks like a header"),
        ("ClassName\nground\ncar\n", "line 1: 'ClassName' looks like a header"),
        ("Label Names\nground\ncar\n", "line 1: 'Label Names' looks like a header"),
        ("0 ground\n2 stage 1\n1 stage 2\n3 car\n", "line 1: every line begins with a number"),
        ("0 ground\n3 car\n1 2 wheeler\n2 3 wheeler\n", "line 1: every line begins with a number"),
        ("1 stage 1\n2 stage 2\n3 stage 3\n", "line 1: every line begins with a number, which are not 0 to 2"),
        ("3\nground\ncar\ntree\n", "line 1: '3' looks like a header"),
        ("Legende:\nground\ncar\n", "line 1: 'Legende:' looks like a header"),
        *((f"{header}\nground\ncar\n", "line 1: .* looks like a header") for header in HEADERS),
        ("class\nclass name\nground\n", "line 1: 'class' looks like a header"),
        ("0x01 car\n0x00 ground\n", "line 1: seems to give a label value"),
        ("1.0 car\n0.0 ground\n", "line 1: seems to give a label value"),
        ("1_car\n0_ground\n", "line 1: seems to give a label value"),
        ("ground: 0\ncar: 1\nnum_classes: 2\n", "line 3: 'num_classes: 2' looks like a header"),
        ("version = 3\nground = 10\ncar = 20\n", "line 1: 'version = 3' looks like a header"),
    ],
)
def test_a_class_list_that_would_shift_names_is_refused(tmp_path, text, said):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_classes(tmp_path / "classes.txt")


def test_names_with_numbers_and_commas_stay_names(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("2 wheeler\nroad, paved\n3d print\n4\t#ff0000\n")
    names, colours, *_ = read_classes(path)
    assert names == ("2 wheeler", "road, paved", "3d print", "4")
    assert colours[3] == (255, 0, 0)
    wheelers = ("ground", "2 wheeler", "4 wheeler")
    lists = ("type 2", "type 1"), ("2 wheeler", "4 wheeler"), ("route 66", "traffic light", "a 2 b"), wheelers
    for names in (*lists, ('pipe 5"', "kids'", 'a "x"'), ("ground", "type 1", "type 2")):
        path.write_text("\n".join(names))
        assert read_classes(path)[0] == names
    path.write_text("1: traffic light\n0: 2 wheeler\n2: route 66\n")
    assert read_classes(path)[0] == ("2 wheeler", "traffic light", "route 66")


def test_a_class_list_in_utf16_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_bytes("ground\r\ncar\r\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"class list .* \(it is UTF-16\): save it as UTF-8"):
        read_classes(tmp_path / "classes.txt")
