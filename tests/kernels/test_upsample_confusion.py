import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.kernels import upsample_confusion


def counted(logits, target, classes, align_corners):
    full = F.interpolate(logits.double(), target.shape[1:], mode="bilinear", align_corners=align_corners)
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for truth, prediction in zip(target.flatten().tolist(), full.argmax(1).flatten().tolist()):
        if truth != 255:
            counts[truth, prediction] += 1
    return counts


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 2),
    classes=st.integers(1, 6),
    low=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    full=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    align_corners=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    narrow=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_counts(batch, classes, low, full, align_corners, dtype, narrow, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *low, generator=generator).to(dtype)
    target = torch.randint(0, classes, (batch, *full), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    ours = upsample_confusion(
        logits, target.to(torch.uint8) if narrow else target, classes, align_corners=align_corners
    )
    expected = counted(logits, target, classes, align_corners)
    assert ours.dtype == torch.int64
    assert torch.equal(ours.sum(1), expected.sum(1))
    # Two classes closer than rounding may change places.
    assert (ours - expected).abs().sum() <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_the_truth_and_other_values_are_not_counted(dtype):
    logits = torch.zeros(1, 3, 2, 2, dtype=dtype)
    logits[:, 2] = 1
    target = torch.tensor([[[0, 0, 1, 7], [7, 9, -3, 255]]])
    counts = upsample_confusion(logits, target, 3, ignore_index=7)
    assert counts.tolist() == [[0, 0, 2], [0, 0, 1], [0, 0, 0]]


@pytest.mark.usefixtures("small_tiles")
def test_many_tiles_of_channels_last_logits():
    logits = torch.randn(2, 19, 15, 30, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 19, (2, 57, 117), generator=torch.Generator().manual_seed(1))
    counts = upsample_confusion(logits.contiguous(memory_format=torch.channels_last), target, 19)
    full = F.interpolate(logits.double(), (57, 117), mode="bilinear", align_corners=True).argmax(1)
    expected = torch.bincount((target * 19 + full).flatten(), minlength=361).view(19, 19)
    assert torch.equal(counts.sum(1), expected.sum(1))
    assert (counts - expected).abs().sum() <= 10


def test_memory_stays_below_the_upsampled_logits(largest_allocation):
    logits, target = torch.randn(2, 19, 64, 64), torch.zeros(2, 256, 256, dtype=torch.uint8)
    assert largest_allocation(lambda: upsample_confusion(logits, target, 19)) < 2 * 19 * 256 * 256 * 4 / 4


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"logits": torch.zeros(2, 5, 4, 4, dtype=torch.int64)}, TypeError, "logits"),
        ({"num_classes": 4}, ValueError, "num_classes"),
        ({"target": torch.zeros(2, 8, 8)}, TypeError, "target"),
        ({"target": torch.zeros(1, 8, 8, dtype=torch.uint8)}, ValueError, "target"),
    ],
)
def test_wrong_arguments_are_named(options, error, name):
    arguments = {"logits": torch.zeros(2, 5, 4, 4), "target": torch.zeros(2, 8, 8, dtype=torch.uint8), "num_classes": 5}
    with pytest.raises(error, match=name):
        upsample_confusion(**(arguments | options))
