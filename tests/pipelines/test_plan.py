from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.host import place
from semiseg.pipelines.plan import DENOMINATOR, Plan, Planner
from semiseg.pipelines.views import KINDS, Augmentation, Sampling, ViewSpec

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


@pytest.mark.parametrize("scale", ["long_side", "own"])
def test_a_long_side_is_of_one_pixel_at_least(make_planner, scale) -> None:
    """Of none at all would be an image that is as much enlarged as can be."""
    little = Augmentation(scale=scale, base=0.5, range=(0.001, 0.06))
    stream = make_planner(((75, 100),), "plain", crop=32, unlabeled_batch=DRAWS, unlabeled=little)(0).unlabeled[0]
    assert stream.step.min() >= 100 * DENOMINATOR // 6
    assert stream.step.max() == 75 * DENOMINATOR - 1  # the short side is a pixel, too


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
    scale=st.sampled_from(["long_side", "own", "factors"]),
    even_odds=st.booleans(),
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
@pytest.mark.parametrize("accumulate", [1, 2])
def test_micro_batches_and_processes_share_one_plan(kind, accumulate, arrays, make_planner) -> None:
    """Only whom an image is mixed with depends on the micro-batches."""
    sizes = [(40 + n, 90 - n) for n in range(11)]
    options = dict(sizes=sizes, kind=kind, crop=48, batch=8, unlabeled_batch=12)
    places = [{"micro": micro, "rank": rank, "world": 2} for micro in range(accumulate) for rank in range(2)]
    whole, *shares = (
        make_planner(**options)(5),
        *(make_planner(**options, accumulate=accumulate, **p)(5) for p in places),
    )
    if accumulate > 1:
        whole, *shares = (replace(plan, partner=None) for plan in (whole, *shares))
    for expected, *parts in zip(arrays(whole), *map(arrays, shares), strict=True):
        assert np.array_equal(expected, np.concatenate(parts))


@pytest.mark.parametrize("rule", ["other", "reversed", "same"])
@pytest.mark.parametrize(("parts", "accumulate"), [(1, 1), (2, 1), (1, 2), (4, 2)])
def test_partners_are_the_same_windows_however_many_processes_there_are(
    rule, parts, accumulate, strong_planner
) -> None:
    """Where means are over the whole batch or micro-batch, partners lie in any process's stream; else in the own."""

    def windows(plan):
        stream = plan.unlabeled[0]
        return np.column_stack([stream.record, stream.step, stream.origin, plan.valid])

    options = dict(partner=rule, batch=8, unlabeled_batch=16, parts=parts, accumulate=accumulate)
    for micro in range(accumulate):
        whole = strong_planner(**options, micro=micro)(5)
        assert len(whole.partner) == 16 // accumulate
        ranks = [strong_planner(**options, micro=micro, rank=rank, world=2)(5) for rank in range(2)]
        everyones = np.concatenate([windows(plan) for plan in ranks])
        mixed = [(everyones if parts == 1 else windows(plan))[plan.partner] for plan in ranks]
        assert np.array_equal(np.concatenate(mixed), windows(whole)[whole.partner])


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
        ([0], [1], "pair", {"world": 2, "batch": 3}, "--batch: 3 .* use 2 or 4"),
        ([0], [1], "pair", {"world": 4, "batch": 3, "unlabeled_batch": 4}, "use 4"),
        ([0], [1], "pair", {"world": 2, "unlabeled_batch": 3}, "use 2 or 4"),
        ([0], [1], "pair", {"world": 2, "parts": 3}, "multiple of 2"),
        ([0], [1], "pair", {"world": 2, "accumulate": 2}, "by 2 micro-batches of 2 processes each; use 4"),
        ([0], [1], "pair", {"batch": 3, "accumulate": 2}, "--batch: 3 images cannot be shared by 2 micro-batches"),
    ],
)
def test_a_split_that_cannot_feed_the_views_is_refused(labeled, unlabeled, kind, changes, cure, make_planner) -> None:
    options = dict(crop=32, batch=2, unlabeled_batch=2)
    with pytest.raises(UsageError, match=cure):
        make_planner([(40, 40)] * 2, kind, images=(labeled, unlabeled), **options | changes)


