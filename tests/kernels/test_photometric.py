import math
import sys

import pytest
import torch

from semiseg.kernels import photometric

MODULE = sys.modules["semiseg.kernels.photometric"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(params=["opencv", "torch"])
def library(request, monkeypatch):
    """Run a test with OpenCV, and again as if it were not installed."""
    if request.param == "torch":
        monkeypatch.setattr(MODULE, "cv2", None)
    elif MODULE.cv2 is None:
        pytest.skip("OpenCV is not installed")


def problem(batch=4, height=13, width=17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
    matrix = torch.eye(3, 4) + 0.2 * torch.randn(batch, 3, 4, generator=generator)
    matrix[:, :, 3] *= 60
    matrix[0] = torch.eye(3, 4)
    return images, matrix, torch.arange(batch) % 3 == 1


def by_loops(image, matrix, blur):
    """Grey levels (H, W, 3) of one image, in exact arithmetic but for the two roundings."""
    height, width, _ = image.shape
    levels = image.double()
    if blur:
        taps = [math.exp(-(offset**2) / (2 * 1.1**2)) for offset in range(-2, 3)]
        taps = [tap / sum(taps) for tap in taps]

        def mirrored(index, length):
            while length > 1 and not 0 <= index < length:
                index = -index if index < 0 else 2 * (length - 1) - index
            return index if length > 1 else 0

        rows = [[mirrored(y + offset, height) for offset in range(-2, 3)] for y in range(height)]
        columns = [[mirrored(x + offset, width) for offset in range(-2, 3)] for x in range(width)]
        levels = sum(tap * levels[[row[k] for row in rows]] for k, tap in enumerate(taps))
        levels = sum(tap * levels[:, [column[k] for column in columns]] for k, tap in enumerate(taps)).round()
    return (levels @ matrix[:, :3].double().T + matrix[:, 3].double()).round().clamp(0, 255)


def grey_levels(result):
    """Undo the normalisation: (B, 3, H, W) -> (B, H, W, 3) in 0..255."""
    return (result.double().permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)) * 255


@pytest.mark.parametrize("size", [(13, 17), (2, 5), (1, 1), (1, 7), (40, 3)])
@pytest.mark.usefixtures("library")
def test_within_one_grey_level_of_exact_arithmetic(size):
    images, matrix, blur = problem(4, *size)
    levels = grey_levels(photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32))
    for i in range(4):
        difference = (levels[i] - by_loops(images[i], matrix[i], blur[i])).abs()
        # A blurred level may be off by one before a colour matrix that stretches it.
        assert difference.max() <= (1 if not blur[i] else 1 + matrix[i, :, :3].abs().sum(1).max()) + 1e-3
        assert difference.mean() < 0.5


@pytest.mark.usefixtures("library")
def test_every_way_gives_the_same_bits_of_grey():
    images, matrix, blur = problem(5, 33, 29)
    ours = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32)
    exact = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float64)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("library")
def test_identity_only_normalises():
    images, _, _ = problem(3)
    result = photometric(
        images, torch.eye(3, 4).repeat(3, 1, 1), torch.zeros(3, dtype=torch.bool), MEAN, STD, dtype=torch.float32
    )
    expected = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.usefixtures("library")
def test_result_is_channels_last_of_the_wanted_dtype(dtype):
    images, matrix, blur = problem()
    result = photometric(images, matrix, blur, torch.tensor(MEAN), torch.tensor(STD), dtype=dtype)
    assert result.dtype == dtype
    assert result.shape == (4, 3, 13, 17)
    assert result.is_contiguous(memory_format=torch.channels_last)
    single = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32)
    assert torch.equal(result, single.to(dtype))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(threads):
    images, matrix, blur = problem(7)
    expected = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("library")
def test_strided_images_and_an_empty_batch():
    images, matrix, blur = problem()
    expected = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32)
    strided = images.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    assert torch.equal(photometric(strided, matrix, blur, MEAN, STD, dtype=torch.float32), expected)
    assert photometric(images[:0], matrix[:0], blur[:0], MEAN, STD, dtype=torch.float32).shape == (0, 3, 13, 17)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("images", torch.zeros(4, 3, 13, 17, dtype=torch.uint8), ValueError),
        ("images", torch.zeros(4, 13, 17, 3), TypeError),
        ("images", torch.zeros(4, 0, 17, 3, dtype=torch.uint8), ValueError),
        ("matrix", torch.zeros(4, 3, 3), ValueError),
        ("blur", torch.zeros(4), TypeError),
        ("mean", (0.5, 0.5), ValueError),
        ("std", torch.ones(4), ValueError),
        ("dtype", torch.uint8, TypeError),
    ],
)
def test_wrong_arguments_are_named(name, value, error):
    images, matrix, blur = problem()
    arguments = {"images": images, "matrix": matrix, "blur": blur, "mean": MEAN, "std": STD, "dtype": torch.float32}
    with pytest.raises(error, match=name):
        photometric(**(arguments | {name: value}))
