import math

import pytest
import torch

from interpreter import INTERPRETED
from semiseg.kernels import photometric
from semiseg.kernels.cpu import photometric as cpu
from semiseg.kernels.reference.photometric import gaussian_blur, gaussian_taps, recolour

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(params=["opencv", "torch"])
def library(request, device, monkeypatch):
    """Run a test with OpenCV, and again as if it were not installed."""
    if request.param == "torch":
        if device.type != "cpu" or INTERPRETED:
            pytest.skip("the kernel uses neither")
        monkeypatch.setattr(cpu, "cv2", None)
    elif cpu.cv2 is None:
        pytest.skip("OpenCV is not installed")


def problem(device, batch=4, height=13, width=17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
    matrix = torch.eye(3, 4) + 0.2 * torch.randn(batch, 3, 4, generator=generator)
    matrix[:, :, 3] *= 60
    matrix[0] = torch.eye(3, 4)
    return images.to(device), matrix.to(device), (torch.arange(batch) % 3 == 1).to(device)


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
    """Undo the normalisation: (B, 3, H, W) -> (B, H, W, 3) in 0..255, on the CPU."""
    return (result.double().cpu().permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)) * 255


@pytest.mark.parametrize("factors", [(0.5, 0.5, 0.5), (1.5, 1.1, 0.3), (1.0, 1.0, 1.0), (0.0, 2.0, -1.0)])
@pytest.mark.parametrize("other", [0.0, 1e-8, -1e-5])
@pytest.mark.usefixtures("library")
def test_brightness_and_contrast_alone_are_fixed_point_too(factors, other, device):
    """Of every level, by matrices in which no channel depends on another, or so little that it rounds to nothing."""
    images = torch.arange(256, dtype=torch.uint8).expand(3, 1, 2, 256).permute(1, 2, 3, 0)
    matrix = torch.cat([torch.diag(torch.tensor(factors)), torch.tensor([[0.0], [40.5], [200.0]])], 1)[None]
    matrix[0, 2, 0] = other
    expected = [
        (round(f * 1024) * images[..., k].int() + round(o * 1024) + 512) >> 10
        for k, (f, o) in enumerate(zip(factors, matrix[0, :, 3].tolist()))
    ]
    ours = photometric(images.to(device), matrix.to(device), torch.zeros(1, dtype=torch.bool, device=device), MEAN, STD)
    assert torch.equal(grey_levels(ours).round().int(), torch.stack(expected, -1).clamp(0, 255))


SIZES = [(13, 17), (2, 5), (1, 1), (1, 7), (40, 3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("library")
def test_within_one_grey_level_of_exact_arithmetic(size, device):
    images, matrix, blur = problem(device, 4, *size)
    levels = grey_levels(photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32))
    images, matrix, blur = images.cpu(), matrix.cpu(), blur.cpu()
    for i in range(4):
        difference = (levels[i] - by_loops(images[i], matrix[i], blur[i])).abs()
        # A blurred level may be off by one before a colour matrix that stretches it.
        assert difference.max() <= (1 if not blur[i] else 1 + matrix[i, :, :3].abs().sum(1).max()) + 1e-3
        assert difference.mean() < 0.5


@pytest.mark.parametrize("size", [*SIZES, (33, 37)])
@pytest.mark.usefixtures("library")
def test_every_way_gives_the_same_grey_levels(size, device):
    images, matrix, blur = problem(device, 2, *size)
    ours = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32)
    blurred = gaussian_blur(images.int(), 1.1 * blur, 2)
    assert torch.equal(grey_levels(ours).round().int(), recolour(blurred, matrix).cpu())
    exact = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float64)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)


def taps_by_loops(sigma, radius):
    """The Gaussian in 1/256, rounded from the far end on with what was left over, as OpenCV does."""
    exact = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-radius, radius + 1)]
    taps, rest = [], 0.0
    for tap in exact[:radius]:
        wanted = 256 * tap / sum(exact) + rest
        taps.append(round(wanted))
        rest = wanted - taps[-1]
    return [*taps, 256 - 2 * sum(taps), *taps[::-1]]


def blurred_by_loops(levels, sigma, radius):
    """Grey levels (H, W, 3) float64, blurred along both sides by mirrored rows and columns, rounded once."""
    for dim in (0, 1):
        length = levels.shape[dim]
        mirrored = list(range(length)) + list(range(length - 2, 0, -1))
        levels = sum(
            tap
            * levels.index_select(dim, torch.tensor([mirrored[(i + offset) % len(mirrored)] for i in range(length)]))
            for offset, tap in zip(range(-radius, radius + 1), taps_by_loops(sigma, radius))
        )
    return (levels / 2**16 + 0.5).floor()


def test_taps_are_those_of_opencv() -> None:
    deviations = torch.linspace(0.1, 4, 200)
    for radius in (1, 2, 6):
        taps = gaussian_taps(deviations, radius)
        for ours, sigma in zip(taps.tolist(), deviations.tolist()):
            assert ours == taps_by_loops(sigma, radius)[radius:]
    assert gaussian_taps(torch.zeros(1), 6).tolist() == [[256, 0, 0, 0, 0, 0, 0]]
    assert gaussian_taps(torch.tensor([1.1]), 2).tolist() == [[94, 63, 18]]


