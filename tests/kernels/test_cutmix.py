import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.kernels import box_mask, cutmix, reference

coordinate = st.integers(-2, 14)
box_lists = st.integers(0, 4).flatmap(
    lambda count: st.lists(
        st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=count, max_size=count),
        min_size=1,
        max_size=3,
    )
)


def toggled(boxes, height, width):
    mask = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for image, corners in enumerate(boxes):
        for y0, x0, y1, x1 in corners:
            for y in range(height):
                for x in range(width):
                    if y0 <= y < y1 and x0 <= x < x1:
                        mask[image, y, x] = ~mask[image, y, x]
    return mask


@settings(max_examples=40)
@given(box_lists)
def test_boxes_toggle_in_turn(device, boxes):
    tensor = torch.tensor(boxes, dtype=torch.int32, device=device).view(len(boxes), -1, 4)
    mask = toggled(boxes, 9, 12)
    assert torch.equal(box_mask(tensor, (9, 12)).cpu(), mask)
    a = torch.arange(len(boxes) * 2 * 9 * 12, dtype=torch.float32).view(len(boxes), 2, 9, 12)
    expected = torch.where(mask[:, None], -a - 1, a)
    a = a.to(device)
    assert torch.equal(cutmix(a, -a - 1, tensor).cpu(), expected)
    assert torch.equal(reference.cutmix(a, -a - 1, tensor).cpu(), expected)


BOXES = torch.tensor([[[1, 2, 6, 7], [3, 0, 8, 4]], [[0, 0, 8, 8], [2, 2, 3, 5]]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_memory_format_are_kept(device, dtype, memory_format):
    a = torch.zeros(2, 3, 8, 8, dtype=dtype, device=device).contiguous(memory_format=memory_format)
    b = torch.ones(2, 3, 8, 8, dtype=dtype, device=device)
    mixed = cutmix(a, b, BOXES.to(device))
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=memory_format)
    assert torch.equal(mixed.bool().cpu(), box_mask(BOXES, (8, 8))[:, None].expand(2, 3, 8, 8))
    assert not a.any()


@pytest.mark.parametrize(
    "shape", [(2, 3, 37, 53), (2, 1, 8, 8), (2, 5, 1, 1), (2, 3, 64, 16), (2, 4, 3, 100), (0, 3, 8, 8)]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_sizes_and_strides(device, shape, dtype):
    images = torch.arange(2 * 10 * math.prod(shape), device=device).view(2, *shape, 10)[..., 3] % 251
    a, b = images.to(dtype)
    boxes = (BOXES * max(shape[2:]) // 8)[: shape[0]].to(device, torch.int16)
    expected = reference.cutmix(a, b, boxes)
    by_columns = a.permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2)
    for x in (a, a.contiguous(), a.contiguous(memory_format=torch.channels_last), by_columns):
        for y in (b, b.contiguous(memory_format=torch.channels_last)):
            assert torch.equal(cutmix(x, y, boxes), expected)


def test_gradients_flow_to_both_images(device, dtype):
    """The derivative is the mask: whatever the images are, the gradient is copied to one of them."""
    a, b, upstream = torch.randn(3, 2, 3, 8, 8, dtype=dtype, device=device)
    boxes = BOXES.to(device)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        images = [x.contiguous(memory_format=memory_format).requires_grad_() for x in (a, b)]
        gradients = torch.autograd.grad(cutmix(*images, boxes), images, upstream)
        plain = torch.autograd.grad(reference.cutmix(*images, boxes), images, upstream)
        for ours, true in zip(gradients, plain):
            assert torch.equal(ours, true)


def test_gradients_in_float64():
    a, b = torch.randn(2, 2, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: cutmix(a, b, BOXES), (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_more_than_2_to_the_31_elements():
    a = torch.zeros(2, 3, 20000, 18000, dtype=torch.uint8, device="cuda")
    boxes = torch.tensor([[[0, 0, 0, 0]], [[19990, 17990, 20000, 18000]]], device="cuda")
    mixed = cutmix(a, a + 1, boxes)
    assert mixed.sum().item() == 3 * 100
    assert mixed[1, :, 19990:, 17990:].all()


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"images_a": torch.zeros(2, 3, 8, 8, dtype=torch.int64)}, TypeError, "images_a"),
        ({"images_b": torch.zeros(2, 3, 8, 9)}, ValueError, "images_b"),
        ({"images_b": torch.zeros(2, 3, 8, 8, dtype=torch.float64)}, TypeError, "images_b"),
        ({"boxes": BOXES.float()}, TypeError, "boxes"),
        ({"boxes": BOXES[:1]}, ValueError, "boxes"),
        ({"boxes": BOXES[:, 0]}, ValueError, "boxes"),
    ],
)
def test_wrong_arguments_are_named(options, error, name):
    arguments = {"images_a": torch.zeros(2, 3, 8, 8), "images_b": torch.zeros(2, 3, 8, 8), "boxes": BOXES}
    with pytest.raises(error, match=name):
        cutmix(**(arguments | options))
