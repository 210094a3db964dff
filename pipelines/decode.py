"""Files to pixels: one decoder for training, evaluation and prediction.

What was prepared is decoded as it is stored, and turned by whoever knows its mark (`Watch.pixels`); any other picture
is decoded as preparation would make it: upright, 8-bit RGB. Both come to the same pixels.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from .errors import UsageError
from .memory import GIB, free_memory

COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
LABEL = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""All that is opened, whatever a file's name says: some of Pillow's other formats start programs."""
LEAST_16_BIT = 2**14
"""A picture of 16 bits whose values all lie below holds fewer bits: its upper eight would be nearly black."""
LARGE = 64
"""Megapixels from which on a file's memory is worth a thought."""
UPRIGHT = 1
_ORIENTATION_TAG, _SUBFILE_TAG, _PHOTOMETRIC_TAG, _SAMPLE_FORMAT_TAG = 274, 254, 262, 339
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: partial(cv2.flip, flipCode=1),
    3: partial(cv2.rotate, rotateCode=cv2.ROTATE_180),
    4: partial(cv2.flip, flipCode=0),
    5: cv2.transpose,
    6: partial(cv2.rotate, rotateCode=cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: partial(cv2.rotate, rotateCode=cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""Stored pixels to upright ones, by orientation."""
_BACK = {6: 8, 8: 6}
"""All other turns are their own inverse."""

Image.MAX_IMAGE_PIXELS = None  # `Reading` has the limit: Pillow's lies below what aerial images have
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # about metadata, which is not used


class Refusal(Exception):
    """A file that cannot be used: `kind` groups like ones, `text` continues its name, `cure` is the way out."""

    def __init__(self, kind: str, text: str, cure: str):
        super().__init__(f"{text}: {cure}")
        self.kind, self.text, self.cure = kind, text, cure


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read, in preparation and prediction alike. Raises UsageError for values without sense."""

    orientation: Literal["upright", "ignore"] = "upright"
    """What an orientation tag does: turns the pixels as viewers show them, or nothing."""
    max_megapixels: float = 1074.0
    """Files of more are refused by their header, whatever would decode them. The default is OpenCV's own limit, 2^30
    pixels, rounded up."""

    def __post_init__(self):
        if self.orientation not in ("upright", "ignore"):
            raise UsageError(f"--files.orientation: must be upright or ignore, is {self.orientation}")
        if not isinstance(self.max_megapixels, (int, float)) or not 0 < self.max_megapixels < math.inf:
            raise UsageError(f"--files.max-megapixels: must be a number above 0, is {self.max_megapixels!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Reading:
        """What the options of a data set say of it; None means not given."""
        return cls(**{name: options[name] for name in READING_OPTIONS if options.get(name) is not None})

    def is_large(self, width: int, height: int) -> bool:
        return width * height > self.max_megapixels * 1e6

    def at_most(self, megapixels: float) -> Reading:
        """The same with a limit that is no higher."""
        return replace(self, max_megapixels=min(self.max_megapixels, megapixels))

    def check(self, width: int, height: int) -> None:
        """Raises `Refusal` for a file that is too large for the limit, or for the memory that is free."""
        megapixels = width * height / 1e6
        if self.is_large(width, height):
            text = f"is {width}x{height}, {megapixels:.6g} megapixels where {self.max_megapixels:g} are the limit"
            raise Refusal("large", text, "cut it into tiles, or raise --files.max-megapixels above that")
        free, needed = free_memory() if megapixels > LARGE else None, 4e6 * megapixels
        if free is not None and needed > free:
            needs = f"needs more than {needed / GIB:.1f} GiB of memory, {free / GIB:.1f} are free"
            text = f"is {width}x{height} and {needs}"
            raise Refusal("large", text, "cut it into tiles")


READING = Reading()
"""Unless somebody says otherwise."""
READING_OPTIONS = tuple(field.name for field in fields(Reading))
"""Options of every layout, and of prediction."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB, upright."""
    orientation: int
    """The tag: how the file is stored."""
    plain: bool
    """Whether every decoder reads the file's stored pixels alike: 8-bit RGB in JPEG or PNG."""
    first: bool = False
    """Whether it is the first of several in its file: pages, or frames of an animation."""

    @property
    def stored(self) -> np.ndarray:
        """The pixels as the file has them."""
        return turned_back(self.pixels, self.orientation)


def read(
    path: Path,
    flags: int,
    size: Sequence[int] | None = None,
    *,
    reading: Reading = READING,
    data: bytes | None = None,
) -> np.ndarray:
    """The decoded file, (H, W, 3) RGB or (H, W) uint8. Raises UsageError where it is not what plans were made for.

    With a size, or of a mask, the file is one that was prepared; a picture without a size may be any, and is read as
    `reading` says. data: the file's bytes, where they have been read.
    """
    try:
        encoded = np.fromfile(path, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    except OSError as error:
        raise unreadable(path, error) from None
    if size is None and flags == COLOUR:
        try:
            picture = decode_picture(encoded.tobytes(), reading)
            return picture.pixels if reading.orientation == "upright" else picture.stored
        except Exception as error:
            raise UsageError(f"{path} {refusal(error)}") from None
    try:
        decoded = cv2.imdecode(encoded, flags) if encoded.size else None
    except cv2.error:
        decoded = None
    if decoded is None:
        raise UsageError(f"{path}: cannot be decoded any more; run `semiseg doctor` and mend or remove it")
    (height, width), (h, w) = decoded.shape[:2], decoded.shape[:2] if size is None else size
    if (height, width) != (h, w):  # resizers would read beyond a smaller image
        raise UsageError(f"{path}: is {height}x{width} and was {h}x{w} (height x width); run `semiseg prepare`")
    return decoded


def unreadable(path: Path, error: OSError) -> UsageError:
    """What to raise for a file that was there when it was prepared."""
    return UsageError(f"{path}: cannot be read ({error.strerror}); restore it or run `semiseg prepare`")


def refusal(error: Exception) -> Refusal:
    """What an error of a decoder means. Decoders raise what they like for broken files."""
    if isinstance(error, Refusal):
        return error
    reason = " ".join(str(error).split()) or type(error).__name__
    if "cannot identify image file" in reason:
        reason = f"not an image of {', '.join(FORMATS)}"
    return Refusal("unreadable", f"cannot be decoded ({reason})", "replace the file or take it out of the data set")


def decode_picture(data: bytes, reading: Reading = READING) -> Picture:
    """A picture from the bytes of its file. Raises `Refusal`, or what decoders raise."""
    with open_image(data, reading) as image:
        orientation, first = orientation_of(image), holds_several(image)
        plain = image.mode == "RGB" and image.format in ("JPEG", "MPO", "PNG") and "transparency" not in image.info
        if plain and bit_depth(image, data) == 8 and not is_animation(data):
            if image.format != "PNG":
                # Decoded small, for the sake of what Pillow minds and OpenCV may not: a file that ends too early.
                image.draft("RGB", (1, 1))
                image.load()
            return Picture(turned(decoded(data, COLOUR), orientation), orientation, True, first)
        load(image, data)
        pixels = _rgb(image, data)
        # Pillow turns TIFF by itself.
        return Picture(pixels if image.format == "TIFF" else turned(pixels, orientation), orientation, False, first)


def open_image(data: bytes, reading: Reading) -> Image.Image:
    """A file, identified and not yet decoded. Raises `Refusal` for one that is too large or plainly damaged."""
    image = Image.open(BytesIO(data), formats=_formats())
    reading.check(*image.size)
    if image.format == "PNG":
        _check_chunks(memoryview(data))
    if image.format in ("JPEG", "MPO"):
        _check_markers(data)
    return image


def load(image: Image.Image, data: bytes) -> None:
    """Decode an opened file with Pillow. Raises ValueError for a PNG whose rows are not all there, which Pillow
    forgives and OpenCV does not."""
    image.load()
    if image.format == "PNG":
        decoded(data, cv2.IMREAD_UNCHANGED)


def decoded(data: bytes, flags: int) -> np.ndarray:
    """What training will decode. Raises ValueError where it could not."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise ValueError("damaged")
    return pixels


def orientation_of(image: Image.Image) -> int:
    """The tag of an image, before it is loaded; 1 (upright) where it has none or nonsense."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, UPRIGHT)
    except Exception:  # a broken tag spoils no pixel
        return UPRIGHT
    return value if value in _TURNS else UPRIGHT


def holds_several(image: Image.Image) -> bool:
    """Whether a file holds further pages or frames: not the smaller copies in a TIFF, nor what phones put behind a
    photograph."""
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return False
    if image.format != "TIFF":
        return True
    several = False
    for page in range(1, image.n_frames):  # type: ignore[attr-defined]
        image.seek(page)
        several |= not _tag(image, _SUBFILE_TAG, 0) & 1
    image.seek(0)
    return several


def _tag(tiff: Image.Image, tag: int, unsaid: Any) -> Any:
    """The value of a TIFF's tag, or what it counts as where there is none."""
    return tiff.tag_v2.get(tag, unsaid)  # type: ignore[attr-defined]


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels, uint8, as viewers show them."""
    return _TURNS[orientation](pixels) if orientation in _TURNS else pixels


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright pixels as the file has them."""
    return turned(pixels, _BACK.get(orientation, orientation))


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Stored height and width as upright ones, or the other way round."""
    return size[::-1] if orientation > 4 else size


def png_header(data: bytes) -> tuple[int, int]:
    """Bit depth and colour type (0 gray, 2 RGB, 3 palette, 4 and 6 with alpha) from the IHDR chunk."""
    return data[24], data[25]


def is_animation(data: bytes) -> bool:
    """Whether a PNG calls itself one: decoders disagree on whether its own picture is one of the frames."""
    return data.startswith(b"\x89PNG") and b"acTL" in data[: data.find(b"IDAT")]


def white_is_zero(image: Image.Image) -> bool:
    """Whether a gray image stores white as 0. Pillow exchanges the values of up to 8 bits, and no others."""
    if image.format == "TIFF":
        return _tag(image, _PHOTOMETRIC_TAG, 0) == 0
    return image.format == "PPM" and image.mode == "1"


def with_sign(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """Gray values as the file means them: Pillow takes 8 bits with a sign, of a TIFF, for ones without."""
    signed = image.format == "TIFF" and image.mode == "L" and 2 in _tag(image, _SAMPLE_FORMAT_TAG, ())
    return values.view(np.int8) if signed else values


def bit_depth(image: Image.Image, data: bytes) -> int:
    """Bits of a channel in the file; Pillow may have kept the upper eight of them."""
    if image.format == "PNG":
        return png_header(data)[0]
    if image.format == "TIFF":
        bits = _tag(image, 258, 1)
        return max(bits) if isinstance(bits, tuple) else bits
    return 8


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # older Pillows know fewer


def _check_chunks(data: memoryview) -> None:
    """A PNG's chunks, up to its end. Pillow forgives checksums and a missing end, other decoders do not."""
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError("truncated")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError("truncated")
        critical = not kind[0] & 32
        if critical and zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"damaged: wrong checksum in {kind.decode('ascii', 'replace')}")
        at = end


def _check_markers(data: bytes) -> None:
    """A JPEG's segments and the markers among its pixels, up to the end of the image. Decoders pass over what does not
    belong there with gray or shifted blocks. Damage that looks like other pixels cannot be told from them."""
    values = np.frombuffer(data, np.uint8)
    # Among pixels 255 is followed by 0; before a marker it may be repeated.
    before = np.flatnonzero(values[:-1] == 255)
    codes = values[before + 1]
    found = (codes != 0) & (codes != 255)
    end, restarts, number = 2, False, 0
    for place, code in zip((before[found] + 2).tolist(), codes[found].tolist(), strict=True):
        if place - 2 < end:  # within a segment
            continue
        if code == 0xD9:  # the end; cameras put other pictures behind it
            return
        if 0xD0 <= code <= 0xD7:
            if not restarts or code != 0xD0 + number % 8:
                raise ValueError(f"damaged: unexpected restart before byte {place}")
            number += 1
        elif 0xC0 <= code <= 0xFE and code != 0xD8:
            length = int.from_bytes(data[place : place + 2], "big")
            if code == 0xDD:
                restarts = data[place + 2 : place + 4] != b"\0\0"
            number, end = 0, place + length
        else:
            raise ValueError(f"damaged: unexpected marker before byte {place}")
    raise ValueError("truncated")


def _rgb(image: Image.Image, data: bytes) -> np.ndarray:
    """The loaded image as 8-bit RGB. Of 16 bits the upper eight are kept, as PNG decoders do."""
    if image.mode == "F":
        raise _too_deep("holds fractions (32-bit float), whose range is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        least, most = int(values.min()), int(values.max())
        if least < 0 or most > 2**16 - 1 or 0 < most < LEAST_16_BIT:
            raise _too_deep(f"holds values from {least} to {most}, which are not those of a 16-bit picture")
        if white_is_zero(image):
            values = 2**16 - 1 - values
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)
    if image.mode == "L" and (least := int(with_sign(np.asarray(image), image).min())) < 0:
        raise _too_deep(f"holds values from {least} on, which are not those of a picture")
    pixels = np.array(image.convert("RGB"))  # writable, as torch wants it
    if bit_depth(image, data) > 8 and (most := int(pixels.max())) < LEAST_16_BIT >> 8:
        whole = None if most else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if whole is None or whole[..., :3].any():
            raise _too_deep(f"holds values below {(most + 1) << 8}, which are not those of a 16-bit picture")
    return pixels


def _too_deep(text: str) -> Refusal:
    cure = "convert all pictures to 8 bits with one range that you choose, those of prediction too"
    return Refusal("depth", text, cure)