STRONG = ViewSpec(unlabeled="weak_strong", strong=2)
UNIMATCH = Augmentation(
    scale="own",
    filter="antialiased",
    fill="black",
    jitter=0.8,
    jitter_order="random",
    gray=0.2,
    blur=0.5,
    sigma=(0.1, 2.0),
    blur_radius=6,
    blur_last=True,
)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("plain", {"rank": 2, "world": 2}, "rank: must be from 0 to 1, is 2"),
        ("plain", {"rank": -1}, "rank: must be from 0 to 0, is -1"),
        ("plain", {"seed": -1}, "--seed: must be from 0"),
        ("pairs", {}, "views.unlabeled: must be one of none, plain, pair, mixed, weak_strong, is pairs"),
        ("plain", {"labeled": Augmentation(filter="bilinear")}, "--labeled.filter: must be one of"),
        ("plain", {"labeled": Augmentation(padding_label="first")}, "--labeled.padding-label: must be one of"),
        ("plain", {"unlabeled": Augmentation(padding_label="first_class")}, "--unlabeled.padding-label: is ignored"),
        ("pair", {"unlabeled": Augmentation(padding="centre")}, "--unlabeled.padding: is corner for pairs"),
        ("plain", {"sampling": Sampling(labeled_order="pass")}, "--sampling.labeled-order: must be one of passes"),
        ("weak_strong", {"views": ViewSpec(unlabeled="weak_strong", cutmix="allways")}, "views.cutmix: must be one of"),
    ],
)
def test_draws_that_do_not_exist_are_refused(kind, changes, said, make_planner) -> None:
    with pytest.raises(UsageError, match=said):
        make_planner(kind=kind, **changes)


@pytest.fixture
def strong_planner(make_planner):
    """Planners of weak and strong views by the rule for partners: twelve images, four a step."""

    def planner(partner: str = "other", count: int = 12, **changes) -> Planner:
        options = {"views": STRONG, "unlabeled": UNIMATCH, "crop": 48, "sampling": Sampling(cutmix_partner=partner)}
        return make_planner([(40 + n, 90 - n) for n in range(count)], **options | changes)

    return planner


def test_the_weak_view_keeps_its_colours_and_strong_ones_have_their_own(strong_planner) -> None:
    (view,) = strong_planner(unlabeled_batch=64)(0).unlabeled[0].views
    weak, *strong = view.colourings
    assert (weak.matrix == np.eye(3, 4)).all()
    assert not weak.blur.any()
    assert weak.by_mean is None
    one, two = strong
    changed = (one.matrix != np.eye(3, 4)).any((1, 2)), (two.matrix != np.eye(3, 4)).any((1, 2))
    assert 0.6 < changed[0].mean() < 1
    assert (changed[0] != changed[1]).any()
    assert (one.blur != two.blur).any()
    assert {(colouring.radius, colouring.blur_last) for colouring in strong} == {(6, True)}


def test_boxes_of_the_two_strong_views_are_their_own(strong_planner) -> None:
    boxes = strong_planner(unlabeled_batch=2000)(0).boxes
    assert boxes.shape == (2000, 2, 4)
    one, two = boxes.any(2).T
    assert (one & two).mean() == pytest.approx(0.25, abs=0.04)


def test_every_strong_view_has_a_box_of_half_the_window_where_told(strong_planner) -> None:
    views = ViewSpec(unlabeled="weak_strong", strong=2, cutmix="always")
    boxes = strong_planner(unlabeled_batch=200, views=views, crop=320)(0).boxes
    assert (boxes[..., 2:] - boxes[..., :2]).prod(-1) / 320**2 == pytest.approx(np.full((200, 2), 0.5), abs=0.005)
    assert (boxes[:, 0] != boxes[:, 1]).any(1).mean() > 0.95


def test_half_of_the_strong_views_have_a_box_of_half_the_window_where_told(strong_planner) -> None:
    views = ViewSpec(unlabeled="weak_strong", strong=2, cutmix="sometimes_half")
    boxes = strong_planner(unlabeled_batch=2000, views=views, crop=320)(0).boxes
    there = boxes.any(2)
    assert there.mean(0) == pytest.approx(0.5, abs=0.04)
    assert there.all(1).mean() == pytest.approx(0.25, abs=0.04)
    share = (boxes[there][:, 2:] - boxes[there][:, :2]).prod(-1) / 320**2
    assert share == pytest.approx(np.full(there.sum(), 0.5), abs=0.002)


