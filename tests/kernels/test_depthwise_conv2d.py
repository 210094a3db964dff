import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from semiseg.kernels import depthwise_conv2d, reference

DILATED = {"padding": 4, "dilation": 2}


def problem(batch=2, channels=6, size=(9, 7), taps=5, seed=0, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, *size, generator=generator)
    weight = torch.randn(channels, 1, taps, taps, generator=generator) / taps
    return [tensor.to(device, dtype).requires_grad_() for tensor in (x, weight)]


def results(function, x, weight, **form):
    """The output and the gradients of x and weight, of a sum with uneven weights."""
    output = function(x, weight, **form)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    return [output.detach(), *torch.autograd.grad(output, [x, weight], upstream)]


def in_float64(x, weight, **form):
    return results(reference.depthwise_conv2d, *[t.detach().double().requires_grad_() for t in (x, weight)], **form)


side = st.integers(1, 24)


@settings(max_examples=200)
@given(
    size=st.tuples(side, side),
    taps=st.integers(1, 6),
    stride=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    dilation=st.integers(1, 4),
    batch=st.integers(0, 3),
    channels=st.integers(1, 9),
    memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 2**16),
)
def test_it_is_the_convolution_of_each_channel(
    device, no_worse, size, taps, stride, padding, dilation, batch, channels, memory_format, seed
):
    assume(all(side + 2 * pad > dilation * (taps - 1) for side, pad in zip(size, padding)))
    x, weight = problem(batch, channels, size, taps, seed, device=device)
    x = x.detach().contiguous(memory_format=memory_format).requires_grad_()
    form = {"stride": stride, "padding": padding, "dilation": dilation}
    ours, plain = (results(function, x, weight, **form) for function in (depthwise_conv2d, reference.depthwise_conv2d))
    for one, other, true in zip(ours, plain, in_float64(x, weight, **form), strict=True):
        no_worse(one, other, true)


@pytest.mark.parametrize("form", [{"padding": 2}, DILATED, {"stride": 2, "padding": 2}])
def test_low_precision(device, dtype, no_worse, form):
    x, weight = problem(4, 16, (20, 20), dtype=dtype, device=device)
    ours, plain = (results(function, x, weight, **form) for function in (depthwise_conv2d, reference.depthwise_conv2d))
    for one, other, true in zip(ours, plain, in_float64(x, weight, **form), strict=True):
        assert one.dtype == dtype
        no_worse(one, other, true)


