"""Steps of Mean Teacher, CutMix-Seg, FixMatch, UniMatch and UniMatch V2 against the same written in plain torch, in
float64, parameter by parameter, the teacher included.

The restatement follows the published programs formula by formula, with logits and masks at full size and loops over
images; of the engine it takes the networks alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from semiseg.engine.device import Precision
from semiseg.engine.training.build import build_method
from semiseg.engine.training.step import Step

CLASSES, STEPS = 3, 2


def upsampled(logits: Tensor, size: int) -> Tensor:
    return F.interpolate(logits, (size, size), mode="bilinear", align_corners=True)


def pasted(own: Tensor, partners: Tensor, boxes: Tensor) -> Tensor:
    """(B, ..., S, S), the partners' inside the boxes (B, 4)."""
    mixed = own.clone()
    for image, (y0, x0, y1, x1) in enumerate(boxes.tolist()):
        mixed[image, ..., y0:y1, x0:x1] = partners[image, ..., y0:y1, x0:x1]
    return mixed


def shown(valid: Tensor, size: int) -> Tensor:
    """(N, S, S) bool."""
    mask = torch.zeros(len(valid), size, size, dtype=torch.bool)
    for image, (y0, x0, y1, x1) in enumerate(valid.tolist()):
        mask[image, y0:y1, x0:x1] = True
    return mask


