import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreter import INTERPRETED
from semiseg.kernels import _dispatch, reference, upsample_cross_entropy, upsample_ohem_cross_entropy

EXAMPLES, LONGEST, THRESHOLDS = (8, 12, [0.3]) if INTERPRETED else (30, 30, [0.0, 0.3, 0.7, 1.0])


def problem(batch=2, classes=3, low=(4, 5), full=(11, 14), dtype=torch.float32, ignored=0.2, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(batch, classes, *low, generator=generator, dtype=torch.float64)).to(dtype)
    target = torch.randint(0, classes, (batch, *full), generator=generator)
    target[torch.rand(target.shape, generator=generator) < ignored] = 255
    return logits.to(device), target.to(device)


def by_torch(logits, target, align_corners=True, ignore_index=255, reduction="mean", pixel_weight=None):
    full = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=align_corners)
    losses = F.cross_entropy(full, target.long(), ignore_index=ignore_index, reduction="none")
    if pixel_weight is not None:
        losses = losses * pixel_weight.to(losses.dtype)
    if reduction == "mean":
        return losses.sum() / max(1, (target != ignore_index).sum())
    return losses.sum() if reduction == "sum" else losses


def run(function, logits, *arguments, **options):
    """Loss and the gradient of its product with fixed numbers (upstream gradients that differ by pixel)."""
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = function(logits, *arguments, **options)
    upstream = 1 + torch.arange(loss.numel(), dtype=loss.dtype, device=loss.device).view(loss.shape) % 7
    (loss * upstream).sum().backward()
    return loss.detach(), logits.grad


SHAPES = {
    "aligned": {"low": (5, 9), "full": (17, 33)},
    "ragged": {"low": (5, 11), "full": (37, 29)},
    "large factor": {"batch": 1, "classes": 2, "low": (2, 3), "full": (23, 31)},
    "identity": {"low": (12, 16), "full": (12, 16)},
    "smaller": {"low": (16, 12), "full": (5, 7)},
    "one low pixel": {"low": (1, 1), "full": (4, 3)},
    "one full pixel": {"low": (4, 3), "full": (1, 1)},
    "one class": {"classes": 1},
}


def check(no_worse, logits, target, **options):
    """Loss and gradient by the error-relative rule."""
    ours = run(upsample_cross_entropy, logits, target, **options)
    options.pop("deterministic", None)
    plain = run(by_torch, logits, target, **options)
    exact = run(by_torch, logits.double(), target, **options)
    assert (ours[0].dtype, ours[1].dtype) == (torch.float32, logits.dtype)
    for triple in zip(ours, plain, exact):
        no_worse(*triple)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_mean_loss_and_gradient(shape, align_corners, device, no_worse):
    check(no_worse, *problem(**SHAPES[shape], device=device), align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.usefixtures("small_tiles")
def test_many_tiles(align_corners, no_worse):
    check(no_worse, *problem(low=(20, 23), full=(61, 83)), align_corners=align_corners)


@pytest.mark.usefixtures("cpu_implementation")
def test_several_tiles_of_full_size(device, no_worse):
    check(no_worse, *problem(batch=3, classes=19, low=(26, 104), full=(203, 411), device=device))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_deterministic_gradient(shape, align_corners, device, no_worse):
    logits, target = problem(**SHAPES[shape], device=device)
    check(no_worse, logits, target, align_corners=align_corners, deterministic=True)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_deterministic_gradient_has_the_same_bits_in_every_run(reduction, device):
    logits, target = problem(device=device)
    first = run(upsample_cross_entropy, logits, target, deterministic=True, reduction=reduction)
    again = run(upsample_cross_entropy, logits, target, deterministic=True, reduction=reduction)
    torch.use_deterministic_algorithms(True)
    try:
        by_switch = run(upsample_cross_entropy, logits, target, reduction=reduction)
    finally:
        torch.use_deterministic_algorithms(False)
    for one, two, three in zip(first, again, by_switch):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@settings(max_examples=EXAMPLES)
@given(
    batch=st.integers(1, 3),
    classes=st.integers(1, 6),
    low=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    full=st.tuples(st.integers(1, LONGEST), st.integers(1, LONGEST)),
    align_corners=st.booleans(),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    weighted=st.booleans(),
    deterministic=st.booleans(),
    integers=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
    seed=st.integers(0, 2**16),
)
def test_any_shape(
    device, batch, classes, low, full, align_corners, reduction, weighted, deterministic, integers, seed
):  # fmt: skip
    logits, target = problem(batch, classes, low, full, seed=seed, device=device)
    options = {"align_corners": align_corners, "reduction": reduction}
    if weighted:
        options["pixel_weight"] = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    ours = run(upsample_cross_entropy, logits, target.to(integers), deterministic=deterministic, **options)
    exact = run(by_torch, logits.double(), target, **options)
    for mine, true in zip(ours, exact):
        assert (mine - true).norm() <= 2e-6 * (true.norm() + 1)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_every_precision_of_logits(dtype, reduction, deterministic, device, no_worse):
    logits, target = problem(full=(13, 17), dtype=dtype, device=device)
    check(no_worse, logits, target, reduction=reduction, deterministic=deterministic)


@pytest.mark.parametrize("shape", ["aligned", "ragged", "smaller"])
def test_double_precision_is_the_definition(shape, device):
    logits, target = problem(**SHAPES[shape], dtype=torch.float64, device=device)
    for mine, true in zip(run(upsample_cross_entropy, logits, target), run(by_torch, logits, target)):
        torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [upsample_cross_entropy, upsample_ohem_cross_entropy])
