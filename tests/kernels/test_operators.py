"""What every kernel promises beside its numbers: it traces, compiles, ignores autocast, needs only torch and numpy."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from semiseg import kernels

BOXES = torch.tensor([[[1, 1, 7, 6]], [[0, 2, 5, 8]]])


def calls():
    """Name -> (function of its float tensors, these tensors, which of them take a gradient)."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    target = torch.randint(0, 5, (2, 16, 12), generator=generator).to(torch.uint8)
    target[:, :3] = 255
    labels = torch.randint(0, 3, (2, 30), generator=generator)
    conf = torch.rand(2, 30, generator=generator)
    valid = torch.arange(30) < 28
    images = torch.randint(0, 256, (2, 9, 8, 3), generator=generator, dtype=torch.uint8)
    matrix, blur = torch.eye(3, 4) + 0.1 * random(2, 3, 4), torch.tensor([True, False])
    bank_labels = torch.randint(-1, 3, (50,), generator=generator)
    unit = [F.normalize(random(count, 8), dim=1) for count in (30, 30, 50)]
    logits = random(2, 5, 4, 3)
    return {
        "directional_contrast": (
            lambda f1, f2, n: kernels.directional_contrast(f1, f2, *labels, *conf, n, bank_labels, valid=valid),
            unit,
            2,
        ),
        "directional_contrast with negatives": (
            lambda f1, f2, n: kernels.directional_contrast(f1, f2, *labels, *conf, n, bank_labels, grad_negatives=True),
            unit,
            3,
        ),
        "upsample_cross_entropy": (lambda x: kernels.upsample_cross_entropy(x, target), [logits], 1),
        "upsample_cross_entropy map": (
            lambda x: kernels.upsample_cross_entropy(x, target, reduction="none", pixel_weight=target.float()),
            [logits],
            1,
        ),
        "upsample_ohem_cross_entropy": (
            lambda x: kernels.upsample_ohem_cross_entropy(x, target, min_kept=40),
            [logits],
            1,
        ),
        "pseudo_label": (lambda x: kernels.pseudo_label(x, (16, 12)), [logits], 0),
        "mixed_pseudo_label": (
            lambda a, b: kernels.mixed_pseudo_label(a, b, BOXES, (16, 12)),
            [logits, random(2, 5, 4, 3)],
            0,
        ),
        "cutmix": (lambda a, b: kernels.cutmix(a, b, BOXES), [random(2, 3, 8, 9), random(2, 3, 8, 9)], 2),
        "upsample_confusion": (lambda x: kernels.upsample_confusion(x, target, 5), [logits], 0),
        "photometric": (
            lambda m: kernels.photometric(images, m, blur, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), dtype=torch.bfloat16),
            [matrix],
            0,
        ),
    }


def results(function, tensors, differentiable):
    """Outputs, and the gradients of the sum of the float ones."""
    leaves = [tensor.detach().clone().requires_grad_(i < differentiable) for i, tensor in enumerate(tensors)]
    outputs = function(*leaves)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    if differentiable:
        sum(output.sum() for output in outputs).backward()
    return [output.detach() for output in outputs], [leaf.grad for leaf in leaves[:differentiable]]


@pytest.mark.parametrize("name", calls())
def test_runs_on_fake_tensors_with_the_same_shapes(name):
    """Under FakeTensorMode reading a value or indexing by a mask raises: no kernel makes the host wait."""
    function, tensors, differentiable = calls()[name]
    real = results(function, tensors, differentiable)
    for dtype in (torch.float32, torch.float64):
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = [mode.from_tensor(tensor.to(dtype)) for tensor in tensors]
            fake = results(function, fakes, differentiable)
        for true, faked in zip([*real[0], *real[1]], [*fake[0], *fake[1]]):
            assert faked.shape == true.shape
            assert faked.stride() == true.stride()
            if dtype == torch.float32:
                assert faked.dtype == true.dtype


@pytest.mark.parametrize("name", calls())
def test_autocast_changes_nothing(name):
    function, tensors, differentiable = calls()[name]
    plain = results(function, tensors, differentiable)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = function(*(tensor.clone().requires_grad_(i < differentiable) for i, tensor in enumerate(tensors)))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for ours, true in zip(outputs, plain[0]):
        assert ours.dtype == true.dtype
        assert torch.equal(ours, true)


@pytest.mark.parametrize("name", calls())
def test_operators_pass_torchs_own_checks(name):
    """Schema, fake version, autograd registration and tracing of every operator that the call reaches."""
    function, tensors, differentiable = calls()[name]
    reached = []

    class Recorder(TorchFunctionMode):
        def __torch_function__(self, operator, types, args=(), kwargs=None):
            if str(operator).startswith("semiseg."):
                reached.append((operator, args))
            return operator(*args, **(kwargs or {}))

    with Recorder():
        function(*(tensor.clone().requires_grad_(i < differentiable) for i, tensor in enumerate(tensors)))
    assert reached
    for operator, arguments in reached:
        torch.library.opcheck(operator, arguments)


def test_whole_graph_compiles():
    """One graph holds them all; `aot_eager` traces forward and backward without generating code."""
    cases = calls()
    names = [name for name, (_, _, differentiable) in cases.items() if differentiable]

    def everything(tensors):
        return [cases[name][0](*tensors[name]) for name in names]

    def run(function):
        leaves = {name: [tensor.clone().requires_grad_() for tensor in cases[name][1]] for name in names}
        outputs = function(leaves)
        flat = [part for output in outputs for part in (output if isinstance(output, tuple) else (output,))]
        sum(part.sum() for part in flat).backward()
        return flat, [leaf.grad for group in leaves.values() for leaf in group]

    torch._dynamo.reset()
    compiled = run(torch.compile(everything, fullgraph=True, backend="aot_eager"))
    eager = run(everything)
    for ours, true in zip([*compiled[0], *compiled[1]], [*eager[0], *eager[1]]):
        assert (ours is None) == (true is None)
        if true is not None:
            torch.testing.assert_close(ours, true)


def test_imports_with_torch_and_numpy_only():
    code = """
import sys
for name in ("triton", "torchvision", "cv2", "PIL"):
    sys.modules[name] = None
import semiseg.kernels
rest = [name for name in sys.modules if name.startswith("semiseg.") and not name.startswith("semiseg.kernels")]
assert not rest, rest
"""
    subprocess.run([sys.executable, "-c", code], check=True)
