"""What images take of the memory while a network looks at them, and what is said where that is more than is free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ...pipelines.memory import GIB
from ..device import LOW, Precision
from ..memory import free_memory_of, within_memory
from ..protocol import Protocol

ACTIVATIONS = {256: 200, 1: 100}
"""Bytes that the smallest network with a head of so many channels, or more, needs for each pixel that it sees at once,
in float32."""
PIXELS = 2**24
"""Those of images that are evaluated at once, at most, unless one image has more."""
GROUPS = 4
"""Further groups that are decoded in advance, at most, together of no more pixels than so many full ones."""


def group_size(batch: int, pixels: int) -> int:
    """How many images of so many pixels each are evaluated together, where `batch` are asked for."""
    return max(min(batch, PIXELS // pixels), 1)


def groups_ahead(pixels: int) -> int:
    """How many further groups of so many pixels are decoded meanwhile."""
    return min(GROUPS, GROUPS * PIXELS // pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What images of one size need of the memory before a network."""

    height: int
    width: int
    classes: int
    head_width: int
    """The network's."""
    precision: Precision
    images: int = 1
    """How many there are, of which `group_size` are looked at together."""
    counted: bool = False
    """Whether labels are only counted, as `confusion` does."""
    full: bool = False
    """Whether full-size logits are made in any case, as exported programs do, and for probabilities."""

    def least(self, protocol: Protocol) -> int:
        """Bytes that a protocol needs at the least: the images and those that are decoded beside, the argmax in uint8
        and two maps in float32 (or it in int64, before) unless it is counted, full-size logits where they are made, and
        what the network makes of all that it sees at once."""
        pixels, scales = self.height * self.width, protocol.scales_of(self.height, self.width)
        convention, window = protocol.convention, protocol.window
        each = next(size for width, size in ACTIVATIONS.items() if self.head_width >= width)
        each //= 2 if self.precision.name in LOW else 1
        spared = not self.full and len(scales) == 1
        if convention.sides == "resized":
            fits = self.height % protocol.multiple == 0 and self.width % protocol.multiple == 0
            spared = spared and fits and scales == (1.0,)
        seen = 0
        for scale in scales:
            height, width = round(self.height * scale), round(self.width * scale)
            if not convention.windows:
                seen = max(seen, height * width * each)
                continue
            whole = max((height // window) * (width // window), 1)
            spared = spared and whole == 1 and scale == 1
            if convention.ragged:
                shown = min(height, window) * min(width, window)
            else:
                height, width, shown = max(height, window), max(width, window), window**2
            summed = 0 if spared else 4 * self.classes * height * width
            seen = max(seen, 12 * height * width + max(summed, shown * min(whole, protocol.batch) * each))
        if spared:
            logits = 0 if self.counted else 5 * pixels
        else:
            logits = (4 * self.classes + 9) * pixels
        group = min(self.images, group_size(protocol.batch, pixels))
        decoded = self.counted and self.precision.device.type == "cpu"
        beside = 4 * pixels * min(self.images - group, group * groups_ahead(group * pixels)) if decoded else 0
        at_once = 1 if convention.windows else group
        return 12 * pixels * group + at_once * max(logits, seen) + beside

    def cures(self, protocol: Protocol, free: int | None, prefix: str = "--") -> list[str]:
        """The flags, whose names begin with `prefix`, of which each alone may make it fit."""
        unscaled = replace(protocol, scale=1.0, long_side=None)
        (base,) = replace(protocol, scales=(1.0,)).scales_of(self.height, self.width)
        windows = protocol.convention.windows
        options = (
            (base > 1, unscaled, f"a smaller {prefix}scale"),
            (max(protocol.scales) > 1, replace(protocol, scales=(1.0,)), f"smaller {prefix}scales"),
            (windows, replace(protocol, window=1), f"a smaller {prefix}window"),
            (not windows, replace(protocol, name="slide"), f"{prefix}protocol slide {prefix}window {protocol.window}"),
            (self.images > 1, replace(protocol, batch=1), f"{prefix}batch 1"),
        )
        return [said for open, other, said in options if open and (free is None or self.least(other) <= free)]


@contextmanager
def room_for(need: MemoryNeed, protocol: Protocol, what: str, otherwise: str, prefix: str = "--") -> Iterator[None]:
    """Raises UsageError where memory does not do: at once, where less is free than a protocol needs at the least, and
    for what runs out of it inside. what: the beginning of its line, before the protocol. otherwise: the cure that is
    no flag. prefix: as in `MemoryNeed.cures`."""
    needed = need.least(protocol)
    free = free_memory_of(need.precision.device, enough=needed)

    def said() -> str:
        room = "" if free is None else f" where {free / GIB:.1f} are free"
        cures = [f"pass {', '.join(flags)}"] if (flags := need.cures(protocol, free, prefix)) else []
        cure = ", or ".join([*cures, otherwise])
        return f"{what} {protocol} needs more than {needed / GIB:.1f} GiB of memory{room}; {cure}"

    with within_memory(said):
        if free is not None and needed > free:
            raise MemoryError
        yield
