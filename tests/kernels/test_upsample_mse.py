import pytest
import torch
import torch.nn.functional as F

from semiseg.kernels import upsample_mse
from semiseg.kernels.check import refusing

SHAPES = {
    "aligned": {"low": (5, 9), "full": (17, 33)},
    "ragged": {"low": (5, 11), "full": (37, 29)},
    "identity": {"low": (12, 16), "full": (12, 16)},
    "smaller": {"low": (16, 12), "full": (5, 7)},
    "one low pixel": {"low": (1, 1), "full": (4, 3)},
    "one class": {"classes": 1},
}


def problem(batch=2, classes=3, low=(4, 5), full=(11, 14), dtype=torch.float32, seed=0, device="cpu"):
    """Logits, a teacher's, another's, boxes (one of them empty), weights and the size."""
    generator = torch.Generator().manual_seed(seed)
    logits = [3 * torch.randn(batch, classes, *low, generator=generator, dtype=torch.float64) for _ in range(3)]
    boxes = torch.tensor([[[1, 2, full[0] // 2 + 1, full[1] - 1]], [[0, 0, 0, 0]]])[:batch]
    weight = torch.rand(batch, *full, generator=generator)
    weight[:, :2] = 0
    return [one.to(device, dtype) for one in logits], boxes.to(device), weight.to(device), full


def by_torch(logits, teacher, size, other=None, boxes=None, pixel_weight=None, normalizer=None, align_corners=True):
    def probabilities(one):
        return F.interpolate(one, size, mode="bilinear", align_corners=align_corners).softmax(1)

    wanted = probabilities(teacher).clone()
    if other is not None:
        for image, (y0, x0, y1, x1) in enumerate(boxes[:, 0].tolist()):
            wanted[image, :, y0:y1, x0:x1] = probabilities(other)[image, :, y0:y1, x0:x1]
    errors = ((probabilities(logits) - wanted) ** 2).sum(1)
    if pixel_weight is not None:
        errors = errors * pixel_weight.to(errors.dtype)
    return errors.sum() / (errors.numel() if normalizer is None else max(float(normalizer), 1))


def run(function, logits, *arguments, **options):
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = function(logits, *arguments, **options)
    (3 * loss).backward()
    return loss.detach(), logits.grad


def check(no_worse, logits, teacher, size, **options):
    ours = run(upsample_mse, logits, teacher, size, **options)
    plain = run(by_torch, logits, teacher, size, **options)
    exact = {key: value.double() if key == "other" else value for key, value in options.items()}
    exact = run(by_torch, logits.double(), teacher.double(), size, **exact)
    assert (ours[0].dtype, ours[1].dtype) == (torch.float32, logits.dtype)
    for triple in zip(ours, plain, exact):
        no_worse(*triple)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("refused", [(), ("upsample_mse",)])
def test_weights_may_come_from_inference(refused, dtype, device):
    """As the confidence of a teacher does, also where the definition serves."""
    (logits, teacher, _), _, weight, size = problem(dtype=dtype, device=device)
    weight = weight.to(dtype)
    with torch.inference_mode():
        inferred = weight.clone()
    with refusing(refused):
        for one, other in zip(*(run(upsample_mse, logits, teacher, size, pixel_weight=w) for w in (weight, inferred))):
            exact = {} if device.type == "cuda" else {"rtol": 0, "atol": 0}  # a GPU adds in any order
            torch.testing.assert_close(one, other, **exact)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_error_and_gradient(shape, align_corners, device, no_worse):
    (logits, teacher, _), _, _, full = problem(**SHAPES[shape], device=device)
    check(no_worse, logits, teacher, full, align_corners=align_corners)


@pytest.mark.parametrize("shape", ["aligned", "ragged"])
def test_a_mixed_teacher_with_weights_and_a_normalizer(shape, device, no_worse):
    (logits, teacher, other), boxes, weight, full = problem(**SHAPES[shape], device=device)
    options = {"other": other, "boxes": boxes, "normalizer": torch.tensor(77, device=device)}
    check(no_worse, logits, teacher, full, pixel_weight=weight, **options)
    check(no_worse, logits, teacher, full, pixel_weight=weight > 0.4, **options)


@pytest.mark.usefixtures("small_tiles")
def test_many_tiles(no_worse):
    (logits, teacher, other), boxes, weight, full = problem(low=(20, 23), full=(61, 83))
    check(no_worse, logits, teacher, full, other=other, boxes=boxes, pixel_weight=weight)


@pytest.mark.parametrize("shape", ["aligned", "ragged"])
def test_every_precision_of_logits(shape, dtype, device, no_worse):
    (logits, teacher, other), boxes, _, full = problem(**SHAPES[shape], dtype=dtype, device=device)
    check(no_worse, logits, teacher, full, other=other, boxes=boxes)


@pytest.mark.parametrize("shape", ["aligned", "ragged", "smaller"])
def test_double_precision_is_the_definition(shape, device):
    (logits, teacher, other), boxes, weight, full = problem(**SHAPES[shape], dtype=torch.float64, device=device)
    options = {"other": other, "boxes": boxes, "pixel_weight": weight}
    ours, exact = (run(one, logits, teacher, full, **options) for one in (upsample_mse, by_torch))
    for one, true in zip(ours, exact):
        torch.testing.assert_close(one, true, rtol=1e-12, atol=1e-14)


def test_equal_logits_have_no_error_and_no_gradient(device):
    (logits, *_), _, _, full = problem(device=device)
    loss, gradient = run(upsample_mse, logits, logits, full)
    assert loss < 1e-12
    assert gradient.abs().max() < 1e-6


def test_a_normalizer_of_no_pixels_gives_zero_with_zero_gradient(device):
    (logits, teacher, _), _, weight, full = problem(device=device)
    nothing = {"pixel_weight": torch.zeros_like(weight), "normalizer": torch.tensor(0, device=device)}
    loss, gradient = run(upsample_mse, logits, teacher, full, **nothing)
    assert loss == 0
    assert not gradient.any()


def test_the_teacher_takes_no_gradient(device):
    (logits, teacher, other), boxes, _, full = problem(device=device)
    logits, teacher, other = (one.requires_grad_() for one in (logits, teacher, other))
    upsample_mse(logits, teacher, full, other=other, boxes=boxes).backward()
    assert logits.grad.any()
    assert teacher.grad is None
    assert other.grad is None


def test_extreme_logits_stay_finite(device):
    (logits, teacher, _), _, _, full = problem(device=device)
    loss, gradient = run(upsample_mse, 1e4 * logits, -1e4 * teacher, full)
    assert 0 < loss <= 2
    assert torch.isfinite(gradient).all()


def test_channels_last_logits(device):
    (logits, teacher, _), _, _, full = problem(device=device)
    expected = run(upsample_mse, logits, teacher, full)
    strided = [one.contiguous(memory_format=torch.channels_last) for one in (logits, teacher)]
    for one, true in zip(run(upsample_mse, *strided, full), expected):
        torch.testing.assert_close(one, true)


def test_memory_stays_below_the_upsampled_logits(largest_allocation):
    (logits, teacher, _), _, _, full = problem(classes=21, low=(64, 64), full=(256, 256))
    assert largest_allocation(lambda: run(upsample_mse, logits, teacher, full)) < 2 * 21 * 256 * 256 * 4


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"logits": torch.zeros(2, 5, 4, 4, dtype=torch.int64)}, TypeError, "logits"),
        ({"logits": torch.zeros(0, 5, 4, 4), "teacher": torch.zeros(0, 5, 4, 4)}, ValueError, "logits"),
        ({"teacher": torch.zeros(2, 5, 4, 3)}, ValueError, "teacher"),
        ({"teacher": torch.zeros(2, 5, 4, 4).half()}, TypeError, "teacher"),
        ({"other": torch.zeros(2, 5, 4, 4)}, ValueError, "boxes"),
        ({"boxes": torch.zeros(2, 1, 4, dtype=torch.int32)}, ValueError, "other"),
        ({"other": torch.zeros(2, 5, 4, 4), "boxes": torch.zeros(3, 1, 4).int()}, ValueError, "boxes"),
        ({"size": (0, 4)}, ValueError, "size"),
        ({"pixel_weight": torch.zeros(2, 8, 7)}, ValueError, "pixel_weight"),
        ({"normalizer": 3}, TypeError, "normalizer"),
        ({"align_corners": None}, TypeError, "align_corners"),
    ],
)
def test_wrong_arguments_are_named(options, error, name):
    arguments = {"logits": torch.zeros(2, 5, 4, 4), "teacher": torch.zeros(2, 5, 4, 4), "size": (8, 8)}
    with pytest.raises(error, match=name):
        upsample_mse(**(arguments | options))