def test_all_ignored_is_zero_with_zero_gradient(function, precision, device):
    logits, target = problem(ignored=2.0, dtype=precision, device=device)
    options = {"min_kept": 3} if function is upsample_ohem_cross_entropy else {}
    loss, gradient = run(function, logits, target, **options)
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [37, 37.5])
def test_a_given_normalizer_divides_the_sum(count, precision, device):
    logits, target = problem(dtype=precision, ignored=0.7, device=device)
    loss, gradient = run(upsample_cross_entropy, logits, target, normalizer=torch.tensor(count, device=device))
    total, of_total = run(by_torch, logits.double(), target, reduction="sum")
    torch.testing.assert_close(loss.double(), total / count, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), of_total / count, rtol=1e-4, atol=1e-6)


def test_a_normalizer_of_no_pixels_gives_zero_with_zero_gradient(device):
    logits, target = problem(ignored=2, device=device)
    loss, gradient = run(upsample_cross_entropy, logits, target, normalizer=torch.tensor(0, device=device))
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("deterministic", [False, True])
def test_ignored_pixels_do_not_count_whatever_their_weight(deterministic, precision, device):
    logits, target = problem(dtype=precision, device=device)
    weight = torch.ones(target.shape, device=device)
    expected = run(upsample_cross_entropy, logits, target, pixel_weight=weight, deterministic=deterministic)
    weight[target == 255] = float("nan")
    ours = run(upsample_cross_entropy, logits, target, pixel_weight=weight, deterministic=deterministic)
    for mine, true in zip(ours, expected):
        torch.testing.assert_close(mine, true)


