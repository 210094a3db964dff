"""Windows of decoded images: against OpenCV and torch's antialiasing resizers, and against the definition."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interpreter import INTERPRETED
from semiseg import kernels
from semiseg.kernels import _dispatch, reference
from semiseg.kernels.cut_windows import COLUMNS, FILTERS

DENOMINATOR = 1024
RESIZERS = {"cubic": torch.ops.aten._upsample_bicubic2d_aa, "antialiased": torch.ops.aten._upsample_bilinear2d_aa}


def image(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def place_of(height: int, width: int, step: int, /, start: int = 0, size: int = 64, **own: int) -> dict[str, int]:
    """The whole image, resampled, with its corner in the window's; with some fields of its own."""
    rows, columns = height * DENOMINATOR // step, width * DENOMINATOR // step
    whole = {"start": start, "stride": width, "origin_y": 0, "origin_x": 0, "step": step, "flip": 0}
    whole |= {"source_height": -(-rows * step // DENOMINATOR), "source_width": -(-columns * step // DENOMINATOR)}
    whole |= {"offset_y": 0, "offset_x": 0, "height": min(rows, size), "width": min(columns, size)}
    return whole | {"pad_y": 0, "pad_x": 0} | own


def cut(images, places, device, size=64, implementation=kernels.cut_windows, **options) -> np.ndarray:
    pixels = torch.from_numpy(np.concatenate([one.reshape(-1) for one in images])).to(device)
    rows = torch.tensor([[place[name] for name in COLUMNS] for place in places], device=device)
    return implementation(pixels, rows, size, **options).cpu().numpy()


def far(ours, other) -> np.ndarray:
    return np.abs(ours.astype(int) - other.astype(int))


@pytest.mark.parametrize("step", [300, 1000, 1024, 1536, 2500])
@pytest.mark.parametrize("filter", ["linear", "antialiased", "cubic"])
def test_regions_are_those_of_opencv_and_torch(device, filter, step):
    """To the rounding: torch rounds rows before columns, and weights to 1/65536 at most."""
    photo = cv2.GaussianBlur(image(47, 61), (0, 0), 2)
    place = place_of(47, 61, step)
    ours = cut([photo], [place], device, filter=filter)[0]
    rows, columns = 47 * DENOMINATOR // step, 61 * DENOMINATOR // step
    source = np.ascontiguousarray(photo[: place["source_height"], : place["source_width"]])
    if filter == "linear":
        scale = step / DENOMINATOR
        affine = np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        theirs = cv2.warpAffine(source, affine, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    else:
        tensor = torch.from_numpy(source)[None].permute(0, 3, 1, 2)
        scaled = RESIZERS[filter](tensor, [rows, columns], False, DENOMINATOR / step, DENOMINATOR / step)
        theirs = scaled[0].permute(1, 2, 0).numpy()
    seen = theirs[: place["height"], : place["width"]]
    difference = far(ours[: len(seen), : seen.shape[1]], seen)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= (0.25 if filter != "linear" else 1e-3)
    assert not ours[len(seen) :].any()
    assert not ours[:, seen.shape[1] :].any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filter", FILTERS)
def test_windows_are_those_of_the_definition(device, filter, channels):
    images = [image(47, 61, 1, channels), image(30, 20, 2, channels), image(5, 3, 3, channels)]
    starts = np.cumsum([0, *(one.size for one in images)])
    places = [
        place_of(47, 61, 900, offset_y=3, offset_x=5, height=40, width=39, size=40),
        place_of(47, 61, 1777, origin_y=4, origin_x=7, source_height=40, source_width=50, size=40)
        | {"height": 20, "width": 25, "pad_y": 7, "pad_x": 9, "flip": 1},
        place_of(30, 20, 1024, start=int(starts[1]), size=40, pad_x=11, flip=1),
        place_of(5, 3, 200, start=int(starts[2]), size=40, height=17, width=13, pad_y=20),
        place_of(5, 3, 1024, start=int(starts[2]), size=40, height=0, width=0),
    ]
    options = {"channels": channels, "filter": filter, "fill": (124, 116, 104)}
    ours = cut(images, places, device, 40, **options)
    exact = cut(images, places, torch.device("cpu"), 40, reference.cut_windows, **options)
    assert ours.shape == ((5, 40, 40, 3) if channels == 3 else (5, 40, 40))
    difference = far(ours, exact)
    assert difference.max() <= (0 if filter == "nearest" else 1)
    assert (difference > 0).mean() < 1e-3
    assert (exact[4].reshape(-1, channels) == options["fill"][:channels]).all()


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    step=st.integers(60, 5000),
    seed=st.integers(0, 99),
    flip=st.integers(0, 1),
    pad=st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
def test_labels_are_the_source_pixel_that_holds_the_centre(device, height, width, step, seed, flip, pad):
    """floor((i + 1/2) step / 1024), in integers."""
    mask, (top, left) = image(height, width, seed, 1), pad
    rows, columns = min(height * DENOMINATOR // step, 20), min(width * DENOMINATOR // step, 20)
    place = place_of(height, width, step, size=28, height=rows, width=columns, pad_y=top, pad_x=left, flip=flip)
    ours = cut([mask], [place], device, 28, channels=1, filter="nearest", fill=(255, 0, 0))[0]
    expected = np.full((28, 28), 255, np.uint8)
    at = [(2 * np.arange(count) + 1) * step // (2 * DENOMINATOR) for count in (rows, columns)]
    expected[top : top + rows, left : left + columns] = mask[at[0]][:, at[1]]
    assert np.array_equal(ours, expected[:, ::-1] if flip else expected)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"start": 1 << 33}, 0),
        ({"start": -1 << 33}, 0),
        ({"start": 1}, 15),
        ({"source_height": 5, "offset_y": 1}, 12),
        ({"source_width": -1}, 16),
        ({"pad_y": 1}, 12),
        ({"pad_x": -1}, 12),
        ({"height": 5}, 16),
        ({"source_height": 2}, 16),
        ({"offset_x": 2}, 14),
    ],
)
def test_a_row_that_leaves_pixels_or_the_window(change, seen, device, monkeypatch):
    """The kernel, whose indices are of 64 bits, reads 0 there, or elsewhere; where the host may wait, it raises."""
    pixels = torch.full((48,), 7, dtype=torch.uint8, device=device)
    place = place_of(4, 4, 1024, size=4)
    rows = torch.tensor([[one[name] for name in COLUMNS] for one in (place, place | change)], device=device)
    if INTERPRETED or device.type == "cuda":
        inside, outside = kernels.cut_windows(pixels, rows, 4, filter="nearest")
        assert (inside == 7).all()
        assert (outside == 7).all(2).sum() == seen
        monkeypatch.setattr(_dispatch, "DEBUG", True)
    with pytest.raises(ValueError, match=r"places leave pixels of 48 bytes, .* or windows of 4 in row 1: start"):
        kernels.cut_windows(pixels, rows, 4, filter="nearest")


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")
@pytest.mark.parametrize("filter", FILTERS)
def test_a_window_that_is_seen_beyond_its_region(filter, device, monkeypatch):
    """Where the host does not wait for values, what is seen of the region stays as it is."""
    place = place_of(4, 4, 1024, size=9, height=9, width=9)
    if INTERPRETED or device.type == "cuda":
        window = cut([image(4, 4)], [place], device, 9, filter=filter)[0]
        assert np.array_equal(window[:4, :4], image(4, 4))
        monkeypatch.setattr(_dispatch, "DEBUG", True)
    with pytest.raises(ValueError, match="their regions"):
        cut([image(4, 4)], [place], device, 9, filter=filter)


@pytest.mark.parametrize(("step", "seen"), [(1024, 4), (512, 8), (2048, 2), (2050, 2), (3000, 1), (1000, 4)])
def test_as_many_pixels_are_seen_as_have_their_centres_in_the_region(step, seen, device, monkeypatch):
    monkeypatch.setattr(_dispatch, "DEBUG", True)
    whole = {"source_height": 4, "source_width": 4}
    cut([image(4, 4)], [place_of(4, 4, step, height=seen, width=seen, **whole)], device, 9)
    for more in ({"height": seen + 1, "width": seen}, {"height": seen, "width": seen + 1}):
        with pytest.raises(ValueError, match="their regions"):
            cut([image(4, 4)], [place_of(4, 4, step, **more, **whole)], device, 9)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"pixels": torch.zeros(9)}, TypeError, "pixels must be one of torch.uint8"),
        ({"places": torch.zeros(2, 13, dtype=torch.int64)}, ValueError, r"places must have shape \(\*, 14\)"),
        ({"places": torch.zeros(2, 14, dtype=torch.int32)}, TypeError, "places must be one of torch.int64"),
        ({"size": 0}, ValueError, "size must be at least 1, not 0"),
        ({"size": (4, 4)}, TypeError, r"size must be an integer, not \(4, 4\)"),
        ({"channels": 3.0}, TypeError, "channels must be an integer, not 3.0"),
        ({"fill": 0}, TypeError, "fill must be three grey levels"),
        ({"channels": 2}, ValueError, "channels must be 1 or 3, not 2"),
        ({"filter": "area"}, ValueError, "filter must be one of nearest, linear, antialiased, cubic, not 'area'"),
        ({"fill": (0, 0)}, ValueError, "fill must be three grey levels"),
        ({"fill": (0, 0, 256)}, ValueError, "fill must be three grey levels"),
        ({"fill": (127.5, 0, 0)}, TypeError, "fill must be an integer, not 127.5"),
        ({"fill": ("a", 0, 0)}, TypeError, "fill must be an integer, not 'a'"),
    ],
)
def test_wrong_arguments_are_named(changes, error, says):
    arguments = {
        "pixels": torch.zeros(9, dtype=torch.uint8),
        "places": torch.zeros(2, 14, dtype=torch.int64),
        "size": 4,
    }
    with pytest.raises(error, match=says):
        kernels.cut_windows(**arguments | changes)


def test_no_windows_are_none(device):
    pixels, places = (
        torch.zeros(9, dtype=torch.uint8, device=device),
        torch.zeros(0, 14, dtype=torch.int64, device=device),
    )
    assert kernels.cut_windows(pixels, places, 5).shape == (0, 5, 5, 3)
    assert kernels.cut_windows(pixels, places, 5, channels=1).shape == (0, 5, 5)
