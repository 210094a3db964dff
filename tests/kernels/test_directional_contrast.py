import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.kernels import directional_contrast, reference

MODULE = sys.modules["semiseg.kernels.directional_contrast"]


def problem(rows, bank, channels=8, classes=3, dtype=torch.float64, seed=0):
    """Arguments by name; about a tenth of the bank is empty."""
    generator = torch.Generator().manual_seed(seed)

    def unit(count):
        return F.normalize(torch.randn(count, channels, generator=generator, dtype=torch.float64), dim=1).to(dtype)

    labels = torch.randint(0, classes, (2, rows), generator=generator)
    negative_labels = torch.randint(0, classes, (bank,), generator=generator)
    negative_labels[torch.rand(bank, generator=generator) < 0.1] = -1
    feat1, conf = unit(rows), torch.rand(2, rows, generator=generator)
    return {
        "feat1": feat1,
        "feat2": F.normalize(feat1 + 0.5 * unit(rows), dim=1),
        "label1": labels[0],
        "label2": labels[1],
        "conf1": conf[0],
        "conf2": conf[1],
        "negatives": unit(bank),
        "negative_labels": negative_labels,
    }


def run(function, arguments, **options):
    """Losses and the gradients of loss1 + 2 loss2 with respect to both features and the negatives."""
    leaves = {name: arguments[name].clone().requires_grad_() for name in ("feat1", "feat2", "negatives")}
    loss1, loss2 = function(**(arguments | leaves), **options)
    (loss1 + 2 * loss2).backward()
    return [loss1.detach(), loss2.detach(), *(leaf.grad for leaf in leaves.values())]


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


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 40),
    bank=st.integers(0, 70),
    channels=st.integers(1, 9),
    classes=st.integers(1, 6),
    block=st.sampled_from([(3, 5), (16, 16), (256, 2048)]),
    temperature=st.sampled_from([0.07, 0.5, 0.004]),
    grad_negatives=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_single_precision_agrees_with_the_definition(
    rows, bank, channels, classes, block, temperature, grad_negatives, seed
):
    arguments = problem(rows, bank, channels, classes, torch.float32, seed)
    arguments["valid"] = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < 0.9
    options = {"temperature": temperature, "threshold": 0.3, "grad_negatives": grad_negatives}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "ROWS", block[0])
        patch.setattr(MODULE, "COLUMNS", block[1])
        ours = run(directional_contrast, arguments, **options)
    exact = run(reference.directional_contrast, exactly(arguments), **options)
    for mine, true in zip(ours, exact):
        if true is None:
            assert mine is None
        else:
            # The relative error of exp is the absolute error of its argument, which is as large as 1 / temperature.
            tolerance = 3e-6 + 5e-7 / temperature
            assert (mine - true).norm() <= tolerance * (true.norm() + 1 / temperature)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_worse_than_plain_torch(dtype, no_worse):
    arguments = problem(rows=400, bank=3000, channels=32, classes=7, dtype=dtype)
    ours = run(directional_contrast, arguments)
    plain = run(reference.directional_contrast, arguments)
    exact = run(reference.directional_contrast, exactly(arguments))
    assert [result.dtype for result in ours[:4]] == [torch.float32, torch.float32, dtype, dtype]
    assert ours[4] is None
    for triple in zip(ours[:4], plain[:4], exact[:4]):
        no_worse(*triple)


def test_ties_and_the_threshold_itself_are_not_active():
    arguments = problem(rows=3, bank=9, dtype=torch.float32)
    arguments["conf1"] = torch.tensor([0.9, 0.2, 0.75])
    arguments["conf2"] = torch.tensor([0.9, 0.75, 0.1])
    for result in run(directional_contrast, arguments)[:4]:
        assert not result.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["empty bank", "empty slots", "one class"])
def test_without_foreign_negatives_the_loss_is_zero(case, dtype):
    arguments = problem(rows=20, bank=0 if case == "empty bank" else 12, classes=1, dtype=dtype)
    if case == "empty slots":
        arguments["negative_labels"].fill_(-1)
    for result in run(directional_contrast, arguments, threshold=0.0)[:4]:
        torch.testing.assert_close(result, torch.zeros_like(result), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_are_not_valid_may_hold_anything(dtype):
    arguments = problem(rows=30, bank=40, dtype=dtype)
    valid = torch.arange(30) < 22
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


def test_strided_features_and_narrow_labels():
    arguments = problem(rows=30, bank=40, dtype=torch.float32)
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
        ("eps", -1.0, ValueError),
    ],
)
def test_wrong_arguments_are_named(name, value, error):
    arguments = problem(rows=5, bank=7, dtype=torch.float32)
    with pytest.raises(error, match=name):
        directional_contrast(**(arguments | {name: value}))


@pytest.mark.parametrize("scores", [1, 97, 10**6])
def test_blocks_for_large_inputs_equal_the_whole(scores):
    """What a GPU takes where the score matrix would not fit, on the CPU."""
    from semiseg.kernels.directional_contrast import _in_blocks

    generator = torch.Generator().manual_seed(3)
    names = ("feat1", "feat2", "negatives")
    feats = [torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (13, 13, 29)]
    labels = [torch.randint(-1 if n == 29 else 0, 3, (n,), generator=generator) for n in (13, 13, 29)]
    confs = [torch.rand(13, generator=generator) for _ in range(2)]
    options = {"valid": torch.arange(13) != 4, "temperature": 0.1, "threshold": 0.3, "eps": 1e-8}
    results = []
    for function, more in ((reference.directional_contrast, {}), (_in_blocks, {"scores": scores})):
        leaves = [feat.clone().requires_grad_() for feat in feats]
        feat1, feat2, negatives = leaves
        loss1, loss2 = function(
            feat1, feat2, labels[0], labels[1], *confs, negatives, labels[2], grad_negatives=True, **options, **more
        )
        (loss1 + 2 * loss2).backward()
        results.append((loss1, loss2, *(leaf.grad for leaf in leaves)))
    for name, one, two in zip(("loss1", "loss2", *names), *results, strict=True):
        torch.testing.assert_close(one, two, msg=name)
