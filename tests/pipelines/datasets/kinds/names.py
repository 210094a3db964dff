"""Kinds of names, folders and links: what lies where, under which name, and what is no file at all."""

from __future__ import annotations

import os
import shutil
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

from .kind import MASK, PICTURE, TRAIN, Kind, encoded, labels, picture, put, steps

NFC = unicodedata.normalize("NFC", "caf\u00e9")
NFD = unicodedata.normalize("NFD", NFC)
JPEG, PNG = encoded(PICTURE, "JPEG"), encoded(PICTURE)
KINDS: dict[str, Kind] = {}


def renamed(image: str, mask: str | None = None) -> Callable[[Path], None]:
    """p0 has another name."""

    def make(root: Path) -> None:
        for folder, name in (("images", image), ("masks", mask or image)):
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            (root / folder / "p0.png").rename(path)

    return make


def named(kind: str, name: str) -> None:
    KINDS[f"name-{kind}"] = Kind(renamed(name), id=name, train=tuple(sorted((name, *TRAIN[1:]))))


for kind, name in {
    "blank": "a photo of it", "blanks-at-the-ends": " p ", "comma": "a,b", "quotes": "it's \"p\"", "percent": "100%25",
    "hash": "#1", "emoji": "\U0001f4f7", "chinese": "\u56fe\u50cf", "arabic": "\u0635\u0648\u0631\u0629", "dash": "-p",
    "two-dashes": "--help", "dots": "a..b", "dot-at-the-end": "p0.", "suffix-twice": "p0.png", "jpg-inside": "p0.jpg.x",
    "markup": "[bold]p[/b]", "braces": "{p}", "glob": "p*[0]?", "tab": "a\tb", "backslash": "a\\b",
    "control": "a\x1b[31mb", "tilde": "~", "dollar": "$HOME", "label-ids": "city_000000_000019_labelIds",
    "left-image": "a_leftImg8bit", "mask-alone": "p_mask", "val-as-a-name": "val", "null": "null", "number": "0001",
    "nfc": NFC, "deep": "a/b/c/d/e/f/g/h/p", "folder-with-blank": "a b/c d", "folder-dots": "a.b/c.d",
    "upper": "P0X", "long": "p" * 200, "longest": "p" * 250, "deep-and-long": "/".join(["d" * 120] * 5),
}.items():  # fmt: skip
    named(kind, name)
KINDS["name-case-differs"] = Kind(
    steps(put("images/P0.png", encoded(picture(9))), put("masks/P0.png", encoded(labels(0)))),
    train=("P0", *TRAIN),
)
KINDS["name-nfd"] = Kind(renamed(NFD), id=NFC, train=(NFC, *TRAIN[1:]))
KINDS["name-image-nfd-mask-nfc"] = Kind(renamed(NFD, NFC), id=NFC, train=(NFC, *TRAIN[1:]))
KINDS["name-image-nfc-mask-nfd"] = Kind(renamed(NFC, NFD), id=NFC, train=(NFC, *TRAIN[1:]))
KINDS["name-both-forms"] = Kind(
    steps(put(f"images/{NFC}.png", PNG), put(f"images/{NFD}.png", PNG)), refused="keep one of them"
)
KINDS["name-not-utf-8"] = Kind(
    lambda root: (root / "images" / os.fsdecode(b"caf\xe9.png")).write_bytes(PNG), refused="UTF-8"
)
KINDS["name-line-end"] = Kind(renamed("a\nb"), refused="line break")
KINDS["name-mask-not-utf-8"] = Kind(
    lambda root: (root / "masks" / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(MASK)), refused="UTF-8"
)
KINDS["name-twice"] = Kind(put("images/p0.jpg", JPEG), refused="keep one of them")
KINDS["name-twice-mask"] = Kind(put("masks/p0.bmp", encoded(MASK, "BMP")), refused="keep one of them")
KINDS["mask-without-image"] = Kind(put("masks/orphan.png", encoded(MASK)), noted="belong to no image")
for kind, end in {"mask": "_mask", "masks": " masks", "label": "-label", "gt": ".gt", "suffix": ".png",
                  "suffix-and-mask": ".png_mask"}.items():  # fmt: skip
    KINDS[f"mask-names-with-{kind}"] = Kind(
        lambda root, end=end: [
            path.rename(path.with_name(f"{path.stem}{end}.png")) for path in (root / "masks").iterdir()
        ],
        noted="5 masks are called after their images",
    )
for kind, name in {"ending": "{}_L", "beginning": "mask_{}", "capitals": "P{1}"}.items():
    KINDS[f"mask-names-differ-by-{kind}"] = Kind(
        lambda root, name=name: [
            path.rename(path.with_stem(name.format(path.stem, path.stem[1:]))) for path in (root / "masks").iterdir()
        ],
        noted="5 masks are called otherwise than their images",
    )
