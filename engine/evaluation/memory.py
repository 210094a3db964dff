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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Images of one size before a network."""

    height: int
    width: int
    classes: int
    head_width: int
    """The network's."""
    precision: Precision
    together: int = 1
    """Images that share a batch where it has room for them."""
    counted: bool = False
    """Whether labels are only counted, as `confusion` does, which spares full-size logits where it can."""

    def least(self, protocol: Protocol) -> int:
        """Bytes that a protocol needs at the least: the images, full-size logits, their argmax in uint8 and two maps in
        float32 (or it in int64, before), and what the network makes of all that it sees at once."""
        pixels, scales = self.height * self.width, protocol.scales_of(self.height, self.width)
        convention, window = protocol.convention, protocol.window
        each = next(size for width, size in ACTIVATIONS.items() if self.head_width >= width)
        each //= 2 if self.precision.name in LOW else 1
        spared = self.counted and len(scales) == 1
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
        logits = 0 if spared else pixels * (4 * self.classes + 9)
        together = 1 if convention.windows else min(self.together, protocol.batch)
        return together * (12 * pixels + max(logits, seen))

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
            (self.together > 1, replace(protocol, batch=1), f"{prefix}batch 1"),
        )
        return [said for open, other, said in options if open and (free is None or self.least(other) <= free)]


@contextmanager
def room_for(sight: Sight, protocol: Protocol, what: str, otherwise: str, prefix: str = "--") -> Iterator[None]:
    """Raises UsageError where memory does not do: at once, where less is free than a protocol needs at the least, and
    for what runs out of it inside. what: the beginning of its line, before the protocol. otherwise: the cure that is
    no flag. prefix: as in `Sight.cures`."""
    needed, free = sight.least(protocol), free_memory_of(sight.precision.device)

    def said() -> str:
        room = "" if free is None else f" where {free / GIB:.1f} are free"
        cures = [f"pass {', '.join(flags)}"] if (flags := sight.cures(protocol, free, prefix)) else []
        cure = ", or ".join([*cures, otherwise])
        return f"{what} {protocol} needs more than {needed / GIB:.1f} GiB of memory{room}; {cure}"

    with within_memory(said):
        if free is not None and needed > free:
            raise MemoryError
        yield