def cross_entropy(full: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(full, target.long(), ignore_index=255)


def of_confident(full: Tensor, probabilities: Tensor, counted: Tensor, threshold: float) -> Tensor:
    confidence, label = probabilities.max(1)
    losses = F.cross_entropy(full, label, reduction="none")
    return (losses * (confidence >= threshold) * counted).sum() / counted.sum()


@dataclass
class Reference:
    """The networks, and one batch at a time."""

    config: object
    student: nn.Module
    teacher: nn.Module | None = None

    def take(self, batch) -> None:
        self.x, self.y, self.u = batch.labeled.image, batch.labeled.target, batch.unlabeled
        self.size, self.count = self.y.shape[-1], len(self.u.partner)
        self.counted = shown(self.u.valid, self.size)

    def probabilities(self, logits: Tensor) -> Tensor:
        return upsampled(logits, self.size).detach().softmax(1)

    def strong(self, view: int) -> Tensor:
        images = self.u.strong[view]
        return pasted(images[: self.count], images[self.u.partner], self.u.boxes[view][:, 0])

    def counted_in(self, view: int) -> Tensor:
        return pasted(self.counted[: self.count], self.counted[self.u.partner], self.u.boxes[view][:, 0])

    def view_loss(self, logits: Tensor, own: Tensor, partners: Tensor, view: int) -> Tensor:
        wanted = pasted(self.probabilities(own), self.probabilities(partners), self.u.boxes[view][:, 0])
        return of_confident(upsampled(logits, self.size), wanted, self.counted_in(view), self.config.threshold)

    def in_evaluation(self, network: nn.Module, images: Tensor) -> Tensor:
        network.eval()
        with torch.no_grad():
            logits = network(images)
        network.train()
        return logits


def fixmatch(run: Reference) -> Tensor:
    u, labels = run.u, run.config.labels
    if labels == "teacher":
        weak = run.teacher(u.weak)
        own, partners = weak[: run.count], weak[u.partner]
        z_x, z_s = run.student(torch.cat([run.x, run.strong(0)])).split([len(run.x), run.count])
    else:
        extra = len(u.weak) > run.count
        judged = run.in_evaluation(run.student, u.weak) if labels != "training" or extra else None
        z_x, z_w = run.student(torch.cat([run.x, u.weak[: run.count]])).split([len(run.x), run.count])
        own = judged[: run.count] if labels == "evaluation" else z_w
        partners = z_w[u.partner] if judged is None else judged[u.partner]
        z_s = run.student(run.strong(0))
    loss_x = cross_entropy(upsampled(z_x, run.size), run.y)
    return (loss_x + run.view_loss(z_s, own, partners, 0)) / 2


def unimatch(run: Reference) -> Tensor:
    u, net, labels = run.u, run.student, run.config.labels
    if labels == "teacher":
        judged = run.teacher(u.weak)
    else:
        judged = run.in_evaluation(net, u.weak) if labels != "training" or len(u.weak) > run.count else None
    low, high = net.encode(torch.cat([run.x, u.weak[: run.count]]))
    if run.config.perturbed_statistics == "shared":
        low_p, high_p = F.dropout2d(low, 0.5), F.dropout2d(high, 0.5)
        z = net.classify(net.decode((torch.cat([low, low_p]), torch.cat([high, high_p]))))
        clean, perturbed = z.chunk(2)
        z_p = perturbed[len(run.x) :]
    else:
        clean = net.classify(net.decode((low, high)))
        z_p = net.classify(net.decode((F.dropout2d(low[len(run.x) :], 0.5), F.dropout2d(high[len(run.x) :], 0.5))))
    z_x, z_w = clean[: len(run.x)], clean[len(run.x) :]
    own = judged[: run.count] if labels in ("evaluation", "teacher") else z_w
    partners = z_w[u.partner] if judged is None else judged[u.partner]
    z_1, z_2 = net(torch.cat([run.strong(0), run.strong(1)])).chunk(2)
    loss_p = of_confident(
        upsampled(z_p, run.size), run.probabilities(own), run.counted[: run.count], run.config.threshold
    )
    loss_x = cross_entropy(upsampled(z_x, run.size), run.y)
    loss_1, loss_2 = run.view_loss(z_1, own, partners, 0), run.view_loss(z_2, own, partners, 1)
    return (loss_x + 0.25 * loss_1 + 0.25 * loss_2 + 0.5 * loss_p) / 2


def unimatch_v2(run: Reference) -> Tensor:
    u, net = run.u, run.student
    weak = run.teacher(u.weak)
    z_x = net(run.x)
    maps = net.encode(torch.cat([run.strong(0), run.strong(1)]))
    kept = torch.rand(1, run.count).argsort(1)[0] < run.count // 2
    dropped = []
    masks = {}
    for one in maps:
        channels = one.shape[1]
        if channels not in masks:
            mask = 2.0 * torch.randint(2, (run.count, channels))
            mask[kept] = 1.0
            masks[channels] = torch.cat([mask, 2 - mask]).double()
        dropped.append(one * masks[channels][:, :, None, None])
    z_1, z_2 = net.classify(net.decode(tuple(dropped))).chunk(2)
    own, partners = weak[: run.count], weak[u.partner]
    loss_1, loss_2 = run.view_loss(z_1, own, partners, 0), run.view_loss(z_2, own, partners, 1)
    return (cross_entropy(upsampled(z_x, run.size), run.y) + (loss_1 + loss_2) / 2) / 2


def mean_teacher(run: Reference) -> Tensor:
    wanted = run.probabilities(run.teacher(run.u.weak))
    loss_x = cross_entropy(upsampled(run.student(run.x), run.size), run.y)
    errors = (upsampled(run.student(run.u.strong[0]), run.size).softmax(1) - wanted).square().mean(1)
    return loss_x + 100 * (errors * run.counted).sum() / run.counted.sum()


def cutmix_seg(run: Reference) -> Tensor:
    weak = run.teacher(run.u.weak)
    own, partners = weak[: run.count], weak[run.u.partner]
    wanted = pasted(run.probabilities(own), run.probabilities(partners), run.u.boxes[0][:, 0])
    loss_x = cross_entropy(upsampled(run.student(run.x), run.size), run.y)
    errors = (upsampled(run.student(run.strong(0)), run.size).softmax(1) - wanted).square().sum(1)
    confident = (wanted.amax(1) >= run.config.threshold).double()
    weight = confident if run.config.confidence == "pixel" else confident.mean()
    return loss_x + (errors * run.counted_in(0) * weight).mean()


STEP_OF = {
    "fixmatch": fixmatch,
    "unimatch": unimatch,
    "unimatch_v2": unimatch_v2,
    "mean_teacher": mean_teacher,
    "cutmix_seg": cutmix_seg,
}


def optimized(recipe, parameters: dict[str, Tensor], state: dict, k: int) -> None:
    """Step k of SGD with momentum, or of AdamW, by their definitions."""
    factor = 1.0 if recipe.schedule == "constant" else (1 - k / recipe.steps) ** 0.9
    for name, p in parameters.items():
        if p.grad is None:
            continue
        lr = recipe.lr * factor * (recipe.backbone_lr if name.startswith("backbone") else 1.0)
        decay = recipe.weight_decay if recipe.decay == "all" or p.ndim > 1 else 0.0
        if recipe.optimizer == "sgd":
            state[name] = recipe.momentum * state.get(name, 0) + p.grad + decay * p.data
            p.data -= lr * state[name]
            continue
        mean, square = state.get(name, (0, 0))
        mean, square = 0.9 * mean + 0.1 * p.grad, 0.999 * square + 0.001 * p.grad**2
        state[name] = mean, square
        p.data -= lr * decay * p.data
        p.data -= lr * (mean / (1 - 0.9 ** (k + 1))) / ((square / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8)


def averaged(teacher: nn.Module, student: nn.Module, config, k: int) -> None:
    a = min(1 - 1 / (k + 1), config.ema) if config.ema_rule == "ramp" else config.ema
    own = dict(teacher.named_parameters())
    for name, value in student.named_parameters():
        own[name].data = a * own[name].data + (1 - a) * value.data
    own = dict(teacher.named_buffers())
    for name, value in student.named_buffers():
        if config.ema_buffers == "averaged" and value.is_floating_point():
            own[name].data = a * own[name] + (1 - a) * value
        elif config.ema_buffers != "own":
            own[name].data = value.clone()


def without_dropout(method: nn.Module) -> nn.Module:
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return method


CASES = {
    "fixmatch": {"fixmatch": {}},
    "fixmatch, labels in evaluation mode": {"fixmatch": {"labels": "evaluation"}},
    "fixmatch, mixed labels": {"fixmatch": {"labels": "mixed"}},
    "fixmatch, partners that are windows of their own": {"fixmatch": {"extra": True}},
    "fixmatch with a teacher": {"fixmatch": {"labels": "teacher", "ema": 0.4}},
    "unimatch": {"unimatch": {}},
    "unimatch as published": {"unimatch": {"labels": "mixed", "perturbed_statistics": "shared", "extra": True}},
    "unimatch, labels in evaluation mode": {"unimatch": {"labels": "evaluation"}},
    "unimatch with a teacher": {"unimatch": {"labels": "teacher", "ema": 0.4}},
    "unimatch_v2": {"unimatch_v2": {"ema": 0.4}},
    "mean_teacher": {"mean_teacher": {"ema": 0.4}},
    "mean_teacher, copied buffers": {"mean_teacher": {"ema": 0.4, "ema_buffers": "copied"}},
    "cutmix_seg": {"cutmix_seg": {"ema": 0.4}},
    "cutmix_seg, confident pixels": {"cutmix_seg": {"ema": 0.4, "confidence": "pixel"}},
}


def doubled(batch, extra: bool):
    """In float64; with `extra`, windows of their own for partners."""
    batch = pytree.tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, batch)
    if not extra:
        return batch
    u = batch.unlabeled
    more = replace(
        u,
        weak=torch.cat([u.weak, u.strong[1].flip(0)]),
        strong=tuple(torch.cat([view, 1 - view]) for view in u.strong),
        partner=u.partner + len(u.partner),
        valid=torch.cat([u.valid, u.valid.flip(0)]),
    )
    return replace(batch, unlabeled=more)


@pytest.mark.parametrize("case", CASES)
def test_steps_are_the_published_ones(tiny, random_batch, case):
    ((name, settings),) = CASES[case].items()
    settings = dict(settings)
    extra = settings.pop("extra", False)
    recipe = tiny(name, steps=10)
    sure = {"threshold": 0.45} if hasattr(recipe.method, "threshold") else {}
    recipe = recipe.replace(method=replace(recipe.method, **sure, **settings), lr=0.01)
    torch.manual_seed(0)
    method = without_dropout(build_method(recipe, CLASSES)).double().train()
    step = Step(recipe, method, Precision("fp32", torch.device("cpu")))
    (student,) = method.networks().values()
    teacher = getattr(method, "teacher", None)
    theirs = Reference(recipe.method, copy.deepcopy(student))
    if teacher:
        theirs.teacher = copy.deepcopy(student).train(recipe.method.ema_buffers == "own").requires_grad_(False)
    state = {}
    for k in range(STEPS):
        batch = doubled(random_batch("weak_strong", k), extra)
        torch.manual_seed(k)
        loss = step(batch, k)["loss"]
        torch.manual_seed(k)
        theirs.take(batch)
        expected = STEP_OF[name](theirs)
        theirs.student.zero_grad()
        expected.backward()
        optimized(recipe, dict(theirs.student.named_parameters()), state, k)
        if teacher:
            averaged(theirs.teacher, theirs.student, recipe.method, k)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=0)
    pairs = [(student, theirs.student), *([(teacher.network, theirs.teacher)] if teacher else [])]
    for ours, true in pairs:
        true = true.state_dict()
        for key, value in ours.state_dict().items():
            torch.testing.assert_close(value, true[key], rtol=1e-8, atol=1e-11)


def test_the_references_tell_the_cases_apart(tiny, random_batch):
    """Were labels never confident or all alike, a step could not show that they are the right ones."""
    losses = []
    for labels in ("training", "evaluation", "mixed"):
        recipe = tiny("fixmatch", steps=10)
        recipe = recipe.replace(method=replace(recipe.method, threshold=0.45, labels=labels))
        torch.manual_seed(0)
        method = without_dropout(build_method(recipe, CLASSES)).double().train()
        losses.append(float(method.losses(doubled(random_batch("weak_strong"), False), 0.0)["strong"].detach()))
    assert len(set(losses)) == 3
    assert all(loss > 0.01 for loss in losses)
