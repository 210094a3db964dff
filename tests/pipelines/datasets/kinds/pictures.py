"""Kinds of pictures: every format, depth, orientation and container, and what wears another's name."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image, ImageCms

from .kind import (
    CHUNK,
    GRAY,
    HEIGHT,
    MASK,
    PICTURE,
    WIDTH,
    Kind,
    chunk,
    encoded,
    image,
    mask,
    packed,
    picture,
    png,
    put,
    steps,
    tagged,
    tiff,
)  # fmt: skip

GRAYS = np.dstack([GRAY] * 3)
RGB = Image.fromarray(PICTURE)
OPAQUE = RGB.copy()
OPAQUE.putalpha(255)
CLEAR = RGB.copy()
CLEAR.putalpha(Image.fromarray(np.where(MASK == 1, 0, 200).astype(np.uint8)))
BITS = np.where(GRAY > 110, 255, 0).astype(np.uint8)
THREE_BITS = np.dstack([BITS] * 3)
JPEG = encoded(RGB, "JPEG", quality=95, subsampling=0)
PALETTE = RGB.quantize(64, dither=Image.Dither.NONE)
FEW = PALETTE.convert("RGB")
DEEP = GRAY.astype(np.uint16) * 257
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Upright to stored, by orientation."""
KINDS: dict[str, Kind] = {}


def like(name: str, data: bytes, suffix: str = ".png", within: float = 0, pixels: np.ndarray = PICTURE, **more) -> None:
    """A picture p0 that is read."""
    KINDS[name] = Kind(image(data, suffix), picture=np.asarray(pixels), within=within, **more)


def unlike(name: str, data: bytes, word: str, suffix: str = ".png") -> None:
    """A picture p0 that is refused."""
    KINDS[name] = Kind(image(data, suffix), refused=word)


def turned(orientation: int, upright: Image.Image = RGB) -> Image.Image:
    return upright.transpose(STORED[orientation]) if orientation in STORED else upright


def palette_png(depth: int, *more: bytes) -> bytes:
    """Of the first colours of the quantised picture."""
    indices = np.asarray(RGB.quantize(2**depth, dither=Image.Dither.NONE))
    colours = RGB.quantize(2**depth, dither=Image.Dither.NONE).getpalette("RGB")[: 3 * 2**depth]
    return png(packed(indices, depth), WIDTH, HEIGHT, depth, 3, chunk(b"PLTE", bytes(colours)), *more)


def frames(form: str, **options) -> bytes:
    """The picture, and others after it."""
    return encoded(RGB, form, save_all=True, append_images=[Image.fromarray(picture(n)) for n in (1, 2)], **options)


def deep(pixels: np.ndarray, scale: int) -> np.ndarray:
    """The rows of a PNG of 16 bits."""
    return (pixels.astype(np.uint16) * np.uint16(scale)).astype(">u2").reshape(HEIGHT, -1)


