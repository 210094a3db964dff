import numpy as np
import pytest

from semiseg.pipelines.draws import ProcessSamples, uniform_int
from semiseg.pipelines.order import Order


def order(count: int = 7, batch: int = 3, epoch_steps: int = 5, rank: int = 0, world: int = 1, **switches) -> Order:
    samples = ProcessSamples(seed=1, batch=batch, rank=rank, world=world, shared=1)
    images = np.arange(count) + 100
    return Order(images=images, samples=samples, stream=0, epoch_steps=epoch_steps, **switches)


def shown(ours: Order, steps: int, **options) -> np.ndarray:
    """(steps, B)"""
    return np.stack([ours(ours.shown(step), **options) for step in range(steps)])


def test_passes_are_endless_and_go_on_within_a_batch() -> None:
    passes = shown(order(), 21).reshape(-1, 7)
    assert (np.sort(passes) == np.arange(7) + 100).all()
    assert len({tuple(one) for one in passes}) > 5


def test_a_replayed_epoch_shows_the_whole_batches_of_its_first_pass() -> None:
    ours = order(replay=True)
    assert [ours.shown(step) for step in range(10)] == [0, 1, 0, 1, 0, 5, 6, 5, 6, 5]
    assert [order().shown(step) for step in range(10)] == list(range(10))
    assert [order(count=2, replay=True).shown(step) for step in range(6)] == [0, 0, 0, 0, 0, 5]  # less than a batch


def test_a_repeated_order_begins_anew_with_each_epoch() -> None:
    steps = shown(order(repeat=True), 15).reshape(3, 5, 3)
    assert np.array_equal(steps[0], steps[1])
    assert np.array_equal(steps[0], steps[2])
    assert not np.array_equal(*shown(order(), 10).reshape(2, 5, 3))


@pytest.mark.parametrize("redrawn", [False, True])
def test_a_filled_pass_has_whole_repeats_of_the_set_and_a_rest_its_first_ones_or_any(redrawn) -> None:
    epochs = shown(order(filled=15, redrawn=redrawn), 100).reshape(20, 15)  # two repeats and one more
    counts = np.stack([np.bincount(epoch - 100, minlength=7) for epoch in epochs])
    assert (counts >= 2).all()
    assert (counts.sum(1) == 15).all()
    assert (set(counts.argmax(1)) != {0}) == redrawn


@pytest.mark.parametrize("switches", [{}, {"repeat": True}, {"replay": True}])
def test_a_partner_is_another_image_of_the_same_pass(switches) -> None:
    ours = order(batch=7, **switches)
    for first, partner in zip(shown(ours, 10), shown(ours, 10, partner=True)):
        assert (first != partner).all()
        assert sorted(first) == sorted(partner)


@pytest.mark.parametrize(
    "switches", [{}, {"repeat": True}, {"replay": True}, {"filled": 15}, {"filled": 15, "redrawn": True}]
)
def test_processes_take_slices(switches) -> None:
    whole = shown(order(count=20, batch=6, **switches), 12)
    ranks = [shown(order(count=20, batch=2, rank=rank, world=3, **switches), 12) for rank in range(3)]
    assert np.array_equal(whole, np.concatenate(ranks, 1))


def test_draws_belong_to_the_sample_and_not_to_who_asks() -> None:
    whole = ProcessSamples(seed=3, batch=6, rank=0, world=1, shared=1).draws(2, 5, 10).take(10)
    for rank in range(3):
        draws = ProcessSamples(seed=3, batch=2, rank=rank, world=3, shared=1).draws(2, 5, 10)
        first, rest = draws.take(), draws.take(9)
        assert np.array_equal(np.column_stack([first, rest]), whole[2 * rank : 2 * rank + 2])


def test_shared_draws_are_the_same_for_each_part_of_the_batch() -> None:
    numbers = ProcessSamples(seed=3, batch=6, rank=0, world=1, shared=2).draws(2, 5, 4).take(4)
    assert np.array_equal(numbers[:3], numbers[3:])
    assert len(np.unique(numbers[:3])) == 12


def test_whole_numbers_are_drawn_with_both_ends() -> None:
    draw = np.array([0, 0.24, 0.25, 0.999999])
    assert uniform_int(draw, np.full(4, 3), np.full(4, 6)).tolist() == [3, 3, 4, 6]
