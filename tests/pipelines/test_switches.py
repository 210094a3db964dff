"""The switches of the plan: what the published programs do otherwise, and that it stays a function of the step."""

import numpy as np
import pytest

from semiseg.pipelines.plan import Plan, Planner
from semiseg.pipelines.views import Augmentation, Sampling

DRAWS = 20_000


def same(first: Plan, second: Plan, arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(arrays(first), arrays(second), strict=True))


SWITCHES = {
    "same partner": Sampling(cutmix_partner="same"),
    "boxes": Sampling(repeat_boxes=True),
    "order": Sampling(unlabeled_order="repeated"),
    "list": Sampling(labeled_order="repeated"),
    "cut": Sampling(labeled_order="cut"),
    "tail": Sampling(labeled_order="redrawn"),
    "replay": Sampling(replay_labeled=True, replay_unlabeled=True, epoch_steps=5),
    "draws": Sampling(shared_draws=2),
}


@pytest.mark.parametrize("sampling", SWITCHES.values(), ids=SWITCHES)
def test_switches_change_plans_and_leave_them_pure(sampling, arrays, make_planner) -> None:
    """Still a function of the step alone, and the same for any number of processes."""
    sizes = [(40 + n, 90 - n) for n in range(11)]
    options = dict(sizes=sizes, kind="mixed", crop=48, batch=4, unlabeled_batch=4, sampling=sampling)
    unchanged = {"sampling": Sampling()}
    whole, fresh, plain = make_planner(**options), make_planner(**options), make_planner(**options | unchanged)
    for step in (9, 2, 6):
        whole(step)
    assert same(whole(7), fresh(7), arrays)
    assert not same(whole(7), whole(8), arrays)
    assert any(not same(whole(step), plain(step), arrays) for step in range(10))
    ranks = [make_planner(**options, rank=rank, world=2)(7) for rank in range(2)]
    for expected, *parts in zip(arrays(whole(7)), *map(arrays, ranks), strict=True):
        assert np.array_equal(expected, np.concatenate(parts))


@pytest.fixture
def switched(make_planner):
    """Planners of twelve images of one size, two a step: six steps an epoch."""

    def planner(kind: str, **changes) -> Planner:
        return make_planner([(40, 50)] * 12, kind, crop=32, batch=2, unlabeled_batch=2, sampling=Sampling(**changes))

    return planner


def test_cutmix_partner_is_another_image_or_the_same_one(switched, make_planner) -> None:
    first, partner = switched("mixed")(3).unlabeled
    assert (first.record != partner.record).all()
    first, partner = switched("mixed", cutmix_partner="same")(3).unlabeled
    assert np.array_equal(first.record, partner.record)
    assert not np.array_equal(first.origin, partner.origin)  # windows of their own
    plan = make_planner([(40, 40)], "mixed", crop=32, sampling=Sampling(cutmix_partner="same"))(0)
    assert not plan.unlabeled[1].record.any()


def test_boxes_are_new_or_repeat_for_eight_steps_and_every_epoch(make_planner) -> None:
    sizes = [(40, 50)] * 40  # twenty steps an epoch
    steps = [0, 7, 8, 19, 20, 28]
    for repeat, expected in ((False, [0, 1, 2, 3, 4, 5]), (True, [0, 0, 1, 2, 0, 1])):
        ours = make_planner(sizes, "mixed", crop=64, batch=2, unlabeled_batch=2, sampling=Sampling(repeat_boxes=repeat))
        boxes = [ours(step).boxes.tobytes() for step in steps]
        assert [list(dict.fromkeys(boxes)).index(one) for one in boxes] == expected


@pytest.mark.parametrize("kind", ["plain", "mixed"])
def test_unlabelled_order_is_shuffled_every_epoch_or_repeated(kind, switched) -> None:
    for order in ("shuffled", "repeated"):
        ours = switched(kind, unlabeled_order=order)
        epochs = [[ours(step) for step in range(6 * epoch, 6 * epoch + 6)] for epoch in range(3)]
        for number in range(len(epochs[0][0].unlabeled)):
            records = [np.concatenate([plan.unlabeled[number].record for plan in epoch]) for epoch in epochs]
            assert all(sorted(epoch) == list(range(12)) for epoch in records)
            assert len({tuple(epoch) for epoch in records}) == (3 if order == "shuffled" else 1)
        flips = {tuple(plan.unlabeled[0].views[0].flip[0] for plan in epoch) for epoch in epochs}
        assert len(flips) == 3  # the windows are new in any case