def test_another_ignore_index_and_255_a_class(device):
    logits, target = problem(batch=1, classes=300, low=(2, 2), full=(6, 6), ignored=0, device=device)
    target[0, :2] = 255
    target[0, 5] = -1
    ours = run(upsample_cross_entropy, logits, target, ignore_index=-1)
    exact = run(by_torch, logits.double(), target, ignore_index=-1)
    for mine, true in zip(ours, exact):
        torch.testing.assert_close(mine.double(), true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("deterministic", [False, True])
def test_ignore_index_that_is_also_a_class(deterministic, device, no_worse):
    logits, target = problem(device=device, ignored=0)
    check(no_worse, logits, target, ignore_index=2, deterministic=deterministic)


@pytest.mark.parametrize("function", [upsample_cross_entropy, upsample_ohem_cross_entropy])
def test_ignore_index_beyond_the_dtype_of_the_target_ignores_nothing(function, device):
    logits, target = problem(classes=9, low=(2, 2), full=(4, 4), ignored=0, device=device)
    options = {"min_kept": 3} if function is upsample_ohem_cross_entropy else {}
    target[:] = 264 % 256
    ours = function(logits, target.to(torch.uint8), ignore_index=264, **options)
    torch.testing.assert_close(ours, function(logits, target, ignore_index=264, **options))
    assert ours > 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_extreme_logits_stay_finite(deterministic, device):
    logits = torch.zeros(1, 3, 2, 2, device=device)
    logits[:, 0] = 1e4
    target = torch.ones(1, 4, 4, dtype=torch.uint8, device=device)
    loss, gradient = run(upsample_cross_entropy, logits, target, deterministic=deterministic)
    torch.testing.assert_close(loss, torch.tensor(1e4, device=device))
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_common_shift_of_all_logits_changes_nothing(deterministic, device):
    logits, target = problem(low=(5, 6), full=(17, 19), device=device)
    expected = run(upsample_cross_entropy, logits, target)
    for mine, true in zip(run(upsample_cross_entropy, logits - 500, target, deterministic=deterministic), expected):
        torch.testing.assert_close(mine, true, rtol=1e-3, atol=1e-4)


def test_mining_is_deterministic_where_torch_shall_be(device):
    logits, target = problem(low=(16, 16), full=(64, 64), device=device)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (run(upsample_ohem_cross_entropy, logits, target, min_kept=500) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first[1], second[1])


def test_neighbours_that_disagree_far_beyond_the_range_of_exp(device, no_worse):
    logits = torch.tensor([[1e3, -1e3], [-2e3, 1e3]], device=device).view(1, 2, 1, 2).contiguous()
    target = torch.tensor([[[0, 0, 1, 1, 0, 1, 0]]], device=device)
    loss, gradient = run(upsample_cross_entropy, logits, target)
    exact = run(by_torch, logits.double(), target)
    no_worse(loss, run(by_torch, logits, target)[0], exact[0])
    # Two passes round the upsampled logits differently, each by a share of the logits.
    rounding = torch.finfo(torch.float32).eps * logits.abs().max()
    assert (gradient.double() - exact[1]).norm() <= rounding * exact[1].norm()


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("layout", ["channels last", "sliced"])
def test_strided_logits_and_targets(layout, deterministic, device):
    logits, target = problem(device=device)
    weight = target.float()
    options = {"reduction": "none", "deterministic": deterministic}
    expected = run(upsample_cross_entropy, logits, target, pixel_weight=weight, **options)
    if layout == "channels last":
        logits = logits.contiguous(memory_format=torch.channels_last)
    else:
        logits = torch.stack([logits, logits], dim=-1)[..., 0]
    target = target.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    weight = torch.stack([weight, weight], dim=-1)[..., 0]
    ours = run(upsample_cross_entropy, logits, target, pixel_weight=weight, **options)
    for mine, true in zip(ours, expected):
        torch.testing.assert_close(mine, true)


def test_without_gradient_nothing_is_recorded():
    logits, target = problem()
    with torch.no_grad():
        loss = upsample_cross_entropy(logits.requires_grad_(), target)
    assert not loss.requires_grad


def test_memory_stays_below_the_upsampled_logits(largest_allocation):
    logits, target = problem(batch=2, classes=19, low=(64, 64), full=(256, 256))
    full = 2 * 19 * 256 * 256 * 4
    assert largest_allocation(lambda: run(upsample_cross_entropy, logits, target)) < full / 4


def ohem_by_sorting(logits, target, threshold, min_kept):
    """The published procedure, on full-size float64 logits."""
    full = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=True)
    chosen = []
    for image, row, column in (target != 255).nonzero().tolist():
        logs = full[image, :, row, column].log_softmax(0)
        chosen.append(logs[target[image, row, column]])
    chosen = torch.stack(chosen)
    if len(chosen) >= min_kept:
        probabilities = sorted(chosen.exp().tolist() + [1.0] * (target.numel() - len(chosen)))
        bound = max(threshold, probabilities[min(min_kept, target.numel()) - 1]) if min_kept else threshold
        chosen = chosen[chosen.exp() <= bound]
    return -chosen.sum() / max(1, len(chosen))


@pytest.mark.parametrize("min_kept", [0, 1, 30, 100, 220, 100_000])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_mining_keeps_the_published_pixels(threshold, min_kept, device):
    logits, target = problem(classes=3, low=(4, 5), full=(11, 13), seed=3, device=device)
    exact = run(ohem_by_sorting, logits.double(), target, threshold, min_kept)
    for precision, tolerance in ((torch.float64, 1e-10), (torch.float32, 3e-6)):
        ours = run(upsample_ohem_cross_entropy, logits.to(precision), target, threshold=threshold, min_kept=min_kept)
        for mine, true in zip(ours, exact):
            torch.testing.assert_close(mine.double(), true, rtol=tolerance, atol=tolerance)


