import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interpreter import INTERPRETED
from semiseg.kernels import reference, upsample

EXAMPLES, CHANNELS = (8, 40) if INTERPRETED else (20, 70)

SIZES = {
    "decoder": ((5, 5), (20, 20)),
    "ragged": ((5, 11), (37, 29)),
    "identity": ((6, 7), (6, 7)),
    "smaller": ((16, 12), (5, 7)),
    "smaller one way": ((16, 3), (5, 40)),
    "one low pixel": ((1, 1), (4, 3)),
    "one full pixel": ((4, 3), (1, 1)),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def random(*shape, seed=0, dtype=torch.float32, device="cpu"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


def value_and_gradient(function, maps, gradient, *arguments, **options):
    leaf = maps.detach().requires_grad_()
    full = function(leaf, *arguments, **options)
    return full.detach(), torch.autograd.grad(full, leaf, gradient)[0]


def plain(maps, size, align_corners=True):
    return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradient_are_as_near_to_float64_as_torchs(size, order, align_corners, device, dtype, no_worse):
    low, full = SIZES[size]
    channels = 5 if INTERPRETED else 19
    maps = random(2, channels, *low, dtype=dtype, device=device).contiguous(memory_format=FORMATS[order])
    gradient = random(2, channels, *full, seed=1, dtype=dtype, device=device).contiguous(memory_format=FORMATS[order])
    ours = value_and_gradient(upsample, maps, gradient, full, align_corners=align_corners)
    theirs = value_and_gradient(plain, maps, gradient, full, align_corners)
    exact = value_and_gradient(plain, maps.double(), gradient.double(), full, align_corners)
    for one, other, true in zip(ours, theirs, exact, strict=True):
        assert one.dtype == dtype
        # A map of one pixel is in both orders.
        assert one.is_contiguous(memory_format=FORMATS[order]) or (1, 1) in (low, full)
        no_worse(one, other, true)


@settings(max_examples=EXAMPLES)
@given(
    channels=st.integers(1, CHANNELS),
    low=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    full=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    align_corners=st.booleans(),
    order=st.sampled_from(list(FORMATS)),
    seed=st.integers(0, 2**16),
)
@example(channels=70, low=(3, 2), full=(7, 5), align_corners=True, order=next(iter(FORMATS)), seed=0)
def test_any_size(device, channels, low, full, align_corners, order, seed):
    maps = random(2, channels, *low, seed=seed, device=device).contiguous(memory_format=FORMATS[order])
    gradient = random(2, channels, *full, seed=seed + 1, device=device)
    ours = value_and_gradient(upsample, maps, gradient, full, align_corners=align_corners)
    exact = value_and_gradient(plain, maps.double(), gradient.double(), full, align_corners)
    for one, true in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.double(), true, rtol=1e-5, atol=1e-5)


def test_many_small_shares_of_a_gradient_are_not_lost(device, dtype):
    """Each node takes about 900 of them: added one by one in half precision the sum would stop growing early."""
    maps = random(1, 3, 3, 3, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
    ones = torch.ones(1, 3, 65, 65, dtype=dtype, device=device)
    _, gradient = value_and_gradient(upsample, maps, ones, (65, 65))
    _, exact = value_and_gradient(plain, maps.double(), ones.double(), (65, 65))
    assert exact.amax() > 900
    torch.testing.assert_close(gradient.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)


def test_the_gradient_is_the_same_bits_every_time(device):
    channels, size = (6, 40) if INTERPRETED else (33, 70)
    maps = random(2, channels, 9, 9, device=device)
    gradient = random(2, channels, size, size, seed=1, device=device)
    first, second = (value_and_gradient(upsample, maps, gradient, (size, size))[1] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("order", FORMATS)
def test_a_gradient_in_another_order_and_strided_maps(order, device):
    maps = random(2, 6, 5, 7, device=device).contiguous(memory_format=FORMATS[order])
    strided = torch.stack([maps, maps], dim=-1)[..., 1]
    one = random(2, 6, 1, 1, seed=1, device=device)
    expanded, full = one.expand(2, 6, 20, 9), one.repeat(1, 1, 20, 9)
    exact = value_and_gradient(plain, maps.double(), full.double(), (20, 9))
    for leaf in (maps, strided):
        for gradient in (expanded, full, full.contiguous(memory_format=torch.channels_last)):
            for ours, true in zip(value_and_gradient(upsample, leaf, gradient, (20, 9)), exact, strict=True):
                torch.testing.assert_close(ours.double(), true, rtol=1e-5, atol=1e-5)


def test_float64_and_its_gradient(device):
    maps = random(1, 2, 4, 3, dtype=torch.float64, device=device).requires_grad_()
    assert torch.autograd.gradcheck(lambda leaf: upsample(leaf, (9, 8)), maps)


@pytest.mark.usefixtures("cpu_implementation")
@pytest.mark.parametrize("order", FORMATS)
def test_on_the_cpu_it_is_torchs_own(order, dtype):
    maps = random(2, 5, 6, 7, dtype=dtype).contiguous(memory_format=FORMATS[order])
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert torch.equal(upsample(maps, (21, 24)), plain(maps, (21, 24)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_plain_definition_adds_its_gradient_up_in_float32(dtype):
    maps, gradient = random(1, 2, 3, 3, dtype=dtype), torch.ones(1, 2, 65, 65, dtype=dtype)
    _, ours = value_and_gradient(reference.upsample, maps, gradient, (65, 65))
    _, exact = value_and_gradient(plain, maps.double(), gradient.double(), (65, 65))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)


def test_sizes_of_every_integer(device):
    maps = random(1, 2, 4, 3, device=device)
    for size in ([8, 9], torch.Size([8, 9]), np.array([8, 9]), (np.int32(8), np.int64(9))):
        assert torch.equal(upsample(maps, size), upsample(maps, (8, 9)))


@pytest.mark.usefixtures("cpu_implementation")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_size_may_be_a_shape_that_is_traced():
    maps, like = random(1, 2, 4, 3), random(1, 1, 8, 9)
    traced = torch.jit.trace(lambda maps, like: upsample(maps, like.shape[2:]), (maps, like))
    assert torch.equal(traced(maps, like), upsample(maps, (8, 9)))


def test_an_empty_batch(device):
    maps = torch.zeros(0, 3, 4, 4, device=device, requires_grad=True)
    full = upsample(maps, (8, 9))
    assert full.shape == (0, 3, 8, 9)
    full.sum().backward()
    assert maps.grad.shape == maps.shape


@pytest.mark.parametrize(
    ("maps", "size", "error", "name"),
    [
        (torch.zeros(2, 4, 4), (8, 8), ValueError, "maps"),
        (torch.zeros(2, 3, 0, 4), (8, 8), ValueError, "maps"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), (8, 8), TypeError, "maps"),
        (torch.zeros(2, 3, 4, 4), (0, 8), ValueError, "size"),
        (torch.zeros(2, 3, 4, 4), 8, TypeError, "size"),
        (torch.zeros(2, 3, 4, 4), (8.0, 8.0), TypeError, "size"),
        (torch.zeros(2, 3, 4, 4), (True, 8), TypeError, "size"),
    ],
)
def test_wrong_arguments_are_named(maps, size, error, name):
    with pytest.raises(error, match=name):
        upsample(maps, size)
