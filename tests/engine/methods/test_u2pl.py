"""U2PL: its terms against the paper's formulas written plainly, in float64, and what its program does otherwise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from semiseg.engine.methods.u2pl import FRESH, entropy_of, quantiles
from semiseg.engine.training.build import build_method
from semiseg.kernels import box_mask
from semiseg.pipelines.batch import IGNORE

CLASSES, SIZE = 5, 32
PROGRAM = {"negative_labels": "own", "contrasted": "first", "bank_pairing": "shifted"}
SMALL = {"anchors": 7, "negatives": 4, "low_rank": 2, "high_rank": 4, "bank_size": 300, "anchor_threshold": 0.15}


@pytest.fixture
def made(tiny):
    """`made(anchors=5)`: the method in float64 with random weights, always the same, and no dropout."""

    def build(classes: int = CLASSES, **settings):
        torch.manual_seed(0)
        recipe = tiny("u2pl", precision="fp32")
        recipe = recipe.replace(method=dataclasses.replace(recipe.method, start=0.0, **(SMALL | settings)))
        method = build_method(recipe, classes).double().train()
        for module in method.modules():
            if isinstance(module, (nn.Dropout, nn.Dropout2d)):
                module.p = 0.0
        method.begin()
        with torch.no_grad():  # a teacher that says other things than its student
            for parameter in method.teacher.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return method

    return build


@pytest.fixture
def batch(random_batch):
    """Of float64; some pixels are ignored, and ten rows of an image are of a class that targets have nowhere else."""
    one = random_batch("weak_strong")
    one.labeled.target[0, 10:20] = 3
    doubled = dataclasses.replace(one.labeled, image=one.labeled.image.double())
    u = one.unlabeled
    u = dataclasses.replace(u, weak=u.weak.double(), strong=tuple(view.double() for view in u.strong))
    return dataclasses.replace(one, labeled=doubled, unlabeled=u)


def mixed(images, u):
    """Each image, and in its box the partner's."""
    inside = box_mask(u.boxes[0], (SIZE, SIZE))
    return torch.where(inside[:, None] if images.ndim == 4 else inside, images[u.partner], images)


def full(logits):
    return F.interpolate(logits, (SIZE, SIZE), mode="bilinear", align_corners=True)


class Plain:
    """The paper's step, with loops and lists."""

    def __init__(self, method, batch, share: float):
        self.config, u, target = method.config, batch.unlabeled, batch.labeled.target
        self.banks = [list(rows[:held]) for rows, held in zip(method.bank.features, method.bank.held)]
        with torch.no_grad():
            label = full(method.judged(u.weak)).argmax(1)
            label = mixed(label, u)
            shown = mixed(box_mask(u.valid[:, None], (SIZE, SIZE)), u)
            label[~shown] = IGNORE
            windows = torch.cat([batch.labeled.image, mixed(u.strong[0], u)])
            maps = method.teacher.network.features(windows)
            coarse, taught = method.teacher.network.classify(maps), method.teacher.network.project(maps)
            probability = full(coarse[2:]).softmax(1)
            entropy = -(probability * probability.log()).sum(1)
        counted = entropy[label != IGNORE].numpy()
        low, high = np.quantile(counted, share), np.quantile(counted, 1 - share)
        features = method.student.features(windows)
        self.logits, self.feature = method.student.classify(features), method.student.project(features)

        kept = (label != IGNORE) & (entropy < high)
        each = F.cross_entropy(full(self.logits[2:]).permute(0, 2, 3, 1)[kept], label[kept])
        self.pseudo = each * shown.sum() / kept.sum()

        places = (torch.arange(self.feature.shape[-1]) * SIZE) // self.feature.shape[-1]
        self.known = target[:, places][:, :, places].long()
        self.guess = label[:, places][:, :, places]
        self.certain = (entropy <= low)[:, places][:, :, places] & (self.guess != IGNORE)
        self.uncertain = (entropy >= high)[:, places][:, :, places] & (self.guess != IGNORE)
        self.coarse, self.taught = coarse.softmax(1), taught
        self.positions = [(b, i, j) for b in range(4) for i in range(len(places)) for j in range(len(places))]

    def classes(self, b: int, i: int, j: int) -> set[int]:
        """The labels of a position."""
        labels, own = (self.known, b) if b < 2 else (self.guess, b - 2)
        here = int(labels[own, i, j])
        if self.config.contrasted == "first":
            every = {int(labels[image, i, j]) for image in range(2)}
            return {0 if label == IGNORE else label for label in every} if here != IGNORE and own == 0 else set()
        return set() if here == IGNORE else {here}

    def is_negative(self, c: int, b: int, i: int, j: int) -> bool:
        place = sum(float(other) > float(self.coarse[b, c, i, j]) for other in self.coarse[b, :, i, j])
        here = self.classes(b, i, j)
        if b < 2:
            found = place < self.config.low_rank and c not in here and int(self.known[b, i, j]) != IGNORE
        else:
            found = bool(self.uncertain[b - 2, i, j]) and self.config.low_rank <= place < self.config.high_rank
        return found and (self.config.negative_labels == "any" or c in here)

    def contrastive(self, draws):
        members = [[p for p in self.positions if self.reliable(*p) and c in self.classes(*p)] for c in range(CLASSES)]
        for c, bank in enumerate(self.banks):
            new = [
                F.normalize(self.taught[b, :, i, j], dim=0)
                for b, i, j in self.positions
                if self.is_negative(c, b, i, j)
            ]
            bank += new
            del bank[: -self.config.bank_size]
        self.present = present = [c for c in range(CLASSES) if members[c]]
        pairs = list(enumerate(present)) if self.config.bank_pairing == "shifted" else [(c, c) for c in present]
        total = 0.0
        for of_anchors, of_bank in pairs:
            anchors = [
                p
                for p in members[of_anchors]
                if self.coarse[p[0], of_anchors, p[1], p[2]] > self.config.anchor_threshold
            ]
            bank = self.banks[of_bank]
            if not anchors or not bank:
                continue
            positive = torch.stack([self.taught[b, :, i, j] for b, i, j in members[of_anchors]]).mean(0)
            for draw in draws[of_anchors]:
                b, i, j = anchors[int(draw[0] * len(anchors))]
                others = [bank[int(number * len(bank))] for number in draw[1:]]
                against = torch.stack([positive, *others])
                similarity = F.cosine_similarity(self.feature[b, :, i, j], against, dim=1) / self.config.temperature
                total = total - similarity.log_softmax(0)[0] / self.config.anchors
        return total / len(present)

    def reliable(self, b: int, i: int, j: int) -> bool:
        return b < 2 or bool(self.certain[b - 2, i, j])


