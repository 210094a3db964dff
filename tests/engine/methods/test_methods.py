"""The methods: losses, gradients, static shapes, and CAC's geometry and bank."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils import _pytree as pytree

from few import Few
from semiseg import kernels
from semiseg.engine.methods import METHODS, consistency, method_of
from semiseg.engine.methods.cac import Cac, NegativeBank, overlap_positions
from semiseg.engine.methods.consistency import Consistency
from semiseg.engine.methods.supervised import Supervised, SupervisedConfig
from semiseg.engine.models import ENCODERS, of_projector
from semiseg.engine.models.encoders.resnet import BasicBlock
from semiseg.engine.training.build import build_method
from semiseg.kernels import reference
from semiseg.pipelines.batch import Pair
from semiseg.pipelines.errors import UsageError

CLASSES = 3


def made(tiny, name: str, settings=None, **changes):
    """The method with random weights, always the same; settings: of its own, changes: of the recipe."""
    torch.manual_seed(0)
    recipe = tiny(name, **changes)
    recipe = recipe.replace(method=dataclasses.replace(recipe.method, **(settings or {})))
    return build_method(recipe, CLASSES).to(memory_format=torch.channels_last).train()


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_finite_and_reach_every_network(tiny, random_batch, name):
    method = made(tiny, name)
    losses = method.losses(random_batch(method.views.unlabeled), 0.5)
    losses["loss"].backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    for network in method.networks().values():
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.backbone_parameters())


@pytest.mark.parametrize(("labels", "passes"), [("training", 0), ("evaluation", 1)])
def test_a_method_of_the_family_from_elsewhere_labels_as_its_setting_says(
    tiny, random_batch, monkeypatch, labels, passes
):
    class Mine(METHODS["fixmatch"]):
        def __init__(self, config, context):
            Consistency.__init__(self, config, context)
            self.student, self.teacher = context.network(), None

    monkeypatch.setitem(METHODS, "fixmatch", Mine)
    method, u = made(tiny, "fixmatch", {"labels": labels}), random_batch("weak_strong").unlabeled
    assert type(method) is Mine
    evaluated = method.evaluated(u)
    assert (0 if evaluated is None else len(evaluated)) == passes * len(u.weak)


@pytest.mark.parametrize("name", METHODS)
def test_step_has_static_shapes_and_reads_nothing_on_the_host(tiny, random_batch, name):
    """Fake tensors have no values: .item(), nonzero and mask indexing raise."""
    batch = random_batch(made(tiny, name).views.unlabeled)
    with FakeTensorMode() as mode:
        method = build_method(tiny(name), CLASSES).train()
        fake = pytree.tree_map_only(torch.Tensor, mode.from_tensor, batch)
        method.losses(fake, 0.5)["loss"].backward()


def test_fake_tensors_do_catch_a_host_read():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.ones(3).sum().item()


def sure_of_noise(method):
    """No network is confident of noise."""
    if hasattr(method.config, "threshold"):
        method.config.threshold = 0.0
    return method


@pytest.mark.parametrize("name", METHODS)
def test_loss_is_the_weighted_sum_of_its_terms(tiny, random_batch, name):
    method = sure_of_noise(made(tiny, name))
    losses = method.losses(random_batch(method.views.unlabeled), 0.5)
    terms = {term: getattr(method.config, weight) for term, weight in method.terms.items()}
    terms = {"supervised": 1.0} | terms
    assert set(losses) == {"loss", *terms}
    torch.testing.assert_close(losses["loss"], sum(weight * losses[term] for term, weight in terms.items()))
    assert all(losses[term] > 0 for term in terms)


UNLABELED = [name for name in METHODS if METHODS[name].terms]
LATE = ((0.0, np.exp(-5)), (0.3, np.exp(-5)), (0.5, np.exp(-1.25)), (0.7, 1.0), (0.9, 1.0))
"""Progress and gain of a ramp over 0.4 of the schedule, of a term that begins to count at 0.3."""


@pytest.mark.parametrize(
    ("name", "start", "progress", "gain"),
    [(name, 0.0, at, gain) for name in UNLABELED for at, gain in ((0.0, np.exp(-5)), (0.2, np.exp(-1.25)), (0.4, 1.0))]
    + [("cac", 0.3, *late) for late in LATE],
)
def test_a_ramp_brings_unlabelled_terms_in_slowly(tiny, random_batch, name, start, progress, gain):
    """exp(-5 (1 - t)^2) with t = (progress - start) / ramp, 1 from the ramp's end on; the supervised term has its
    weight."""
    method = sure_of_noise(made(tiny, name, {"ramp": 0.4} | ({"start": start} if name in ("cac", "u2pl") else {})))
    method.before_step(0, progress)
    losses = method.losses(random_batch(method.views.unlabeled), 0.5)
    weights = method.weights()
    unlabeled = sum(weights[term] * losses[term] for term in losses if term not in ("loss", "supervised"))
    supervised = weights["supervised"] * losses["supervised"]
    torch.testing.assert_close(losses["loss"], (supervised + gain * unlabeled).to(losses["loss"].dtype))


def test_a_ramp_of_no_term_is_refused(tiny, voc_root):
    recipe = tiny("supervised", data=voc_root())
    recipe.check()
    with pytest.raises(UsageError, match=r"^--method.ramp: must be 0, as .* no terms of unlabelled images, is 0.5$"):
        recipe.replace(method=dataclasses.replace(recipe.method, ramp=0.5)).check()


def test_settings_say_one_method(monkeypatch):
    class Tripled(Supervised):
        name = "tripled"

    monkeypatch.setitem(METHODS, "tripled", Tripled)
    with pytest.raises(UsageError, match=r"supervised and tripled share the settings SupervisedConfig.*class for each"):
        method_of(SupervisedConfig())

    @dataclasses.dataclass(kw_only=True, slots=True)
    class TripledConfig(SupervisedConfig):
        pass

    Tripled.config_class = TripledConfig
    assert (method_of(SupervisedConfig()), method_of(TripledConfig())) == (Supervised, Tripled)
    monkeypatch.delitem(METHODS, "tripled")
    with pytest.raises(UsageError, match="no method has the settings TripledConfig: add the method to METHODS"):
        method_of(TripledConfig())


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].views.windows])
def test_pseudo_labels_are_of_the_windows_in_their_order(tiny, random_batch, name):
    method = made(tiny, name)
    method.begin()
    batch = random_batch(method.views.unlabeled)
    with torch.no_grad():
        seen = method.pseudo_labels(batch)
    first, crop = next(iter(seen.views.values())), method.crop
    assert all(images.shape == (2, 3, crop, crop) for images in seen.views.values())
    assert len(seen.label) in (2, 4)
    assert seen.label.dtype == torch.uint8
    assert seen.label.max() < CLASSES
    assert all(mask is None or mask.shape == seen.label.shape for mask in (seen.kept, seen.other))
    windows = batch.unlabeled
    shown = getattr(windows, "weak", getattr(windows, "image1", getattr(windows, "image", None)))
    assert torch.equal(first, shown)


@pytest.mark.parametrize("statistics", ["separate", "joint"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fixmatch", {"labels": "training"}),
        ("fixmatch", {"labels": "evaluation"}),
        ("fixmatch", {"labels": "mixed"}),
        ("fixmatch", {"labels": "teacher"}),
        ("unimatch", {"labels": "training"}),
        ("unimatch", {"labels": "evaluation"}),
        ("unimatch", {"labels": "mixed", "perturbed_statistics": "shared"}),
        ("unimatch", {"labels": "teacher"}),
        ("unimatch_v2", {}),
    ],
)
def test_pseudo_labels_are_of_the_logits_that_strong_views_learn(
    tiny, random_batch, monkeypatch, name, settings, statistics
):
    """Each of a network that has just been made: a pass in training mode changes what the next one in evaluation mode
    says."""
    taught, looked = [], []

    def strong_loss(self, logits, own, *rest):
        taught.append(own)
        return sum(of_view.sum() for of_view in logits)

    def pseudo_label(logits, size):
        looked.append(logits)
        return kernels.pseudo_label(logits, size)

    monkeypatch.setattr(Consistency, "strong_loss", strong_loss)
    for look in (False, True):
        changes = {"network": "cps", "batch_statistics": statistics}  # a network that drops nothing
        method = made(tiny, name, settings, **changes)
        method.begin()
        batch = random_batch("weak_strong")
        torch.manual_seed(1)
        if look:
            monkeypatch.setattr(consistency, "pseudo_label", pseudo_label)
        with torch.no_grad():
            method.pseudo_labels(batch) if look else method.losses(batch, 0.5)
    torch.testing.assert_close(looked, taught, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_pseudo_labels_of_cac_are_those_of_its_positions(tiny, random_batch, monkeypatch, mode):
    of_positions = []
    label_logits = Cac.label_logits

    def recorded(self, view, pooled):
        of_positions.append(label_logits(self, view, pooled))
        return of_positions[-1]

    monkeypatch.setattr(Cac, "label_logits", recorded)
    for call in ("losses", "pseudo_labels"):
        method = made(tiny, "cac", {"pseudo_labels": mode}, network="cps")  # which drops nothing
        batch = random_batch("pair")
        with torch.no_grad():
            method.losses(batch, 0.5) if call == "losses" else method.pseudo_labels(batch)
    torch.testing.assert_close(of_positions[2:], of_positions[:2], rtol=0, atol=0)


def test_pseudo_labels_of_cac_count_where_the_other_view_follows(tiny, random_batch, monkeypatch):
    """Inside the overlap, where a view is sure enough and surer than the other."""
    method, batch = made(tiny, "cac", {"threshold": 0.75}), random_batch("pair")
    confidence = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)) / 2 + 0.5  # views, images, places
    label = torch.randint(0, CLASSES, (2, 2, 4, 4), generator=torch.Generator().manual_seed(1))
    said = iter(zip(label.flatten(1), confidence.flatten(1)))
    monkeypatch.setattr(Cac, "labels", lambda self, view, pooled: next(said))
    with torch.no_grad():
        seen = method.pseudo_labels(batch)
    u, expected = batch.unlabeled, torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    for image, (height, width) in enumerate((u.extent // 8).tolist()):
        for row, column in np.ndindex(height, width):
            places = []
            for corner, flip in ((u.corner1[image] // 8, u.flip1[image]), (u.corner2[image] // 8, u.flip2[image])):
                y, x = (corner + torch.tensor([row, column])).tolist()
                places.append((image, y, 3 - x if flip else x))
            first, second = confidence[0][places[0]], confidence[1][places[1]]
            if max(first, second) > 0.75:
                view = int(second > first)
                expected[view][places[view]] = True
    assert 8 < expected.sum() < 32
    pixels = (2, 2, 4, 8, 4, 8)
    assert torch.equal(seen.kept.view(pixels), expected[..., None, :, None].expand(pixels).contiguous())
    assert torch.equal(seen.label.view(pixels).long(), label[..., None, :, None].expand(pixels).contiguous())


def test_pseudo_labels_of_cps_are_what_each_network_teaches(tiny, random_batch):
    method = made(tiny, "cps", network="cps")
    batch = random_batch("plain")
    with torch.no_grad():
        seen = method.pseudo_labels(batch)
        one, other = (
            reference.pseudo_label(net(batch.unlabeled.image), (32, 32))[0] for net in (method.branch1, method.branch2)
        )
    assert torch.equal(seen.label, one)
    assert torch.equal(seen.other, other)
    assert not torch.equal(one, other)


def test_pseudo_labels_of_fixmatch_that_do_not_count_are_the_unsure_ones(tiny, random_batch):
    method = made(tiny, "fixmatch", network="cps")
    batch = random_batch("weak_strong")
    clean = torch.cat([batch.labeled.image, batch.unlabeled.weak])
    with torch.no_grad():
        label, confidence = reference.pseudo_label(method.student(clean)[2:], (32, 32))
        middle = confidence.flatten().sort().values[1000:1100]
        gap = middle.diff().argmax()  # wide enough for roundings
        method.config.threshold = float(middle[gap : gap + 2].mean())
        seen = method.pseudo_labels(batch)
    assert torch.equal(seen.label, label)
    assert torch.equal(seen.kept, confidence >= method.config.threshold)
    assert 0.4 < seen.kept.float().mean() < 0.6


@pytest.mark.parametrize(("confidence", "alone"), [("mean", False), ("pixel", True)])
def test_what_cutmix_seg_does_not_keep_teaches_unless_pixels_are_weighed(tiny, random_batch, confidence, alone):
    method = made(tiny, "cutmix_seg")
    method.config.confidence = confidence
    with torch.no_grad():
        assert method.pseudo_labels(random_batch("weak_strong")).kept_alone is alone


def test_cac_starts_its_contrastive_term_after_five_eightieths(tiny, random_batch):
    method = made(tiny, "cac")
    batch = random_batch("pair")
    assert "contrastive" not in method.losses(batch, 0.0624)
    assert "contrastive" in method.losses(batch, 0.0625)


@pytest.mark.parametrize(("network", "backbone"), [("cac", "few"), ("u2pl", "few"), ("u2pl", "resnet18")])
def test_cac_contrast_is_positive_and_moves_the_projector_but_not_the_classifier(tiny, random_batch, network, backbone):
    method = made(tiny, "cac", network=network, backbone=backbone)
    method.config.threshold = 0.0
    losses = method.losses(random_batch("pair"), 0.5)
    assert losses["contrastive"] > 0
    losses["contrastive"].backward()
    parameters = {name: p for name, p in method.network.named_parameters() if of_projector(name) and p.ndim > 1}
    assert len(parameters) == (3 if network == "u2pl" else 2)
    assert all(p.grad.abs().sum() > 0 for p in parameters.values())
    assert method.bank.features.shape[2] == method.network.projection
    assert all(p.grad is None for p in method.network.classifier.parameters())


@pytest.mark.parametrize("stride", [2, 8])
def test_cac_contrasts_positions_of_eight_pixels_whatever_the_encoders_stride(tiny, random_batch, monkeypatch, stride):
    class Other(Few):
        def __init__(self):
            super().__init__()
            self.stem[0] = nn.Conv2d(3, 8, stride, stride, bias=False)
            self.blocks[1] = BasicBlock(8, 16, stride=16 // stride)

    recipe = tiny("cac")
    monkeypatch.setitem(ENCODERS, "few", dataclasses.replace(ENCODERS["few"], build=Other, strides=(stride, 16)))
    assert not list(recipe.replace(data="somewhere").faults())
    method = made(tiny, "cac")
    method.config.threshold = 0.0
    batch = random_batch("pair")
    view = batch.unlabeled.image1
    features = method.network.features(view)
    assert features.shape[-1] == 32 // stride
    unit, label, confidence = method.describe(view, features)
    assert len(unit) == len(label) == len(confidence) == len(view) * 4 * 4
    assert method.losses(batch, 0.5)["contrastive"] > 0


def test_overlap_positions_show_the_same_place_in_both_views():
    """Each view numbers the places of a common image; rows that are valid must carry the same number."""
    grid, crop = 4, 32
    rng = np.random.default_rng(0)
    for _ in range(20):
        offsets = rng.integers(0, 3, (2, 2)) * 8
        flips = rng.random(2) < 0.5
        world = np.arange(12 * 12).reshape(12, 12)
        views = []
        for offset, flip in zip(offsets, flips):
            y, x = offset // 8
            view = world[y : y + grid, x : x + grid]
            views.append(torch.from_numpy(np.ascontiguousarray(view[:, ::-1] if flip else view)).flatten())
        apart = offsets[1] - offsets[0]
        corner1, corner2 = np.maximum(apart, 0), np.maximum(-apart, 0)
        extent = np.maximum(crop - np.abs(apart), 0)
        pair = Pair(
            image1=torch.empty(1, 3, crop, crop),
            image2=torch.empty(1, 3, crop, crop),
            corner1=torch.from_numpy(corner1[None]),
            corner2=torch.from_numpy(corner2[None]),
            extent=torch.from_numpy(extent[None]),
            flip1=torch.tensor([bool(flips[0])]),
            flip2=torch.tensor([bool(flips[1])]),
        )
        place1, place2, valid = overlap_positions(pair, grid)
        assert valid.sum() == extent.prod() // 64
        assert torch.equal(views[0][place1][valid], views[1][place2][valid])
        assert len(set(views[0][place1][valid].tolist())) == valid.sum()


def test_bank_is_a_ring_that_forgets_the_oldest_step():
    bank = NegativeBank(2, 3, 128)
    assert (bank.labels == -1).all()
    for step in range(3):
        bank.push(torch.full((3, 128), float(step)), torch.full((3,), step))
    assert sorted(bank.labels.flatten().tolist()) == [1, 1, 1, 2, 2, 2]
    assert torch.equal(bank.features[..., 0].long(), bank.labels)
    assert {"features", "labels", "position"} <= set(bank.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_rare_classes_weigh_more_where_that_is_asked_for(tiny, random_batch, name):
    """As torch's weighted cross-entropy, whatever the weights are multiplied by; of the labelled term alone."""
    method, plain = made(tiny, name, {"class_weights": "auto"}), made(tiny, name)
    shares = torch.tensor([0.91, 0.09, 0.0])
    method.weigh_classes(shares)
    torch.testing.assert_close((shares * method.class_weight[:CLASSES]).sum(), torch.tensor(1.0))
    assert not method.class_weight[CLASSES:].any()
    logits, target = torch.randn(2, CLASSES, 4, 4), random_batch(method.views.unlabeled).labeled.target
    enlarged = nn.functional.interpolate(logits.double(), target.shape[-2:], mode="bilinear", align_corners=True)
    weights = torch.tensor([1 / 0.91**0.5, 1 / 0.3, 100.0]).double()
    expected = nn.functional.cross_entropy(enlarged, target.long(), weights, ignore_index=255)
    torch.testing.assert_close(method.supervised(logits, target).double(), expected, rtol=1e-5, atol=1e-6)
    one = torch.full_like(target, 255)
    one[0, 0, 0] = 0  # which weighs less than 1
    expected = nn.functional.cross_entropy(enlarged, one.long(), weights, ignore_index=255)
    torch.testing.assert_close(method.supervised(logits, one).double(), expected, rtol=1e-5, atol=1e-6)
    assert method.supervised(logits, torch.full_like(target, 255)) == 0
    torch.manual_seed(1)
    losses = method.losses(random_batch(method.views.unlabeled), 0.5)
    torch.manual_seed(1)
    others = plain.losses(random_batch(plain.views.unlabeled), 0.5)
    assert losses["supervised"] != others["supervised"]
    assert {term: value for term, value in losses.items() if term not in ("loss", "supervised")} == {
        term: value for term, value in others.items() if term not in ("loss", "supervised")
    }


def test_class_weights_and_ohem_do_not_go_together():
    assert [*SupervisedConfig(ohem=0.1, class_weights="auto").faults()] == [
        "--method.class-weights: OHEM takes the hardest pixels as they are; leave out this or --method.ohem"
    ]


def test_ohem_of_the_cityscapes_recipes_keeps_the_hard_pixels(tiny):
    method = made(tiny, "cps")
    method.config.ohem = 0.25
    logits = torch.randn(2, CLASSES, 8, 8, dtype=torch.float64)
    target = torch.randint(0, CLASSES, (2, 32, 32), dtype=torch.uint8)
    expected = reference.upsample_ohem_cross_entropy(logits, target, threshold=0.7, min_kept=512)
    torch.testing.assert_close(method.supervised(logits, target), expected)
    assert method.supervised(logits, target) >= reference.upsample_cross_entropy(logits, target)


def test_pairs_that_keep_all_their_features_are_rounded_down(tiny):
    method = made(tiny, "unimatch_v2")
    assert [int(method.keeping(pairs, torch.device("cpu")).sum()) for pairs in (1, 2, 3, 5)] == [0, 1, 1, 2]
