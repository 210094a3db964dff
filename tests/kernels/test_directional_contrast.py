import os
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.kernels import directional_contrast, reference
from semiseg.kernels.cpu import directional_contrast as cpu


def problem(rows, bank, channels=8, classes=3, dtype=torch.float64, seed=0, device="cpu", sorted_by_class=False):
    """Arguments by name; about a tenth of the bank is empty."""
    generator = torch.Generator().manual_seed(seed)

    def unit(count):
        return F.normalize(torch.randn(count, channels, generator=generator, dtype=torch.float64), dim=1).to(dtype)

    labels = torch.randint(0, classes, (2, rows), generator=generator)
    negative_labels = torch.randint(0, classes, (bank,), generator=generator)
    negative_labels[torch.rand(bank, generator=generator) < 0.1] = -1
    feat1, conf = unit(rows), torch.rand(2, rows, generator=generator)
    if sorted_by_class:
        labels, negative_labels = labels.sort().values, negative_labels.sort().values
    arguments = {
        "feat1": feat1,
        "feat2": F.normalize(feat1 + 0.5 * unit(rows), dim=1),
        "label1": labels[0],
        "label2": labels[1],
        "conf1": conf[0],
        "conf2": conf[1],
        "negatives": unit(bank),
        "negative_labels": negative_labels,
    }
    return {name: value.to(device) for name, value in arguments.items()}


def run(function, arguments, **options):
    """Losses and the gradients of loss1 + 2 loss2 with respect to both features and the negatives, on the CPU."""
    leaves = {name: arguments[name].clone().requires_grad_() for name in ("feat1", "feat2", "negatives")}
    loss1, loss2 = function(**(arguments | leaves), **options)
    (loss1 + 2 * loss2).backward()
    results = [loss1.detach(), loss2.detach(), *(leaf.grad for leaf in leaves.values())]
    return [None if result is None else result.cpu() for result in results]


def exactly(arguments):
    return {name: value.double() if value.is_floating_point() else value for name, value in arguments.items()}


def published(
    feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels, temperature, threshold, valid=None
):
    """The published formula, one anchor and one negative at a time, with its maximum and both of its epsilons."""
    results = []
    for anchors, targets, labels, own, other in (
        (feat1, feat2, label1, conf1, conf2),
        (feat2, feat1, label2, conf2, conf1),
    ):
        losses = []
        for i in range(len(anchors)):
            if not (other[i] > threshold and own[i] < other[i]) or (valid is not None and not valid[i]):
                continue
            positive = anchors[i] @ targets[i].detach() / temperature
            scores = [anchors[i] @ negative / temperature for negative in negatives]
            peak = max([positive, *scores]).detach()
            denominator = torch.exp(positive - peak)
            for score, label in zip(scores, negative_labels):
                if label >= 0 and label != labels[i]:
                    denominator = denominator + torch.exp(score - peak)
            losses.append(-torch.log(torch.exp(positive - peak) / (denominator + 1e-8) + 1e-8))
        results.append(sum(losses) / (len(losses) + 1e-12) if losses else anchors.sum() * 0)
    return tuple(results)


@pytest.mark.parametrize("temperature", [0.1, 0.04])
def test_double_precision_is_the_published_formula(temperature):
    arguments = problem(rows=24, bank=17)
    valid = torch.arange(24) % 5 != 0
    options = {"temperature": temperature, "threshold": 0.4}
    ours = run(directional_contrast, arguments, valid=valid, **options)
    theirs = run(published, arguments, valid=valid, **options)
    for mine, other in zip(ours[:4], theirs[:4]):
        # Leaving out the inner epsilon moves a loss by at most 1e-8 and its gradient by 1e-8 / temperature.
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-8 / temperature)
    assert ours[2].abs().sum() > 0
    assert ours[3].abs().sum() > 0


