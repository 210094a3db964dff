"""How a network is judged: the settings of a recipe, and the protocol that they come to once the crop is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..pipelines.errors import fault_unless, flag
from .flags import Told

Absent = Literal["zero", "skip"]
MULTIPLE = 8
"""As in CAC's program."""
LARGEST = 10**9
"""No factor and no side in pixels is larger, far beyond any memory, so that products of them are still numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """What sets one protocol apart from another."""

    windows: bool
    """Whether images are seen in windows; else in one piece."""
    absent: Absent = "skip"
    """What a class counts that neither truth nor prediction holds: zero: an IoU of 0; skip: nothing."""
    decimals: int | None = None
    """Scores are compared rounded to so many decimals: of those that agree so far the earliest is the best."""
    summed: bool = False
    """Whether what overlapping windows say is added, and not averaged."""
    probabilities: bool = False
    """Whether probabilities come together and not logits."""
    stride: Literal["up", "down"] = "up"
    """How two thirds of a window, by which windows lie apart, become whole pixels."""
    black: bool = False
    """Whether an image of several windows that is narrower than one is padded with black, and not the mean colour."""
    sides: Literal["reflected", "resized", "free"] = "reflected"
    """How whole images get sides that the network takes. reflected: by their mirror image at the bottom and right;
    resized: to the nearest multiples, corners on corners, and their logits back; free: they stay as they are."""
    ragged: bool = False
    """Whether windows that reach beyond the image are cut to it; else they are moved inside."""

    @property
    def any_size(self) -> bool:
        """Whether the network sees sides that are multiples of nothing."""
        return self.ragged or (not self.windows and self.sides == "free")


PROTOCOLS = {
    "whole": Convention(windows=False),
    "slide": Convention(windows=True),
    "cac-whole": Convention(windows=False, absent="zero", decimals=3),
    "cps-slide": Convention(windows=True, summed=True, black=True),
    "unimatch-whole": Convention(windows=False, absent="zero", sides="free"),
    "unimatch-slide": Convention(
        windows=True, absent="zero", summed=True, probabilities=True, stride="down", ragged=True
    ),
    "dino-whole": Convention(windows=False, absent="zero", sides="resized"),
    "unimatch2-slide": Convention(windows=True, absent="zero", summed=True, probabilities=True, stride="down"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How images are judged, in pixels."""

    name: Literal[tuple(PROTOCOLS)]  # type: ignore[valid-type]
    """One of PROTOCOLS."""
    window: int
    """Side of the sliding windows."""
    scale: float = 1.0
    """Resizes images before they are evaluated."""
    long_side: float | None = None
    """Images are resized to this long side instead."""
    longest: float | None = None
    """Where no long side is given, images with a longer one are resized to this."""
    scales: tuple[float, ...] = (1.0,)
    """Scales, on top of the above, whose logits are added."""
    flip: bool = False
    """Whether the logits of mirrored images are added."""
    absent: Absent | None = None
    """Overrides the convention for absent classes."""
    background: bool = True
    """Whether class 0 counts in the mean."""
    batch: int = 8
    """Images or windows evaluated together."""
    multiple: int = MULTIPLE
    """The sides of whole and of resized images are brought to multiples of it, in pixels."""

    def faults(self, prefix: str = "--", least: int = 1, multiple: int = 1) -> Iterator[str]:
        """What makes no sense, a line each; `least` is the smallest window that the network takes, in pixels, and
        `multiple` what its windows must be multiples of."""
        yield from fault_unless(self.batch >= 1, f"{prefix}batch", "must be at least 1", self.batch)
        goes = self.multiple >= 1 and self.multiple % multiple == 0
        yield from fault_unless(goes, f"{prefix}multiple", f"must be a multiple of {multiple}", self.multiple)
        fits = least <= self.window <= LARGEST
        rule = f"must be at least {least}" if self.window < least else f"must be at most {LARGEST}"
        yield from fault_unless(fits, f"{prefix}window", rule, self.window)
        if fits:
            yield from side_faults(f"{prefix}window", self.window, multiple)
        if multiple > 1 and self.convention.any_size:
            instead = next(
                name
                for name, other in reversed(PROTOCOLS.items())
                if other.windows == self.convention.windows and other.absent == self.absent_class and not other.any_size
            )
            yield (
                f"{prefix}protocol: {self.name} shows the network images of any size, and it takes multiples of "
                f"{multiple}; use {instead}"
            )
        for name in ("scale", "long_side", "longest"):
            value = getattr(self, name)
            field, rule = flag(name, prefix), f"must be more than 0 and at most {LARGEST}"
            yield from fault_unless(value is None or _positive(value), field, rule, value)
        positive = bool(self.scales) and all(map(_positive, self.scales))
        yield from fault_unless(positive, f"{prefix}scales", f"must be numbers above 0, at most {LARGEST}", self.scales)

    @property
    def convention(self) -> Convention:
        return PROTOCOLS[self.name]

    @property
    def absent_class(self) -> Absent:
        """The convention in force for absent classes."""
        return self.absent or self.convention.absent

    def prefers(self, miou: float, best: float) -> bool:
        """Whether a score replaces the best before it, by the protocol's convention; what is no number never does, and
        gives way to any."""
        if not math.isfinite(miou) or not math.isfinite(best):
            return math.isfinite(miou)
        decimals = self.convention.decimals
        return miou > best if decimals is None else round(miou, decimals) > round(best, decimals)

    def scales_of(self, height: int, width: int) -> tuple[float, ...]:
        """The factors by which an image of this size is resized, one after the other."""
        longer = max(height, width)
        if self.long_side is not None:
            base = self.long_side / longer
        else:
            base = self.scale if self.longest is None else min(self.scale, self.longest / longer)
        return tuple(base * scale for scale in self.scales)

    def __str__(self) -> str:
        """The protocol in a few words: with its window, and with whatever is not its default."""
        words = [f"{self.name} {self.window}" if self.convention.windows else self.name]
        if self.long_side is not None:
            words.append(f"long side {round(self.long_side)}")
        elif self.scale != 1:
            words.append(f"scale {self.scale:g}")
        if self.longest is not None and self.long_side is None:
            words.append(f"long side at most {round(self.longest)}")
        if self.scales != (1.0,):
            words.append(f"scales {' '.join(f'{scale:g}' for scale in self.scales)}")
        words += ["flip"] * self.flip
        if self.absent:
            words.append(f"absent classes {self.absent}")
        words += ["without background"] * (not self.background)
        return ", ".join(words)


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """How a network is judged."""

    protocol: Literal[tuple(PROTOCOLS)] = "whole"  # type: ignore[valid-type]
    """whole: images in one piece, reflected to a multiple of 8 (or of what the backbone asks for); slide: windows of
    `window` pixels, logits averaged; cac-whole and cps-slide: the same with all conventions of the published
    programs; unimatch-whole and dino-whole: the image as it is or resized to multiples; unimatch-slide and
    unimatch2-slide: windows cut to the image or moved inside, probabilities added."""
    window: Told[int | None] = None
    """Pixels (default: the crop). Windows lie two thirds of it apart."""
    scale: Told[float | None] = None
    """Resizes images before they are evaluated (default: so that they look as in training, see the three below)."""
    native_crop: int | None = None
    """The crop with which training sees images at about their own size: they are resized by crop / native_crop."""
    long_side: float | None = None
    """Images are resized to this long side, in sides of the crop."""
    longest: float | None = None
    """Where no long side is given, images with a longer one than this, in sides of the crop, are resized to it."""
    scales: tuple[float, ...] = (1.0,)
    """Scales, on top of the above, whose logits are added."""
    flip: bool = False
    """Whether the logits of mirrored images are added."""
    absent: Told[Absent | None] = None
    """What a class counts that neither truth nor prediction holds: zero: an IoU of 0; skip: nothing (default: as the
    protocol has it, docs/methods.md)."""
    background: bool = True
    """Whether class 0 counts in the mean."""
    batch: int = 8
    """Images (whole) or windows (slide) evaluated together, at most: of images, what 16 megapixels hold."""

    def resolve(self, crop: int, multiple: int = 1) -> Protocol:
        """The protocol for a network that was trained on windows of `crop` pixels, and takes images whose sides are
        multiples of `multiple`."""
        sides = (None, None) if self.scale is not None else (self.long_side, self.longest)
        long_side, longest = (None if side is None else side * crop for side in sides)
        scale = self.scale
        if scale is None:
            native = self.native_crop or 0
            scale = crop / native if native > 0 and long_side is None else 1.0
        same = {name: getattr(self, name) for name in ("scales", "flip", "absent", "background", "batch")}
        return Protocol(
            name=self.protocol,
            window=crop if self.window is None else self.window,
            scale=scale,
            long_side=long_side,
            longest=longest,
            multiple=multiple if MULTIPLE % multiple else MULTIPLE,
            **same,
        )

    def faults(self, prefix: str = "--evaluation.", least: int = 1, multiple: int = 1) -> Iterator[str]:
        """What makes no sense, a line each; `least` and `multiple` as in `Protocol.faults`."""
        native = self.native_crop
        yield from fault_unless(native is None or native > 0, f"{prefix}native-crop", "must be more than 0", native)
        # The default window is the crop, which is checked by itself; a scale that follows from it is above 0.
        yield from self.resolve(least, multiple).faults(prefix, least, multiple)


def _positive(value: float) -> bool:
    """Which neither infinity is nor what is no number."""
    return 0 < value <= LARGEST


def side_faults(field: str, side: int, multiple: int, why: str = "") -> Iterator[str]:
    """The fault of a side in pixels that is no multiple, with the nearest ones, and `why` it must be one."""
    if side % multiple:
        lower = side // multiple * multiple
        near = f"{lower} or {lower + multiple}" if lower else f"{multiple}"
        yield f"{field}: {side} is not a multiple of {multiple}{why}; use {near}"