@pytest.mark.parametrize("program", [False, True])
def test_the_terms_are_those_of_the_paper_or_of_its_program(made, batch, program):
    method = made(**(PROGRAM if program else {}))
    method.before_step(0, 0.25)
    absent = 1  # of the batch, so that the program compares a class with the bank of another
    batch.labeled.target[batch.labeled.target == absent] = 2
    with torch.no_grad():
        method.teacher.network.classifier.bias[absent] = -50.0
    for step in range(2):  # the second one with what the first left in the banks
        torch.manual_seed(step)
        draws = method.draws(torch.device("cpu"))[0]
        plain = Plain(method, batch, share=0.15)
        expected = plain.pseudo + plain.contrastive(draws)
        wanted = torch.autograd.grad(expected, list(method.student.parameters()), allow_unused=True)
        torch.manual_seed(step)
        losses = method.losses(batch, 0.25)
        assert losses["contrastive"] > 0
        assert len(plain.present) > 2
        assert absent < max(plain.present)
        assert absent not in plain.present
        own = losses["pseudo"] + losses["contrastive"]
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=0)
        got = torch.autograd.grad(own, list(method.student.parameters()), allow_unused=True)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert method.bank.held.tolist() == [len(bank) for bank in plain.banks]


def test_before_it_starts_only_labels_teach_and_the_banks_are_empty(made, batch):
    method = made()
    method.config.start = 0.5
    losses = method.losses(batch, 0.25)
    assert set(losses) == {"loss", "supervised"}
    assert not method.bank.held.any()