@settings(max_examples=30)
@given(
    rows=st.integers(0, 40),
    bank=st.integers(0, 70),
    channels=st.integers(1, 9),
    classes=st.sampled_from([1, 2, 6, 40]),
    block=st.sampled_from([(3, 5), (16, 16), (256, 2048)]),
    temperature=st.sampled_from([0.07, 0.5, 0.004]),
    grad_negatives=st.booleans(),
    by_class=st.booleans(),
    sorted_by_class=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_single_precision_agrees_with_the_definition(
    device, rows, bank, channels, classes, block, temperature, grad_negatives, by_class, sorted_by_class, seed
):
    arguments = problem(rows, bank, channels, classes, torch.float32, seed, device, sorted_by_class)
    arguments["valid"] = (torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < 0.9).to(device)
    options = {"temperature": temperature, "threshold": 0.3, "grad_negatives": grad_negatives}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "ROWS", block[0])
        patch.setattr(cpu, "COLUMNS", block[1])
        ours = run(directional_contrast, arguments, by_class=by_class, **options)
    exact = run(reference.directional_contrast, exactly(arguments), **options)
    for mine, true in zip(ours, exact):
        if true is None:
            assert mine is None
        else:
            # The relative error of exp is the absolute error of its argument, which is as large as 1 / temperature.
            tolerance = 3e-6 + 5e-7 / temperature
            assert (mine - true).norm() <= tolerance * (true.norm() + 1 / temperature)