# PNG
like("png-gray-1", png(packed(BITS // 255, 1), WIDTH, HEIGHT, 1, 0), pixels=THREE_BITS)
like("png-gray-2", png(packed(GRAY // 64, 2), WIDTH, HEIGHT, 2, 0), pixels=GRAYS // 64 * 85)
like("png-gray-4", png(packed(GRAY // 16, 4), WIDTH, HEIGHT, 4, 0), pixels=GRAYS // 16 * 17)
like("png-gray-8", encoded(GRAY), pixels=GRAYS)
like("png-gray-16", encoded(DEEP), pixels=GRAYS)
like("png-gray-alpha", encoded(CLEAR, mode="LA"), pixels=GRAYS)
like("png-rgb", encoded(PICTURE))
like("png-rgb-16", png(deep(PICTURE, 257), WIDTH, HEIGHT, 16, 2))
like("png-rgba", encoded(CLEAR))
like("png-rgba-opaque", encoded(OPAQUE))
like("png-rgba-16", png(deep(np.asarray(CLEAR), 257), WIDTH, HEIGHT, 16, 6))
like("png-gray-alpha-16", png(deep(np.dstack([GRAY, GRAY]), 257), WIDTH, HEIGHT, 16, 4), pixels=GRAYS)
for depth in (1, 2, 4, 8):
    few = RGB.quantize(2**depth, dither=Image.Dither.NONE).convert("RGB")
    like(f"png-palette-{depth}", palette_png(depth), pixels=few)
like(
    "png-palette-clear",
    palette_png(8, chunk(b"tRNS", bytes(range(0, 256, 4)))),
    pixels=RGB.quantize(256, dither=0).convert("RGB"),
)
like("png-rgb-clear-colour", encoded(PICTURE, transparency=tuple(PICTURE[0, 0].tolist())))
like("png-gray-clear-colour", encoded(GRAY, transparency=int(GRAY[0, 0])), pixels=GRAYS)
like("png-gamma", CHUNK + (data := encoded(PICTURE))[8:33] + chunk(b"gAMA", struct.pack(">I", 100000)) + data[33:])
like("png-profile", encoded(PICTURE, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()))
like("png-text", encoded(PICTURE)[:33] + chunk(b"tEXt", b"Comment\0" + b"x" * 5000) + encoded(PICTURE)[33:])
like("png-unknown-chunk", encoded(PICTURE)[:33] + chunk(b"prVt", b"x") + encoded(PICTURE)[33:])
data = png(PICTURE.reshape(HEIGHT, -1), WIDTH, HEIGHT, 8, 2)
pieces = b"".join(chunk(b"IDAT", data[at : at + 1]) for at in range(41, len(data) - 16))
like("png-many-idat", data[:33] + pieces + chunk(b"IEND", b""))
like("png-behind-its-end", encoded(PICTURE) + b"x" * 999)
unlike("png-wide-gray-12-of-16", encoded(GRAY.astype(np.uint16) * 16), "holds values")
unlike("png-rgb-12-of-16", png(deep(PICTURE, 16), WIDTH, HEIGHT, 16, 2), "holds values below")

# JPEG
like("jpeg", JPEG, ".jpg", 2)
like("jpeg-420", encoded(RGB, "JPEG", quality=95, subsampling=2), ".jpg", 12)
like("jpeg-progressive", encoded(RGB, "JPEG", quality=95, subsampling=0, progressive=True), ".jpg", 2)
like("jpeg-gray", encoded(RGB, "JPEG", mode="L", quality=95), ".jpg", 2, GRAYS)
like("jpeg-cmyk", encoded(RGB, "JPEG", mode="CMYK", quality=95), ".jpg", 3)
like("jpeg-quality-1", encoded(RGB, "JPEG", quality=1), ".jpg", 60)
like("jpeg-restarts", encoded(RGB, "JPEG", quality=95, subsampling=0, restart_marker_blocks=1), ".jpg", 2)
like("jpeg-profile", encoded(RGB, "JPEG", quality=95, subsampling=0, icc_profile=b"no profile"), ".jpg", 2)
like("jpeg-comment", encoded(RGB, "JPEG", quality=95, subsampling=0, comment=b"x" * 60000), ".jpg", 2)
like("jpeg-mpo", frames("MPO", quality=95, subsampling=0), ".jpg", 2)
like("jpeg-behind-its-end", JPEG + b"\0" * 4096, ".jpg", 2)
like(
    "jpeg-broken-exif",
    encoded(RGB, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    ".jpg",
    2,
)

# Other formats
for mode, pixels in (("1", THREE_BITS), ("L", GRAYS), ("RGB", PICTURE), ("RGBA", PICTURE)):
    source = Image.fromarray(BITS) if mode == "1" else CLEAR if mode == "RGBA" else RGB
    like(f"bmp-{mode.lower()}", encoded(source, "BMP", mode), ".bmp", pixels=pixels)
    like(f"tiff-{mode.lower()}", encoded(source, "TIFF", mode), ".tif", pixels=pixels)
like("bmp-p", encoded(PALETTE, "BMP"), ".bmp", pixels=FEW)
like("tiff-p", encoded(PALETTE, "TIFF"), ".tif", pixels=FEW)
for compression in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma", "zstd"):
    like(f"tiff-{compression.removeprefix('tiff_')}", encoded(RGB, "TIFF", compression=compression), ".tiff")
for compression in ("group3", "group4", "tiff_ccitt"):
    like(
        f"tiff-{compression}",
        encoded(Image.fromarray(BITS), "TIFF", "1", compression=compression),
        ".tif",
        pixels=THREE_BITS,
    )
like("tiff-jpeg", encoded(RGB, "TIFF", compression="jpeg", quality=95), ".tif", 12)
like("tiff-16", encoded(DEEP, "TIFF"), ".tif", pixels=GRAYS)
like(
    "tiff-16-big-endian",
    encoded(Image.frombytes("I;16B", (WIDTH, HEIGHT), DEEP.astype(">u2").tobytes()), "TIFF"),
    ".tif",
    pixels=GRAYS,
)
like("tiff-cmyk", encoded(RGB, "TIFF", "CMYK"), ".tif", 1)
like("tiff-big", encoded(RGB, "TIFF", big_tiff=True), ".tif")
like("tiff-suffix-tiff", encoded(RGB, "TIFF"), ".TIFF")
like("tiff-16-zero-is-white", tiff(65535 - DEEP, 16, 0), ".tif", pixels=GRAYS)
like("tiff-8-zero-is-white", tiff(~GRAY, 8, 0), ".tif", pixels=GRAYS)
like("tiff-8-with-a-sign", tiff(GRAY // 2, 8, 1, signed=True), ".tif", pixels=GRAYS // 2)
unlike("tiff-8-negative", tiff(GRAY, 8, 1, signed=True), "holds values from -", ".tif")
unlike("tiff-12-of-16", encoded(GRAY.astype(np.uint16) * 16, "TIFF"), "holds values", ".tif")
unlike("tiff-32", encoded(GRAY.astype(np.int32), "TIFF"), "holds values", ".tif")
unlike("tiff-32-negative", encoded(GRAY.astype(np.int32) - 200, "TIFF"), "holds values", ".tif")
unlike("tiff-float", encoded((GRAY / 255).astype(np.float32), "TIFF"), "fractions", ".tif")
unlike("tiff-nan", encoded(np.full(GRAY.shape, np.nan, np.float32), "TIFF"), "fractions", ".tif")
like("tiff-pages", frames("TIFF"), ".tif")
like("webp-lossless", encoded(RGB, "WEBP", lossless=True), ".webp")
like("webp-lossy", encoded(RGB, "WEBP", quality=95), ".webp", 12)
like("webp-rgba", encoded(OPAQUE, "WEBP", lossless=True), ".webp")
like("webp-frames", frames("WEBP", lossless=True), ".webp")
like("apng-frames", frames("PNG"), ".png")
like("apng-frames-beside-a-picture", frames("PNG", default_image=True), ".png")
like(
    "apng-without-frames",
    CHUNK + (data := encoded(PICTURE))[8:33] + chunk(b"acTL", bytes([0, 0, 0, 2] * 2)) + data[33:],
)
like("gif", encoded(PALETTE, "GIF"), ".gif", pixels=FEW)
like("gif-gray", encoded(GRAY, "GIF"), ".gif", pixels=GRAYS)
like(
    "gif-frames",
    encoded(PALETTE, "GIF", save_all=True, append_images=[Image.fromarray(picture(1))]),
    ".gif",
    pixels=FEW,
)
like("gif-clear", encoded(PALETTE, "GIF", transparency=3), ".gif", pixels=FEW)
for suffix in (".jp2", ".j2k"):
    like(f"jpeg2000-{suffix[1:]}", encoded(RGB, "JPEG2000", no_jp2=suffix == ".j2k"), suffix)
like("jpeg2000-gray", encoded(GRAY, "JPEG2000"), ".jp2", pixels=GRAYS)
like("jpeg2000-lossy", encoded(RGB, "JPEG2000", irreversible=True, quality_layers=[5]), ".jp2", 12)
like("avif", encoded(RGB, "AVIF", quality=100, subsampling="4:4:4"), ".avif", 3)
like("avif-rgba", encoded(OPAQUE, "AVIF", quality=100, subsampling="4:4:4"), ".avif", 3)
like("ppm", encoded(RGB, "PPM"), ".ppm")
like("ppm-text", b"P3\n48 40\n255\n" + " ".join(map(str, PICTURE.ravel().tolist())).encode(), ".ppm")
like("pgm", encoded(GRAY, "PPM"), ".pgm", pixels=GRAYS)
like("pgm-16", b"P5\n48 40\n65535\n" + DEEP.astype(">u2").tobytes(), ".pgm", pixels=GRAYS)
like("pbm", encoded(Image.fromarray(BITS), "PPM", "1"), ".pbm", pixels=THREE_BITS)
like("pnm", encoded(RGB, "PPM"), ".pnm")

# Suffixes that say something else, and other spellings
for suffix in (".jpeg", ".JPG", ".Jpeg", ".jfif", ".jpe", ".JPE"):
    like(f"jpeg-called-{suffix[1:]}", JPEG, suffix, 2)
like("png-called-PNG", encoded(RGB), ".PNG")
like("png-called-jpg", encoded(RGB), ".jpg")
like("jpeg-called-png", JPEG, ".png", 2)
like("webp-called-jpg", encoded(RGB, "WEBP", lossless=True), ".jpg")
like("tiff-called-jpg", encoded(RGB, "TIFF"), ".jpg")
like("bmp-called-png", encoded(RGB, "BMP"), ".png")
like("gif-called-jpg", encoded(PALETTE, "GIF"), ".jpg", pixels=FEW)
like("avif-called-jpg", encoded(RGB, "AVIF", quality=100, subsampling="4:4:4"), ".jpg", 3)
like("ppm-called-jpg", encoded(RGB, "PPM"), ".jpg")

# What is no picture of ours, whatever its name
Image.init()
for form in ("EPS", "ICO", "TGA", "PCX", "SGI", "XBM", "DDS", "ICNS", "PDF", "IM", "MSP", "BLP", "QOI", "SPIDER"):
    source = {"XBM": Image.fromarray(BITS).convert("1"), "MSP": Image.fromarray(BITS).convert("1"), "BLP": PALETTE}
    source["SPIDER"] = Image.fromarray(GRAY.astype(np.float32))
    if form in Image.SAVE:
        unlike(f"{form.lower()}-called-jpg", encoded(source.get(form, RGB), form), "not an image of", ".jpg")
for name, data in {
    "html": b"<!doctype html><html><body>404 not found</body></html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    "zip": b"PK\x03\x04" + bytes(60),
    "gzip": b"\x1f\x8b\x08" + bytes(60),
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, HEIGHT, WIDTH, 8, 3) + bytes(40),
    "fli": struct.pack("<IHHHHHH", 200, 0xAF12, 1, WIDTH, HEIGHT, 8, 3) + bytes(200),
    "exr": b"v/1\1" + bytes(90),
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90),
    "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(90),
    "numpy": b"\x93NUMPY\1\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (40, 48), }\n" + bytes(40 * 48),
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(90),
    "text": b"p0 p1 p2",
    "zeros": bytes(4096),
    "one-byte": b"\x89",
    "empty": b"",
}.items():
    unlike(f"{name}-called-jpg", data, "cannot be decoded", ".jpg")
unlike(
    "postscript-that-runs",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n",
    "not an image of",
    ".jpg",
)

# Orientations
for orientation in range(1, 9):
    stored = turned(orientation)
    noted = "EXIF orientation" if orientation > 1 else ""
    photo = encoded(stored, "JPEG", exif=tagged(orientation), quality=95, subsampling=0)
    like(f"jpeg-orientation-{orientation}", photo, ".jpg", 2, noted=noted)
    like(f"png-orientation-{orientation}", encoded(stored, exif=tagged(orientation)), noted=noted)
    like(f"tiff-orientation-{orientation}", encoded(stored, "TIFF", exif=tagged(orientation)), ".tif", noted=noted)
    like(f"webp-orientation-{orientation}", encoded(stored, "WEBP", exif=tagged(orientation), lossless=True), ".webp",
         noted=noted)  # fmt: skip
for orientation in (0, 9, 65535):
    like(
        f"jpeg-orientation-{orientation}",
        encoded(RGB, "JPEG", exif=tagged(orientation), quality=95, subsampling=0),
        ".jpg",
        2,
    )
like(
    "png-orientation-6-ignored",
    encoded(PICTURE, exif=tagged(6)),
    options={"orientation": "ignore"},
    noted="as they are stored",
)
like("png-orientation-6-mask-as-stored", encoded(PICTURE, exif=tagged(6)), noted="masks fit them so")
like("gray-png-orientation-6-mask-as-stored", encoded(GRAY, exif=tagged(6)), pixels=GRAYS, noted="masks fit them so")
KINDS["orientation-3-where-masks-fit-the-stored-alone"] = Kind(
    steps(
        image(encoded(PICTURE, exif=tagged(3))),
        put("images/p1.png", encoded(picture(1), exif=tagged(6))),
        put("images/p5.png", encoded(picture(5), exif=tagged(8))),
    ),
    noted="2 more, because no mask says otherwise",
)
KINDS["orientation-3-where-masks-disagree"] = Kind(
    steps(
        image(encoded(turned(3), exif=tagged(3))),
        put("images/p1.png", encoded(picture(1), exif=tagged(6))),
        put("images/p2.png", encoded(turned(6, Image.fromarray(picture(2))), exif=tagged(6))),
    ),
    noted="masks disagree and 1 masks would fit either way",
)
KINDS["orientation-3-and-a-mask-that-is-turned-too"] = Kind(
    steps(
        image(encoded(turned(3), exif=tagged(3))),
        mask(encoded(turned(3, Image.fromarray(MASK)), exif=tagged(3))),
        put("images/p1.png", encoded(picture(1), exif=tagged(6))),
    ),
    noted="1 are turned upright, because masks fit them so",
)
unlike("picture-on-its-side", encoded(np.rot90(PICTURE)), "lies on its side")

# Sizes
KINDS["picture-1x1"] = Kind(
    steps(image(encoded(PICTURE[:1, :1])), mask(encoded(MASK[:1, :1]))), picture=PICTURE[:1, :1], mask=MASK[:1, :1]
)
KINDS["picture-of-one-row"] = Kind(
    steps(image(encoded(PICTURE[:1])), mask(encoded(MASK[:1]))), picture=PICTURE[:1], mask=MASK[:1]
)
KINDS["picture-long"] = Kind(
    steps(image(encoded(np.tile(PICTURE, (1, 200, 1)))), mask(encoded(np.tile(MASK, (1, 200))))),
    picture=np.tile(PICTURE, (1, 200, 1)),
    mask=np.tile(MASK, (1, 200)),
)
KINDS["picture-over-the-limit"] = Kind(image(encoded(PICTURE)), refused="megapixels", options={"max_megapixels": 0.001})
KINDS["pictures-of-many-sizes"] = Kind(
    put("images/other.png", encoded(PICTURE[:7, :31])), train=("other", "p0", "p1", "p2", "p3", "p5")
)