KINDS["mask-names-of-others"] = Kind(
    lambda root: [path.rename(path.with_stem(name)) for path, name in zip(sorted((root / "masks").iterdir()), "vwxyz")],
    refused="mask",
)
KINDS["mask-called-as-its-image-and-after-it"] = Kind(
    put("masks/p0_mask.png", encoded(labels(9))), noted="1 masks belong to no image, p0_mask"
)
KINDS["mask-after-an-image-and-as-another"] = Kind(
    steps(
        put("images/p0_mask.png", encoded(picture(9))),
        lambda root: (root / "masks/p0.png").rename(root / "masks/p0_mask.png"),
    ),
    id="p0_mask",
    picture=picture(9),
    train=("p0", "p0_mask", *TRAIN[1:]),
)
KINDS["masks-two-after-an-image"] = Kind(
    steps(
        lambda root: (root / "masks/p0.png").rename(root / "masks/p0_mask.png"),
        put("masks/p0_gt.png", encoded(labels(9))),
    ),
    refused="may both be the mask of p0",
)

# What systems and tools leave behind
for kind, name in {
    "apple-double": "images/._p0.png", "hidden": "images/.p9.png", "hidden-folder": "images/.trash/p9.png",
    "notebook": "images/.ipynb_checkpoints/p0-checkpoint.png", "macosx": "images/__MACOSX/p9.png",
    "synology": "images/@eaDir/p0.png/SYNOPHOTO_THUMB_S.png", "qnap": "images/@Recycle/p9.png",
    "recycle": "images/#recycle/p9.png", "thumbs": "images/Thumbs.db", "desktop": "images/desktop.ini",
    "store": "images/.DS_Store", "text": "images/README.txt",
    "json": "images/p0.json", "partial": "images/p9.png.part",
    "backup": "images/p9.png~", "video": "images/clip.mp4", "archive": "images/all.zip",
    "mask-hidden": "masks/._p0.png", "mask-notebook": "masks/.ipynb_checkpoints/p0-checkpoint.png",
    "beside": "notes.png",
}.items():  # fmt: skip
    KINDS[f"left-{kind}"] = Kind(put(name, PNG))
for suffix in ("heic", "heif", "jxl", "dng", "cr2", "nef", "exr", "psd", "svg", "npy", "tga", "dcm"):
    KINDS[f"unread-{suffix}"] = Kind(put(f"images/p9.{suffix}", b"?"), noted=f".{suffix}")