@pytest.fixture
def labelled(make_planner):
    """The labelled images of 30 epochs (30, steps), one a step, by order: the first `count` of a set."""

    def images(order: str, count: int, unlabeled: int, steps: int) -> np.ndarray:
        both = range(count), range(count, count + unlabeled)
        options = dict(images=both, crop=32, unlabeled_batch=1, sampling=Sampling(labeled_order=order))
        ours = make_planner([(40, 40)] * (count + unlabeled), "plain", **options)
        return np.array([ours(step).labeled.record[0] for step in range(30 * steps)]).reshape(30, steps)

    return images


def test_labelled_images_come_once_a_pass_or_fill_an_epoch_with_a_redrawn_rest(labelled) -> None:
    """Five labelled and 23 unlabelled images: four whole repeats, and three of any."""
    passes, redrawn = labelled("passes", 5, 23, 23), labelled("redrawn", 5, 23, 23)
    assert (np.sort(passes.reshape(-1, 5)) == np.arange(5)).all()
    counts = np.stack([np.bincount(epoch, minlength=5) for epoch in redrawn])
    assert counts.min() == 4
    assert counts.max() > 5  # of a rest without replacement it would be 5
    assert len(np.unique(counts, axis=0)) > 10
    assert (np.sort(redrawn[0, :5]) != np.arange(5)).any()  # repeats are shuffled together, not pass by pass


@pytest.mark.parametrize("order", ["repeated", "cut"])
def test_a_repeated_list_fills_an_epoch_with_its_first_images(order, labelled) -> None:
    """The list of UniMatch's programs: 5 images become 23 as 5 + 5 + 5 + 5 + 3, shuffled anew for every epoch."""
    epochs = labelled(order, 5, 23, 23)
    assert (np.sort(epochs) == np.sort((list(range(5)) * 5)[:23])).all()
    assert len(np.unique(epochs, axis=0)) == 30
    assert (np.sort(epochs[:, :5]) != np.arange(5)).any()  # not pass by pass


def test_of_a_list_longer_than_the_unlabelled_one_no_image_is_lost_unless_it_is_cut(labelled) -> None:
    """UniMatch V2's program shows all, UniMatch's not."""
    assert (np.sort(labelled("repeated", 5, 3, 5)) == np.arange(5)).all()
    cut = labelled("cut", 5, 3, 5)  # an epoch is a pass over the larger set, and goes on with the same three
    assert set(cut.flatten()) == {0, 1, 2}
    assert (np.sort(cut[:, :3]) == np.arange(3)).all()


