import colorsys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import ColorJitter

from semiseg.pipelines.colours import colour_matrix
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.plan import DENOMINATOR, Plan, Planner
from semiseg.pipelines.views import KINDS, Augmentation

DRAWS = 20_000


def same(first: Plan, second: Plan, arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(arrays(first), arrays(second), strict=True))


@pytest.fixture(scope="module")
def pairs(make_planner) -> Plan:
    return make_planner(unlabeled_batch=DRAWS)(0)


def test_pairs_of_voc_overlap_as_in_the_published_program(pairs) -> None:
    positions = (pairs.overlap.extent // 8).prod(1)
    padded = (pairs.unlabeled[0].views[0].inside < 320).any(1)
    assert positions.mean() == pytest.approx(1082, rel=0.01)
    assert padded.mean() == pytest.approx(0.222, abs=0.01)


def test_long_sides_are_uniform_with_both_ends(pairs) -> None:
    stream = pairs.unlabeled[0]
    long_side = np.rint(500 * DENOMINATOR / stream.step)
    assert (long_side.min(), long_side.max()) == (320, 800)
    assert long_side.mean() == pytest.approx(560, abs=4)


def test_factors_are_drawn_with_equal_probability(make_planner) -> None:
    factors = (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)
    augmentation = Augmentation(scale="factors", factors=factors, filter="linear")
    stream = make_planner(kind="plain", unlabeled_batch=DRAWS, unlabeled=augmentation)(0).unlabeled[0]
    drawn, counts = np.unique(np.round(DENOMINATOR / stream.step, 2), return_counts=True)
    assert drawn == pytest.approx(factors, abs=0.01)
    assert counts / DRAWS == pytest.approx(1 / 6, abs=0.015)
    assert stream.filter == "linear"


def test_mixing_boxes_cover_a_quarter_as_in_the_published_generator(make_planner) -> None:
    boxes = make_planner(((375, 500), (500, 375)), "mixed", crop=512, unlabeled_batch=DRAWS)(0).boxes

    def area(*chosen: int) -> np.ndarray:
        low, high = boxes[:, chosen, :2].max(1), boxes[:, chosen, 2:].min(1)
        return np.maximum(high - low, 0).prod(-1).astype(float)

    # Boxes toggle: what an even number of them covers is the first image again.
    singles, twins = area(0) + area(1) + area(2), area(0, 1) + area(0, 2) + area(1, 2)
    coverage = (singles - 2 * twins + 4 * area(0, 1, 2)) / 512**2
    assert boxes.min() >= 0
    assert boxes.max() <= 512
    assert coverage.mean() == pytest.approx(0.251, abs=0.003)
    assert coverage.std() == pytest.approx(0.068, abs=0.003)


def test_flips_colours_and_blur_happen_as_often_as_told(pairs) -> None:
    for view in pairs.unlabeled[0].views:
        gray = (np.ptp(view.colourings[0].matrix[:, :, :3], axis=1) < 1e-6).all(1)
        unchanged = (view.colourings[0].matrix == np.eye(3, 4)).all((1, 2))
        assert view.flip.mean() == pytest.approx(0.5, abs=0.02)
        assert view.colourings[0].blur.mean() == pytest.approx(0.5, abs=0.02)
        assert gray.mean() == pytest.approx(0.2, abs=0.02)
        assert unchanged.mean() == pytest.approx(0.2 * 0.8, abs=0.02)


def test_the_two_views_of_a_pair_are_drawn_independently(pairs) -> None:
    one, two = pairs.unlabeled[0].views
    assert (one.flip & two.flip).mean() == pytest.approx(0.25, abs=0.02)
    assert (one.colourings[0].blur & two.colourings[0].blur).mean() == pytest.approx(0.25, abs=0.02)


side = st.integers(1, 2500)
augmentations = st.builds(
    Augmentation,
    scale=st.sampled_from(["long_side", "factors"]),
    base=st.floats(0.25, 4),
    range=st.sampled_from([(0.5, 2.0), (0.8, 2.0), (1.0, 1.0)]),
)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.tuples(side, side), min_size=2, max_size=5),
    kind=st.sampled_from(["plain", "pair", "mixed"]),
    crop=st.integers(2, 100).map(lambda n: 8 * n),
    augmentation=augmentations,
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 10**7),
)
def test_windows_lie_inside_their_images(sizes, kind, crop, augmentation, seed, step, make_planner) -> None:
    ours = make_planner(sizes, kind, crop=crop, seed=seed, labeled=augmentation, unlabeled=augmentation)
    plan = ours(step)
    for stream in plan.streams:
        assert (stream.step >= 1).all()
        assert (stream.step % (2 * DENOMINATOR) != 0).all()
        assert (stream.origin >= 0).all()
        assert (stream.extent >= 1).all()
        assert (stream.origin + stream.source <= ours.sizes[stream.record]).all()
        for view in stream.views:
            assert (view.offset >= 0).all()
            assert (view.inside >= 1).all()
            scaled = ours.sizes[stream.record] * DENOMINATOR // stream.step[:, None]
            assert (view.inside == np.minimum(scaled, crop)).all()
            assert (view.offset + view.inside <= stream.extent).all()
    if kind == "pair":
        overlap, (one, two) = plan.overlap, plan.unlabeled[0].views
        assert (overlap.extent % 8 == 0).all()
        assert (overlap.corner1 % 8 == 0).all()
        assert (overlap.corner2 % 8 == 0).all()
        for corner, view in ((overlap.corner1, one), (overlap.corner2, two)):
            shown = (overlap.extent > 0).all(1)
            assert (corner + overlap.extent <= view.inside)[shown].all()
        assert np.array_equal(one.offset + overlap.corner1, two.offset + overlap.corner2)


