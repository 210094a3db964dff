"""How strong views change colours, as fields of `Augmentation`."""

from typing import Any

UNIMATCH: dict[str, Any] = {
    "jitter": 0.8,
    "jitter_order": "random",
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.25,
    "gray": 0.2,
    "blur": 0.5,
    "sigma": (0.1, 2.0),
    "blur_radius": 6,
    "blur_last": True,
}
"""Colours of its strong views, FixMatch's and its successor's."""
CUTMIX_SEG: dict[str, Any] = {"jitter": 0.8, "jitter_order": "random", "gray": 0.2}
"""Colours of its strong views and those of Mean Teacher."""
SHAPES: dict[str, Any] = UNIMATCH | {"hue": 15 / 360, "gray": 0.0}
"""A class's hue is no accident there: figures are painted within 15 degrees or so of it, and the next class's is 60
degrees off; so strong views neither turn hues further nor lose them in grey."""
