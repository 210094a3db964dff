import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from semiseg.kernels import reference, upsample_conv2d


def problem(batch=2, inputs=5, outputs=4, low=(5, 7), taps=3, seed=0, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, inputs, *low, generator=generator)
    weight = torch.randn(outputs, inputs, taps, taps, generator=generator) / (inputs * taps**2) ** 0.5
    return [tensor.to(device, dtype).requires_grad_() for tensor in (x, weight)]


def results(function, x, weight, size, upstream):
    """The output and the gradients of x and weight."""
    output = function(x, weight, size)
    return [output.detach(), *torch.autograd.grad(output, [x, weight], upstream.to(output))]


side = st.integers(1, 9)


@settings(max_examples=40)
@given(
    low=st.tuples(side, side),
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    taps=st.sampled_from([1, 3, 5]),
    batch=st.integers(0, 3),
    seed=st.integers(0, 2**16),
)
def test_it_is_the_convolution_of_the_upsampled_map(device, no_worse, low, size, channels, taps, batch, seed):
    tensors = problem(batch, *channels, low, taps, seed, device=device)
    upstream = torch.randn(batch, channels[1], *size, generator=torch.Generator().manual_seed(seed + 1)).to(device)
    exact = results(reference.upsample_conv2d, *[t.detach().double().requires_grad_() for t in tensors], size, upstream)
    plain = results(reference.upsample_conv2d, *tensors, size, upstream)
    for one, other, true in zip(results(upsample_conv2d, *tensors, size, upstream), plain, exact, strict=True):
        no_worse(one, other, true)


def test_low_precision_loses_little(device, dtype):
    """What is upsampled is rounded products, so errors are a little larger than those of the plain way."""
    tensors = problem(2, 64, 32, (20, 20), dtype=dtype, device=device)
    upstream = torch.randn(2, 32, 80, 80, generator=torch.Generator().manual_seed(1)).to(device)
    exact = results(
        reference.upsample_conv2d, *[t.detach().double().requires_grad_() for t in tensors], (80, 80), upstream
    )
    plain = results(reference.upsample_conv2d, *tensors, (80, 80), upstream)
    for ours, other, true in zip(results(upsample_conv2d, *tensors, (80, 80), upstream), plain, exact, strict=True):
        error, usual = ((one.double() - true).norm() / true.norm() for one in (ours, other))
        assert ours.dtype == dtype
        assert error <= 2 * usual + 1e-6


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_is_kept(device, memory_format):
    x, weight = problem(device=device)
    out = upsample_conv2d(x.detach().contiguous(memory_format=memory_format), weight, (11, 13))
    assert out.is_contiguous(memory_format=memory_format)
    assert out.shape == (2, 4, 11, 13)


def test_autocast_casts_both_as_it_does_for_convolutions(device):
    x, weight = problem(device=device)
    with torch.autocast(device.type, torch.bfloat16):
        for tensors in ((x, weight), (x.bfloat16(), weight), (x, weight.half())):
            assert upsample_conv2d(*tensors, (11, 13)).dtype == torch.bfloat16
        with pytest.raises(TypeError, match=r"weight must be one of torch\.float64"):
            upsample_conv2d(x.double(), weight, (11, 13))


def test_torch_func_goes_through_it(device):
    x, weight = (tensor.detach() for tensor in problem(device=device))

    def loss(function):
        return lambda weight, x: function(x[None], weight, (11, 13)).square().sum()

    ours, plain = (
        torch.func.vmap(torch.func.grad(loss(function)), (None, 0))(weight, x)
        for function in (upsample_conv2d, reference.upsample_conv2d)
    )
    torch.testing.assert_close(ours, plain)


def test_it_compiles_as_one_graph_and_runs_on_fake_tensors(device):
    x, weight = problem(device=device)
    torch._dynamo.reset()
    compiled = torch.compile(upsample_conv2d, fullgraph=True, backend="aot_eager")
    upstream = torch.ones(2, 4, 11, 13)
    for ours, true in zip(
        results(compiled, x, weight, (11, 13), upstream), results(upsample_conv2d, x, weight, (11, 13), upstream)
    ):
        torch.testing.assert_close(ours, true)
    with FakeTensorMode() as mode:
        fake = upsample_conv2d(mode.from_tensor(x), mode.from_tensor(weight), (11, 13))
    assert fake.stride() == upsample_conv2d(x, weight, (11, 13)).stride()


def test_the_whole_of_the_upsampled_map_is_never_held(largest_allocation):
    x, weight = problem(1, 64, 8, (16, 16))
    with torch.no_grad():
        assert largest_allocation(lambda: upsample_conv2d(x, weight, (128, 128))) < 64 * 128 * 128 * 4 / 4


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(2, 5, 7)}, ValueError, "x must have shape"),
        ({"x": torch.zeros(2, 5, 7, 7, dtype=torch.int64)}, TypeError, "x must be one of"),
        ({"weight": torch.zeros(4, 6, 3, 3)}, ValueError, "weight must have shape"),
        ({"weight": torch.zeros(4, 5, 3, 3).bfloat16()}, TypeError, "weight must be one of torch.float32, not"),
        ({"weight": torch.zeros(4, 5, 2, 2)}, ValueError, "odd side"),
        ({"weight": torch.zeros(4, 5, 3, 1)}, ValueError, "square kernel"),
        ({"size": (0, 4)}, ValueError, "size must be two positive numbers"),
        ({"x": torch.zeros(2, 5, 0, 7)}, ValueError, "x must have channels and pixels"),
    ],
)
def test_wrong_arguments_are_named(change, error, words):
    arguments = {"x": torch.zeros(2, 5, 7, 7), "weight": torch.zeros(4, 5, 3, 3), "size": (9, 9)}
    with pytest.raises(error, match=words):
        upsample_conv2d(**(arguments | change))


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 3, 1, 1)])
def test_maps_in_both_orders_give_contiguous_ones(shape, device):
    """As those of one channel or one pixel are, of which `view` makes rows."""
    result = upsample_conv2d(torch.randn(shape, device=device), torch.randn(3, shape[1], 3, 3, device=device), (8, 8))
    assert result.view(2, -1).shape == (2, 192)