def test_second_windows_do_not_leave_images_barely_larger_than_they(make_planner) -> None:
    barely = Augmentation(base=325 / 320, range=(1.0, 1.0))
    for sizes in ([(325, 325)], [(325, 330)]):
        plan = make_planner(sizes, unlabeled_batch=2000, unlabeled=barely)(0)
        assert all((view.inside == np.minimum(sizes, 320)).all() for view in plan.unlabeled[0].views)


def test_every_kind_of_views_is_planned_in_as_many_streams_and_windows_as_it_says(make_planner) -> None:
    assert Planner.BY_KIND.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        plan = make_planner([(40, 50)] * 5, name, crop=32)(0)
        assert (plan.crop, len(plan.unlabeled)) == (32, kind.streams)
        assert sum(len(stream.views) for stream in plan.unlabeled) == kind.windows


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 9), batch=st.integers(1, 6), seed=st.integers(0, 1000))
def test_every_image_comes_once_an_epoch_and_never_meets_itself(count, batch, seed, make_planner) -> None:
    ours = make_planner([(40, 50)] * count, "mixed", crop=32, batch=batch, unlabeled_batch=batch, seed=seed)
    plans = [ours(step) for step in range(3 * count)]
    streams = [plan.labeled for plan in plans], *zip(*(plan.unlabeled for plan in plans))
    epochs = [np.concatenate([s.record for s in stream])[: 3 * count].reshape(3, count) for stream in streams]
    for epoch in np.concatenate(epochs):
        assert sorted(epoch) == list(range(count))
    assert (epochs[1] != epochs[2]).all()


def test_epochs_and_streams_have_orders_of_their_own(make_planner) -> None:
    ours = make_planner([(40, 50)] * 50, batch=50, unlabeled_batch=50, crop=32)
    orders = [tuple(stream.record) for step in range(3) for stream in ours(step).streams]
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_depends_on_the_step_alone(kind, arrays, make_planner) -> None:
    sizes = [(40 + n, 90 - n) for n in range(11)]
    fresh, used = (make_planner(sizes, kind, batch=4, crop=48) for _ in range(2))
    for step in (0, 9, 3):
        used(step)
    assert same(fresh(7), used(7), arrays)
    assert not same(fresh(7), used(8), arrays)
    assert not same(fresh(7), make_planner(sizes, kind, batch=4, crop=48, seed=1)(7), arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_share_one_plan(kind, arrays, make_planner) -> None:
    sizes = [(40 + n, 90 - n) for n in range(11)]
    options = dict(sizes=sizes, kind=kind, crop=48, batch=4, unlabeled_batch=6)
    whole = make_planner(**options, parts=2)(5)
    ranks = [make_planner(**options, rank=rank, world=2)(5) for rank in range(2)]
    if whole.partner is not None:  # rows of a process's own stream
        ranks[1] = replace(ranks[1], partner=ranks[1].partner + 3)
    for expected, *parts in zip(arrays(whole), *map(arrays, ranks), strict=True):
        assert np.array_equal(expected, np.concatenate(parts))


def test_labelled_images_do_not_depend_on_the_unlabelled_ones(make_planner) -> None:
    with_pairs, alone = (make_planner([(40, 50)] * 5, kind, batch=4, crop=32)(3).labeled for kind in ("pair", "none"))
    assert np.array_equal(with_pairs.record, alone.record)
    assert np.array_equal(with_pairs.origin, alone.origin)


def test_no_labelled_images_a_step_leave_the_unlabelled_ones_as_they_are(arrays, make_planner) -> None:
    whole, rest = (make_planner([(40, 50)] * 5, "mixed", batch=batch, crop=32)(3) for batch in (2, 0))
    assert len(rest.labeled.record) == 0
    assert all(np.array_equal(a, b) for a, b in zip(arrays(whole.unlabeled), arrays(rest.unlabeled), strict=True))


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "kind", "changes", "cure"),
    [
        ([], [0, 1], "pair", {}, "choose another --split"),
        ([0], [], "plain", {}, "supervised recipe"),
        ([0], [1], "mixed", {}, "add images"),
        ([0], [1], "pair", {"world": 2, "batch": 3}, "multiple of 2"),
        ([0], [1], "pair", {"world": 2, "unlabeled_batch": 3}, "multiple of 2"),
    ],
)
def test_a_split_that_cannot_feed_the_views_is_refused(labeled, unlabeled, kind, changes, cure, make_planner) -> None:
    options = dict(crop=32, batch=2, unlabeled_batch=2)
    with pytest.raises(UsageError, match=cure):
        make_planner([(40, 40)] * 2, kind, images=(labeled, unlabeled), **options | changes)


