import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.kernels import box_mask, mixed_pseudo_label, pseudo_label


def random_logits(*shape, seed=0, dtype=torch.float32):
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def check(label, confidence, full):
    """Against float64 logits at full size, except where two classes are too close to tell in the lower precision."""
    assert label.dtype == torch.uint8
    assert confidence.dtype == torch.float32
    best = full.max(1)
    margin = best.values - full.scatter(1, best.indices[:, None], -torch.inf).amax(1)
    assert ((label == best.indices) | (margin < 1e-5)).all()
    torch.testing.assert_close(confidence.double(), full.softmax(1).amax(1), rtol=1e-5, atol=0)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    classes=st.integers(1, 7),
    low=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    align_corners=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    seed=st.integers(0, 2**16),
)
def test_argmax_and_probability_at_full_size(batch, classes, low, size, align_corners, dtype, seed):
    logits = random_logits(batch, classes, *low, seed=seed, dtype=dtype)
    label, confidence = pseudo_label(logits, size, align_corners=align_corners)
    check(label, confidence, F.interpolate(logits.double(), size, mode="bilinear", align_corners=align_corners))


@pytest.mark.usefixtures("small_tiles")
def test_many_tiles():
    logits = random_logits(2, 21, 20, 31)
    full = F.interpolate(logits.double(), (57, 101), mode="bilinear", align_corners=True)
    check(*pseudo_label(logits, (57, 101)), full)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ties_go_to_the_lowest_index(dtype):
    logits = random_logits(1, 2, 5, 5, dtype=dtype)
    logits = logits[:, [0, 1, 0, 1]]
    label, confidence = pseudo_label(logits, (19, 17))
    assert set(label.unique().tolist()) == {0, 1}
    assert confidence.max() <= 0.5 + 1e-6


def test_equal_logits_give_class_zero_and_the_uniform_probability():
    label, confidence = pseudo_label(torch.full((1, 5, 3, 3), 2.5), (7, 7))
    assert not label.any()
    torch.testing.assert_close(confidence, torch.full((1, 7, 7), 0.2))


def test_the_last_of_256_classes_fits():
    logits = torch.zeros(1, 256, 2, 2)
    logits[:, 255] = 9
    assert (pseudo_label(logits, (3, 3))[0] == 255).all()


def test_labels_carry_no_gradient():
    label, confidence = pseudo_label(random_logits(1, 3, 4, 4).requires_grad_(), (8, 8))
    assert not confidence.requires_grad
    assert not label.requires_grad


def test_strided_logits():
    logits = random_logits(2, 5, 6, 7)
    expected = pseudo_label(logits, (20, 22))
    for strided in (logits.contiguous(memory_format=torch.channels_last), torch.stack([logits] * 2, dim=-1)[..., 1]):
        for ours, true in zip(pseudo_label(strided, (20, 22)), expected):
            assert torch.equal(ours, true)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(9, 9), (30, 23), (130, 400)])
def test_mixed_labels_select_by_the_toggled_boxes(size, dtype):
    a, b = random_logits(2, 21, 9, 9, seed=1, dtype=dtype), random_logits(2, 21, 9, 9, seed=2, dtype=dtype)
    boxes = torch.tensor([[[1, 1, 7, 6], [4, 3, 9, 9]], [[0, 0, 0, 0], [2, 0, 5, 8]]])
    label, confidence = mixed_pseudo_label(a, b, boxes, size)
    full_a, full_b = (F.interpolate(x.double(), size, mode="bilinear", align_corners=True) for x in (a, b))
    check(label, confidence, torch.where(box_mask(boxes, size)[:, None], full_b, full_a))


def test_memory_stays_below_the_upsampled_logits(largest_allocation):
    logits = random_logits(2, 19, 64, 64)
    assert largest_allocation(lambda: pseudo_label(logits, (256, 256))) < 2 * 19 * 256 * 256 * 4 / 4


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"logits_a": torch.zeros(2, 300, 4, 4)}, ValueError, "logits_a"),
        ({"logits_b": torch.zeros(2, 5, 4, 3)}, ValueError, "logits_b"),
        ({"logits_b": torch.zeros(2, 5, 4, 4, dtype=torch.float64)}, TypeError, "logits_b"),
        ({"boxes": torch.zeros(2, 1, 4)}, TypeError, "boxes"),
        ({"boxes": torch.zeros(1, 1, 4, dtype=torch.int64)}, ValueError, "boxes"),
        ({"size": (0, 4)}, ValueError, "size"),
    ],
)
def test_wrong_arguments_are_named(options, error, name):
    arguments = {
        "logits_a": torch.zeros(2, 5, 4, 4),
        "logits_b": torch.zeros(2, 5, 4, 4),
        "boxes": torch.zeros(2, 1, 4, dtype=torch.int64),
        "size": (8, 8),
    }
    with pytest.raises(error, match=name):
        mixed_pseudo_label(**(arguments | options))


def test_logits_are_checked():
    with pytest.raises(TypeError, match="logits"):
        pseudo_label(torch.zeros(1, 3, 4, 4, dtype=torch.int32), (8, 8))
