"""What every kernel promises beside its numbers: it traces, compiles, ignores autocast, needs only torch and numpy."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from interpreter import INTERPRETED
from semiseg import kernels
from semiseg.kernels import _dispatch
from semiseg.kernels._examples import BOXES, examples

CONVOLUTIONS = {"depthwise_conv2d", "upsample_conv2d"}
"""Made of torch's operators: autocast casts them as it does torch's, and second derivatives are those of torch."""
NAMES = [name for name, example in examples("cpu").items() if example.operator not in CONVOLUTIONS]


def call(name, device, seed=0):
    """A function of float tensors that gives a tuple, these tensors in float32, how many of them take a gradient.
    Nothing but the tensors depends on the seed."""
    example = examples(device, seed)[name]

    def function(*tensors):
        return example.outputs(getattr(kernels, example.operator), tensors)

    return function, [tensor.to(device, torch.float32) for tensor in example.tensors], example.differentiable


def fresh(tensors, differentiable):
    """Copies, of which the first ones take a gradient."""
    return [tensor.detach().clone().requires_grad_(i < differentiable) for i, tensor in enumerate(tensors)]


def results(function, leaves, differentiable):
    """Outputs, followed by the gradients of the sum of all numbers in them."""
    outputs = function(*leaves)
    if not differentiable:
        return list(outputs)
    gradients = torch.autograd.grad(sum(output.sum() for output in outputs), leaves[:differentiable])
    return [*(output.detach() for output in outputs), *gradients]


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_fake_tensors_with_the_same_shapes(name, device):
    """Under FakeTensorMode reading a value or indexing by a mask raises: no kernel makes the host wait."""
    function, tensors, differentiable = call(name, device)
    real = results(function, fresh(tensors, differentiable), differentiable)
    for dtype in (torch.float32, torch.float64):
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = [mode.from_tensor(tensor.to(dtype)) for tensor in tensors]
            fake = results(function, fresh(fakes, differentiable), differentiable)
        for true, faked in zip(real, fake, strict=True):
            assert faked.shape == true.shape
            assert faked.stride() == true.stride()
            if dtype == torch.float32:
                assert faked.dtype == true.dtype


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name, device):
    function, tensors, differentiable = call(name, device)
    plain = results(function, fresh(tensors, differentiable), differentiable)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        ours = results(function, fresh(tensors, differentiable), differentiable)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


def losses(device):
    """Losses of logits (2, 5, 4, 3) that compute their gradient beside their value."""
    target = torch.zeros(2, 16, 12, dtype=torch.uint8, device=device)
    teacher = torch.randn(2, 5, 4, 3, device=device)
    label, conf = torch.arange(24, device=device) % 3, torch.full((24,), 0.5, device=device)

    def contrast(logits):
        rows = torch.nn.functional.normalize(logits.permute(0, 2, 3, 1).reshape(24, 5), dim=1)
        return kernels.directional_contrast(rows, rows.flip(0), label, label, conf, conf + 0.4, rows, label)[0]

    return {
        "upsample_cross_entropy": lambda logits: kernels.upsample_cross_entropy(logits, target),
        "upsample_mse": lambda logits: kernels.upsample_mse(logits, teacher.to(logits.dtype), (16, 12)),
        "directional_contrast": contrast,
    }


@pytest.mark.parametrize("name", losses("cpu"))
def test_a_program_that_was_traced_without_a_gradient_says_so_where_one_is_asked_for(name, device):
    class Loss(torch.nn.Module):
        def forward(self, logits):
            return function(logits)

    function = losses(device)[name]
    logits = torch.randn(2, 5, 4, 3, device=device)
    program = torch.export.export(Loss(), (logits,)).module()
    assert torch.isfinite(program(logits))
    with pytest.raises(RuntimeError, match=f"{name} was traced where no gradient was asked for"):
        program(logits.clone().requires_grad_()).backward()
    leaf = logits.clone().requires_grad_()
    torch.export.export(Loss(), (leaf,)).module()(leaf).backward()
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", losses("cpu"))
def test_several_upstream_gradients_at_once_are_each_by_itself(name, dtype, device):
    leaf = torch.randn(2, 5, 4, 3, device=device, dtype=dtype, requires_grad=True)
    loss = losses(device)[name](leaf)
    upstream = torch.tensor([1.0, 2.0, -3.0], dtype=loss.dtype, device=device)
    (together,) = torch.autograd.grad(loss, leaf, upstream, is_grads_batched=True, retain_graph=True)
    for one, factor in zip(together, upstream, strict=True):
        (alone,) = torch.autograd.grad(loss, leaf, factor, retain_graph=True)
        torch.testing.assert_close(one, alone, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


def test_shapes_alone_are_enough():
    logits = torch.empty(2, 5, 4, 3, device="meta", requires_grad=True)
    target = torch.empty(2, 16, 12, dtype=torch.uint8, device="meta")
    kernels.upsample_cross_entropy(logits, target).backward()
    assert logits.grad.shape == logits.shape
    assert kernels.upsample_conv2d(logits, torch.empty(7, 5, 3, 3, device="meta"), (9, 8)).shape == (2, 7, 9, 8)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_dtype_changes_nothing(name, device):
    function, tensors, differentiable = call(name, device)
    plain = results(function, fresh(tensors, differentiable), differentiable)
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            ours = results(function, fresh(tensors, differentiable), differentiable)
        finally:
            torch.set_default_dtype(torch.float32)
        for one, other in zip(ours, plain, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_operators_pass_torchs_own_checks(name, device):
    """Schema, fake version, autograd registration and tracing of every operator that the call reaches. The last two are
    the same whatever computes it."""
    function, tensors, differentiable = call(name, device)
    reached = []

    class Recorder(TorchFunctionMode):
        def __torch_function__(self, operator, types, args=(), kwargs=None):
            if str(operator).startswith("semiseg."):
                reached.append((operator, args))
            return operator(*args, **(kwargs or {}))

    with Recorder():
        function(*fresh(tensors, differentiable))
    if name.startswith("upsample") and "_" not in name and not reached:
        pytest.skip("torch's own on the CPU")
    assert reached
    for operator, arguments in reached:
        if INTERPRETED:
            torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
        else:
            torch.library.opcheck(operator, arguments)


DIFFERENTIABLE = [name for name in NAMES if examples("cpu")[name].differentiable]
LINEAR = {"cutmix", "upsample", "upsample channels-last"}


def cubed(name, device, seed=0):
    """A scalar function of the leaves of a call that is curved even where the operator is linear, and the leaves."""
    function, tensors, differentiable = call(name, device, seed)
    leaves, others = tensors[:differentiable], tensors[differentiable:]

    def total(*leaves):
        outputs = function(*leaves, *(other.to(leaves[0].dtype) for other in others))
        return sum(output.pow(3).sum() for output in outputs)

    return total, leaves


def in_float64(tensors):
    return [tensor.double().requires_grad_() for tensor in tensors]


def close(ours, exact):
    """In single precision."""
    for one, true in zip(ours, exact, strict=True):
        assert (one.double() - true).norm() <= 2e-4 * true.norm() + 1e-6


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_forward_mode_is_right(name, device):
    total, leaves = cubed(name, device)
    tangents = cubed(name, device, seed=1)[1]
    exact = in_float64(leaves)
    gradients = torch.autograd.grad(total(*exact), exact)
    expected = [sum((gradient * tangent).sum() for gradient, tangent in zip(gradients, tangents))]
    close([torch.func.jvp(total, tuple(leaves), tuple(tangents))[1]], expected)
    with forward_ad.dual_level():
        result = total(*map(forward_ad.make_dual, leaves, tangents))
        close([forward_ad.unpack_dual(result).tangent], expected)


HELD = [name for name in NAMES if len(call(name, "cpu")[1]) > call(name, "cpu")[2]]


@pytest.mark.parametrize("name", HELD)
def test_what_takes_no_gradient_has_no_part_in_forward_mode(name, device):
    function, tensors, differentiable = call(name, device)
    leaves, others = tensors[:differentiable], tuple(tensors[differentiable:])

    def total(*others):
        return sum(output.sum() for output in function(*leaves, *others) if output.is_floating_point())

    if isinstance(total(*others), int):
        pytest.skip("nothing but integers")
    tangents = tuple(map(torch.ones_like, others))
    assert not torch.func.jvp(total, others, tangents)[1].any()
    wide = [tensor.double() for tensor in leaves], tuple(other.double() for other in others)
    leaves = wide[0]
    assert not torch.func.jvp(total, wide[1], tuple(map(torch.ones_like, wide[1])))[1].any()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_torch_func_has_second_derivatives(name, device):
    total, leaves = cubed(name, device)
    tangents, places = tuple(cubed(name, device, seed=1)[1]), tuple(range(len(leaves)))
    gradients, curved = torch.func.jvp(torch.func.grad(total, places), tuple(leaves), tangents)
    exact = in_float64(leaves)
    expected = torch.autograd.grad(total(*exact), exact, create_graph=True)
    close(gradients, [gradient.detach() for gradient in expected])
    close(curved, torch.autograd.grad(expected, exact, [tangent.double() for tangent in tangents]))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_second_derivative_is_right_or_an_error(name, device):
    """Of leaves that are what a network makes of its weights, as for a gradient penalty: torch would say nothing."""
    total, leaves = cubed(name, device)

    def curved(weights):
        made = [2 * weight for weight in weights]
        gradients = torch.autograd.grad(total(*made), made, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), weights)

    exact = curved(in_float64(leaves))
    weights = [leaf.requires_grad_() for leaf in leaves]
    if name in LINEAR:
        close(curved(weights), exact)
    else:
        operator = name.split()[0].replace("ohem_", "")
        with pytest.raises(RuntimeError, match=f"{operator} has first derivatives only: .* no create_graph"):
            curved(weights)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_forward_mode_through_a_backward_pass_alone_is_an_error(name, device):
    function, tensors, differentiable = call(name, device)
    leaves = fresh(tensors, differentiable)
    output = function(*leaves)[0]
    if _dispatch.provider_on(device, name.split()[0]) == "torch":
        pytest.skip("torch's own on the CPU")
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="no tangents"):
        torch.autograd.grad(output, leaves[0], forward_ad.make_dual(*torch.ones(2, *output.shape, device=device)))


def bounds(ours, device):
    """Within rounding: torch's usual bounds, and wider ones on a GPU, whose kernels add and divide otherwise than the
    definitions."""
    return {"rtol": 1e-4, "atol": 1e-5} if device.type == "cuda" and ours.is_floating_point() else {}


# torch.func knows no memory format.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "upsample channels-last"])
def test_a_batch_of_calls_is_the_calls_one_by_one(name, device):
    function, _, differentiable = call(name, device)
    several = [call(name, device, seed)[1] for seed in (0, 1, 2)]
    alone = [results(function, fresh(tensors, differentiable), differentiable) for tensors in several]
    leaves = fresh(map(torch.stack, zip(*several)), differentiable)
    together = results(torch.func.vmap(function), leaves, differentiable)
    for ours, true in zip(together, map(torch.stack, zip(*alone)), strict=True):
        torch.testing.assert_close(ours, true, **bounds(ours, device))


def test_transformations_compile(device):
    total, leaves = cubed("upsample_cross_entropy", device)
    tangents = cubed("upsample_cross_entropy", device, seed=1)[1]

    def transformed(leaf, tangent):
        return torch.func.jvp(torch.func.grad(total), (leaf,), (tangent,))

    torch._dynamo.reset()
    compiled = torch.compile(transformed, fullgraph=True, backend="aot_eager")
    for ours, true in zip(compiled(*leaves, *tangents), transformed(*leaves, *tangents), strict=True):
        torch.testing.assert_close(ours, true, **bounds(ours, device))


@pytest.mark.parametrize("name", sorted(LINEAR - {"upsample channels-last"}))
def test_the_gradients_of_linear_operators_pass_torchs_own_checks(name, device):
    function, tensors, _ = call(name, device)
    gradient = function(*tensors)[0].detach().requires_grad_()
    boxes, (height, width) = torch.tensor(BOXES, device=device), tensors[0].shape[2:]
    arguments = (gradient, boxes) if name == "cutmix" else (gradient, height, width, True, False)
    if _dispatch.provider_on(device, name) == "torch":
        pytest.skip("torch's own on the CPU")
    torch.library.opcheck(getattr(torch.ops.semiseg, f"{name}_backward"), arguments)


@pytest.mark.usefixtures("cpu_implementation")
def test_whole_graph_compiles(device):
    """One graph holds them all; `aot_eager` traces forward and backward without generating code."""
    cases = {name: call(name, device) for name in NAMES}

    def everything(tensors):
        return [output for name in NAMES for output in cases[name][0](*tensors[name])]

    def run(function):
        leaves = {name: fresh(cases[name][1], cases[name][2]) for name in NAMES}
        outputs = function(leaves)
        sum(output.sum() for output in outputs if output.requires_grad).backward()
        return [*outputs, *(leaf.grad for group in leaves.values() for leaf in group if leaf.requires_grad)]

    torch._dynamo.reset()
    compiled = run(torch.compile(everything, fullgraph=True, backend="aot_eager"))
    eager = run(everything)
    for ours, true in zip(compiled, eager, strict=True):
        torch.testing.assert_close(ours, true, rtol=2e-5, atol=1e-5)  # tracing decomposes torch's own interpolation


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", NAMES)
def test_a_captured_graph_takes_new_inputs(name):
    function, tensors, differentiable = call(name, "cuda")
    leaves = fresh(tensors, differentiable)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results(function, leaves, differentiable)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(function, leaves, differentiable)
    # Replayed twice: what one replay leaves behind must not reach the next.
    for seed in (1, 2):
        inputs = call(name, "cuda", seed)[1]
        with torch.no_grad():
            for leaf, tensor in zip(leaves, inputs):
                leaf.copy_(tensor)
        graph.replay()
        eager = results(function, fresh(inputs, differentiable), differentiable)
        for ours, true in zip(captured, eager, strict=True):
            torch.testing.assert_close(ours, true)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", NAMES)
def test_the_host_never_waits(name):
    """Once its kernels are compiled, nothing in a call or its backward pass may synchronise."""
    function, tensors, differentiable = call(name, "cuda")
    leaves = fresh(tensors, differentiable)
    results(function, leaves, differentiable)
    torch.cuda.set_sync_debug_mode("error")
    try:
        results(function, leaves, differentiable)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_works_with_torch_and_numpy_only():
    code = """