def matrix(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, gray=False) -> np.ndarray:
    return colour_matrix(*(np.array([x]) for x in (brightness, contrast, saturation, hue, gray)))[0].astype(float)


def recoloured(colour, *arguments, **options) -> np.ndarray:
    change = matrix(*arguments, **options)
    return change[:, :3] @ np.asarray(colour, float) + change[:, 3]


def test_no_change_is_exactly_the_identity() -> None:
    assert np.array_equal(matrix(), np.eye(3, 4))


def test_gray_makes_the_three_channels_equal_and_keeps_the_luma() -> None:
    assert np.ptp(matrix(1.2, 0.7, 1.3, 0.05, True), axis=0) == pytest.approx(0, abs=1e-6)
    assert recoloured((255, 0, 0), gray=True) == pytest.approx(0.299 * 255, abs=1e-3)


def test_each_change_alone() -> None:
    colour = np.array([180.0, 90.0, 60.0])
    assert recoloured(colour, brightness=1.3) == pytest.approx(1.3 * colour, abs=1e-3)
    assert recoloured(colour, contrast=0.5) == pytest.approx(117 + 0.5 * (colour - 117), abs=0.1)
    luma = colour @ [0.299, 0.587, 0.114]
    assert recoloured(colour, saturation=0.25) == pytest.approx(luma + 0.25 * (colour - luma), abs=1e-3)


@pytest.mark.parametrize("hue", [-0.1, -0.04, 0.03, 0.1])
@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (128, 128, 128)]
)
def test_hue_turns_the_iq_plane(colour, hue) -> None:
    """The standard library's YIQ has rounded coefficients: hence the tolerance."""
    y, i, q = colorsys.rgb_to_yiq(*(np.array(colour) / 255))
    angle = -2 * np.pi * hue
    turned = y, i * np.cos(angle) - q * np.sin(angle), i * np.sin(angle) + q * np.cos(angle)
    r = turned[0] + 0.9468822 * turned[1] + 0.6235566 * turned[2]
    g = turned[0] - 0.2747880 * turned[1] - 0.6356910 * turned[2]
    b = turned[0] - 1.1085450 * turned[1] + 1.7090070 * turned[2]
    assert recoloured(colour, hue=hue) == pytest.approx(255 * np.array([r, g, b]), abs=6)


@pytest.mark.parametrize("hue", [-0.08, 0.08])
def test_hue_turns_the_way_that_hsv_counts(hue) -> None:
    colours = np.array([(150, 90, 80), (90, 150, 80), (80, 90, 150), (150, 140, 80)])
    for colour in colours:
        before, after = (colorsys.rgb_to_hsv(*(c / 255))[0] for c in (colour, recoloured(colour, hue=hue)))
        assert (after - before + 0.5) % 1 - 0.5 == pytest.approx(hue, abs=0.05)


def test_colours_spread_like_torchvision_s_jitter(photos, make_planner) -> None:
    photo = cv2.imread(str(photos.images[0]), cv2.IMREAD_COLOR_RGB)[::12, ::12]
    jittered = Augmentation(range=(1.0, 1.0), jitter=1.0)
    view = make_planner(kind="plain", unlabeled=jittered, unlabeled_batch=200)(0).unlabeled[0].views[0]
    ours = np.clip(
        np.rint(
            np.einsum("bij,hwj->bhwi", view.colourings[0].matrix[..., :3], photo)
            + view.colourings[0].matrix[:, None, None, :, 3]
        ),
        0,
        255,
    )
    torch.manual_seed(0)
    jitter, tensor = ColorJitter(0.4, 0.4, 0.4, 0.1), torch.from_numpy(photo.copy()).permute(2, 0, 1)
    theirs = torch.stack([jitter(tensor) for _ in range(200)]).double().numpy()
    assert ours.mean() == pytest.approx(theirs.mean(), abs=5)
    assert ours.std((1, 2)).mean() == pytest.approx(theirs.std((2, 3)).mean(), rel=0.1)
    assert ours.mean((1, 2, 3)).std() == pytest.approx(theirs.mean((1, 2, 3)).std(), rel=0.25)