@pytest.mark.parametrize("own", [False, True])
def test_the_teacher_judges_in_evaluation_mode_and_its_own_statistics_follow_its_passes(made, batch, own):
    method = made(ema_buffers="own" if own else "averaged")
    norm = next(module for module in method.teacher.modules() if isinstance(module, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    first, again = method.judged(batch.unlabeled.weak), method.judged(batch.unlabeled.weak[:1])
    torch.testing.assert_close(first[:1], again)  # no statistics of the batch
    assert torch.equal(norm.running_mean, before)
    for progress in (0.0, 0.5):  # before and after unlabelled images count
        method.config.start, before = 0.25, norm.running_mean.clone()
        method.losses(batch, progress)
        assert torch.equal(norm.running_mean, before) == (not own)


def test_the_teacher_is_the_student_until_it_starts(made):
    method = made(teacher_start=0.5)
    for progress, same in ((0.25, True), (0.5, False)):
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.add_(1.0)
        method.before_step(50, progress)
        method.after_step()
        pairs = zip(method.teacher.network.parameters(), method.student.parameters(), strict=True)
        assert all(torch.equal(own, its) for own, its in pairs) == same


def test_fewer_pixels_are_unreliable_as_training_goes_on(made, batch):
    method = made()
    label = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    label[0, :16] = IGNORE
    entropy = torch.rand(2, SIZE, SIZE, dtype=torch.float64)
    for progress, share in ((0.0, 0.2), (0.5, 0.1), (0.9, 0.02)):
        method.before_step(0, progress)
        for found in method.certainty(entropy, label):
            assert not found[label == IGNORE].any()
            assert found.sum() / (label != IGNORE).sum() == pytest.approx(share, abs=2e-3)
    method.unreliable.fill_(0.6)  # no pixel is both
    certain, uncertain = (found.sum() / (label != IGNORE).sum() for found in method.certainty(entropy, label))
    assert (certain, uncertain) == (pytest.approx(0.4, abs=2e-3), pytest.approx(0.6, abs=2e-3))


def test_two_classes_have_negatives_though_none_comes_fourth(made, batch):
    method = made(classes=2, low_rank=3, high_rank=20)
    batch.labeled.target.clamp_(max=1)
    method.before_step(0, 0.0)
    assert method.losses(batch, 0.0)["contrastive"] > 0
    assert (method.bank.held > 0).all()


def test_one_class_or_padding_alone_teaches_nothing_and_is_finite(made, batch):
    method = made()
    method.before_step(0, 0.0)
    batch.labeled.target.fill_(IGNORE)
    batch.unlabeled.valid.zero_()
    losses = method.losses(batch, 0.0)
    assert losses["pseudo"] == losses["contrastive"] == 0
    losses["pseudo"].backward(retain_graph=True)
    losses["contrastive"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.student.parameters())


def test_a_single_class_is_not_contrasted_though_banks_are_filled(made, batch):
    method = made()
    method.before_step(0, 0.0)
    assert method.losses(batch, 0.0)["contrastive"] > 0
    batch.labeled.target.zero_()
    batch.unlabeled.valid.zero_()
    assert method.bank.held[0] > 0
    assert method.losses(batch, 0.0)["contrastive"] == 0


def test_of_very_many_negatives_a_bank_takes_some_from_all_over_the_batch(made):
    method = made(bank_size=2 * FRESH)
    taught = torch.zeros(4, method.student.projection, 32, 32, dtype=torch.float64)
    taught[:, 0], taught[:, 1] = torch.arange(4.0).view(4, 1, 1), 1
    method.remember(taught, torch.ones(4, CLASSES, 32, 32, dtype=torch.bool), [2, 2])
    assert (method.bank.held == FRESH).all()
    image = (method.bank.features[:, :FRESH, 0] / method.bank.features[:, :FRESH, 1]).round().long()
    assert all((row.bincount() == FRESH // 4).all() for row in image)


def test_features_that_overflow_do_not_stay_in_a_bank(made):
    method = made()
    taught = torch.full((4, method.student.projection, 4, 4), torch.inf, dtype=torch.float64)
    method.remember(taught, torch.ones(4, CLASSES, 4, 4, dtype=torch.bool), [2, 2])
    assert (method.bank.held > 0).all()
    assert method.bank.features.isfinite().all()


def test_pseudo_labels_for_people_are_the_teacher_s_of_the_weak_views(made, batch):
    method = made()
    method.before_step(0, 0.0)
    shown = method.pseudo_labels(batch)
    assert torch.equal(shown.label.long(), full(method.judged(batch.unlabeled.weak)).argmax(1))
    kept = shown.kept.sum() / box_mask(batch.unlabeled.valid[:, None], (SIZE, SIZE)).sum()
    assert kept == pytest.approx(0.8, abs=2e-3)


@given(st.lists(st.floats(0, 4), min_size=1, max_size=40), st.floats(0, 1), st.integers(0, 2**32))
def test_quantiles_are_numpy_s_of_what_counts(values, share, seed):
    generator = np.random.default_rng(seed)
    counted = generator.random(len(values)) < 0.7
    counted[generator.integers(len(values))] = True
    row, shares = (torch.tensor(each, dtype=torch.float64) for each in ([values], [share]))
    found = quantiles(row, torch.from_numpy(counted)[None], shares)
    expected = np.quantile(np.asarray(values)[counted], share)
    torch.testing.assert_close(found[0, 0].item(), expected, rtol=1e-12, atol=1e-12)


def test_entropy_is_of_the_upsampled_logits_and_0_where_a_class_is_sure():
    logits = torch.randn(2, CLASSES, 8, 8, dtype=torch.float64)
    logits[1] = 0
    logits[1, 2] = 1e4
    found = entropy_of(logits, (SIZE, SIZE))
    probability = full(logits[:1]).softmax(1)
    torch.testing.assert_close(found[:1], -(probability * probability.log()).sum(1))
    assert not found[1].any()
