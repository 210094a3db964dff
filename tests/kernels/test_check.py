"""The check passes here, and notices what it is there for."""

import contextlib
import json
import subprocess
import sys
from functools import cache

import pytest
import torch

from semiseg import kernels
from semiseg.kernels import check, reference
from semiseg.kernels._examples import examples
from semiseg.kernels.cpu import (
    cutmix,
    directional_contrast,
    photometric,
    pseudo_label,
    upsample_confusion,
    upsample_cross_entropy,
)

checked = cache(check.check)  # which takes half a minute in Triton's interpreter


def test_every_operator_is_right(device, dtype):
    results = checked(device, dtype)
    assert [(result.operator, result.problem) for result in results if result.problem] == []
    assert {result.operator.split()[0] for result in results} == set(kernels.__all__) - {"box_mask"}
    for result in results:
        assert result.error <= result.allowed
        assert result.seconds > 0


@pytest.mark.usefixtures("cpu_implementation")
def test_float32_is_float32_whatever_the_process_allows(device):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        assert wrong(check.check(device, torch.float32)) == {}
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_it_names_the_provider_of_an_operator(device):
    providers = {result.operator.split()[0]: result.implementation for result in checked(device, torch.float32)}
    kernel = check.has_kernels(device)
    usual = "triton" if kernel else "cpu"
    exceptions = {
        "cut_windows": "triton" if kernel else "plain",
        "depthwise_conv2d": "plain" if kernel else "cpu",
        "upsample": "triton" if kernel else "torch",
        "upsample_conv2d": "torch",
    }
    assert providers == dict.fromkeys(providers, usual) | exceptions
    for operator, provider in providers.items():
        assert check.has_kernel(operator, device) == (provider == "triton")


def wrong(results):
    return {result.operator: result.problem for result in results if result.problem}


@pytest.mark.usefixtures("cpu_implementation")
@pytest.mark.parametrize(
    ("module", "name", "damage", "said"),
    [
        (upsample_cross_entropy, "cross_entropy", lambda total, count: (total * 1.0001, count), "float64"),
        (upsample_cross_entropy, "cross_entropy", lambda total, count: (total * torch.nan, count), "not finite"),
        (
            directional_contrast,
            "directional_contrast",
            lambda losses, direction, gradient, *rest: (losses, direction, gradient * 1.0001, *rest),
            "float64",
        ),
        (upsample_confusion, "upsample_confusion", lambda *rows: torch.stack(rows).roll(1, 0), "float64"),
        (photometric, "photometric", lambda *images: torch.stack(images).flip(3), "float64"),
    ],
)
def test_a_kernel_that_returns_a_wrong_number_is_reported(module, name, damage, said, monkeypatch):
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments, **options: damage(*right(*arguments, **options)))
    found = wrong(check.check("cpu", torch.float32))
    assert found
    operator = module.__name__.rpartition(".")[2]
    assert {name.split()[0] for name in found} <= {operator, "upsample_ohem_cross_entropy"}
    assert all(said in problem for problem in found.values())


@pytest.mark.usefixtures("cpu_implementation")
def test_wrong_labels_are_reported(monkeypatch):

    def reversed_rows(logits, align_corners, label, confidence):
        right(logits.flip(2), align_corners, label, confidence)

    right = pseudo_label.pseudo_label
    monkeypatch.setattr(pseudo_label, "pseudo_label", reversed_rows)
    assert set(wrong(check.check("cpu", torch.float32))) == {"pseudo_label", "pseudo_label without confidence"}