class Names(TorchDispatchMode):
    """Of the operations that run, and of the results that a convolution's own gradient is asked for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        asked = args[-1] if function is torch.ops.aten.convolution_backward.default else ""
        self.seen.append((function.overloadpacket.__name__, *map(bool, asked)))
        return function(*args, **(kwargs or {}))


@pytest.mark.usefixtures("cpu_implementation")
@pytest.mark.parametrize(
    ("taps", "form", "slow"),
    [
        (5, {"padding": 2}, []),
        (3, {"padding": 2, "dilation": 2}, []),
        (5, DILATED, []),
        (3, {"padding": 4, "dilation": 2}, []),
        (3, {"padding": 5, "dilation": 2}, [(True, True, False)]),  # outputs that see zeros alone
        (5, {"stride": 2, "padding": 2}, [(True, True, False)]),
        (3, {"padding": 1}, [(True, True, False)]),
    ],
)
def test_gradients_are_convolutions_where_those_of_torch_are_slow(taps, form, slow):
    x, weight = problem(taps=taps)
    with Names() as names:
        depthwise_conv2d(x, weight, **form).sum().backward()
    assert [rest for name, *rest in names.seen if name == "convolution_backward"] == [list(each) for each in slow]


@pytest.mark.usefixtures("cpu_implementation")
@pytest.mark.parametrize("frozen", [0, 1])
def test_only_gradients_that_are_asked_for_are_computed(frozen):
    tensors = problem()
    tensors[frozen].requires_grad_(False)
    with Names() as names:
        depthwise_conv2d(*tensors, **DILATED).sum().backward()
    assert [name for name, *_ in names.seen].count("convolution") == 2
    assert tensors[frozen].grad is None


def test_autocast_casts_both_as_it_does_for_convolutions(device):
    x, weight = problem(device=device)
    with torch.autocast(device.type, torch.bfloat16):
        ours, plain = (function(x, weight, **DILATED) for function in (depthwise_conv2d, reference.depthwise_conv2d))
        narrow = depthwise_conv2d(x.bfloat16(), weight, **DILATED)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, plain)
    assert torch.equal(ours, narrow)
    gradients = torch.autograd.grad(ours.float().square().sum(), [x, weight])
    assert [gradient.dtype for gradient in gradients] == [torch.float32] * 2


def test_gradients_have_the_precision_of_the_values_wherever_they_are_asked_for(no_worse):
    x, weight = problem()
    output = depthwise_conv2d(x, weight, **DILATED)
    with torch.autocast("cpu", torch.bfloat16):
        ours = torch.autograd.grad(output, [x, weight], torch.ones_like(output))
    doubled = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    exact = torch.autograd.grad(reference.depthwise_conv2d(*doubled, **DILATED).sum(), doubled)
    for one, true in zip(ours, exact):
        no_worse(one, true, true)


@pytest.mark.parametrize("dilation", [1, 2])
def test_long_sums_lose_no_digits(no_worse, dilation):
    """Of numbers of one sign, at the largest maps that are not left to torch, and beyond."""
    for side in (63, 160):
        generator = torch.Generator().manual_seed(0)
        x, weight = torch.rand(1, 8, side, side, generator=generator), torch.rand(8, 1, 5, 5, generator=generator)
        form = {"padding": 2 * dilation, "dilation": dilation}
        found = []
        for function, dtype in (
            (depthwise_conv2d, torch.float32),
            (reference.depthwise_conv2d, torch.float32),
            (reference.depthwise_conv2d, torch.float64),
        ):
            tensors = [tensor.to(dtype).requires_grad_() for tensor in (x, weight)]
            found.append(torch.autograd.grad(function(*tensors, **form).sum(), tensors))
        for ours, plain, true in zip(*found):
            no_worse(ours, plain, true)


@pytest.mark.usefixtures("cpu_implementation")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_where_nothing_learns_it_is_the_convolution_of_torch_alone():
    """Which torch.jit can save, for one."""
    x, weight = problem()
    assert depthwise_conv2d(x, weight, **DILATED).grad_fn.name() == "_DepthwiseConv2dBackward"
    with torch.no_grad():
        traced = torch.jit.trace(lambda *tensors: depthwise_conv2d(*tensors, **DILATED), (x, weight))
    assert "_DepthwiseConv2d" not in str(traced.graph)


def test_torch_func_goes_through_it():
    x, weight = (tensor.detach() for tensor in problem())

    def loss(function):
        return lambda weight, x: function(x[None], weight, **DILATED).square().sum()

    ours, plain = (
        torch.func.vmap(torch.func.grad(loss(function)), (None, 0))(weight, x)
        for function in (depthwise_conv2d, reference.depthwise_conv2d)
    )
    torch.testing.assert_close(ours, plain)


def test_it_compiles_as_one_graph_and_runs_on_fake_tensors(device):
    x, weight = problem(device=device)
    torch._dynamo.reset()
    compiled = torch.compile(depthwise_conv2d, fullgraph=True, backend="aot_eager")
    for ours, true in zip(results(compiled, x, weight, **DILATED), results(depthwise_conv2d, x, weight, **DILATED)):
        torch.testing.assert_close(ours, true)
    with FakeTensorMode() as mode:
        fake = depthwise_conv2d(mode.from_tensor(x), mode.from_tensor(weight), **DILATED)
    assert fake.stride() == depthwise_conv2d(x, weight, **DILATED).stride()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(5, 7, 7)}, ValueError, "x must have shape"),
        ({"x": torch.zeros(2, 5, 7, 7, dtype=torch.int64)}, TypeError, "x must be one of"),
        ({"weight": torch.zeros(4, 1, 3, 3)}, ValueError, r"weight must have shape \(5, 1"),
        ({"weight": torch.zeros(5, 5, 3, 3)}, ValueError, r"weight must have shape \(5, 1"),
        ({"weight": torch.zeros(5, 1, 3, 5)}, ValueError, "square kernel"),
        ({"weight": torch.zeros(5, 1, 0, 0)}, ValueError, "square kernel"),
        ({"x": torch.zeros(2, 5, 0, 7), "padding": 2}, ValueError, "x must have channels and pixels"),
        ({"x": torch.zeros(2, 0, 7, 7), "weight": torch.zeros(0, 1, 3, 3)}, ValueError, "x must have channels"),
        ({"weight": torch.zeros(5, 1, 3, 3, dtype=torch.int64)}, TypeError, "weight must be one of"),
        ({"weight": torch.zeros(5, 1, 3, 3).bfloat16()}, TypeError, "weight must be one of torch.float32, not"),
        ({"stride": 0}, ValueError, "stride 0"),
        ({"stride": (1, 1)}, TypeError, "stride must be an integer, not"),
        ({"dilation": 1.0}, TypeError, "dilation must be an integer, not"),
        ({"padding": "same"}, TypeError, "padding must be an integer, not"),
        ({"dilation": -1}, ValueError, "dilation -1"),
        ({"padding": (1, -1)}, ValueError, "padding"),
        ({"padding": (1, 1, 1)}, ValueError, "padding"),
        ({"padding": 0, "dilation": 4}, ValueError, "reaches over 9 pixels"),
    ],
)
def test_wrong_arguments_are_named(change, error, words):
    arguments = {"x": torch.zeros(2, 5, 7, 7), "weight": torch.zeros(5, 1, 3, 3), "padding": 1}
    with pytest.raises(error, match=words):
        depthwise_conv2d(**(arguments | change))
