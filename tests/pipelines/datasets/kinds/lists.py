"""Kinds of lists and class lists: every spelling that is met, and every way to be broken."""

from __future__ import annotations

from .kind import CLASSES, MASK, TRAIN, Kind, encoded, labels, picture, put, steps

KINDS: dict[str, Kind] = {}


def val(name: str, data: bytes | str, refused: str | None = None, **more) -> None:
    """A list of the validation images that names p4, or is refused."""
    KINDS[f"list-{name}"] = Kind(put("val.txt", data), refused=refused, **more)


for name, data in {
    "plain": "p4\n",
    "no-line-end": "p4",
    "windows": "p4\r\n",
    "old-mac": "p4\r",
    "bom": b"\xef\xbb\xbfp4\n",
    "blank-lines": "\n\np4\n\n \n",
    "blanks": "  p4  \n",
    "suffix": "p4.png\n",
    "other-suffix": "p4.jpg\n",
    "folder": "images/p4.png\n",
    "slash": "/images/p4.png\n",
    "dot": "./images/p4.png\n",
    "backslash": "images\\p4.png\n",
    "pair-blank": "images/p4.png masks/p4.png\n",
    "twice": "p4\np4\n",
    "pair-tab": "images/p4.png\tmasks/p4.png\n",
    "pair-slashes": "/images/p4.png /masks/p4.png\n",
    "pair-comma": "images/p4.png,masks/p4.png\n",
    "pair-quoted": '"images/p4.png","masks/p4.png"\n',
    "header": "image,mask\nimages/p4.png,masks/p4.png\n",
    "folder-of-the-root": "own/images/p4.png\n",
    "folder-of-another-disk": "b/p4.png\n",
}.items():
    val(name, data)
for name, data, word in (
    ("utf-16", "p4\r\n".encode("utf-16"), "UTF-16"),
    ("empty", "", "empty"),
    ("blank", "\n \n", "empty"),
    ("unknown", "p4\nq9\n", "line 2"),
    ("all-unknown", "q1\nq2\n", "line 1"),
    ("beside-the-images", "masks/p4.png\n", "mask"),
    ("picture", encoded(MASK), "val.txt"),
    ("nul", b"p4\0\n", "val.txt"),
    ("zeros", bytes(4096), "val.txt"),
    ("latin-1", "caf\xe9\n".encode("latin-1"), "val.txt"),
    ("utf-16-bare", "p4\n".encode("utf-16-le"), "val.txt"),
    ("long-line", "p" * 5000 + "\n", "line 1"),
    ("long-path", "a/" * 500_000 + "\n", "line 1"),
    ("html", "<html></html>\n", "line 1"),
    ("passwd", "/etc/passwd\n", "line 1"),
    ("above", "../../../../etc/passwd\n", "line 1"),
    ("no-mask", "p5\n", "mask"),
    ("mask-missing", "images/p4.png masks/q4.png\n", "q4"),
    ("other-mask", "images/p4.png masks/q4.png\n", "q4"),
    ("markup", "[/b]\n", "line 1"),
    ("number", "4\n", "line 1"),
    ("json", '["p4"]\n', "line 1"),
    ("comment", "# validation\np4\n", "line 1"),
    ("a-million-lines", "q\n" * 30_000, "line 1"),
):
    val(name, data, word)
