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


@settings(max_examples=60, deadline=None)
@given(box_lists)
def test_boxes_toggle_in_turn(boxes):
    tensor = torch.tensor(boxes, dtype=torch.int32).view(len(boxes), -1, 4)
    mask = toggled(boxes, 9, 12)
    assert torch.equal(box_mask(tensor, (9, 12)), mask)
    a = torch.arange(len(boxes) * 2 * 9 * 12, dtype=torch.float32).view(len(boxes), 2, 9, 12)
    expected = torch.where(mask[:, None], -a - 1, a)
    assert torch.equal(cutmix(a, -a - 1, tensor), expected)
    assert torch.equal(reference.cutmix(a, -a - 1, tensor), expected)


BOXES = torch.tensor([[[1, 2, 6, 7], [3, 0, 8, 4]], [[0, 0, 8, 8], [2, 2, 3, 5]]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_memory_format_are_kept(dtype, memory_format):
    a = torch.zeros(2, 3, 8, 8, dtype=dtype).contiguous(memory_format=memory_format)
    b = torch.ones(2, 3, 8, 8, dtype=dtype)
    mixed = cutmix(a, b, BOXES)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=memory_format)
    assert torch.equal(mixed.bool(), box_mask(BOXES, (8, 8))[:, None].expand(2, 3, 8, 8))
    assert not a.any()


def test_sliced_images():
    a, b = torch.randn(2, 2, 3, 8, 9)[..., 1:]
    assert torch.equal(cutmix(a, b, BOXES), reference.cutmix(a, b, BOXES))


def test_gradients_flow_to_both_images():
    a, b = torch.randn(2, 2, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: cutmix(a, b, BOXES), (a.requires_grad_(), b.requires_grad_()))


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
