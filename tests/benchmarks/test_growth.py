"""Nothing grows while a run trains, and the program that looks at it finds what does."""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import ExitStack

import pytest

import growth
import small_run
from growth import Growth, Moment


def test_a_run_keeps_its_memory_descriptors_and_threads(folder_root, tmp_path):
    """With 15 saves and 5 evaluations among 300 steps; three windows of 3 KiB that stayed with each would be seen."""
    recipe = small_run.small("cac", folder_root(), tmp_path / "run")
    moments = growth.watched(recipe.replace(steps=300, log_every=5, eval_every=60, save_every="20"))
    assert [one.step for one in moments] == list(range(5, 301, 5))
    found = growth.growth(moments)
    assert found.descriptors <= 0
    assert found.threads <= 0
    assert found.bytes_a_step < 8 * growth.MOST


@pytest.mark.parametrize("jump", [0, 50 << 20])
def test_a_jump_is_no_slope_and_a_slope_is_found_beside_it(jump):
    moments = [Moment(step, 1000 * step + (jump if step > 70 else 0), 9, 5) for step in range(100)]
    still = [Moment(step, jump if step > 70 else 0, 9, 5) for step in range(100)]
    assert growth.growth(moments).bytes_a_step == pytest.approx(1000, rel=0.01)
    assert growth.growth(still).bytes_a_step == 0


def test_descriptors_and_threads_that_stay_are_found():
    """And those that come and go are not."""
    moments = [Moment(step, 0, 9 + step % 2, 5 + step // 60) for step in range(100)]
    assert growth.growth(moments) == Growth(0, 0, 0, 1)


def test_a_moment_counts_what_this_process_holds():
    """Pages of its own, as an allocator may have some left; and many of each: threads of other tests come and go, and
    systems take idle pages away."""
    ready, done = threading.Barrier(21), threading.Event()
    threads = [threading.Thread(target=lambda: (ready.wait(), done.wait())) for _ in range(20)]
    before = growth.moment(1)
    with ExitStack() as files, mmap.mmap(-1, 256 << 20) as pages:
        pages.write(b"1" * (256 << 20))
        for thread in threads:
            files.enter_context(open(os.devnull))
            thread.start()
        ready.wait()
        after = growth.moment(2)
        done.set()
    for thread in threads:
        thread.join()
    assert after.descriptors - before.descriptors == pytest.approx(20, abs=5)
    assert after.threads - before.threads == pytest.approx(20, abs=5)
    assert after.memory - before.memory > 128 << 20