KINDS["list-is-a-folder"] = Kind(
    lambda root: ((root / "val.txt").unlink(), (root / "val.txt").mkdir()), refused="is no file"
)
KINDS["list-missing"] = Kind(lambda root: (root / "val.txt").unlink(), train=None, val=None, noted="held out")
KINDS["list-named-and-missing"] = Kind(lambda root: None, refused="q.txt", options={"val_list": "q.txt"})
KINDS["list-elsewhere"] = Kind(put("lists/own.txt", "p4\n", "val.txt"), options={"val_list": "lists/own.txt"})
KINDS["list-absolute"] = Kind(lambda root: (root / "val.txt").write_text(f"{root}/images/p4.png\n"))
KINDS["list-of-a-place-that-is-gone"] = Kind(put("val.txt", "/gone/own/images/p4.png /gone/own/masks/p4.png\n"))
KINDS["list-of-other-folders"] = Kind(put("val.txt", "JPEGImages/p4.jpg SegmentationClass/p4.png\n"))
KINDS["list-mask-of-another-folder"] = Kind(
    steps(put("fine/p0.png", encoded(MASK)), put("val.txt", "images/p4.png fine/p4.png\n")),
    refused="fine/p4.png is not",
)
KINDS["list-two-masks"] = Kind(
    steps(put("fine/p4.png", encoded(MASK)), put("val.txt", "images/p4.png masks/p4.png\nimages/p4.png fine/p4.png\n")),
    refused="line 2: gives p4 the mask fine/p4.png and line 1",
)
KINDS["list-mask-of-another-image"] = Kind(
    put("val.txt", "images/p4.png masks/p0.png\n"), noted="p4 the one of p0 for one", id="p4", picture=picture(4)
)
KINDS["list-id-with-a-suffix"] = Kind(
    steps(
        put("images/p4.jpg.png", encoded(picture(4)), "images/p4.png"),
        put("masks/p4.jpg.png", encoded(labels(4)), "masks/p4.png"),
        put("val.txt", "p4.jpg\n"),
    ),
    val=("p4.jpg",),
)
KINDS["list-id-like-two-columns"] = Kind(
    steps(
        put("images/p4.jpg copy.png", encoded(picture(4)), "images/p4.png"),
        put("masks/p4.jpg copy.png", encoded(labels(4)), "masks/p4.png"),
        put("val.txt", "p4.jpg copy\n"),
    ),
    val=("p4.jpg copy",),
)
KINDS["list-mask-of-its-own"] = Kind(
    lambda root: (
        (root / "masks/p4.png").rename(root / "masks/other.png"),
        (root / "val.txt").write_text("images/p4.png masks/other.png\n"),
    )
)
KINDS["list-train"] = Kind(put("train.txt", "p0\np1\n"), train=("p0", "p1"))
KINDS["list-train-and-val-overlap"] = Kind(put("train.txt", "p0\np4\n"), refused="take it out of one of them")
KINDS["list-train-unknown"] = Kind(put("train.txt", "p0\nq1\n"), refused="line 2")
KINDS["list-train-empty"] = Kind(put("train.txt", ""), refused="empty")
KINDS["list-train-without-masks"] = Kind(put("train.txt", "p5\n"), refused="mask")
KINDS["list-test"] = Kind(put("test.txt", "p1\n"), train=("p0", "p2", "p3", "p5"))
KINDS["list-test-unknown"] = Kind(put("test.txt", "p1\nq1\n"), train=("p0", "p2", "p3", "p5"), noted="test.txt")
KINDS["list-same-last-part"] = Kind(
    steps(
        *(put(f"images/{place}/x.png", encoded(picture(number))) for number, place in ((7, "a"), (8, "b"))),
        *(put(f"masks/{place}/x.png", encoded(labels(number))) for number, place in ((7, "a"), (8, "b"))),
        put("val.txt", "images/a/x.png\n"),
    ),
    id="a/x",
    picture=picture(7),
    mask=labels(7),
    train=("b/x", "p4", *TRAIN),
    val=("a/x",),
)
KINDS["list-same-last-part-alone"] = Kind(
    steps(
        *(put(f"images/{place}/x.png", encoded(picture(number))) for number, place in ((7, "a"), (8, "b"))),
        *(put(f"masks/{place}/x.png", encoded(labels(number))) for number, place in ((7, "a"), (8, "b"))),
        put("val.txt", "x\n"),
    ),
    refused="line 1",
)


# Class lists
def classes(name: str, data: bytes | str, refused: str | None = None, **more) -> None:
    KINDS[f"classes-{name}"] = Kind(put("classes.txt", data), refused=refused, **more)