import sys
for name in ("triton", "torchvision", "cv2", "PIL", "tyro", "rich", "nvidia"):
    sys.modules[name] = None
import torch
import semiseg.kernels as kernels
rest = [name for name in sys.modules if name.startswith("semiseg.") and not name.startswith("semiseg.kernels")]
assert not rest, rest
logits = torch.eye(3)[None, :, :, None].requires_grad_()
label, confidence = kernels.pseudo_label(logits, (3, 1))
assert label.flatten().tolist() == [0, 1, 2]
kernels.upsample_cross_entropy(logits, label).backward()
assert kernels.upsample_confusion(logits, label, 3).trace() == 3
assert kernels.upsample(logits, (6, 1)).shape == (1, 3, 6, 1)
boxes = torch.tensor([[[0, 0, 2, 1]]])
assert kernels.cutmix(torch.zeros(1, 1, 3, 1), torch.ones(1, 1, 3, 1), boxes).sum() == 2
images, blur = torch.full((1, 2, 2, 3), 51, dtype=torch.uint8), torch.tensor([True])
assert (kernels.photometric(images, torch.eye(3, 4)[None], blur, (0, 0, 0), (0.2, 0.2, 0.2)) - 1).abs().max() < 1e-6
ones, labels = torch.eye(2), torch.tensor([0, 1])
kernels.directional_contrast(ones, ones, labels, labels, torch.zeros(2), torch.ones(2), ones, labels)
from semiseg.kernels.check import check
assert not any(result.problem for result in check("cpu", torch.float32))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
