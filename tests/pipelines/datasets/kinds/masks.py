"""Kinds of masks: every way to write class indices, and what only looks like them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .kind import (
    HEIGHT,
    MASK,
    PICTURE,
    WIDTH,
    Kind,
    chunk,
    encoded,
    labels,
    mask,
    packed,
    png,
    put,
    steps,
    tagged,
    tiff,
)  # fmt: skip
from .pictures import STORED, turned

TWO = (MASK == 1).astype(np.uint8)
"""Of the first two classes."""
VOID = np.where(MASK == 2, 255, MASK)
COLOURS = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
OTHERS = [(0, 0, 0), (0, 128, 0), (128, 0, 0)]
STRANGE = [(1, 2, 3), (200, 100, 50), (9, 99, 199)]
"""Of no class."""
LISTED = "ground\t#000000\ncar\t#800000\ntree\t#008000\n"
KINDS: dict[str, Kind] = {}


def like(name: str, data: bytes, suffix: str = ".png", values: np.ndarray = MASK, **more) -> None:
    """A mask of p0 that is read."""
    KINDS[name] = Kind(mask(data, suffix), mask=values, **more)


def unlike(name: str, data: bytes, word: str, suffix: str = ".png", **more) -> None:
    """A mask of p0 that is refused."""
    KINDS[name] = Kind(mask(data, suffix), refused=word, **more)


def indexed(values: np.ndarray, colours: Sequence[Sequence[int]]) -> Image.Image:
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    return image


def all_masks(change, suffix: str = ".png"):
    """Each mask written anew from its values."""

    def make(root: Path) -> None:
        for number in range(5):
            (root / f"masks/p{number}.png").unlink()
            (root / f"masks/p{number}{suffix}").write_bytes(change(number, labels(number)))

    return make


def frames(form: str, **options) -> bytes:
    images = [Image.fromarray(labels(number)) for number in (0, 1)]
    return encoded(images[0], form, save_all=True, append_images=images[1:], **options)


# Depths and formats
like("mask-gray-1", png(packed(TWO, 1), WIDTH, HEIGHT, 1, 0), values=TWO)
for depth in (2, 4):
    like(f"mask-gray-{depth}", png(packed(MASK, depth), WIDTH, HEIGHT, depth, 0))
like("mask-gray-8", encoded(MASK))
like("mask-gray-16", encoded(MASK.astype(np.uint16)))
for depth in (1, 2, 4, 8):
    values = TWO if depth == 1 else MASK
    colours = chunk(b"PLTE", bytes(sum(COLOURS[: 2 if depth == 1 else 3], ())))
    like(f"mask-palette-{depth}", png(packed(values, depth), WIDTH, HEIGHT, depth, 3, colours), values=values)
like(
    "mask-palette-clear",
    png(packed(MASK, 8), WIDTH, HEIGHT, 8, 3, chunk(b"PLTE", bytes(sum(COLOURS, ()))), chunk(b"tRNS", b"\0")),
)
like("mask-gray-clear", encoded(MASK, transparency=0))
for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"):
    like(f"mask-tiff-{compression}", encoded(MASK, "TIFF", compression=compression), ".tif")
like("mask-tiff-group4", encoded(Image.fromarray(TWO * 255), "TIFF", "1", compression="group4"), ".tif", TWO)
like("mask-tiff-16", encoded(MASK.astype(np.uint16), "TIFF"), ".tif")
like("mask-tiff-32", encoded(MASK.astype(np.int32), "TIFF"), ".tif")
like("mask-tiff-float-whole", encoded(MASK.astype(np.float32), "TIFF"), ".tif")
like("mask-tiff-palette", encoded(indexed(MASK, COLOURS), "TIFF"), ".tif")
like("mask-bmp-gray", encoded(MASK, "BMP"), ".bmp")
like("mask-bmp-palette", encoded(indexed(MASK, COLOURS), "BMP"), ".bmp")
like("mask-bmp-1", encoded(Image.fromarray(TWO * 255), "BMP", "1"), ".bmp", TWO)
like("mask-gif", encoded(indexed(MASK, COLOURS), "GIF"), ".gif")
like("mask-pgm", encoded(MASK, "PPM"), ".pgm")
for white in (2, 10, 127):
    like(f"mask-pgm-white-{white}", b"P5\n48 40\n%d\n" % white + MASK.tobytes(), ".pgm")
like("mask-pgm-16", b"P5\n# of 300\n48 40\n300\n" + MASK.astype(">u2").tobytes(), ".pgm")
like("mask-pgm-text", b"P2\n48 40 # width, height\n2\n" + " ".join(map(str, MASK.ravel())).encode() + b"\n", ".pgm")
unlike("mask-pgm-beyond-its-white", b"P5\n48 40\n2\n" + (MASK + 1).tobytes(), "has label values 3", ".pgm")
unlike("mask-pgm-header", b"P5\n48 40\n0\n" + MASK.tobytes(), "save it as 8-bit gray PNG", ".pgm")
like("mask-pbm", b"P4\n48 40\n" + packed(TWO, 1).tobytes(), ".pbm", TWO, noted="white is taken for ground")
like("mask-pbm-text", b"P1\n48 40\n" + " ".join(map(str, TWO.ravel())).encode() + b"\n", ".pbm", TWO)
for depth in (1, 2, 4, 8):
    for zero in ("white", "black"):
        like(
            f"mask-tiff-{depth}-zero-is-{zero}",
            tiff(packed(MASK if depth > 1 else TWO, depth), depth, zero == "black"),
            ".tif",
            MASK if depth > 1 else TWO,
            noted="white is taken for ground" if (depth, zero) == (1, "white") else "",
        )
like("mask-called-tif", encoded(MASK), ".tif")
like("mask-bmp-called-png", encoded(MASK, "BMP"))
like("mask-suffix-PNG", encoded(MASK), ".PNG")
like("mask-with-void", encoded(VOID), values=VOID)
like("mask-with-void-palette", encoded(indexed(VOID, COLOURS + [(9, 9, 9)] * 252 + [(224, 224, 192)])), values=VOID)
like("mask-all-void", encoded(np.full_like(MASK, 255)), values=np.full_like(MASK, 255))
like("mask-one-class", encoded(MASK * 0), values=MASK * 0)
like("mask-behind-its-end", encoded(MASK) + b"x" * 99)
KINDS["mask-missing"] = Kind(lambda root: (root / "masks/p0.png").unlink(), mask=None)
for orientation in (3, 6, 8):
    stored = turned(orientation, Image.fromarray(MASK))
    like(f"mask-orientation-{orientation}", encoded(stored, exif=tagged(orientation)))
KINDS["picture-and-mask-orientation-6"] = Kind(
    steps(
        put("images/p0.png", encoded(Image.fromarray(PICTURE).transpose(STORED[6]), exif=tagged(6))),
        mask(encoded(Image.fromarray(MASK).transpose(STORED[6]), exif=tagged(6))),
    ),
    noted="EXIF orientation",
)

# Palettes that say different things
KINDS["palettes-that-disagree"] = Kind(
    steps(
        put("masks/p0.png", encoded(indexed(MASK, STRANGE))),
        put("masks/p1.png", encoded(indexed(labels(1), STRANGE[::-1]))),
    ),
    refused="one palette",
)
KINDS["palettes-of-voc-that-disagree"] = Kind(
    steps(
        put("masks/p0.png", encoded(indexed(np.choose(MASK, [0, 2, 1]), OTHERS))),
        put("masks/p1.png", encoded(indexed(labels(1), COLOURS))),
    ),
    noted="read by their colours",
)
KINDS["palettes-that-disagree-listed"] = Kind(
    steps(
        put("masks/p0.png", encoded(indexed(np.choose(MASK, [0, 2, 1]), OTHERS))),
        put("masks/p1.png", encoded(indexed(labels(1), COLOURS))),
        put("classes.txt", LISTED),
    ),
    noted="read by their colours",
)
KINDS["palettes-that-disagree-with-void"] = Kind(
    steps(
        put("masks/p0.png", encoded(indexed(np.choose(MASK, [0, 2, 255]), OTHERS + [(0, 0, 0)] * 253))),
        put("masks/p1.png", encoded(indexed(labels(1), COLOURS))),
        put("classes.txt", LISTED),
    ),
    mask=VOID,
    noted="read by their colours",
)
KINDS["palettes-that-differ-in-void-alone"] = Kind(
    steps(
        put(
            "masks/p0.png", encoded(indexed(np.where(MASK, VOID, 255), [STRANGE[0], *COLOURS[1:]] + [(0, 0, 0)] * 253))
        ),
        put("masks/p1.png", encoded(indexed(labels(1), COLOURS))),
    ),
    mask=np.where(MASK, VOID, 255),
)
KINDS["palettes-against-the-list"] = Kind(
    steps(all_masks(lambda n, v: encoded(indexed(np.choose(v, [0, 2, 1]), OTHERS))), put("classes.txt", LISTED)),
    noted="read by their colours",
)
KINDS["palette-bmp-and-png-disagree"] = Kind(
    steps(
        mask(encoded(indexed(MASK, STRANGE), "BMP"), ".bmp"),
        put("masks/p1.png", encoded(indexed(labels(1), STRANGE[::-1]))),
    ),
    refused="one palette",
)
KINDS["palette-of-gray-levels"] = Kind(all_masks(lambda n, v: encoded(indexed(v, [(i, i, i) for i in range(256)]))))
KINDS["palette-without-colours"] = Kind(all_masks(lambda n, v: encoded(indexed(v, [(9, 9, 9)] * 3))))
for name, colours in {
    "black-and-white": [(0, 0, 0), (255, 255, 255)],
    "white-and-black": [(255, 255, 255), (0, 0, 0)],
}.items():
    KINDS[f"palette-{name}"] = Kind(
        steps(
            all_masks(lambda n, v, colours=colours: encoded(indexed(v == 1, colours))),
            put("classes.txt", "ground\ncrack\n"),
        ),
        mask=TWO,
        noted="white is taken for ground" if name.startswith("white") else "",
    )

# Colours instead of indices
PAINTED = np.array(COLOURS, np.uint8)[MASK]
LABELMAP = "# label:color_rgb:parts:actions\nground:0,0,0::\ncar:128,0,0::\ntree:0,128,0::\n"


def painted(name: str, data: bytes, suffix: str = ".png", *, listed: str = LISTED, **more) -> None:
    """A mask of p0 in colour, beside a class list with colours."""
    KINDS[name] = Kind(steps(mask(data, suffix), put("classes.txt", listed)), **more)


def masked_by(channel: np.ndarray) -> Image.Image:
    """The colours, with an alpha channel."""
    return Image.fromarray(np.dstack([PAINTED, channel.astype(np.uint8)]))


read = {"noted": "are in colour"}
painted("mask-in-colour", encoded(PAINTED), **read)
painted("mask-in-colour-bmp", encoded(PAINTED, "BMP"), ".bmp", **read)
painted("mask-in-colour-tiff", encoded(PAINTED, "TIFF", compression="tiff_lzw"), ".tif", **read)
painted("mask-in-colour-ppm", encoded(PAINTED, "PPM"), ".ppm", **read)
painted("mask-in-colour-webp", encoded(PAINTED, "WEBP", lossless=True), ".webp", **read)
painted("mask-in-colour-opaque", encoded(masked_by(np.full(MASK.shape, 255))), **read)
painted("mask-in-colour-of-one", encoded(np.zeros_like(PAINTED)), mask=np.zeros_like(MASK), **read)
painted("mask-in-colour-void", encoded(np.where(MASK[..., None] == 2, (224, 224, 192), PAINTED).astype(np.uint8)),
        mask=VOID, **read)  # fmt: skip
painted("mask-in-colour-of-another-order", encoded(PAINTED), listed="tree\t#008000\nground\t#000000\ncar\t#800000\n",
        mask=np.array([1, 2, 0], np.uint8)[MASK], classes=("tree", "ground", "car"), **read)  # fmt: skip
painted("mask-in-colour-of-gray-classes", encoded(np.dstack([MASK] * 3)), **read,
        listed="ground\t#000000\ncar\t#010101\ntree\t#020202\n")  # fmt: skip
KINDS["masks-in-colour-by-labelmap"] = Kind(
    steps(
        all_masks(lambda n, v: encoded(np.array(COLOURS, np.uint8)[v])),
        lambda root: (root / "classes.txt").unlink(),
        put("labelmap.txt", LABELMAP),
    ),
    noted="5 masks are in colour",
)
KINDS["mask-in-colour-beside-palettes-that-disagree"] = Kind(
    steps(
        all_masks(lambda n, v: encoded(indexed(np.choose(v, [0, 2, 1]), OTHERS))),
        put("masks/p0.png", encoded(PAINTED)),
        put("classes.txt", LISTED),
    ),
    noted="all 4 indexed masks are read by their colours",
)
painted("mask-in-colour-of-no-class", encoded(np.where(MASK[..., None], PAINTED, (0, 0, 1)).astype(np.uint8)),
        refused="shows #000001")  # fmt: skip
painted("mask-in-colour-of-two-classes", encoded(PAINTED), refused="shows #008000",
        listed="ground\t#000000\ncar\t#800000\ntree\t#008000\nbush\t#008000\n")  # fmt: skip
painted("mask-in-colour-with-alpha", encoded(masked_by(np.where(MASK, 255, 0))), refused="4 channels")
painted("mask-in-colour-with-clear", encoded(PAINTED, transparency=(0, 0, 0)), refused="3 channels")
painted("mask-in-colour-of-16-bits", png(zlib.compress(bytes(HEIGHT * (1 + 6 * WIDTH))), WIDTH, HEIGHT, 16, 2),
        refused="3 channels")  # fmt: skip
painted("mask-in-colour-lossy", encoded(PAINTED, "JPEG"), ".jpg", refused="changes label values")
painted("mask-in-colour-half-size", encoded(PAINTED[::2, ::2]), refused="same size")
painted("mask-of-a-photograph", encoded(np.random.default_rng(0).integers(0, 256, PICTURE.shape, np.uint8)),
        refused="colours: convert")  # fmt: skip
painted("mask-in-colour-without-colours", encoded(PAINTED), listed="ground\ncar\ntree\n",
        refused="#000000, #008000, #800000, which the class list gives no class")  # fmt: skip
painted("mask-in-colour-of-indices", encoded(np.dstack([MASK] * 3)), refused="shows #010101, #020202, which the class")
like("mask-with-channels-alike", encoded(np.dstack([MASK] * 3)), noted="read by one channel of each")
KINDS["mask-with-channels-alike-beside-colours"] = Kind(
    steps(put("masks/p0.png", encoded(PAINTED)), put("masks/p1.png", encoded(np.zeros_like(PAINTED)))),
    refused="which the class list gives no class, or two: give each class its colour in the class list (tab, #rrggbb)",
)
like("mask-with-channels-alike-webp", encoded(np.dstack([MASK] * 3), "WEBP", lossless=True), ".webp")
unlike("mask-with-channels-alike-beyond", encoded(np.dstack([MASK + 1] * 3)), "has label values 3")
for kind, level, colours, values in (
    ("0-and-255", 255, ("000000", "ffffff"), TWO),
    ("0-and-255-white-first", 255, ("ffffff", "000000"), 1 - TWO),
    ("0-and-128-with-void", 128, ("000000", "808080"), np.where(MASK == 2, 255, TWO)),
):
    levels = np.where(values == 255, 255, level * TWO).astype(np.uint8)
    KINDS[f"masks-of-gray-levels-{kind}"] = Kind(
        steps(
            all_masks(lambda n, v, level=level: encoded((level * (v == 1)).astype(np.uint8))),
            put("masks/p0.png", encoded(levels)),
            put("classes.txt", f"ground\t#{colours[0]}\ncrack\t#{colours[1]}\n"),
        ),
        mask=values,
        noted="5 masks hold gray levels",
    )
KINDS["masks-of-indices-beside-gray-colours"] = Kind(
    put("classes.txt", "ground\t#000000\ncar\t#808080\ntree\t#ffffff\n")
)
for kind, level, listed, said in (
    ("and-levels", 255, "ground\t#000000\ncrack\t#ffffff\n", "mark crack by 255"),
    ("or-levels", 1, "crack\t#010101\nground\t#000000\n", "what may be class indices, or the gray levels"),
):
    KINDS[f"masks-of-indices-{kind}"] = Kind(
        steps(
            all_masks(lambda n, v, level=level: encoded((level * (v == 1)).astype(np.uint8))),
            put("masks/p0.png", encoded(TWO)),
            put("classes.txt", listed),
        ),
        refused=said,
    )
KINDS["mask-in-black-beside-palettes"] = Kind(
    steps(
        all_masks(lambda n, v: encoded(indexed(v, COLOURS))),
        put("masks/p0.png", encoded(np.zeros_like(PAINTED))),
    ),
    refused="shows #000000, which the class list gives no class",
)
KINDS["palettes-in-the-colour-of-void"] = Kind(
    steps(
        all_masks(lambda n, v: encoded(indexed(v == 1, [(0, 0, 0), (0, 128, 0)]))),
        put("classes.txt", "0,car,128,0,0\n1,tree,0,128,0\n255,void,0,0,0\n"),
    ),
    mask=np.where(TWO, 1, 255),
    noted="read by their colours",
)
KINDS["masks-of-three-gray-levels"] = Kind(
    steps(
        all_masks(lambda n, v: encoded(np.array([0, 128, 255], np.uint8)[v])),
        put("classes.txt", "ground\t#000000\ncar\t#808080\ntree\t#ffffff\n"),
    ),
    noted="5 masks hold gray levels",
)

# Values that are no classes
unlike("mask-value-beyond", encoded(MASK + 1), "has label values 3")
unlike("mask-value-254", encoded(np.where(MASK == 1, 254, MASK)), "254")
unlike("mask-16-beyond", encoded(np.where(MASK == 1, np.uint16(1000), MASK).astype(np.uint16)), "1000")
unlike("mask-16-shifted", encoded(MASK.astype(np.uint16) * 257), "257")
unlike("mask-negative", encoded(MASK.astype(np.int32) - 1, "TIFF"), "-1", ".tif")
unlike("mask-negative-of-8-bits", tiff(MASK.astype(np.int8) - 1, 8, 1, signed=True), "-1", ".tif")
like("mask-tiff-8-with-a-sign", tiff(MASK, 8, 1, signed=True), ".tif")
unlike("mask-fractions", encoded(MASK + np.float32(0.5), "TIFF"), "no whole numbers", ".tif")
unlike("mask-nan", encoded(np.where(MASK == 1, np.nan, MASK).astype(np.float32), "TIFF"), "no whole numbers", ".tif")
unlike(
    "mask-infinite", encoded(np.where(MASK == 1, np.inf, MASK).astype(np.float32), "TIFF"), "no whole numbers", ".tif"
)
unlike("mask-probabilities", encoded((MASK / 2).astype(np.float32), "TIFF"), "no whole numbers", ".tif")
unlike("mask-gray-alpha", encoded(Image.fromarray(MASK), mode="LA"), "2 channels")
unlike("mask-cmyk", encoded(Image.fromarray(np.dstack([MASK] * 3)), "TIFF", "CMYK"), "4 channels", ".tif")
KINDS["masks-0-and-255"] = Kind(
    all_masks(lambda n, v: encoded(np.where(v == 1, 255, 0).astype(np.uint8))), refused="255"
)
KINDS["masks-0-and-255-of-two"] = Kind(
    steps(
        all_masks(lambda n, v: encoded(np.where(v == 1, 255, 0).astype(np.uint8))),
        put("classes.txt", "ground\ncrack\n"),
    ),
    refused="write 1 instead of 255",
)
KINDS["masks-0-and-255-for-validation"] = Kind(
    put("masks/p4.png", encoded(np.where(labels(4) == 1, 255, 0).astype(np.uint8))), refused="validation masks"
)
like("mask-0-and-255-alone", encoded(np.where(MASK == 1, 255, 0).astype(np.uint8)), values=np.where(MASK == 1, 255, 0),
     noted="nothing but 0 and 255")  # fmt: skip

# Losses
unlike("mask-jpeg", encoded(MASK, "JPEG"), "changes label values", ".jpg")
unlike("mask-jpeg-called-png", encoded(MASK, "JPEG"), "changes label values")
unlike("mask-jpeg-in-tiff", encoded(MASK, "TIFF", compression="jpeg"), "changes label values", ".tif")
unlike("mask-webp", encoded(np.dstack([MASK] * 3), "WEBP", quality=90), "changes label values", ".webp")
unlike("mask-jpeg2000", encoded(MASK, "JPEG2000"), "changes label values", ".jp2")
unlike("mask-avif", encoded(np.dstack([MASK] * 3), "AVIF"), "changes label values", ".avif")

# Frames
unlike("mask-tiff-pages", frames("TIFF"), "several pages", ".tif")
unlike("mask-gif-frames", frames("GIF"), "several pages", ".gif")
unlike("mask-apng-frames", frames("PNG"), "several pages")

# Sizes
unlike("mask-half-size", encoded(MASK[::2, ::2]), "same size")
unlike("mask-on-its-side", encoded(np.ascontiguousarray(MASK.T)), "lies on its side")
unlike("mask-one-pixel-more", encoded(np.pad(MASK, ((0, 1), (0, 0)))), "same size")
unlike("mask-1x1", encoded(MASK[:1, :1]), "same size")
unlike("mask-of-60000", png(zlib.compress(bytes(99)), 60000, 60000, 8, 0), "megapixels")

# Damage, and what is no mask
NOISE = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH), np.uint8)
WHOLE = encoded(NOISE)
for share in (0, 0.1, 0.5, 0.9):
    unlike(f"mask-cut-to-{share:.0%}".replace("%", ""), WHOLE[: int(share * len(WHOLE))], "cannot be decoded")
unlike("mask-without-end", WHOLE[:-12], "cannot be decoded")
unlike("mask-checksum", WHOLE[:-13] + b"\0" + WHOLE[-12:], "cannot be decoded")
unlike("mask-half-the-rows", png(zlib.compress(bytes(20 * (1 + WIDTH))), WIDTH, HEIGHT, 8, 0), "cannot be decoded")
unlike(
    "mask-palette-half-the-rows",
    png(zlib.compress(bytes(20 * (1 + WIDTH))), WIDTH, HEIGHT, 8, 3, chunk(b"PLTE", bytes(9))),
    "cannot be decoded",
)
unlike("mask-text", b"0 0 0 1 1 1", "cannot be decoded")
unlike("mask-json", b'{"shapes": []}', "cannot be decoded")
unlike("mask-lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "cannot be decoded")
unlike("mask-eps", encoded(Image.fromarray(MASK), "EPS"), "cannot be decoded")
KINDS["masks-npy"] = Kind(all_masks(lambda n, v: b"\x93NUMPY" + bytes(99), ".npy"), refused=".npy")
KINDS["masks-json"] = Kind(all_masks(lambda n, v: b"{}", ".json"), refused="mask")
KINDS["masks-xml"] = Kind(all_masks(lambda n, v: b"<annotation/>", ".xml"), refused="mask")
KINDS["masks-exr"] = Kind(all_masks(lambda n, v: b"v/1\1", ".exr"), refused=".exr")
KINDS["mask-npy-beside"] = Kind(put("masks/p5.npy", b"\x93NUMPY"), noted=".npy")