NAMES = {
    "more-classes": (*CLASSES, "sky"),
    "markup": ("[/b]", "[bold]car", "tree"),
    "blank-inside": ("the ground", "a car", "a tree"),
    "long-names": ("g" * 2000, "car", "tree"),
    "emoji": ("\U0001f33e", "\U0001f697", "\U0001f333"),
    "slashes": ("a/b", "../c", "/d"),
    "html": ("<b>ground</b>", "<script>alert(1)</script>", "tree"),
    "255": tuple(f"c{n}" for n in range(255)),
    "control": ("ground\x1b[31m", "car", "tree"),
    "numbers": ("0", "1", "2"),
    "numbered": ("type 2", "type 0", "type 1"),
    "some-numbers": ("2 wheeler", "traffic light", "route 66"),
    "value-blank-names": ("the ground", "a car", "a tree"),
    "value-and-numbers": ("2 wheeler", "a car", "route 66"),
}
"""Of the class lists that have others than the usual ones."""
for name, data in {
    "windows": "ground\r\ncar\r\ntree\r\n",
    "no-line-end": "ground\ncar\ntree",
    "bom": b"\xef\xbb\xbfground\ncar\ntree\n",
    "blank-lines": "ground\n\ncar\n\ntree\n\n",
    "blanks": " ground \n car\ntree \n",
    "comment": "# mine\nground\ncar\ntree\n",
    "value-colon": "0: ground\n1: car\n2: tree\n",
    "value-comma": "0, ground\n1, car\n2, tree\n",
    "name-comma-value": "ground,0\ncar,1\ntree,2\n",
    "shuffled": "2: tree\n0: ground\n1: car\n",
    "value-header": "Pixel Value, Class\n0, ground\n1, car\n2, tree\n",
    "cvat": "# label:color_rgb:parts:actions\nground:0,0,0::\ncar:128,0,0::\ntree:0,128,0::\n",
    "colours": "ground\t#000000\ncar\t#ff0000\ntree\t#00ff00\n",
    "some-colours": "ground\ncar\t#ff0000\ntree\n",
    "colours-twice": "ground\t#ff0000\ncar\t#ff0000\ntree\t#ff0000\n",
    "more-classes": "ground\ncar\ntree\nsky\n",
    "markup": "[/b]\n[bold]car\ntree\n",
    "blank-inside": "the ground\na car\na tree\n",
    "long-names": f"{'g' * 2000}\ncar\ntree\n",
    "emoji": "\U0001f33e\n\U0001f697\n\U0001f333\n",
    "slashes": "a/b\n../c\n/d\n",
    "html": "<b>ground</b>\n<script>alert(1)</script>\ntree\n",
    "255": "".join(f"c{n}\n" for n in range(255)),
    "control": "ground\x1b[31m\ncar\ntree\n",
    "yolo": "path: own\ntrain: images\nnc: 3\nnames:\n- ground\n- 'car'  # of any kind\n- tree\ndownload: none\n",
    "dashes": "- ground\n- car\n- tree\n",
    "name-colon-value": "tree: 2\nground: 0\ncar: 1\n",
    "name-tab-value": "tree\t2\nground\t0\ncar\t1\n",
    "value-blank-name": "0 ground\n2 tree\n1 car\n",
    "name-blank-value": "tree 2\nground 0\ncar 1\n",
    "value-blank-names": "0 the ground\n2 a tree\n1 a car\n",
    "value-dot": "0. ground\n2. tree\n1. car\n",
    "value-bracket": "0) ground\n2) tree\n1) car\n",
    "value-dash": "0 - ground\n2 - tree\n1 - car\n",
    "value-bar": "0|ground\n2|tree\n1|car\n",
    "value-quoted": '"0": "ground"\n"2": "tree"\n"1": "car"\n',
    "colour-columns": "name,r,g,b\nground,0,0,0\ncar,255,0,0\ntree,0,255,0\n",
    "colour-blanks": "0 0 0 ground\n255 0 0 car\n0 255 0 tree\n",
    "value-and-colour": "id;name;color\n0;ground;#000000\n2;tree;#00ff00\n1;car;#ff0000\n",
    "value-and-colour-columns": "0,ground,0,0,0\n2,tree,0,255,0\n1,car,255,0,0\n",
    "colour-without-tab": "ground #000000\ncar, #ff0000\ntree\n",
    "yaml": "names:\n  0: ground\n  1: car\n  2: tree\n",
    "numbers": "0\n1\n2\n",
    "numbered": "type 2\ntype 0\ntype 1\n",
    "some-numbers": "2 wheeler\ntraffic light\nroute 66\n",
    "value-and-numbers": "0: 2 wheeler\n2: route 66\n1: a car\n",
    "equals": "ground=0\ncar=1\ntree=2\n",
    "equals-shuffled": "tree=2\nground=0\ncar=1\n",
    "quoted": '"ground"\n"car"\n"tree"\n',
}.items():
    classes(name, data, classes=NAMES.get(name, CLASSES))