@pytest.mark.parametrize("labeled", [True, False])
def test_batches_are_new_or_replayed_within_an_epoch(labeled, arrays, switched) -> None:
    """Twelve images, two a step, epochs of 15 steps: the six batches of the first pass, and again, and half of it."""

    def part(plan: Plan):
        return plan.labeled if labeled else (plan.unlabeled, plan.overlap)

    name = "replay_labeled" if labeled else "replay_unlabeled"
    for replay in (False, True):
        ours = switched("pair", epoch_steps=15, **{name: replay})
        shown = [b"".join(a.tobytes() for a in arrays(part(ours(step)))) for step in range(30)]
        expected = [15 * (step // 15) + step % 15 % 6 for step in range(30)] if replay else list(range(30))
        assert [shown.index(one) for one in shown] == expected
        first, again = (list(arrays(ours(step).unlabeled if labeled else ours(step).labeled)) for step in (0, 6))
        assert not all(np.array_equal(a, b) for a, b in zip(first, again))  # the other stream goes on


def test_an_epoch_is_a_pass_or_as_many_steps_as_told(arrays, switched) -> None:
    def repeats(step: int, **changes) -> bool:
        ours = switched("plain", unlabeled_order="repeated", **changes)
        return np.array_equal(ours(0).unlabeled[0].record, ours(step).unlabeled[0].record)

    assert [repeats(step) for step in (6, 1157)] == [True, False]
    assert repeats(1157, epoch_steps=1157)
    # Without a switch that asks for epochs, their length changes nothing.
    assert same(switched("mixed")(9), switched("mixed", epoch_steps=1157)(9), arrays)


def test_random_numbers_are_each_sample_s_own_or_shared_by_parts_of_the_batch(make_planner) -> None:
    def drawn(shared: int) -> np.ndarray:
        sampling = Sampling(shared_draws=shared)
        stream = make_planner([(375, 500)] * 24, unlabeled_batch=8, sampling=sampling)(2).unlabeled[0]
        assert len(set(stream.record)) == 8
        return np.column_stack(
            [stream.step, stream.origin, stream.views[0].flip, stream.views[1].colourings[0].matrix[:, 0, 0]]
        )

    assert len(np.unique(drawn(1), axis=0)) == 8
    halves = drawn(2).reshape(2, 4, -1)
    assert np.array_equal(halves[0], halves[1])
    assert len(np.unique(halves[0], axis=0)) == 4


def test_corners_are_drawn_from_all_positions_or_from_one_too_many(make_planner) -> None:
    natural = dict(scale="factors", factors=(1.0,))
    for too_many in (False, True):
        augmentation = Augmentation(**natural, crop_off_by_one=too_many)
        ours = make_planner([(330, 320)], "plain", unlabeled_batch=DRAWS, unlabeled=augmentation)
        stream = ours(0).unlabeled[0]
        view, rows = stream.views[0], stream.views[0].inside[:, 0]
        positions, counts = np.unique(stream.origin[:, 0], return_counts=True)
        assert list(positions) == list(range(12 if too_many else 11))
        assert counts / DRAWS == pytest.approx(1 / len(positions), abs=0.01)
        assert np.array_equal(rows, np.where(stream.origin[:, 0] == 11, 319, 320))
        assert (view.inside[:, 1] == 320).all()  # as wide as the crop: there is one position
        assert not view.pad.any()  # the missing row is at the bottom


def test_a_missing_column_is_padded_at_the_right_of_flipped_windows_too(make_planner) -> None:
    """The program flips the image first: of the image itself, the window lies at the left then."""
    augmentation = Augmentation(scale="factors", factors=(1.0,), crop_off_by_one=True)
    stream = make_planner([(320, 330)], "plain", unlabeled_batch=2000, unlabeled=augmentation)(0).unlabeled[0]
    view = stream.views[0]
    short = view.inside[:, 1] == 319
    assert (short & view.flip).any()
    assert (stream.origin[short, 1] == np.where(view.flip[short], 0, 11)).all()
    assert (view.pad[short, 1] == view.flip[short]).all()  # before the flip


def test_padding_is_at_the_corner_or_all_round(make_planner) -> None:
    for padding, expected in (("corner", (0, 0, 0)), ("centre", (111, 117, 118))):
        augmentation = Augmentation(scale="factors", factors=(1.0,), padding=padding)
        sizes = [(97, 85)]  # missing 223 rows and 235 columns
        stream = make_planner(sizes, "plain", unlabeled_batch=50, unlabeled=augmentation)(0).unlabeled[0]
        view = stream.views[0]
        top, left, left_of_flipped = expected
        assert (view.inside == sizes[0]).all()
        assert (view.pad[:, 0] == top).all()
        assert (view.pad[:, 1] == np.where(view.flip, left_of_flipped, left)).all()


def cut_as_published(image: np.ndarray, flip: bool, crop: int, start: tuple[int, int], fill) -> np.ndarray:
    """Flip, cut from the start, pad all round: an odd pixel at the bottom and right. (H, W, 3) -> (crop, crop, 3)"""
    image = image[:, ::-1] if flip else image
    cut = image[start[0] : start[0] + crop, start[1] : start[1] + crop]
    out = np.full((crop, crop, 3), fill, np.uint8)
    top, left = ((crop - side) // 2 for side in cut.shape[:2])
    out[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return out


def test_windows_are_those_of_the_published_program(photos, run) -> None:
    """CPS at scale 1: every window is one that flipping, cutting and padding the decoded image gives."""
    natural = Augmentation(scale="factors", factors=(1.0,), filter="linear", crop_off_by_one=True, padding="centre")
    ours = photos.planner("plain", labeled=natural, unlabeled=natural, unlabeled_batch=12)
    host = photos.host()
    backend = run(host, ours)
    ends = 0
    for _ in range(12):
        plan, windows = next(backend)
        stream = plan.unlabeled[0]
        for row, record in enumerate(stream.record):
            image, flip = host.image(record), bool(stream.views[0].flip[row])
            (y, x), (h, w) = stream.origin[row], stream.extent[row]
            start = y, image.shape[1] - x - w if flip else x
            seen = windows.unlabeled[0][row].numpy()
            assert np.array_equal(seen, cut_as_published(image, flip, plan.crop, start, stream.fill))
            ends += any(side < plan.crop < whole for side, whole in zip((h, w), image.shape))
    assert ends  # windows of one too many were among them
    backend.close()
