"""Windows out of decoded images at a scale of their own each, resampled with an antialiased cubic, padded and flipped.

    pytest benchmarks/bench_cut_windows.py [-k voc] [--compiled] [--rounds N]

`plain` resizes whole images, one after the other, and cuts, as programs of torchvision's transforms do.
"""

import pytest
import torch
import torch.nn.functional as F

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference
from semiseg.kernels.cut_windows import COLUMNS

SIZES = {
    "voc": {"batch": 16, "image": (375, 500), "crop": 320, "scales": (0.5, 2.0)},
    "cityscapes": {"batch": 16, "image": (1024, 2048), "crop": 720, "scales": (0.5, 2.0)},
}


def inputs(batch, image, crop, scales, dtype, device):
    """Images of one size, windows at scales evenly spread, each anywhere in its image, every other one flipped."""
    (height, width), rows = image, []
    for number, scale in enumerate(torch.linspace(*scales, batch).tolist()):
        step = round(1024 / scale)
        resized = [length * 1024 // step for length in image]
        seen = [min(crop, length) for length in resized]
        offset = [int(torch.randint(length - shown + 1, ())) for length, shown in zip(resized, seen)]
        pad = [int(torch.randint(crop - shown + 1, ())) for shown in seen]
        place = (number * height * width * 3, width, 0, 0, height, width, step, *offset, *seen, *pad, number % 2)
        rows.append(dict(zip(COLUMNS, place)))
    return {
        "pixels": torch.randint(256, (batch * height * width * 3,), dtype=torch.uint8, device=device),
        "places": torch.tensor([list(row.values()) for row in rows], device=device),
        "rows": rows,
        "size": crop,
    }


def plain(pixels, places, rows, size):
    return torch.stack([plain_window(pixels, row, size) for row in rows])


def plain_window(pixels, row, size):
    y, x, height, width = (row[name] for name in ("offset_y", "offset_x", "height", "width"))
    image = pixels[row["start"] :][: row["source_height"] * row["stride"] * 3].view(-1, row["stride"], 3)
    levels = image.permute(2, 0, 1)[None].float()
    scale = {"scale_factor": 1024 / row["step"], "recompute_scale_factor": False}
    resized = F.interpolate(levels, **scale, mode="bicubic", antialias=True)[0, :, y : y + height, x : x + width]
    window = resized.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    below, right = size - row["pad_y"] - height, size - row["pad_x"] - width
    window = F.pad(window, (0, 0, row["pad_x"], right, row["pad_y"], below))
    return window.flip(1) if row["flip"] else window


def fused(pixels, places, rows, size):
    return kernels.cut_windows(pixels, places, size)


def exact(pixels, places, rows, size):
    return reference.cut_windows(pixels, places, size)


def work(backward, pixels, places, rows, size):
    """What is seen is read, the windows are written."""
    read = sum(row["height"] * row["width"] * (row["step"] / 1024) ** 2 for row in rows)
    return 3 * (read + len(rows) * size**2)


CUT_WINDOWS = Operator(
    name="cut_windows",
    sizes=SIZES,
    cpu_sizes=("voc",),
    tiny={"batch": 3, "image": (17, 23), "crop": 16, "scales": (0.5, 2.0)},
    inputs=inputs,
    providers={"plain": plain, "fused": fused},
    exact=exact,
    work=work,
    unit="GB/s",
    autocast=False,
)


@pytest.mark.operator(CUT_WINDOWS)
def bench_cut_windows(measure, case):
    measure(case)