for name, data, word in (
    ("utf-16", "ground\ncar\ntree\n".encode("utf-16"), "UTF-16"),
    ("empty", "", "0 classes"),
    ("one", "ground\n", "1 classes"),
    ("too-few", "ground\ncar\n", "label values 2"),
    ("300", "".join(f"c{n}\n" for n in range(300)), "300 classes"),
    ("twice", "ground\ncar\nground\n", "twice"),
    ("header", "class\nground\ncar\ntree\n", "header"),
    ("gap", "0: ground\n1: car\n3: tree\n", "label values"),
    ("from-one", "1: ground\n2: car\n3: tree\n", "label values"),
    ("value-twice", "0: ground\n1: car\n1: tree\n", "the label value 1 stands in several lines"),
    ("value-missing", "0: ground\n1: car\ntree\n", "line 3"),
    ("bad-colour", "ground\tred\ncar\ntree\n", "#rrggbb"),
    ("latin-1", "stra\xdfe\ncar\ntree\n".encode("latin-1"), "classes.txt"),
    ("picture", encoded(MASK), "classes.txt"),
    ("nul", b"ground\0\ncar\ntree\n", "classes.txt"),
    ("zeros", bytes(4096), "classes.txt"),
    ("utf-16-bare", "ground\ncar\ntree\n".encode("utf-16-le"), "classes.txt"),
    ("json", '{"0": "ground", "1": "car", "2": "tree"}\n', "classes.txt"),
    ("json-lines", '{\n"0": "ground",\n"1": "car",\n"2": "tree"\n}\n', "classes.txt"),
    ("huge-value", f"0: ground\n1: car\n{'9' * 5000}: tree\n", "line 3"),
    ("no-header", "ground\n0: car\n1: tree\n", "line 1: gives no label value"),
    ("blanks-from-one", "1 ground\n2 car\n3 tree\n", "line 1: label values would not be 0, 1, 2"),
    ("yaml-in-a-line", "nc: 3\nnames: [ground, car, tree]\n", "line 2: names all classes at once"),
    ("values-in-brackets", "[0] ground\n[2] tree\n[1] car\n", "line 1: seems to give a label value"),
    ("two-values", "0,7,ground\n1,8,car\n2,9,tree\n", "more numbers than a value or a colour"),
    ("colour-beyond", "ground 0 0 0\ncar 0 0 256\ntree 1 1 1\n", "line 2: (0, 0, 256) is not a colour"),
    ("colour-missing", "ground,0,0,0\ncar\ntree,1,1,1\n", "line 2: gives no colour"),
    ("colour-short", "ground,#000\ncar\ntree\n", "line 1: '#000' is not a colour"),
    ("blank-name", "0: ground\n1: \n2: tree\n", "line 2"),
):
    classes(name, data, word)
KINDS["classes-missing"] = Kind(lambda root: (root / "classes.txt").unlink(), refused="does not exist")
KINDS["classes-is-a-folder"] = Kind(
    lambda root: ((root / "classes.txt").unlink(), (root / "classes.txt").mkdir()), refused="classes.txt"
)
KINDS["classes-elsewhere"] = Kind(
    put("own/names.txt", "\n".join(CLASSES), "classes.txt"), options={"classes": "own/names.txt"}
)
KINDS["classes-named-and-missing"] = Kind(lambda root: None, refused="q.txt", options={"classes": "q.txt"})