def test_mining_counts_over_the_whole_batch(device):
    logits, target = problem(batch=3, low=(4, 4), full=(8, 8), ignored=0, device=device)
    both = upsample_ohem_cross_entropy(logits, target, threshold=0.0, min_kept=20)
    worst = upsample_cross_entropy(logits, target, reduction="none").flatten().topk(20).values
    torch.testing.assert_close(both, worst.mean())


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"logits": torch.zeros(2, 5, 4, 4, dtype=torch.int64)}, TypeError, "logits"),
        ({"logits": torch.zeros(2, 5, 0, 4)}, ValueError, "logits"),
        ({"logits": torch.zeros(0, 5, 4, 4), "target": torch.zeros(0, 8, 8).byte()}, ValueError, "logits"),
        ({"target": torch.zeros(3, 8, 8, dtype=torch.uint8)}, ValueError, "target"),
        ({"target": torch.zeros(2, 8, 8)}, TypeError, "target"),
        ({"pixel_weight": torch.zeros(2, 8, 7)}, ValueError, "pixel_weight"),
        ({"reduction": "avg"}, ValueError, "reduction"),
        ({"ignore_index": 255.0}, TypeError, "ignore_index"),
        ({"normalizer": 3}, TypeError, "normalizer"),
        ({"normalizer": torch.ones(1)}, ValueError, "normalizer"),
        ({"align_corners": "no"}, TypeError, "align_corners"),
        ({"deterministic": None}, TypeError, "deterministic"),
        ({"normalizer": torch.tensor(3), "reduction": "sum"}, ValueError, "normalizer"),
    ],
)
def test_wrong_arguments_are_named(options, error, name):
    arguments = {"logits": torch.zeros(2, 5, 4, 4), "target": torch.zeros(2, 8, 8, dtype=torch.uint8)}
    with pytest.raises(error, match=name):
        upsample_cross_entropy(**(arguments | options))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("label", [5, -2, 2**32])
@pytest.mark.parametrize("function", [upsample_cross_entropy, upsample_ohem_cross_entropy])
def test_a_target_that_is_no_class_is_not_overlooked(function, label, precision, device, monkeypatch):
    """Where the host must not wait, the loss tells."""
    logits, target = problem(dtype=precision, device=device)
    target[1, 2, 3] = label
    options = {"min_kept": 10} if function is upsample_ohem_cross_entropy else {}
    if device.type != "cpu" or _dispatch.provider_of(logits) == "triton":
        assert function(logits, target, **options).isnan()
        monkeypatch.setattr(_dispatch, "DEBUG", True)
    with pytest.raises(ValueError, match=f"target holds {label},"):
        function(logits, target, **options)


@pytest.mark.parametrize("label", [5, -2])
@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"reduction": "none"}])
def test_where_the_loss_is_not_a_number_its_gradient_is_none_either(options, label, device):
    logits, target = problem(device=device, low=(5, 7), full=(17, 25))
    target[1, 2, 3] = label
    functions = [reference.upsample_cross_entropy]
    if _dispatch.provider_of(logits) == "triton":
        functions.append(upsample_cross_entropy)
    for function in functions:
        loss, gradient = run(function, logits, target, **options)
        assert loss.isnan().sum() == 1
        wrong = gradient.isnan()
        assert wrong[1, :, :2, :2].all()
        assert wrong.sum() == wrong[1, :, :3, :3].sum()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_targets_made_in_inference_mode(precision, device):
    """As pseudo-labels are, though torch keeps no such tensor for a backward pass."""
    logits, target = problem(dtype=precision, device=device)
    logits.requires_grad_()
    with torch.inference_mode():
        label, weight = target.clone(), torch.rand(target.shape, device=device)
    for function in (
        lambda of: upsample_cross_entropy(logits, of, pixel_weight=weight),
        lambda of: upsample_cross_entropy(logits, of, pixel_weight=weight, reduction="none").sum(),
        lambda of: upsample_ohem_cross_entropy(logits, of, min_kept=10),
    ):
        (ours,), (true,) = (torch.autograd.grad(function(of), logits) for of in (label, target))
        exact = {} if device.type == "cuda" else {"rtol": 0, "atol": 0}  # a GPU adds in any order
        torch.testing.assert_close(ours, true, **exact)


def test_the_look_at_the_target_passes_torchs_own_checks(device):
    _, target = problem(device=device)
    torch.library.opcheck(torch.ops.semiseg.checked_target, (target.to(torch.uint8), 3, 255))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("threshold", 1.5, ValueError),
        ("threshold", None, TypeError),
        ("min_kept", -1, ValueError),
        ("min_kept", 100.0, TypeError),
        ("min_kept", True, TypeError),
    ],
)
def test_wrong_mining_arguments_are_named(name, value, error):
    logits, target = problem()
    with pytest.raises(error, match=name):
        upsample_ohem_cross_entropy(logits, target, **({"min_kept": 1} | {name: value}))


def test_the_plain_definition_is_differentiable():
    logits, target = problem(batch=1, classes=3, low=(2, 3), full=(4, 5), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: reference.upsample_cross_entropy(x, target), logits.requires_grad_())