def test_without_cutmix_nothing_is_mixed(strong_planner) -> None:
    for partner in ("other", "same"):  # the rule means nothing
        alone = ViewSpec(unlabeled="weak_strong", cutmix="never")
        plan = strong_planner(partner, count=1, views=alone, unlabeled_batch=1)(0)
        assert (len(plan.unlabeled[0].record), plan.partner.tolist(), plan.boxes.any()) == (1, [0], False)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_partners_are_other_images_of_the_same_part_each_once(parts, strong_planner) -> None:
    plans = [strong_planner(unlabeled_batch=12, parts=parts)(step) for step in range(20)]
    for plan in plans:
        own, partner = np.arange(12).reshape(parts, -1), plan.partner.reshape(parts, -1)
        assert (np.sort(partner, 1) == own).all()
        assert (partner != own).all()
    assert len({plan.partner.tobytes() for plan in plans}) > 3  # drawn anew


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 5), batch=st.integers(2, 7), step=st.integers(0, 50))
def test_an_image_that_comes_several_times_in_a_batch_avoids_itself(count, batch, step, make_planner) -> None:
    """As many rows on as serve the most images: found here among all."""
    sizes = [(40, 50)] * count
    plan = make_planner(sizes, "weak_strong", crop=32, unlabeled_batch=batch)(step)
    record, row = plan.unlabeled[0].record, np.arange(batch)
    shift = plan.partner[0]
    assert (plan.partner == (row + shift) % batch).all()
    fewest = min(sum(record[(i + by) % batch] == record[i] for i in row) for by in range(1, batch))
    assert (record[plan.partner] == record).sum() == fewest


@pytest.mark.parametrize(("batch", "parts", "rows"), [(4, 1, [3, 2, 1, 0]), (6, 2, [2, 1, 0, 5, 4, 3]), (1, 1, [0])])
def test_a_reversed_batch_is_reversed_part_by_part(batch, parts, rows, strong_planner) -> None:
    plan = strong_planner("reversed", unlabeled_batch=batch, parts=parts)(3)
    assert plan.partner.tolist() == rows
    assert plan.partner.strides[0] > 0  # tensors have no others


def test_another_window_of_the_image_follows_with_geometry_and_colours_of_its_own(strong_planner) -> None:
    stream = (plan := strong_planner("same")(3)).unlabeled[0]
    assert np.array_equal(stream.record[:4], stream.record[4:])
    assert plan.partner.tolist() == [4, 5, 6, 7]
    assert len(plan.boxes) == 4
    for values in (stream.step, stream.origin, stream.views[0].colourings[1].sigma):
        assert len(values) == 8
        assert not np.array_equal(values[:4], values[4:])
    alone = strong_planner("reversed")(3).unlabeled[0]  # the windows that are trained on are the same ones
    assert np.array_equal(alone.origin, stream.origin[:4])


@pytest.mark.parametrize(
    ("kind", "partner", "changes", "cure"),
    [
        ("weak_strong", "other", {"unlabeled_batch": 1}, "--sampling.cutmix-partner same"),
        ("weak_strong", "other", {"unlabeled_batch": 4, "parts": 4}, "larger --batch"),
        ("weak_strong", "reversed", {"unlabeled_batch": 4, "parts": 3}, "--emulate-processes"),
        ("weak_strong", "other", {"images": ([0], [1])}, "add images"),
        ("mixed", "reversed", {}, "other or same"),
    ],
)
def test_batches_without_partners_are_refused(kind, partner, changes, cure, make_planner) -> None:
    with pytest.raises(UsageError, match=cure) as refused:
        make_planner([(40, 40)] * 4, kind, crop=32, sampling=Sampling(cutmix_partner=partner), **changes)
    assert "\n" not in str(refused.value)


