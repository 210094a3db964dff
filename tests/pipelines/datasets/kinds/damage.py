"""Kinds of damage, and of files that are made to do harm: all end in one line, by their headers where they can."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from .kind import CHUNK, GRAY, HEIGHT, PICTURE, WIDTH, Kind, chunk, encoded, image, mask, png
from .pictures import JPEG, PALETTE, RGB

KINDS: dict[str, Kind] = {}


def unlike(name: str, data: bytes, word: str, suffix: str = ".png") -> None:
    """A picture p0 that is refused."""
    KINDS[name] = Kind(image(data, suffix), refused=word)


def tiff_of(*tags: tuple[int, int, int], data: bytes = b"") -> bytes:
    """A TIFF from the bare numbers of its directory: (tag, count, value) of 32 bits, and what follows."""
    entries = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + data


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
"""Does not compress: a file that is cut has lost pixels."""
WHOLE = {
    ".png": encoded(NOISE),
    ".jpg": encoded(NOISE, "JPEG", quality=95),
    ".tif": encoded(NOISE, "TIFF"),
    ".bmp": encoded(NOISE, "BMP"),
    ".webp": encoded(NOISE, "WEBP", lossless=True),
    ".gif": encoded(NOISE, "GIF"),
    ".jp2": encoded(NOISE, "JPEG2000"),
    ".avif": encoded(NOISE, "AVIF"),
    ".ppm": encoded(NOISE, "PPM"),
}
for suffix, data in WHOLE.items():
    for share in (0.02, 0.5, 0.9):
        unlike(f"{suffix[1:]}-cut-to-{share:.0%}".replace("%", ""), cut(data, share), "cannot be decoded", suffix)
PNG = WHOLE[".png"]
IDAT = PNG.index(b"IDAT")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


unlike("png-signature-alone", PNG[:8], "cannot be decoded")
unlike("png-header-alone", PNG[:33], "cannot be decoded")
unlike("png-without-end", PNG[:-12], "cannot be decoded")
unlike("png-end-without-checksum", PNG[:-4], "cannot be decoded")
unlike("png-header-checksum", flipped(PNG, 30), "cannot be decoded")
unlike("png-data-checksum", flipped(PNG, len(PNG) - 13), "cannot be decoded")
unlike("png-data-damaged", flipped(PNG, IDAT + 900), "cannot be decoded")
unlike("png-no-data", CHUNK + PNG[8:33] + chunk(b"IEND", b""), "cannot be decoded")
unlike("png-half-the-rows", png(zlib.compress(bytes(20 * (1 + 3 * WIDTH))), WIDTH, HEIGHT, 8, 2), "cannot be decoded")
unlike(
    "png-wrong-filter",
    png(zlib.compress(b"\x09" * (HEIGHT * (1 + 3 * WIDTH))), WIDTH, HEIGHT, 8, 2),
    "cannot be decoded",
)
unlike("png-palette-missing", png(GRAY, WIDTH, HEIGHT, 8, 3), "cannot be decoded")
unlike("png-ends-of-lines", PNG.replace(b"\r\n", b"\n"), "cannot be decoded")
unlike("jpeg-without-end", WHOLE[".jpg"][:-400], "cannot be decoded", ".jpg")
unlike("jpeg-header-alone", WHOLE[".jpg"][:300], "cannot be decoded", ".jpg")
unlike("jpeg-start-alone", b"\xff\xd8", "cannot be decoded", ".jpg")
unlike("jpeg-start-and-end", b"\xff\xd8\xff\xd9", "cannot be decoded", ".jpg")
unlike("jpeg-of-two-halves", WHOLE[".jpg"][:1200] + JPEG, "cannot be decoded", ".jpg")
# All codes of zeros are pixels: no decoder minds, only eyes do.
KINDS["jpeg-zeros-in-the-middle"] = Kind(
    image(WHOLE[".jpg"][:1200] + bytes(600) + WHOLE[".jpg"][1800:], ".jpg"), picture=None
)

# What is made to do harm
for side, name in ((60000, "60000"), (2**31 - 1, "2147483647")):
    unlike(f"png-of-{name}", png(zlib.compress(bytes(99)), side, side, 8, 2), "megapixels")
unlike("png-of-0", png(zlib.compress(b""), 0, 0, 8, 2), "cannot be decoded")
unlike(
    "jpeg-of-65500",
    JPEG[: (at := JPEG.index(b"\xff\xc0") + 5)] + struct.pack(">HH", 65500, 65500) + JPEG[at + 4 :],
    "megapixels",
    ".jpg",
)
unlike(
    "bmp-of-60000",
    (data := encoded(RGB, "BMP"))[:18] + struct.pack("<ii", 60000, 60000) + data[26:],
    "megapixels",
    ".bmp",
)
unlike(
    "gif-of-65535",
    (data := encoded(PALETTE, "GIF"))[:6] + struct.pack("<HH", 65535, 65535) + data[10:],
    "megapixels",
    ".gif",
)
unlike("ppm-of-60000", b"P6\n60000 60000\n255\n" + bytes(99), "megapixels", ".ppm")
unlike(
    "tiff-of-60000",
    tiff_of(
        (256, 1, 60000),
        (257, 1, 60000),
        (258, 1, 8),
        (259, 1, 1),
        (262, 1, 1),
        (273, 1, 8),
        (277, 1, 1),
        (278, 1, 60000),
        (279, 1, 99),
    ),
    "megapixels",
    ".tif",
)
unlike("tiff-that-circles", struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HI", 0, 8), "cannot be decoded", ".tif")
unlike("tiff-directory-beyond-the-end", struct.pack("<2sHI", b"II", 42, 2**31), "cannot be decoded", ".tif")
unlike(
    "tiff-of-a-million-strips",
    tiff_of((256, 1, 48), (257, 1, 40), (273, 2**24, 8), (279, 2**24, 8)),
    "cannot be decoded",
    ".tif",
)
unlike("png-data-that-ends", png(zlib.compress(bytes(10**8), 9)[:-9], 9999, 9999, 8, 0), "cannot be decoded")
BOMB = zlib.compress(bytes(200 * 2**20), 9)
unlike(
    "png-text-bomb", encoded(PICTURE)[:33] + chunk(b"zTXt", b"Comment\0\0" + BOMB) + encoded(PICTURE)[33:], "too large"
)
unlike("png-profile-bomb", encoded(PICTURE)[:33] + chunk(b"iCCP", b"p\0\0" + BOMB) + encoded(PICTURE)[33:], "too large")
rows = np.hstack([np.zeros((HEIGHT, 1), np.uint8), PICTURE.reshape(HEIGHT, -1)]).tobytes()
KINDS["png-more-data-than-rows"] = Kind(image(png(zlib.compress(rows + bytes(50 * 2**20), 9), WIDTH, HEIGHT, 8, 2)))


def many_bits(root: Path) -> None:
    """16 megapixels of one bit: a small file that is large."""
    image(encoded(Image.new("1", (4000, 4000))))(root)
    mask(encoded(Image.new("L", (4000, 4000))))(root)


KINDS["png-of-16-megapixels"] = Kind(many_bits, picture=None, mask=None)