CASES = {
    "aligned": {"rows": 128, "bank": 256, "channels": 32, "classes": 7},
    "ragged": {"rows": 203, "bank": 333, "channels": 21, "classes": 7},
    "wide": {"rows": 70, "bank": 90, "channels": 130, "classes": 3},
    "sorted": {"rows": 150, "bank": 300, "channels": 16, "classes": 4, "sorted_by_class": True},
    "classes that share a bit": {"rows": 150, "bank": 300, "channels": 16, "classes": 70, "sorted_by_class": True},
    "tiny": {"rows": 3, "bank": 2, "channels": 1},
    "one class": {"rows": 40, "bank": 50, "classes": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_no_worse_than_plain_torch(case, device, dtype, no_worse):
    arguments = problem(**CASES[case], dtype=dtype, device=device)
    options = {"threshold": 0.5, "grad_negatives": True}
    ours = run(directional_contrast, arguments, **options)
    plain = run(reference.directional_contrast, arguments, **options)
    exact = run(reference.directional_contrast, exactly(arguments), **options)
    assert [result.dtype for result in ours] == [torch.float32, torch.float32, dtype, dtype, dtype]
    for triple in zip(ours, plain, exact):
        no_worse(*triple)


def test_many_tiles_of_negatives(device, dtype, no_worse):
    arguments = problem(rows=150, bank=3000, channels=16, classes=7, dtype=dtype, device=device)
    ours = run(directional_contrast, arguments)
    plain = run(reference.directional_contrast, arguments)
    exact = run(reference.directional_contrast, exactly(arguments))
    assert ours[4] is None
    for triple in zip(ours[:4], plain[:4], exact[:4]):
        no_worse(*triple)


@pytest.mark.parametrize(("rows", "bank"), [(5000, 40), (20, 40_000)])
def test_many_rows_and_long_schedules(rows, bank, device):
    """More rows than one program compacts, more tiles of negatives than one pass schedules."""
    arguments = problem(rows, bank, channels=4, classes=5, dtype=torch.float32, device=device)
    options = {"threshold": 0.9 if rows > bank else 0.1}
    ours = run(directional_contrast, arguments, **options)
    exact = run(reference.directional_contrast, exactly(arguments), **options)
    for mine, true in zip(ours[:4], exact[:4]):
        assert true.any()
        # Sums of 40,000 terms in one order round more than torch's, which add in pairs.
        assert (mine - true).norm() <= 5e-5 * true.norm()


@pytest.mark.parametrize("temperature", [0.1, 0.04, 0.03, 0.023, 0.022, 0.003])
def test_small_temperatures_neither_overflow_nor_underflow(temperature, device, dtype):
    """On both sides of where exponentials of scores leave the range of float32, and that of float16."""
    arguments = problem(rows=60, bank=900, channels=64, dtype=dtype, device=device)
    arguments["feat2"][::2] = -arguments["feat1"][::2]  # positives that score less than any negative
    arguments["negatives"][::300] = arguments["feat1"][:3]
    # Without eps no gradient is small because its positive is hopeless.
    options = {"temperature": temperature, "threshold": 0.2, "eps": 0.0, "grad_negatives": True}
    ours = run(directional_contrast, arguments, **options)
    exact = run(reference.directional_contrast, exactly(arguments), **options)
    for mine, true in zip(ours, exact):
        assert torch.isfinite(mine).all()
        # The relative error of exp is the absolute error of its argument, at most 1 / temperature.
        assert (mine.double() - true).norm() <= (1e-6 + 0.05 * torch.finfo(dtype).eps) / temperature * true.norm()


@pytest.mark.parametrize("temperature", [0.0224, 0.0229, 0.0233, 0.0244, 0.0246])
def test_where_all_point_the_other_way_the_gradient_is_as_finite_as_the_loss(temperature, device):
    """One row and one negative, so that the sum of exponentials is the least that there is."""
    torch.manual_seed(0)
    anchor = F.normalize(torch.randn(1, 8), dim=1).to(device)
    bank = F.normalize(-anchor + 0.01 * torch.randn(1, 8).to(device), dim=1)
    label = torch.zeros(1, dtype=torch.int64, device=device)

    def gradient(dtype):
        leaf = anchor.to(dtype).requires_grad_()
        conf = torch.tensor([0.2], device=device), torch.tensor([0.9], device=device)
        arguments = (-anchor.to(dtype), label, label, *conf, bank.to(dtype), label + 1)
        directional_contrast(leaf, *arguments, temperature=temperature)[0].backward()
        return leaf.grad.double()

    exact = gradient(torch.float64)
    assert exact.norm() > 0.1
    assert (gradient(torch.float32) - exact).norm() < 1e-4 * exact.norm()


def test_negatives_far_below_the_positive_keep_their_gradient(device):
    """Products in float16 hold 2^-24 at the least: the exponentials of unrelated vectors must not be lost beside it."""
    arguments = problem(rows=60, bank=900, channels=256, dtype=torch.float32, device=device)
    arguments["feat2"] = arguments["feat1"].clone()
    options = {"temperature": 0.04, "threshold": 0.2}
    ours = run(directional_contrast, arguments, product_dtype=torch.float16, **options)
    exact = run(reference.directional_contrast, exactly(arguments), **options)
    for mine, true in zip(ours[2:4], exact[2:4]):
        assert (mine - true).norm() <= 0.01 * true.norm()


def test_large_and_unequal_upstream_gradients(device, dtype):
    """As loss scaling brings them."""
    arguments = problem(rows=60, bank=90, channels=16, dtype=dtype, device=device)
    results = []
    for function, tensors in ((directional_contrast, arguments), (reference.directional_contrast, exactly(arguments))):
        leaf = tensors["negatives"].clone().requires_grad_()
        loss1, loss2 = function(**(tensors | {"negatives": leaf}), threshold=0.2, grad_negatives=True)
        (2.0**16 * loss1 - 2.0**-3 * loss2).backward()
        results.append(leaf.grad.double() / 2.0**16)
    ours, exact = results
    assert (ours - exact).norm() <= (1e-5 + 2 * torch.finfo(dtype).eps) * exact.norm()


def test_the_same_bits_every_time(device):
    arguments = problem(rows=200, bank=500, channels=16, classes=5, dtype=torch.float32, device=device)
    first, second = (run(directional_contrast, arguments, grad_negatives=True) for _ in range(2))
    for one, two in zip(first, second):
        assert torch.equal(one, two)


def test_ties_and_the_threshold_itself_are_not_active(device):
    arguments = problem(rows=3, bank=9, dtype=torch.float32, device=device)
    arguments["conf1"] = torch.tensor([0.9, 0.2, 0.75], device=device)
    arguments["conf2"] = torch.tensor([0.9, 0.75, 0.1], device=device)
    for result in run(directional_contrast, arguments)[:4]:
        assert not result.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["temperature", "threshold", "eps"])
def test_a_number_that_wants_a_gradient_is_refused(name, dtype, device):
    arguments = problem(rows=4, bank=6, dtype=dtype, device=device)
    learnt = torch.tensor(0.1, requires_grad=True)
    with pytest.raises(TypeError, match=f"{name} must be a number, as no gradient comes to it"):
        directional_contrast(**arguments, **{name: learnt})
    losses = directional_contrast(**arguments, **{name: learnt.detach()})
    assert torch.equal(torch.stack(losses), torch.stack(directional_contrast(**arguments, **{name: learnt.item()})))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_confidences_in_half_precision_are_what_they_are(half, device):
    """The number of bfloat16 that is nearest to 0.8 is above it, that of float16 below."""
    arguments = problem(rows=4, bank=40, dtype=torch.float32, device=device)
    arguments["conf1"] = torch.zeros(4, dtype=half, device=device)
    arguments["conf2"] = torch.full((4,), 0.8, dtype=half, device=device)
    loss1, loss2 = directional_contrast(**arguments, threshold=0.8)
    assert bool(loss1 > 0) == (half == torch.bfloat16)
    assert not loss2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["empty bank", "empty slots", "one class"])
