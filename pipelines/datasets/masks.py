"""A mask from its file: class indices and the colours that an indexed one shows them in, or colours alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..decode import (
    LABEL,
    READING,
    Reading,
    Refusal,
    bit_depth,
    decoded,
    holds_several,
    load,
    open_image,
    orientation_of,
    png_header,
    turned,
    turned_back,
    white_is_zero,
    with_sign,
)
from ..errors import some_of
from .dataset import IGNORE, NO_CLASS, NO_VALUE, ClassList, Colour, Dataset, Remap

LOSSLESS_TIFF = (
    "raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits",
    "tiff_raw_16", "lzma", "zstd",
)  # fmt: skip
"""Compressions that keep values, by Pillow's names."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
VOID = (224, 224, 192)
"""The colour of ignored pixels in the VOC devkit's palette."""
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PGM = re.compile(rb"(?P<before>P[25](?:" + _GAP + rb"\d+){2}" + _GAP + rb")(?P<white>[1-9]\d{0,4})(?=\s)")
"""The header of a gray PNM up to its white."""
_COLOURS_CURE = "convert colours to class indices (8-bit gray or palette PNG)"
_SHOWN = 8
_ANEW = "export it anew as PNG, with the class index of each pixel: converting this file keeps the changed values"


@dataclass(frozen=True, slots=True)
class Mask:
    """A decoded mask."""

    values: np.ndarray
    """(H, W) uint8, upright: a palette is not looked up."""
    orientation: int
    """The tag: how the file is stored."""
    plain: bool
    """Whether every decoder reads the file's stored values alike: an 8-bit gray PNG."""
    palette: tuple[Colour, ...] = ()
    """The palette of an indexed mask; black and white of one with a single bit."""
    bits: bool = False
    """Whether the palette is that of a single bit: nobody chose its colours."""
    coloured: bool = False
    """Whether the file has colours for its values, which are but places in `palette`."""

    @property
    def stored(self) -> np.ndarray:
        """The values as the file has them."""
        return turned_back(self.values, self.orientation)


@dataclass(frozen=True, slots=True)
class Indexed:
    """An indexed mask among others: the colours of the indices that it uses but 255, which is ignored in whatever
    colour, and a name for its whole palette."""

    path: Path
    colours: Mapping[int, Colour]
    palette: str


def decode_mask(data: bytes, reading: Reading = READING) -> Mask:
    """A mask from the bytes of its file. Raises `Refusal`, or what decoders raise."""
    with open_image(_unstretched(data), reading) as image:
        if container := _lossy(image, data):
            raise Refusal("lossy", f"is {container}, which changes label values", _ANEW)
        if holds_several(image):
            text = "holds several pages or frames, of which one must be the mask"
            raise Refusal("pages", text, "save that one by itself, as PNG")
        orientation = orientation_of(image)
        if image.format == "PNG" and png_header(data) == (8, 0) and "transparency" not in image.info:
            return Mask(turned(decoded(data, LABEL), orientation), orientation, True)
        load(image, data)
        coloured = len(image.getbands()) > 1
        values, colours = _by_place(image, data) if coloured else (_indices(image, data), ())
        if image.format != "TIFF":  # which Pillow turns by itself
            values = turned(values, orientation)
        if coloured:
            return Mask(values, orientation, False, colours, coloured=True)
        if image.mode == "1":
            return Mask(values, orientation, False, (WHITE, BLACK) if white_is_zero(image) else (BLACK, WHITE), True)
        palette = image.getpalette("RGB") if image.mode == "P" else None
        return Mask(values, orientation, False, tuple(zip(*[iter(palette or ())] * 3)))


def of_gray_levels(mask: Mask) -> Mask | None:
    """A mask in colour whose channels are all alike, with these as its values; None where they are not."""
    if any(len(set(colour)) > 1 for colour in mask.palette):
        return None
    levels = np.array([colour[0] for colour in mask.palette], np.uint8)
    return replace(mask, values=levels[mask.values], palette=(), coloured=False)


def clash(masks: Iterable[Indexed]) -> tuple[Indexed, Indexed, str] | None:
    """The first two masks whose palettes contradict each other, and how: one index in two colours, or one colour at
    two indices. A palette may hold a colour twice."""
    by_index: dict[int, Indexed] = {}
    by_colour: dict[Colour, tuple[int, Indexed]] = {}
    for mask in masks:
        shown = list(mask.colours.values())
        for index, colour in mask.colours.items():
            other = by_index.setdefault(index, mask)
            if other.colours[index] != colour:
                return mask, other, f"shows {index} as {_hex(colour)} but {{}} as {_hex(other.colours[index])}"
            if shown.count(colour) > 1:
                continue
            place, other = by_colour.setdefault(colour, (index, mask))
            if place != index and other.palette != mask.palette:
                return mask, other, f"has {_hex(colour)} as {index} but {{}} as {place}"
    return None


def meanings(values: ClassList, colours: Sequence[Colour | None]) -> dict[Colour, int]:
    """The first label value of each colour, of those given by value, and 255 for what is no class; none for a colour
    that two classes have."""
    ignored = values.void if VOID in colours else (VOID, *values.void)
    shown: dict[Colour, list[int]] = {}
    for value in values.given:
        if colour := colours[value]:
            shown.setdefault(colour, []).append(value)
    single = {colour: of[0] for colour, of in shown.items() if len({values.names[value] for value in of}) == 1}
    return dict.fromkeys(ignored, IGNORE) | single


