"""A kind of file: a small data set that holds one, and what must become of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = SHAPE = 40, 48
CLASSES = ("ground", "car", "tree")
COLOURS = ((60, 90, 60), (200, 70, 70), (80, 80, 200))
"""Of the classes in the pictures."""
TRAIN, VAL = ("p0", "p1", "p2", "p3", "p5"), ("p4",)
"""p5 has no mask."""
CHUNK = b"\x89PNG\r\n\x1a\n"


def labels(number: int = 0) -> np.ndarray:
    """(H, W) uint8: of each class a block or more, in other places in each mask."""
    rows, columns = np.arange(HEIGHT) * 3 // HEIGHT, np.arange(WIDTH) * 3 // WIDTH
    return ((rows[:, None] * (number + 1) + columns[None] + number) % 3).astype(np.uint8)


def picture(number: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: the classes by their colours, and a ramp that no two pictures share."""
    ramp = np.linspace(0, 40, WIDTH)[None, :, None] + number
    return np.clip(np.array(COLOURS)[labels(number)] + ramp, 0, 255).astype(np.uint8)


GRAY = np.asarray(Image.fromarray(picture()).convert("L"))
"""(H, W) uint8."""
MASK, PICTURE = labels(), picture()


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done to the sound data set, and the defined result: it is used, and the picture and the mask of `id` are
    known, or one line refuses it."""

    make: Callable[[Path], Any]
    """Called with the root of a sound data set, which it changes."""
    refused: str | None = None
    """What stands in the line; None where the data set can be trained on."""
    noted: str = ""
    """What stands in a note."""
    id: str = "p0"
    picture: np.ndarray | None = field(default_factory=picture)
    """None where nobody can say what the pixels are."""
    within: float = 0
    """Mean distance of the picture that is allowed, in levels: of formats that lose some."""
    mask: np.ndarray | None = field(default_factory=labels)
    """None without a mask."""
    train: Sequence[str] = TRAIN
    val: Sequence[str] = VAL
    classes: Sequence[str] | None = None
    """None for whatever the class list says."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `find_dataset`."""


def sound(root: Path) -> Path:
    """A data set without a fault: five pictures with masks, one of them for validation, and one without a mask."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, id in enumerate(sorted((*TRAIN, *VAL))):
        Image.fromarray(picture(number)).save(root / f"images/{id}.png")
        if id != "p5":
            Image.fromarray(labels(number)).save(root / f"masks/{id}.png")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    (root / "val.txt").write_text("p4\n")
    return root


def put(name: str, data: bytes | str, *instead: str) -> Callable[[Path], None]:
    """Writes a file below the root, in the place of others."""

    def make(root: Path) -> None:
        for old in instead:
            (root / old).unlink()
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    return make


def image(data: bytes, suffix: str = ".png") -> Callable[[Path], None]:
    """These bytes are the picture p0."""
    return put(f"images/p0{suffix}", data, "images/p0.png")


def mask(data: bytes, suffix: str = ".png") -> Callable[[Path], None]:
    """These bytes are the mask of p0."""
    return put(f"masks/p0{suffix}", data, "masks/p0.png")


def steps(*makes: Callable[[Path], Any]) -> Callable[[Path], None]:
    """One after the other."""

    def make(root: Path) -> None:
        for one in makes:
            one(root)

    return make


def encoded(pixels: np.ndarray | Image.Image, form: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    """Pixels in a file of a format."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    rows: np.ndarray | bytes, width: int, height: int, depth: int, colour: int, *more: bytes, interlaced: bool = False
) -> bytes:
    """A PNG of any depth: rows (H, bytes a row) without filters, or the compressed data; `more` are chunks before."""
    if not isinstance(rows, bytes):
        rows = zlib.compress(np.hstack([np.zeros((height, 1), np.uint8), rows.view(np.uint8)]).tobytes())
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return CHUNK + header + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def packed(values: np.ndarray, depth: int) -> np.ndarray:
    """(H, W) values of so many bits -> (H, bytes a row)."""
    bits = np.unpackbits(values[..., None].astype(np.uint8), axis=2)[..., 8 - depth :]
    return np.packbits(bits.reshape(len(values), -1), axis=1)


def tiff(rows: np.ndarray, depth: int, photometric: int, signed: bool = False) -> bytes:
    """Of one strip: rows (H, W) of gray levels, or (H, bytes a row), 0 for white where photometric is 0."""
    tags = {
        256: WIDTH,
        257: HEIGHT,
        258: depth,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: HEIGHT,
        279: rows.nbytes,
    }
    tags |= {339: 2} if signed else {}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + rows.nbytes)
    return header + rows.tobytes() + struct.pack("<H", len(tags)) + fields + bytes(4)


def tagged(orientation: int) -> Image.Exif:
    """EXIF with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
