import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.kernels import upsample_confusion


def counted(logits, target, classes, align_corners=True):
    """By hand, on the CPU, from float64 logits at full size."""
    size = target.shape[1:]
    best = F.interpolate(logits.double().cpu(), size, mode="bilinear", align_corners=align_corners).argmax(1)
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for true, prediction in zip(target.flatten().tolist(), best.flatten().tolist()):
        if 0 <= true < classes:
            counts[true, prediction] += 1
    return counts


def check(ours, expected, moved=2):
    """Two classes closer than rounding may change places, at `moved` pixels at most."""
    assert ours.dtype == torch.int64
    assert torch.equal(ours.cpu().sum(1), expected.sum(1))
    assert (ours.cpu() - expected).abs().sum() <= 2 * moved


def problem(batch=2, classes=5, low=(6, 7), full=(21, 25), ignored=0.2, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *low, generator=generator).to(dtype)
    target = torch.randint(0, classes, (batch, *full), generator=generator)
    target[torch.rand(target.shape, generator=generator) < ignored] = 255
    return logits, target


@settings(max_examples=20)
@given(
    batch=st.integers(1, 2),
    classes=st.integers(1, 6),
    low=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    full=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    align_corners=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    target_dtype=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
    seed=st.integers(0, 2**16),
)
def test_counts(device, batch, classes, low, full, align_corners, dtype, target_dtype, seed):
    logits, target = problem(batch, classes, low, full, seed=seed, dtype=dtype)
    ours = upsample_confusion(logits.to(device), target.to(device, target_dtype), classes, align_corners=align_corners)
    check(ours, counted(logits, target, classes, align_corners), moved=1)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_of_equal_classes_the_first_is_predicted(precision, device):
    logits, target = problem(classes=21, dtype=precision)
    equal = logits[:, :1].expand_as(logits).contiguous().to(device)
    assert not upsample_confusion(equal, target.to(device), 21)[:, 1:].any()


# With 60 classes a histogram would be larger than a program's share of the pixels: another way to count.
@pytest.mark.parametrize("classes", [1, 2, 21, 60])
def test_several_programs_for_each_image(classes, device, dtype):
    logits, target = problem(2, classes, (15, 21), (60, 81), dtype=dtype)
    ours = upsample_confusion(logits.to(device), target.to(device), classes)
    check(ours, counted(logits, target, classes), moved=3)
    assert torch.equal(ours, upsample_confusion(logits.to(device), target.to(device), classes))


@pytest.mark.parametrize("ignored", [0, 1])
def test_all_and_no_pixels_count(ignored, device):
    logits, target = problem(ignored=ignored)
    counts = upsample_confusion(logits.to(device), target.to(device), 5)
    assert counts.sum() == (0 if ignored else target.numel())


@pytest.mark.parametrize("classes", [3, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_targets_and_other_values_are_not_counted(dtype, classes, device):
    logits = torch.zeros(1, classes, 2, 2, dtype=dtype, device=device)
    logits[:, 2] = 1
    target = torch.tensor([[[0, 0, 1, 7], [7, classes, -3, 2**40 + 1]]], device=device)
    counts = upsample_confusion(logits, target, classes, ignore_index=7)
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    expected[0, 2], expected[1, 2] = 2, 1
    assert torch.equal(counts.cpu(), expected)


def test_ties_count_for_the_lowest_index(device):
    target = torch.ones(1, 6, 6, dtype=torch.uint8, device=device)
    counts = upsample_confusion(torch.zeros(1, 3, 2, 2, device=device), target, 3)
    assert counts.tolist() == [[0, 0, 0], [36, 0, 0], [0, 0, 0]]


def test_strided_logits_and_targets(device):
    logits, target = (x.to(device) for x in problem())
    expected = upsample_confusion(logits, target, 5)
    channels_last, by_columns = logits.contiguous(memory_format=torch.channels_last), target.mT.contiguous().mT
    assert torch.equal(upsample_confusion(channels_last, by_columns, 5), expected)


@pytest.mark.usefixtures("small_tiles")
def test_many_tiles_of_channels_last_logits():
    logits, target = problem(2, 19, (15, 30), (57, 117), ignored=0)
    counts = upsample_confusion(logits.contiguous(memory_format=torch.channels_last), target, 19)
    check(counts, counted(logits, target, 19), moved=5)


def test_memory_stays_below_the_upsampled_logits(largest_allocation):
    logits, target = torch.randn(2, 19, 64, 64), torch.zeros(2, 256, 256, dtype=torch.uint8)
    assert largest_allocation(lambda: upsample_confusion(logits, target, 19)) < 2 * 19 * 256 * 256 * 4 / 4


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"logits": torch.zeros(2, 5, 4, 4, dtype=torch.int64)}, TypeError, "logits"),
        ({"num_classes": 4}, ValueError, "num_classes"),
        ({"num_classes": 5.0}, TypeError, "num_classes"),
        ({"ignore_index": 255.0}, TypeError, "ignore_index"),
        ({"target": torch.zeros(2, 8, 8)}, TypeError, "target"),
        ({"target": torch.zeros(1, 8, 8, dtype=torch.uint8)}, ValueError, "target"),
    ],
)
def test_wrong_arguments_are_named(options, error, name):
    arguments = {"logits": torch.zeros(2, 5, 4, 4), "target": torch.zeros(2, 8, 8, dtype=torch.uint8), "num_classes": 5}
    with pytest.raises(error, match=name):
        upsample_confusion(**(arguments | options))