def by_colour(mask: Indexed, known: Mapping[Colour, int]) -> Remap | list[Colour]:
    """How the indices of a mask become the label values that are known of its colours, or the colours of which none
    is."""
    if strange := sorted(set(mask.colours.values()) - known.keys()):
        return strange
    table = np.arange(256, dtype=np.uint8)
    for index, colour in mask.colours.items():
        table[index] = known[colour]
    name = hashlib.blake2b(table.tobytes(), digest_size=6).hexdigest()
    return Remap(f"colours-{name}", table.tobytes(), "colours", of_colours=True)


def merging(table: np.ndarray, before: Remap | None) -> Remap:
    """How the values of a mask become classes by a (256,) table of label values, after `before` has made them these."""
    whole = (table if before is None else table[np.frombuffer(before.table, np.uint8)]).tobytes()
    name = hashlib.blake2b(whole, digest_size=6).hexdigest()
    return Remap(f"merged-{name}", whole, "label values", of_colours=before is not None and before.of_colours)


def of_no_class(strange: Sequence[Colour]) -> tuple[str, str]:
    """What to say of a mask in colours that are no class's, and the cure."""
    shown = some_of(strange, _SHOWN, _hex)
    text = f"is in colour and shows {shown}, which the class list gives no class, or two"
    cure = "give each class its colour in the class list (tab, #rrggbb), and what is ignored as '255, void, #rrggbb'"
    return text, f"{cure}, or {_COLOURS_CURE}"


def against_classes(masks: Iterable[Indexed], dataset: Dataset) -> tuple[Indexed, str] | None:
    """The first mask that shows a class in the colour that the class list states for another one."""
    values = dataset.values
    for mask in masks:
        for index, colour in mask.colours.items():
            own = values.names[index] if index < len(values.names) else None
            if colour in values.void and own != NO_CLASS:
                return mask, f"shows {index} in a colour that the class list of {dataset.root} gives no class"
            if colour in values.stated and own and values.stated[index] != colour:
                named = values.names[values.stated.index(colour)]
                if named != own:
                    return mask, f"shows {index} in the colour of {named} in the class list of {dataset.root}"
    return None


def inverted(masks: Iterable[Indexed], dataset: Dataset) -> Iterator[str]:
    """Black and white masks whose first colour is white."""
    white = [mask for mask in masks if mask.colours.get(0) == WHITE and mask.colours.get(1, BLACK) == BLACK]
    first, second = dataset.values.names[:2]
    if white and NO_VALUE not in (first, second):
        yield (
            f"{len(white)} black and white masks, {white[0].path} for one, have white as 0: white is taken for "
            f"{first}, black for {second}"
        )


def _hex(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"


def _lossy(image: Image.Image, data: bytes) -> str:
    """What in the container may have changed values, in words; nothing where none has."""
    if image.format in ("JPEG", "MPO"):
        return "a JPEG file"
    if image.format in ("JPEG2000", "AVIF"):
        return f"a {image.format} file"
    if image.format == "WEBP" and b"VP8 " in data:
        return "a WebP file with losses"
    compression = image.info.get("compression", "raw")
    if image.format == "TIFF" and compression not in LOSSLESS_TIFF:
        return f"a TIFF file compressed by {compression}"
    return ""


def _by_place(image: Image.Image, data: bytes) -> tuple[np.ndarray, tuple[Colour, ...]]:
    """A mask in colour: for each pixel the place of its colour among those of the mask, and these, sorted. Raises
    `Refusal` for channels that are no colours of 8 bits, for pixels that let another colour through, and for more
    colours than there are classes."""
    opaque = image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255)
    plain = opaque or (image.mode == "RGB" and "transparency" not in image.info)
    text, cure = f"has {len(image.getbands())} channels ({image.mode}) where a mask has one", _COLOURS_CURE
    if not plain or bit_depth(image, data) > 8:
        raise Refusal("colours", text, cure)
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.uint32), -1, 0)
    found, places = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    if len(found) > IGNORE:
        raise Refusal("colours", f"{text}, and {len(found):,} colours", cure)
    colours = tuple((colour >> 16, colour >> 8 & 255, colour & 255) for colour in found.tolist())
    return places.reshape(red.shape).astype(np.uint8), colours


def _indices(image: Image.Image, data: bytes) -> np.ndarray:
    """The stored values of a one-channel image. Raises `Refusal` for those that are none of 0 to 255."""
    values = with_sign(np.asarray(image), image)
    if image.mode in ("1", "L") and white_is_zero(image):
        values = ~values
    if image.mode == "L" and (depth := bit_depth(image, data)) in (2, 4):  # Pillow stretches these to 0..255
        values = values // (255 // (2**depth - 1))
    if values.dtype.kind == "f":
        odd = np.unique(values[~(np.isfinite(values) & (values == np.rint(values)))])
        if odd.size:
            text = f"has label values {some_of(odd, _SHOWN, '{:g}'.format)}, which are no whole numbers"
            cure = "export it anew with class indices; rounding would make up classes"
            raise Refusal("values", text, cure)
    if values.size and (values.min() < 0 or values.max() > IGNORE):
        wrong = [int(value) for value in np.unique(values) if not 0 <= value <= IGNORE]
        text = f"has label values {some_of(wrong, _SHOWN)}, which no class has"
        raise Refusal("values", text, "masks hold class indices from 0 and 255 for ignore")
    return values.astype(np.uint8)


def _unstretched(data: bytes) -> bytes:
    """A file that Pillow reads as it is stored: what a PGM calls white, and Pillow makes 255, becomes the largest value
    of its depth. Any other file as it is. Raises `Refusal` for a PGM whose header cannot be followed."""
    if not data.startswith((b"P2", b"P5")):
        return data
    header = _PGM.match(data)
    if header is None:
        raise Refusal("unreadable", "has a header that is not read", "save it as 8-bit gray PNG")
    white = b"255" if int(header["white"]) < 256 else b"65535"
    return header["before"] + white + data[header.end() :]