def test_without_foreign_negatives_the_loss_is_zero(case, dtype, device):
    arguments = problem(rows=20, bank=0 if case == "empty bank" else 12, classes=1, dtype=dtype, device=device)
    if case == "empty slots":
        arguments["negative_labels"].fill_(-1)
    for result in run(directional_contrast, arguments, threshold=0.0)[:4]:
        torch.testing.assert_close(result, torch.zeros_like(result), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_are_not_valid_may_hold_anything(dtype, device):
    arguments = problem(rows=30, bank=40, dtype=dtype, device=device)
    valid = torch.arange(30, device=device) < 22
    kept = {name: value[:22] if len(value) == 30 else value for name, value in arguments.items()}
    expected = run(directional_contrast, kept)
    for name in ("feat1", "feat2"):
        arguments[name][22:] = torch.nan
    ours = run(directional_contrast, arguments, valid=valid)
    for mine, true in zip(ours[:2], expected[:2]):
        torch.testing.assert_close(mine, true)
    for mine, true in zip(ours[2:4], expected[2:4]):
        torch.testing.assert_close(mine[:22], true)
        assert not mine[22:].any()


@pytest.mark.parametrize("anything", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_slots_may_hold_anything(dtype, anything, device):
    """Of kernels, and of the definition, which float64 takes and torch.func."""

    def loss(feat1):
        return directional_contrast(**(arguments | {"feat1": feat1}), threshold=0.2)[0]

    arguments = problem(rows=30, bank=40, dtype=dtype, device=device)
    expected = run(directional_contrast, arguments, threshold=0.2, grad_negatives=True)
    gradient = torch.func.grad(loss)(arguments["feat1"])
    arguments["negatives"][arguments["negative_labels"] < 0] = anything
    for mine, true in zip(run(directional_contrast, arguments, threshold=0.2, grad_negatives=True), expected):
        torch.testing.assert_close(mine, true)
    torch.testing.assert_close(torch.func.grad(loss)(arguments["feat1"]), gradient)


@pytest.mark.parametrize("integer", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_narrow_labels(integer, device):
    arguments = problem(rows=30, bank=45, dtype=torch.float32, device=device)
    arguments["negative_labels"] = arguments["negative_labels"].clamp(min=0)
    expected = run(directional_contrast, arguments, grad_negatives=True, threshold=0.2)
    for name in ("label1", "label2", "negative_labels"):
        arguments[name] = arguments[name].to(integer)
    for mine, true in zip(run(directional_contrast, arguments, grad_negatives=True, threshold=0.2), expected):
        assert torch.equal(mine, true)


def test_strided_features_and_narrow_labels(device):
    arguments = problem(rows=30, bank=40, dtype=torch.float32, device=device)
    expected = directional_contrast(**arguments)
    arguments["feat1"] = arguments["feat1"].T.contiguous().T
    arguments["negatives"] = torch.stack([arguments["negatives"]] * 2, dim=1)[:, 0]
    arguments["label1"] = arguments["label1"].to(torch.uint8)
    arguments["label2"] = arguments["label2"].int()
    arguments["negative_labels"] = arguments["negative_labels"].to(torch.int8)
    for mine, true in zip(directional_contrast(**arguments), expected):
        torch.testing.assert_close(mine, true)


def test_memory_stays_far_below_the_score_matrix(largest_allocation):
    arguments = problem(rows=2000, bank=40_000, channels=8, dtype=torch.float32)
    assert largest_allocation(lambda: run(directional_contrast, arguments)) < 2000 * 40_000 * 4 / 10


def test_negatives_of_another_dtype(device):
    arguments = problem(rows=30, bank=40, dtype=torch.float32, device=device)
    arguments["negatives"] = arguments["negatives"].half()
    ours = run(directional_contrast, arguments, grad_negatives=True, threshold=0.2)
    exact = run(reference.directional_contrast, exactly(arguments), grad_negatives=True, threshold=0.2)
    assert ours[4].dtype == torch.float16
    for mine, true in zip(ours, exact):
        torch.testing.assert_close(mine.double(), true, rtol=2e-3, atol=2e-5)


def test_products_of_another_dtype(device):
    """Single-precision features and gradients around products in half precision."""
    arguments = problem(rows=60, bank=90, channels=16, dtype=torch.float32, device=device)
    options = {"grad_negatives": True, "threshold": 0.2}
    ours = run(directional_contrast, arguments, product_dtype=torch.float16, **options)
    exact = run(reference.directional_contrast, exactly(arguments), **options)
    for mine, true in zip(ours, exact):
        assert mine.dtype == torch.float32
        assert (mine.double() - true).norm() <= 1e-3 * true.norm()


@pytest.mark.parametrize("channels", [16, 33])
def test_features_in_bfloat16(channels, device):
    """In Triton's interpreter, too, whose products of bfloat16 are wrong."""
    arguments = problem(rows=60, bank=90, channels=channels, dtype=torch.bfloat16, device=device)
    ours = run(directional_contrast, arguments, grad_negatives=True, threshold=0.2)
    exact = run(reference.directional_contrast, exactly(arguments), grad_negatives=True, threshold=0.2)
    for mine, true in zip(ours, exact):
        assert (mine.double() - true).norm() <= 2e-2 * true.norm()


def test_lengths_are_checked_where_asked_for():
    code = """
import torch
from torch.nn.functional import normalize
from semiseg.kernels import directional_contrast

unit = normalize(torch.randn(20, 4), dim=1)
label, conf = torch.zeros(20, dtype=torch.int64), torch.rand(2, 20)
directional_contrast(unit, unit, label, label, *conf, unit, label)
try:
    directional_contrast(unit.double(), unit.double(), label, label, *conf, 2 * unit, label)
except ValueError as error:
    print(error)
try:
    directional_contrast(unit, unit, label, label, *conf, unit, label + 2**31)
except ValueError as error:
    print(error)
try:
    directional_contrast(unit * float("nan"), unit, label, label, *conf, unit, label)
except ValueError as error:
    print(error)
directional_contrast(unit, unit, label, label, *conf, 2 * unit, label)
"""
    quiet = subprocess.run([sys.executable, "-c", code], env=os.environ | {"SEMISEG_DEBUG": "0"}, check=False)
    strict = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"SEMISEG_DEBUG": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ).communicate()
    assert quiet.returncode == 0
    assert all("negatives must be L2-normalised, but row 0 has length 2" in said for said in strict)
    assert re.search(r"negative_labels must be below 2\^31, but \d+ is not", strict[0])
    assert "feat1 must be L2-normalised, but row 0 has length nan" in strict[0]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("feat1", torch.zeros(5, dtype=torch.int64), TypeError),
        ("feat2", torch.zeros(4, 8), ValueError),
        ("label2", torch.zeros(5), TypeError),
        ("conf1", torch.zeros(6), ValueError),
        ("negatives", torch.zeros(7, 9), ValueError),
        ("negative_labels", torch.zeros(8, dtype=torch.int64), ValueError),
        ("valid", torch.zeros(5), TypeError),
        ("temperature", 0.0, ValueError),
        ("temperature", 1e-39, ValueError),
        ("temperature", True, TypeError),
        ("threshold", float("nan"), ValueError),
        ("eps", float("inf"), ValueError),
        ("eps", -1.0, ValueError),
        ("threshold", None, TypeError),
        ("by_class", "no", TypeError),
        ("product_dtype", torch.int8, TypeError),
    ],
)
def test_wrong_arguments_are_named(name, value, error):
    arguments = problem(rows=5, bank=7, dtype=torch.float32)
    with pytest.raises(error, match=name):
        directional_contrast(**(arguments | {name: value}))


def test_torch_func_goes_through_the_definition_however_many_scores_there_are(device, monkeypatch):
    monkeypatch.setattr(sys.modules[reference.directional_contrast.__module__], "LARGEST_SCORES", 10)
    arguments = problem(rows=30, bank=29, channels=300, device=device)
    feat1 = arguments.pop("feat1").requires_grad_()

    def total(feat1):
        return sum(directional_contrast(feat1, **arguments, threshold=0.3))

    (exact,) = torch.autograd.grad(total(feat1), feat1)
    torch.testing.assert_close(torch.func.grad(total)(feat1.detach()), exact)


@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_the_definition_in_blocks_equals_the_whole(block_rows):
    """What other devices take where the score matrix would not fit."""
    arguments = problem(rows=30, bank=29)
    options = {"valid": torch.arange(30) != 4, "threshold": 0.3, "grad_negatives": True}
    whole = run(reference.directional_contrast, arguments, **options)
    blocks = run(reference.directional_contrast, arguments, block_rows=block_rows, **options)
    for one, two in zip(blocks, whole):
        torch.testing.assert_close(one, two)