def test_own_long_sides_are_uniform_between_bounds_of_each_image(make_planner) -> None:
    sizes = np.array([(100, 300), (251, 170)])
    stream = make_planner(sizes, "plain", unlabeled_batch=DRAWS, unlabeled=UNIMATCH)(0).unlabeled[0]
    for number, longest in enumerate(sizes.max(1)):
        sides = longest * DENOMINATOR / stream.step[stream.record == number]
        low, high = int(0.5 * longest), int(2.0 * longest)
        assert sides.min() == pytest.approx(low, abs=0.5)
        assert sides.max() == pytest.approx(high, abs=0.5)
        assert np.quantile(sides, [0.25, 0.5, 0.75]) == pytest.approx(np.linspace(low, high, 5)[1:4], rel=0.03)


def test_at_even_odds_long_sides_are_as_often_below_the_own_one_as_above(make_planner) -> None:
    sizes = np.array([(100, 300), (251, 170), (90, 60)])
    capped = replace(UNIMATCH, even_odds=True, longest=6.0)
    stream = make_planner(sizes, "plain", crop=32, unlabeled_batch=DRAWS, unlabeled=capped)(0).unlabeled[0]
    for number, longest in enumerate((192, 192, 90)):
        sides = sizes[number].max() * DENOMINATOR / stream.step[stream.record == number]
        assert sides.min() == pytest.approx(0.5 * longest, abs=0.5)
        assert sides.max() == pytest.approx(2.0 * longest, abs=0.5)
        eighths = np.quantile(sides, np.arange(1, 8) / 8) / longest
        assert eighths == pytest.approx([0.625, 0.75, 0.875, 1, 1.25, 1.5, 1.75], rel=0.03)


@settings(max_examples=50, deadline=None)
@given(low=st.floats(0.1, 1), high=st.floats(1, 8), longest=st.none() | st.floats(0.001, 8), seed=st.integers(0, 2**32))
def test_even_odds_change_no_other_draw(low, high, longest, seed, make_planner) -> None:
    sizes = np.array([(100, 300), (251, 170)])
    own = replace(UNIMATCH, range=(low, high), longest=longest)
    one, two = (
        make_planner(sizes, "plain", crop=32, unlabeled_batch=64, unlabeled=augmentation, seed=seed)(0).unlabeled[0]
        for augmentation in (own, replace(own, even_odds=True))
    )
    assert np.array_equal(one.views[0].flip, two.views[0].flip)
    assert np.array_equal(one.views[0].colourings[0].matrix, two.views[0].colourings[0].matrix)
    for number in range(2):  # of one number, which orders the images of a size
        steps, balanced = (stream.step[stream.record == number] for stream in (one, two))
        assert (np.diff(balanced[np.lexsort((balanced, steps))]) >= 0).all()


def test_the_own_long_side_of_large_images_counts_as_so_many_crops(make_planner) -> None:
    sizes = np.array([(100, 300), (60, 40)])
    capped = replace(UNIMATCH, longest=2.5)
    stream = make_planner(sizes, "plain", crop=32, unlabeled_batch=DRAWS, unlabeled=capped)(0).unlabeled[0]
    for number, longest in enumerate((80, 60)):
        sides = sizes[number].max() * DENOMINATOR / stream.step[stream.record == number]
        assert sides.min() == pytest.approx(0.5 * longest, abs=0.5)
        assert sides.max() == pytest.approx(2.0 * longest, abs=0.5)


def test_padding_is_black_or_has_the_mean_colour(make_planner) -> None:
    plan = make_planner(kind="plain", unlabeled=UNIMATCH)(0)
    assert (plan.unlabeled[0].fill, plan.labeled.fill) == ((0, 0, 0), (124, 116, 104))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), padding=st.sampled_from(["corner", "centre"]))
def test_the_valid_part_of_a_window_is_where_backends_place_the_image(seed, padding, make_planner) -> None:
    small = Augmentation(range=(0.2, 1.0), padding=padding)
    stream = make_planner(((30, 50), (60, 40)), "plain", crop=48, seed=seed, unlabeled=small)(0).unlabeled[0]
    (view,) = stream.views
    for row, (top, left, bottom, right) in enumerate(view.valid(48)):
        shown, expected = (np.zeros((48, 48), np.uint8) for _ in range(2))
        region = np.ones(stream.extent[row], np.uint8)
        place(region, view.offset[row], view.inside[row], view.flip[row], 0, shown, view.pad[row])
        expected[top:bottom, left:right] = 1
        assert np.array_equal(shown, expected)