@pytest.mark.parametrize(("radius", "blur_last"), [(6, True), (6, False), (1, True)])
@pytest.mark.parametrize("size", [(18, 17), (1, 7)])
@pytest.mark.usefixtures("library")
def test_every_image_has_its_own_blur_before_or_after_colours(size, blur_last, radius, device):
    images, matrix, _ = problem(device, 4, *size)
    blur, sigma = torch.tensor([True, True, False, True]), torch.tensor([0.1, 0.7, 1.5, 2.0])
    ours = grey_levels(
        photometric(
            images, matrix, blur.to(device), MEAN, STD, sigma=sigma.to(device), radius=radius, blur_last=blur_last
        )
    )
    for i in range(4):
        levels = images[i].cpu().double()
        for step in ("colour", "blur") if blur_last else ("blur", "colour"):
            if step == "colour":
                levels = recolour(levels[None].int(), matrix[i : i + 1].cpu())[0].double()
            elif blur[i]:
                levels = blurred_by_loops(levels, sigma[i].item(), radius)
        assert torch.equal(ours[i].round(), levels)


@pytest.mark.usefixtures("library")
def test_one_sigma_serves_all_images(device):
    images, matrix, blur = problem(device)
    one = photometric(images, matrix, blur, MEAN, STD, sigma=0.8, radius=3)
    several = photometric(images, matrix, blur, MEAN, STD, sigma=torch.full((4,), 0.8, device=device), radius=3)
    assert torch.equal(one, several)
    assert not torch.equal(one, photometric(images, matrix, blur, MEAN, STD, radius=3))


@pytest.mark.parametrize("blur_last", [False, True])
@pytest.mark.usefixtures("library")
def test_a_sigma_that_is_not_above_0_blurs_nothing(blur_last, device):
    images, matrix, _ = problem(device, 5)
    sigma = torch.tensor([0.0, -1.0, math.nan, math.nan, 0.8], device=device)
    blur = torch.tensor([True, True, True, False, True], device=device)
    sharp = torch.tensor([False, False, False, False, True], device=device)
    for precision in (torch.float32, torch.float64):
        options = {"radius": 3, "blur_last": blur_last, "dtype": precision}
        ours = photometric(images, matrix, blur, MEAN, STD, sigma=sigma, **options)
        assert torch.equal(ours, photometric(images, matrix, sharp, MEAN, STD, sigma=0.8, **options))


@pytest.mark.usefixtures("library")
def test_halves_of_coefficients_round_alike(device):
    """Coefficients between two multiples of 1/1024 decide a level where three of them meet a bright pixel."""
    images = torch.full((64, 1, 4, 3), 255, dtype=torch.uint8, device=device)
    matrix = ((torch.arange(64 * 12) - 384.5) / 1024).view(64, 3, 4).to(device)
    blur = torch.zeros(64, dtype=torch.bool, device=device)
    ours = photometric(images, matrix, blur, MEAN, STD)
    assert torch.equal(grey_levels(ours).round().int(), recolour(images.int(), matrix).cpu())


@pytest.mark.usefixtures("library")
def test_identity_only_normalises(device):
    images, _, _ = problem(device, 3)
    matrix, blur = torch.eye(3, 4, device=device).repeat(3, 1, 1), torch.zeros(3, dtype=torch.bool, device=device)
    mean, std = torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)
    expected = (images.permute(0, 3, 1, 2) / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(photometric(images, matrix, blur, MEAN, STD), expected)


@pytest.mark.usefixtures("library")
def test_result_is_channels_last_of_the_wanted_dtype(device, dtype):
    images, matrix, blur = problem(device)
    mean, std = torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)
    result = photometric(images, matrix, blur, mean, std, dtype=dtype)
    assert result.dtype == dtype
    assert result.shape == (4, 3, 13, 17)
    assert result.is_contiguous(memory_format=torch.channels_last)
    single = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32)
    assert torch.equal(result, single.to(dtype))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("cpu_implementation")
def test_the_number_of_threads_changes_nothing(threads):
    images, matrix, blur = problem("cpu", 7)
    expected = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("library")
def test_strided_images_and_an_empty_batch(device):
    images, matrix, blur = problem(device)
    expected = photometric(images, matrix, blur, MEAN, STD, dtype=torch.float32)
    strided = images.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    columns = matrix.mT.contiguous().mT
    assert torch.equal(photometric(strided, columns, blur, MEAN, STD, dtype=torch.float32), expected)
    assert photometric(images[:0], matrix[:0], blur[:0], MEAN, STD, dtype=torch.float32).shape == (0, 3, 13, 17)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_nothing_is_differentiated(precision, device):
    images, matrix, blur = problem(device)
    learnt = [torch.tensor(values, device=device, requires_grad=True) for values in (MEAN, STD)]
    assert not photometric(images, matrix.requires_grad_(), blur, *learnt, dtype=precision).requires_grad


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("images", torch.zeros(4, 3, 13, 17, dtype=torch.uint8), ValueError),
        ("images", torch.zeros(4, 13, 17, 3), TypeError),
        ("images", torch.zeros(4, 0, 17, 3, dtype=torch.uint8), ValueError),
        ("matrix", torch.zeros(4, 3, 3), ValueError),
        ("blur", torch.zeros(4), TypeError),
        ("sigma", 0.0, ValueError),
        ("sigma", torch.ones(3), ValueError),
        ("sigma", None, TypeError),
        ("blur_last", None, TypeError),
        ("mean", "abc", TypeError),
        ("std", (None, 1, 1), TypeError),
        ("sigma", torch.ones(4, dtype=torch.int32), TypeError),
        ("radius", 0, ValueError),
        ("radius", 31, ValueError),
        ("radius", 2.5, TypeError),
        ("mean", (0.5, 0.5), ValueError),
        ("mean", 0.5, TypeError),
        ("std", torch.ones(4), ValueError),
        ("dtype", torch.uint8, TypeError),
    ],
)
def test_wrong_arguments_are_named(name, value, error):
    images, matrix, blur = problem("cpu")
    arguments = {"images": images, "matrix": matrix, "blur": blur, "mean": MEAN, "std": STD, "dtype": torch.float32}
    with pytest.raises(error, match=name):
        photometric(**(arguments | {name: value}))
