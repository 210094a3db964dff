"""Doctor on a folder with an example of every kind that can live together names each one, worst first; and whoever
follows a cure sees the finding go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds.kind import CLASSES, MASK, PICTURE, WIDTH, encoded, labels, picture, png, put, sound, steps, tagged
from kinds.masks import COLOURS, STRANGE, all_masks, indexed
from kinds.names import fifo, link, predictions
from PIL import Image

from semiseg.pipelines.datasets.doctor import diagnose

OTHER = encoded(picture(6))
Make = Callable[[Path], Any]


@dataclass(frozen=True)
class Example:
    """Something in a data set that doctor speaks of."""

    make: Make
    says: str
    """In a line of the report."""
    cure: str
    """In the same finding."""
    follow: Make
    level: str = "error"
    options: dict[str, Any] = field(default_factory=dict)
    """What the cure adds to the command."""
    alone: bool = False
    """Whether it hides others: a data set that is not found has no files, and some findings are about all masks."""


def pair(id: str, image: bytes | None = None, mask: bytes | None = None, suffix: str = "png") -> Make:
    """A picture and a mask beside the sound ones."""
    return steps(
        put(f"images/{id}.{suffix if image else 'png'}", image or OTHER),
        put(f"masks/{id}.{suffix if mask else 'png'}", mask or encoded(labels(6))),
    )


def mask(id: str, data: bytes, suffix: str = "png") -> Make:
    return pair(id, mask=data, suffix=suffix)


def mended(id: str, suffix: str = "png") -> Make:
    """The mask is exported anew."""
    return steps(remove(f"masks/{id}.{suffix}"), put(f"masks/{id}.png", encoded(labels(6))))


def replaced(id: str, suffix: str = "png") -> Make:
    """The picture is."""
    return steps(remove(f"images/{id}.{suffix}"), put(f"images/{id}.png", OTHER))


def remove(*names: str) -> Make:
    return lambda root: [(root / name).unlink() for name in names]


def nothing(root: Path) -> None:
    pass


def large(root: Path) -> None:
    """All pictures and masks of the data set are twice as large."""
    for path in [*(root / "images").iterdir(), *(root / "masks").iterdir()]:
        image = Image.open(path)
        image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(path)


BINARY = np.where(labels(6) == 1, 255, 0).astype(np.uint8)
FOURTH = "ground\ncar\ntree\nsky\n"
EXAMPLES = {
    # Masks that would be learnt wrong
    "half-size": Example(
        mask("half", encoded(labels(6)[::2, ::2])),
        "half.png is 24x20",
        "resizing masks by nearest",
        lambda root: (
            Image.open(root / "masks/half.png").resize((48, 40), Image.Resampling.NEAREST).save(root / "masks/half.png")
        ),
    ),
    "on-its-side": Example(
        mask("side", encoded(labels(6).T.copy())),
        "side.png is 40x48",
        "turn that one",
        lambda root: (
            Image.open(root / "masks/side.png").transpose(Image.Transpose.TRANSPOSE).save(root / "masks/side.png")
        ),
    ),
    "beyond": Example(
        mask("beyond", encoded(labels(6) + 7)),
        "beyond.png has label values 7, 8, 9",
        "correct the mask",
        mended("beyond"),
    ),
    "beyond-the-list": Example(
        mask("beyond", encoded(labels(6) + 1)),
        "beyond.png has label values 3",
        "or the class list",
        put("classes.txt", FOURTH),
        alone=True,
    ),
    "fractions": Example(
        mask("thirds", encoded(labels(6) / np.float32(3), "TIFF"), "tif"),
        "thirds.tif has label values",
        "export it anew with class indices",
        mended("thirds", "tif"),
    ),
    "negative": Example(
        mask("minus", encoded(labels(6).astype(np.int32) - 1, "TIFF"), "tif"),
        "minus.tif has label values -1",
        "class indices from 0",
        mended("minus", "tif"),
    ),
    "jpeg": Example(
        mask("photo", encoded(labels(6), "JPEG"), "jpg"),
        "photo.jpg is a JPEG file",
        "export it anew as PNG",
        mended("photo", "jpg"),
    ),
    "jpeg-in-tiff": Example(
        mask("scan", encoded(labels(6), "TIFF", compression="jpeg"), "tif"),
        "scan.tif is a TIFF file compressed by jpeg",
        "export it anew as PNG",
        mended("scan", "tif"),
    ),
    "colours": Example(
        mask("rgb", encoded(np.array(COLOURS, np.uint8)[labels(6)])),
        "rgb.png is in colour and shows #000000, #008000, #800000",
        "convert colours to class indices",
        mended("rgb"),
    ),
    "colours-named": Example(
        mask("rgb", encoded(np.array(COLOURS, np.uint8)[labels(6)])),
        "rgb.png is in colour and shows #000000, #008000, #800000",
        "give each class its colour in the class list",
        put("classes.txt", "ground\t#000000\ncar\t#800000\ntree\t#008000\n"),
        alone=True,
    ),
    "pages": Example(
        mask(
            "pages", encoded(Image.fromarray(MASK), "TIFF", save_all=True, append_images=[Image.fromarray(MASK)]), "tif"
        ),
        "pages.tif holds several pages",
        "as PNG",
        mended("pages", "tif"),
    ),
    "palettes": Example(
        steps(
            mask("first", encoded(indexed(labels(6), STRANGE))),
            mask("second", encoded(indexed(labels(6), STRANGE[::-1]))),
        ),
        "shows 0 as #",
        "save all masks with one palette",
        mask("second", encoded(indexed(labels(6), STRANGE))),
    ),
    "palettes-named": Example(
        steps(
            mask("first", encoded(indexed(labels(6), STRANGE))),
            mask("second", encoded(indexed(labels(6), STRANGE[::-1]))),
        ),
        "palettes that disagree",
        "give each class its colour in classes.txt",
        put("classes.txt", "ground\t#010203\ncar\t#c86432\ntree\t#0963c7\n"),
        alone=True,
    ),
    "binary": Example(
        all_masks(lambda n, v: encoded(np.where(v == 1, 255, 0).astype(np.uint8))),
        "mark objects by 255",
        "write 1 instead of 255",
        all_masks(lambda n, v: encoded((v == 1).astype(np.uint8))),
        alone=True,
    ),
    "binary-for-validation": Example(
        put("masks/p4.png", encoded(np.where(labels(4) == 1, 255, 0).astype(np.uint8))),
        "validation masks mark objects by 255",
        "write 1 instead of 255",
        put("masks/p4.png", encoded((labels(4) == 1).astype(np.uint8))),
        alone=True,
    ),
    "binary-one": Example(
        mask("void", encoded(BINARY)), "void.png for one", "write the index of the class", mended("void"), "warning"
    ),
    # Pictures
    "deep": Example(
        pair("deep", encoded(PICTURE[..., 0].astype(np.uint16) * 16)),
        "deep.png holds values",
        "convert all pictures to 8 bits",
        lambda root: Image.fromarray((np.asarray(Image.open(root / "images/deep.png")) // 16).astype(np.uint8)).save(
            root / "images/deep.png"
        ),
    ),
    "float": Example(
        pair("float", encoded((PICTURE[..., 0] / 255).astype(np.float32), "TIFF"), suffix="tif"),
        "float.tif holds fractions",
        "convert all pictures to 8 bits",
        replaced("float", "tif"),
    ),
    "large": Example(
        pair("large", png(b"", 60000, 60000, 8, 2)), "large.png is 60000x60000", "cut it into tiles", replaced("large")
    ),
    "large-for-the-limit": Example(
        nothing, "p0.png is 48x40", "--files.max-megapixels", nothing, options={"max_megapixels": 0.002}, alone=True
    ),
    "cut-png": Example(pair("cut", OTHER[:-12]), "cut.png cannot be decoded", "replace the file", replaced("cut")),
    "cut-jpeg": Example(
        pair("half-jpeg", encoded(PICTURE, "JPEG")[:700], suffix="jpg"),
        "half-jpeg.jpg cannot be decoded",
        "take it out",
        remove("images/half-jpeg.jpg", "masks/half-jpeg.png"),
    ),
    "eps": Example(
        pair("eps", encoded(PICTURE, "EPS"), suffix="jpg"),
        "eps.jpg cannot be decoded",
        "replace the file",
        replaced("eps", "jpg"),
    ),
    "pointer": Example(
        pair("lfs", b"version https://git-lfs.github.com/spec/v1\n", suffix="jpg"),
        "lfs.jpg cannot be decoded",
        "replace the file",
        replaced("lfs", "jpg"),
    ),
    "cut-mask": Example(
        mask("cut-mask", encoded(labels(6))[:-12]),
        "cut-mask.png cannot be decoded",
        "replace the file",
        mended("cut-mask"),
    ),
    "orientation": Example(
        pair("phone", encoded(Image.fromarray(picture(6)), exif=tagged(3))),
        "1 are turned upright",
        "--files.orientation ignore",
        nothing,
        "warning",
        {"orientation": "ignore"},
    ),
    "picture-pages": Example(
        pair(
            "burst",
            encoded(Image.fromarray(picture(6)), "TIFF", save_all=True, append_images=[Image.fromarray(picture(7))]),
            suffix="tif",
        ),
        "burst.tif for one",
        "first of each is used",
        replaced("burst", "tif"),
        "warning",
    ),
    "tiny": Example(
        steps(large, pair("tiny", encoded(PICTURE[:20, :20]), encoded(labels(6)[:20, :20]))),
        "\ntiny",
        "leave them out",
        remove("images/tiny.png", "masks/tiny.png"),
        "warning",
        alone=True,
    ),
    "leak": Example(
        put("images/again.png", encoded(picture(4))),
        "again is p4",
        "keep each in one",
        remove("images/again.png"),
        "warning",
    ),
    # Classes
    "class-unseen": Example(
        put("classes.txt", FOURTH),
        "classes occur in no training mask",
        "check the class list",
        put("classes.txt", "\n".join(CLASSES)),
        "warning",
        alone=True,
    ),
    "class-not-validated": Example(
        steps(
            put("classes.txt", FOURTH), mask("sky", encoded(np.where(labels(6) == 1, 3, labels(6)).astype(np.uint8)))
        ),
        "classes occur in no validation mask",
        "add validation images",
        steps(pair("sky2", encoded(picture(7)), encoded(np.full_like(MASK, 3))), put("val.txt", "p4\nsky2\n")),
        "warning",
    ),
    "mostly-void": Example(
        all_masks(lambda n, v: encoded(np.where(np.arange(WIDTH) > 9, 255, v).astype(np.uint8))),
        "of the training pixels are ignored",
        "check that this is meant",
        all_masks(lambda n, v: encoded(v)),
        "warning",
        alone=True,
    ),
    # Names and folders
    "heic": Example(
        put("images/phone.heic", b"?"),
        "1 .heic",
        "save them as PNG or JPEG",
        steps(remove("images/phone.heic"), put("images/phone.png", OTHER)),
        "warning",
    ),
    "mask-npy": Example(
        put("masks/p5.npy", b"?"),
        "1 .npy",
        "save them as PNG",
        steps(remove("masks/p5.npy"), put("masks/p5.png", encoded(labels(5)))),
        "warning",
    ),
    "pipe": Example(fifo("images/pipe.png"), "pipe.png", "passed over", remove("images/pipe.png"), "warning"),
    "dangling": Example(
        link("masks/p5.png", "nowhere.png"), "p5.png", "passed over", remove("masks/p5.png"), "warning"
    ),
    "orphan": Example(
        put("masks/orphan.png", encoded(MASK)),
        "1 masks belong to no image, orphan",
        "not used",
        remove("masks/orphan.png"),
        "warning",
    ),
    "predictions": Example(
        predictions("images/predictions"),
        "holds results of semiseg",
        "predictions/",
        lambda root: (root / "images/predictions").rename(root / "predictions"),
        "warning",
    ),
    "test-folder": Example(
        put("images/test/t.png", encoded(picture(8))),
        "1 images of folders for testing",
        "left alone",
        remove("images/test/t.png"),
        "warning",
    ),
    "test-list": Example(
        put("test.txt", "p3\nq3\n"), "of 2 lines of", "q3 for one", put("test.txt", "p3\n"), "warning"
    ),
    "circle": Example(
        link("images/circle", ".."), "images/circle", "remove the link", remove("images/circle"), alone=True
    ),
    "two-of-a-name": Example(
        put("images/p0.jpg", encoded(PICTURE, "JPEG")),
        "p0.jpg",
        "keep one of them",
        remove("images/p0.jpg"),
        alone=True,
    ),
    # Lists
    "list-entry": Example(
        put("val.txt", "p4\nq9\n"), "line 2: q9 is not in", "correct the list", put("val.txt", "p4\n"), alone=True
    ),
    "list-entry-added": Example(
        put("val.txt", "p4\nq9\n"), "line 2: q9 is not in", "add the missing files", pair("q9"), alone=True
    ),
    "list-utf-16": Example(
        put("val.txt", "p4\n".encode("utf-16")), "UTF-16", "save it as UTF-8", put("val.txt", "p4\n"), alone=True
    ),
    "list-without-mask": Example(
        put("val.txt", "p5\n"),
        "p5 of",
        "add it or take the line out",
        put("masks/p5.png", encoded(labels(5))),
        alone=True,
    ),
    "list-in-both": Example(
        put("train.txt", "p0\np1\np4\n"),
        "p4 is in",
        "take it out of one of them",
        put("train.txt", "p0\np1\n"),
        alone=True,
    ),
    "classes-header": Example(
        put("classes.txt", "class\nground\ncar\ntree\n"),
        "line 1: 'class' looks like a header",
        "take the line out",
        put("classes.txt", "ground\ncar\ntree\n"),
        alone=True,
    ),
    "classes-twice": Example(
        put("classes.txt", "ground\ncar\ncar\n"),
        "line 3: the class 'car' stands there twice",
        "its own name",
        put("classes.txt", "ground\ncar\ntree\n"),
        alone=True,
    ),
    "classes-gap": Example(
        put("classes.txt", "0: ground\n1: car\n3: tree\n"),
        "has label values 2 but the class list gives 0, 1, 3 (255 ignored)",
        "or the class list: '2: __ignore__' there has these pixels ignored",
        put("classes.txt", "0: ground\n1: car\n2: __ignore__\n3: tree\n"),
        alone=True,
    ),
    "classes-missing": Example(
        remove("classes.txt"),
        "classes.txt does not exist",
        "write it, one class name a line",
        put("classes.txt", "ground\ncar\ntree\n"),
        alone=True,
    ),
}


def findings(root: Path, **options: Any) -> list[tuple[str, str]]:
    """Level and whole text of each finding."""
    report = diagnose({"layout": "folder", "root": root, **options})
    return [(one.level, "\n".join((f"{one.text}: {one.cure}", *one.details))) for one in report.findings]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_cure_that_is_followed_takes_the_finding_away(name, tmp_path):
    example, root = EXAMPLES[name], sound(tmp_path / "own")
    before = {"max_megapixels": 0.0015} if name == "large-for-the-limit" else {}
    assert not [text for _, text in findings(root) if example.says in text]
    example.make(root)
    told = [(level, text) for level, text in findings(root, **before) if example.says in text]
    assert [level for level, _ in told] == [example.level]
    assert example.cure in told[0][1]
    example.follow(root)
    left = findings(root, **example.options)
    assert not [text for _, text in left if example.says in text]
    assert not [text for level, text in left if level == "error"]


def test_every_kind_is_named_in_one_run_worst_first(tmp_path):
    root = sound(tmp_path / "own")
    together = [example for example in EXAMPLES.values() if not example.alone]
    assert len(together) > 25
    for example in together:
        example.make(root)
    report = diagnose({"layout": "folder", "root": root})
    lines = list(report.lines())
    assert len(lines) < 100
    text = "\n".join(lines)
    assert [example.says for example in together if example.says not in text] == []
    assert all(example.cure in text for example in together)
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels, key=("error", "warning", "ok").index)
    titles = [finding.text for finding in report.findings]
    wrong = next(place for place, title in enumerate(titles) if "palettes" in title)
    assert wrong < next(place for place, title in enumerate(titles) if "cannot be decoded" in title)
