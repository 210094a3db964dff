import itertools
import threading

import numpy as np
import pytest
import torch

from semiseg.kernels.reference import photometric
from semiseg.pipelines.loader import Loader

CPU = torch.device("cpu")
COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def load(photos, kind: str = "pair", start: int = 0, stop: int = 1, options=COLOURS, **changes) -> Loader:
    return Loader([photos.planner(kind, **changes)], photos.host(), CPU, start, stop, **COLOURS | options)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("loader",) or "decode" in thread.name]


def test_colours_are_those_of_the_plan(photos, run) -> None:
    plan, windows = next(run(photos.host(), photos.planner("pair", unlabeled_batch=6)))
    (batch,) = load(photos, "pair", unlabeled_batch=6)
    mean, std = torch.tensor(COLOURS["mean"]), torch.tensor(COLOURS["std"])
    views = zip(plan.unlabeled[0].views, windows.unlabeled, (batch.unlabeled.image1, batch.unlabeled.image2))
    for view, window, image in views:
        matrix, blur = (torch.from_numpy(getattr(view.colourings[0], name)) for name in ("matrix", "blur"))
        expected = photometric(window, matrix, blur, mean, std, dtype=torch.float32)
        # OpenCV may round blur and colour the other way: twice one grey level, amplified by the matrix.
        assert (image - expected).abs().mean() < 0.02
        assert (image - expected).abs().max() < 0.1
    assert np.array_equal(batch.unlabeled.extent, plan.overlap.extent)


def test_steps_are_those_asked_for_in_order(photos) -> None:
    walk = list(load(photos, stop=7))
    tail = list(load(photos, start=4, stop=7, options={"ahead": 1}))
    assert (len(walk), len(tail)) == (7, 3)
    for a, b in zip(walk[4:], tail):
        assert torch.equal(a.labeled.image, b.labeled.image)
        assert torch.equal(a.labeled.target, b.labeled.target)
        assert torch.equal(a.unlabeled.image2, b.unlabeled.image2)


def test_batches_come_once(photos) -> None:
    loader = load(photos)
    assert len(list(loader)) == 1
    with pytest.raises(RuntimeError, match="gives its batches once: make another"):
        list(loader)


def test_batches_keep_their_values_while_later_ones_are_made(photos) -> None:
    kept = list(load(photos, stop=8))
    for step, batch in enumerate(kept):
        (alone,) = load(photos, start=step, stop=step + 1)
        assert torch.equal(batch.labeled.target, alone.labeled.target)
        assert torch.equal(batch.labeled.image, alone.labeled.image)
        assert torch.equal(batch.unlabeled.image2, alone.unlabeled.image2)


def test_the_dtype_is_the_one_asked_for(photos) -> None:
    (batch,) = load(photos, options={"dtype": torch.bfloat16})
    assert batch.labeled.image.dtype == batch.unlabeled.image1.dtype == torch.bfloat16


def test_an_error_of_the_backend_reaches_the_reader(photos) -> None:
    def failing(plans):
        yield from itertools.islice(photos.host()(plans), 2)
        raise RuntimeError("out of images")

    batches = iter(Loader([photos.planner()], failing, CPU, 0, 10, **COLOURS))
    next(batches), next(batches)
    with pytest.raises(RuntimeError, match="out of images"):
        next(batches)
    assert not loader_threads()


def test_leaving_early_ends_the_threads(photos) -> None:
    for batch in load(photos, stop=1000):
        assert batch.labeled.target.shape[0] == 2
        break
    assert not loader_threads()
