"""Threads that compute on their own, each with single-threaded operators.

torch's operators share each call out among threads and wait for the last of them. Where others want the cores too, that
one may be asleep, and a loop over tiles, which makes hundreds of small calls, waits hundreds of times. Sharing out
images, or blocks of rows, instead waits once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from .bilinear import cuts

Result = TypeVar("Result")
SHARES = 2
"""Tasks for each thread, so that one which was held up does not keep all others waiting."""


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Workers whose operators are single-threaded; those of all other threads stay as they are."""
    started = threading.Barrier(threads + 1)

    def single() -> None:
        torch.get_num_threads()  # a thread takes the number of the process when it first asks, then keeps its own
        torch.set_num_threads(1)  # for this thread and those that start before it is set again below
        started.wait()

    pool = ThreadPoolExecutor(threads, "semiseg kernel", single)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


def over(count: int, work: Callable[[slice], Result]) -> list[Result]:
    """Results of `work` for slices of [0, count), in order, from several threads if there is one for each.

    `work` records no gradient, and is in inference mode where the caller is. What it raises, this raises.
    """
    threads = torch.get_num_threads()
    if threads == 1 or count < threads:
        return [work(slice(0, count))]

    inference = torch.is_inference_mode_enabled()

    def alone(part: slice) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(part)

    return list(_pool(threads).map(alone, cuts(count, max(1, count // (SHARES * threads)))))