def only(suffix: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for path in list((root / "images").iterdir()):
            path.rename(path.with_suffix(suffix))

    return make


KINDS["images-heic-alone"] = Kind(only(".heic"), refused=".heic")
KINDS["images-npy-alone"] = Kind(only(".npy"), refused=".npy")


# Folders
def moved(*pairs: tuple[str, str]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for old, new in pairs:
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            (root / old).rename(root / new)

    return make


def predictions(folder: str) -> Callable[[Path], None]:
    pictures = [put(f"{folder}/{kind}/p0.png", PNG) for kind in ("masks", "colours", "overlays")]
    return steps(*pictures, put(f"{folder}/colours/classes.txt", "0\ta\t#000000\n1\tb\t#800000\n"))


for images, masks in (
    ("JPEGImages", "SegmentationClass"),
    ("imgs", "labels"),
    ("image", "annotations"),
    ("img", "mask"),
):
    KINDS[f"folders-{images}"] = Kind(moved(("images", images), ("masks", masks)))
KINDS["folders-named"] = Kind(
    moved(("images", "a/pictures"), ("masks", "b/truth")), options={"images": "a/pictures", "masks": "b/truth"}
)
KINDS["folders-absent"] = Kind(lambda root: shutil.rmtree(root / "images"), refused="--files.images")
KINDS["folder-masks-absent"] = Kind(lambda root: shutil.rmtree(root / "masks"), refused="mask")
KINDS["folder-images-empty"] = Kind(lambda root: [path.unlink() for path in (root / "images").iterdir()], refused="p4")
KINDS["folder-masks-empty"] = Kind(lambda root: [p.unlink() for p in (root / "masks").iterdir()], refused="mask")
KINDS["folder-named-like-a-picture"] = Kind(lambda root: (root / "images/z.jpg").mkdir())
KINDS["folder-named-like-a-mask"] = Kind(lambda root: (root / "masks/p5.png").mkdir())
KINDS["folder-is-a-file"] = Kind(
    steps(lambda root: shutil.rmtree(root / "masks"), put("masks", b"no folder")), refused="mask"
)
for val in ("val", "valid", "validation", "Val"):
    KINDS[f"folder-{val}"] = Kind(
        steps(moved(("images/p4.png", f"images/{val}/p4.png"), ("masks/p4.png", f"masks/{val}/p4.png")),
              lambda root: (root / "val.txt").unlink()),
        val=(f"{val}/p4",),
    )  # fmt: skip
for test in ("test", "testing", "Test"):
    KINDS[f"folder-{test}"] = Kind(
        moved(("images/p1.png", f"images/{test}/p1.png"), ("masks/p1.png", f"masks/{test}/p1.png")),
        train=("p0", "p2", "p3", "p5"),
        noted="left alone",
    )
KINDS["masks-below-the-images"] = Kind(moved(("masks", "images/masks")), options={"masks": "images/masks"})
KINDS["masks-around-the-images"] = Kind(
    lambda root: [path.rename(root / path.name) for path in (root / "images").iterdir()], options={"images": "."}
)
KINDS["masks-beside-the-images"] = Kind(
    lambda root: [p.rename(root / f"images/{p.stem}_mask.png") for p in sorted((root / "masks").iterdir())],
    noted="_mask",
)
KINDS["masks-beside-and-in-a-folder"] = Kind(put("images/p0_mask.png", encoded(MASK)))
KINDS["images-in-the-masks-folder-too"] = Kind(
    lambda root: shutil.copytree(root / "images", root / "masks/images"), noted="belong to no image"
)
KINDS["predictions-among-the-images"] = Kind(predictions("images/predictions"), noted="predict")
KINDS["predictions-beside-the-masks"] = Kind(
    steps(moved(("masks", "labels")), predictions(".")), noted="--files.masks masks takes them for labels"
)
KINDS["predictions-and-no-masks"] = Kind(
    steps(lambda root: shutil.rmtree(root / "masks"), put("classes.txt", "a\nb\nc\n", "val.txt"), predictions(".")),
    refused="what predict wrote is none unless --files.masks masks says so",
)
KINDS["predictions-for-masks"] = Kind(
    steps(moved(("masks", "own")), predictions("."), moved(("masks", "theirs"), ("own", "masks"))),
    options={"masks": "masks"},
)
KINDS["folders-called-as-those-of-predictions"] = Kind(steps(put("colours/p0.png", PNG), put("overlays/p0.png", PNG)))
KINDS["run-among-the-images"] = Kind(
    steps(put("images/run/recipe.json", "{}"), put("images/run/log.jsonl", ""), put("images/run/samples/p0.png", PNG)),
    noted="run",
)


# Links, and what is no file
def link(name: str, to: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(to.replace("ROOT", str(root)))

    return make


def fifo(name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        os.mkfifo(root / name)

    return make


def listening(name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        here = os.getcwd()
        os.chdir((root / name).parent)  # addresses are short
        try:
            with socket.socket(socket.AF_UNIX) as open_socket:
                open_socket.bind(Path(name).name)
        finally:
            os.chdir(here)

    return make


KINDS["link-images"] = Kind(steps(moved(("images", "store/a")), link("images", "store/a")))
KINDS["link-masks"] = Kind(steps(moved(("masks", "store/a")), link("masks", "store/a")))
KINDS["link-folder"] = Kind(
    steps(moved(("images/p0.png", "store/x/p0.png"), ("masks/p0.png", "truth/x/p0.png")),
          link("images/x", "../store/x"), link("masks/x", "../truth/x")),
    id="x/p0",
    train=("p1", "p2", "p3", "p5", "x/p0"),
)  # fmt: skip
KINDS["link-file"] = Kind(steps(moved(("images/p0.png", "store/q.png")), link("images/p0.png", "../store/q.png")))
KINDS["link-hard"] = Kind(lambda root: os.link(root / "images/p0.png", root / "copy.png"))
KINDS["link-of-links"] = Kind(
    steps(
        moved(("images/p0.png", "store/q.png")), link("store/r.png", "q.png"), link("images/p0.png", "../store/r.png")
    )
)
for kind, to in {"itself": "circle", "here": ".", "above": "..", "root": "/"}.items():
    KINDS[f"link-to-{kind}"] = Kind(link("images/circle", to), refused="circle")
KINDS["link-of-masks-to-here"] = Kind(link("masks/circle", "."), refused="circle")
KINDS["link-circle-of-two"] = Kind(
    steps(put("images/a/x.txt", ""), put("images/b/x.txt", ""), link("images/a/b", "../b"), link("images/b/a", "../a")),
    refused="leads back",
)
for kind, to in {"dangling": "nowhere.png", "zero": "/dev/zero", "null": "/dev/null", "terminal": "/dev/tty"}.items():
    KINDS[f"link-{kind}"] = Kind(link("images/z.png", to), noted="z.png")
    KINDS[f"link-mask-{kind}"] = Kind(link("masks/p5.png", to))
    KINDS[f"link-listed-{kind}"] = Kind(steps(link("images/z.png", to), put("val.txt", "z\n")), refused="line 1")
KINDS["fifo"] = Kind(fifo("images/z.png"), noted="z.png")
KINDS["fifo-mask"] = Kind(fifo("masks/p5.png"))
KINDS["fifo-listed"] = Kind(steps(fifo("images/z.png"), put("val.txt", "images/z.png\n")), refused="z.png")
KINDS["fifo-class-list"] = Kind(fifo("classes.txt"), refused="classes.txt")
KINDS["fifo-list"] = Kind(fifo("val.txt"), refused="is no file")
KINDS["socket"] = Kind(listening("images/z.png"), noted="z.png")
KINDS["socket-mask"] = Kind(listening("masks/p5.png"))