@pytest.mark.usefixtures("cpu_implementation")
def test_a_kernel_that_raises_is_reported_and_the_others_go_on(monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error:\n  an illegal memory access")

    monkeypatch.setattr(cutmix, "mix", broken)
    results = check.check("cpu", torch.bfloat16)
    assert wrong(results) == {"cutmix": "RuntimeError: CUDA error: an illegal memory access"}
    assert results[-1].operator == "photometric blurred last"


@pytest.mark.usefixtures("cpu_implementation")
def test_a_result_of_another_dtype_is_reported(monkeypatch):
    monkeypatch.setattr(kernels, "upsample_confusion", lambda *arguments: torch.zeros(5, 5))
    assert set(wrong(check.check("cpu", torch.float32))) == {"upsample_confusion"}


@pytest.mark.usefixtures("cpu_implementation")
def test_a_refused_operator_is_served_by_its_definition(monkeypatch):
    monkeypatch.setattr(cutmix, "mix", lambda images_a, images_b, boxes, order: images_a.clone())
    a, b, boxes = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), torch.tensor([[[1, 1, 4, 6]]])
    compiled = torch.compile(kernels.cutmix, fullgraph=True, backend="eager")
    assert kernels.cutmix(a, b, boxes).sum() == compiled(a, b, boxes).sum() == 0
    try:
        assert set(check.refuse(check.check("cpu", torch.float32))) == {"cutmix"}
        assert kernels.cutmix(a, b, boxes).sum() == compiled(a, b, boxes).sum() == 3 * 3 * 5
        assert set(wrong(check.check("cpu", torch.float32))) == {"cutmix"}  # what is refused is looked at again
    finally:
        check.refuse([])
    assert kernels.cutmix(a, b, boxes).sum() == compiled(a, b, boxes).sum() == 0


def refusal(operator):
    return check.Result(operator, "cpu", "fp32", "cpu", problem="is 3")


@pytest.mark.usefixtures("cpu_implementation")
@pytest.mark.parametrize("operator", sorted(set(kernels.__all__) - {"box_mask", "cut_windows"}))
def test_every_operator_can_be_refused(operator, monkeypatch):
    """Its definition is then what is called."""
    seen = []
    definition = getattr(reference, operator)

    def noted(*arguments, **options):
        seen.append(operator)
        return definition(*arguments, **options)

    try:
        assert check.refuse([refusal(operator), refusal(f"{operator} map")]) == {operator: "is 3"}
        monkeypatch.setattr(reference, operator, noted)
        call(operator)
        assert seen
    finally:
        check.refuse([])
    seen.clear()
    call(operator)
    assert not seen


def test_refusing_ends_with_its_block_however_that_ends(monkeypatch):
    seen = []
    monkeypatch.setattr(reference, "cutmix", lambda *arguments: seen.append("cutmix") or arguments[0])
    with contextlib.suppress(KeyError), check.refusing(["cutmix"]):
        call("cutmix")
        raise KeyError
    assert seen == ["cutmix"]
    call("cutmix")
    assert seen == ["cutmix"]


@pytest.mark.parametrize(
    ("names", "says"),
    [("cutmix", "must be a list of names, not 'cutmix'"), (["cutmix", "cutmax"], "^cutmax: no operator; they are box")],
)
def test_refusing_what_is_no_operator_is_an_error(names, says):
    with pytest.raises(ValueError, match=says), check.refusing(names):
        pass


def call(operator):
    """The first of the operator's examples, with gradients."""
    example = next(example for example in examples("cpu").values() if example.operator == operator)
    leaves = [tensor.float().requires_grad_(i < example.differentiable) for i, tensor in enumerate(example.tensors)]
    example.outputs(getattr(kernels, operator), leaves)


@pytest.mark.usefixtures("cpu_implementation")
def test_command_prints_one_json_document():
    command = [sys.executable, "-m", "semiseg.kernels.check", "--json", "--device", "cpu", "--dtype", "fp32"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert {(result["device"], result["dtype"], result["problem"]) for result in results} == {("cpu", "fp32", None)}


@pytest.mark.usefixtures("cpu_implementation")
def test_a_wrong_kernel_fails_the_command(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "cutmix", lambda a, b, boxes: a + 0 * b)
    assert check.main(["--device", "cpu", "--dtype", "fp32"]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("cutmix"))
    assert "float64" in line


def test_a_device_that_is_not_there_is_one_line(capsys):
    assert check.main(["--device", "cuda:99"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no device cuda:99" in line
