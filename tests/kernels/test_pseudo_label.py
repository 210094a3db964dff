import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.kernels import box_mask, mixed_pseudo_label, pseudo_label


def random_logits(*shape, seed=0, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(device, dtype)


def upsampled(logits, size, align_corners=True):
    return F.interpolate(logits.double().cpu(), size, mode="bilinear", align_corners=align_corners)


def check(label, confidence, full):
    """Against float64 logits at full size, except where two classes are too close to tell in the lower precision."""
    assert label.dtype == torch.uint8
    assert confidence.dtype == torch.float32
    best = full.max(1)
    margin = best.values - full.scatter(1, best.indices[:, None], -torch.inf).amax(1)
    assert ((label.cpu() == best.indices) | (margin < 1e-5)).all()
    torch.testing.assert_close(confidence.cpu().double(), full.softmax(1).amax(1), rtol=1e-5, atol=0)


SIZES = {
    "aligned": ((9, 9), (33, 33)),
    "ragged": ((5, 11), (37, 29)),
    "identity": ((12, 16), (12, 16)),
    "smaller": ((16, 12), (5, 7)),
    "smaller one way": ((16, 3), (5, 40)),
    "one low pixel": ((1, 1), (4, 3)),
    "one full pixel": ((4, 3), (1, 1)),
}


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_argmax_and_probability_at_full_size(size, align_corners, device, dtype):
    low, size = SIZES[size]
    logits = random_logits(2, 5, *low, dtype=dtype, device=device)
    label, confidence = pseudo_label(logits, size, align_corners=align_corners)
    check(label, confidence, upsampled(logits, size, align_corners))


@settings(max_examples=20)
@given(
    batch=st.integers(1, 3),
    classes=st.integers(1, 7),
    low=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    align_corners=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    seed=st.integers(0, 2**16),
)
def test_any_size(device, batch, classes, low, size, align_corners, dtype, seed):
    logits = random_logits(batch, classes, *low, seed=seed, dtype=dtype, device=device)
    label, confidence = pseudo_label(logits, size, align_corners=align_corners)
    check(label, confidence, upsampled(logits, size, align_corners))


def test_several_programs_for_each_image(device):
    logits = random_logits(2, 3, 20, 31, device=device)
    check(*pseudo_label(logits, (97, 181)), upsampled(logits, (97, 181)))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", ["ragged", "smaller", "one full pixel"])
def test_without_confidence_the_labels_are_the_same(size, align_corners, device, dtype):
    low, size = SIZES[size]
    a, b = (random_logits(2, 5, *low, seed=seed, dtype=dtype, device=device) for seed in (1, 2))
    boxes = torch.tensor([[[0, 0, 3, 4]], [[1, 1, 9, 7]]], device=device)
    expected, _ = pseudo_label(a, size, align_corners=align_corners)
    label, confidence = pseudo_label(a, size, align_corners=align_corners, confidence=False)
    assert torch.equal(label, expected)
    assert confidence is None
    expected, _ = mixed_pseudo_label(a, b, boxes, size, align_corners=align_corners)
    label, confidence = mixed_pseudo_label(a, b, boxes, size, align_corners=align_corners, confidence=False)
    assert torch.equal(label, expected)
    assert confidence is None


@pytest.mark.usefixtures("cpu_implementation")
def test_without_confidence_there_is_no_exponential():
    logits = random_logits(1, 5, 6, 6)

    def operators(**options):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            pseudo_label(logits, (24, 24), **options)
        return {event.name for event in profile.events()}

    assert "aten::softmax" in operators()
    assert "aten::softmax" not in operators(confidence=False)


@pytest.mark.usefixtures("small_tiles")
def test_many_tiles():
    logits = random_logits(2, 21, 20, 31)
    check(*pseudo_label(logits, (57, 101)), upsampled(logits, (57, 101)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ties_go_to_the_lowest_index(device, dtype):
    logits = random_logits(1, 2, 5, 5, dtype=dtype, device=device)
    logits = logits[:, [0, 1, 0, 1]]
    label, confidence = pseudo_label(logits, (19, 17))
    assert set(label.unique().tolist()) == {0, 1}
    assert confidence.max() <= 0.5 + 1e-6


def test_equal_logits_give_class_zero_and_the_uniform_probability(device):
    label, confidence = pseudo_label(torch.full((1, 5, 3, 3), 2.5, device=device), (7, 7))
    assert not label.any()
    torch.testing.assert_close(confidence, torch.full((1, 7, 7), 0.2, device=device))


def test_the_last_of_255_classes_fits(device):
    logits = torch.zeros(1, 255, 2, 2, device=device)
    logits[:, 254] = 9
    assert (pseudo_label(logits, (3, 3))[0] == 254).all()


def test_no_label_is_that_of_an_ignored_pixel(device):
    with pytest.raises(ValueError, match="1 to 255 classes"):
        pseudo_label(torch.zeros(1, 256, 2, 2, device=device), (3, 3))


def test_logits_far_apart_neither_overflow_nor_vanish(device):
    logits = torch.tensor([-3e4, 0.0, 3e4, 3e4 - 1], device=device).view(1, 4, 1, 1)
    label, confidence = pseudo_label(logits, (2, 2))
    assert (label == 2).all()
    torch.testing.assert_close(confidence, torch.full((1, 2, 2), 1 / (1 + torch.e**-1), device=device))


def test_labels_carry_no_gradient(device):
    label, confidence = pseudo_label(random_logits(1, 3, 4, 4, device=device).requires_grad_(), (8, 8))
    assert not confidence.requires_grad
    assert not label.requires_grad


def test_strided_logits_and_an_empty_batch(device):
    logits = random_logits(2, 5, 6, 7, device=device)
    expected = pseudo_label(logits, (20, 22))
    for strided in (logits.contiguous(memory_format=torch.channels_last), torch.stack([logits] * 2, dim=-1)[..., 1]):
        for ours, true in zip(pseudo_label(strided, (20, 22)), expected):
            assert torch.equal(ours, true)
    assert pseudo_label(logits[:0], (20, 22))[1].shape == (0, 20, 22)


BOXES = torch.tensor([[[1, 1, 7, 6], [4, 3, 9, 9]], [[0, 0, 0, 0], [2, 0, 5, 8]]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("size", [(9, 9), (30, 23), (70, 200)])
def test_mixed_labels_select_by_the_toggled_boxes(size, scale, device, dtype):
    a, b = (random_logits(2, 5, 9, 9, seed=seed, dtype=dtype, device=device) for seed in (1, 2))
    boxes = scale * BOXES
    label, confidence = mixed_pseudo_label(a, b.mT.contiguous().mT, boxes.to(device), size)
    mask = box_mask(boxes, size)[:, None]
    check(label, confidence, torch.where(mask, upsampled(b, size), upsampled(a, size)))


@pytest.mark.parametrize("box", [[0, 0, 24, 24], [0, 0, 0, 0]])
def test_the_side_that_is_not_selected_is_not_looked_at(box, device):
    a, b = random_logits(2, 1, 3, 6, 6, device=device)
    chosen, other = (b, a) if any(box) else (a, b)
    expected = pseudo_label(chosen, (24, 24))
    other.fill_(torch.nan)
    mixed = mixed_pseudo_label(a, b, torch.tensor([[box]], device=device), (24, 24))
    for ours, true in zip(mixed, expected):
        assert torch.equal(ours, true)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("classes", [2, 5, 21, 255])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_of_equal_classes_the_first_is_the_label(precision, classes, align_corners, device):
    logits = random_logits(2, 1, 9, 8, dtype=precision, device=device).expand(2, classes, 9, 8).contiguous()
    boxes = torch.tensor([[[0, 0, 9, 20]], [[3, 3, 30, 30]]], device=device)

    def labels(logits):
        size, options = (33, 41), {"align_corners": align_corners}
        return pseudo_label(logits, size, **options)[0], mixed_pseudo_label(logits, logits, boxes, size, **options)[0]

    for label in (*labels(logits), *torch.func.vmap(labels)(logits[None])):
        assert not label.any()


def test_memory_stays_below_the_upsampled_logits(largest_allocation):
    logits = random_logits(2, 19, 64, 64)
    assert largest_allocation(lambda: pseudo_label(logits, (256, 256))) < 2 * 19 * 256 * 256 * 4 / 4


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"logits_a": torch.zeros(2, 256, 4, 4)}, ValueError, "logits_a"),
        ({"logits_b": torch.zeros(2, 5, 4, 3)}, ValueError, "logits_b"),
        ({"logits_b": torch.zeros(2, 5, 4, 4, dtype=torch.float64)}, TypeError, "logits_b"),
        ({"boxes": torch.zeros(2, 1, 4)}, TypeError, "boxes"),
        ({"boxes": torch.zeros(1, 1, 4, dtype=torch.int64)}, ValueError, "boxes"),
        ({"size": (0, 4)}, ValueError, "size"),
        ({"size": 20}, TypeError, r"size must be two integers \(height, width\), not 20"),
        ({"size": (20.0, 24.0)}, TypeError, "size must be an integer, not 20.0"),
        ({"size": (20, 24, 3)}, ValueError, "size"),
        ({"align_corners": "no"}, TypeError, "align_corners"),
        ({"confidence": 1}, TypeError, "confidence"),
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
