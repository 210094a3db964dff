import threading

import numpy as np
import pytest
import torch

from semiseg.kernels.reference import photometric
from semiseg.pipelines.host import HostBackend
from semiseg.pipelines.loader import Loader, collate
from semiseg.pipelines.views import IMAGENET_MEAN, IMAGENET_STD

CPU = torch.device("cpu")


def backend(photos, kind: str = "pair", **changes) -> HostBackend:
    return HostBackend(photos.images, photos.masks, photos.planner(kind, **changes), threads=2)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("loader",) or "decode" in thread.name]


@pytest.mark.parametrize(("kind", "images"), [("none", 0), ("plain", 1), ("pair", 2), ("mixed", 2)])
def test_a_batch_holds_what_the_views_ask_for(photos, kind, images) -> None:
    (batch,) = Loader(backend(photos, kind, unlabeled_batch=4), CPU, 0, 1)
    assert batch.labeled.image.shape == (2, 3, 128, 128)
    assert batch.labeled.image.is_contiguous(memory_format=torch.channels_last)
    assert batch.labeled.target.shape == (2, 128, 128)
    assert batch.labeled.target.dtype == torch.uint8
    if kind == "none":
        assert batch.unlabeled is None
        return
    views = [view for view in (batch.unlabeled.image, batch.unlabeled.image2) if view is not None]
    assert [view.shape for view in views] == [(4, 3, 128, 128)] * images
    geometry = [batch.unlabeled.corner1, batch.unlabeled.corner2, batch.unlabeled.extent]
    flips = [batch.unlabeled.flip1, batch.unlabeled.flip2]
    assert all((part is not None) == (kind == "pair") for part in geometry + flips)
    assert (batch.unlabeled.boxes is not None) == (kind == "mixed")
    if kind == "pair":
        assert all(part.shape == (4, 2) and part.dtype == torch.int32 for part in geometry)
        assert all(part.shape == (4,) and part.dtype == torch.bool for part in flips)
    if kind == "mixed":
        assert batch.unlabeled.boxes.shape == (4, 3, 4)
        assert batch.unlabeled.boxes.dtype == torch.int32


def test_colours_are_those_of_the_plan(photos) -> None:
    ours = backend(photos, "pair", unlabeled_batch=6)
    plan, windows = next(ours(0))
    (batch,) = Loader(ours, CPU, 0, 1)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    views = zip(plan.unlabeled[0].views, windows.unlabeled, (batch.unlabeled.image, batch.unlabeled.image2))
    for view, window, image in views:
        matrix, blur = torch.from_numpy(view.matrix), torch.from_numpy(view.blur)
        expected = photometric(window, matrix, blur, mean, std, dtype=torch.float32)
        # OpenCV may round blur and colour the other way: twice one grey level, amplified by the matrix.
        assert (image - expected).abs().mean() < 0.02
        assert (image - expected).abs().max() < 0.1
    assert np.array_equal(batch.unlabeled.extent, plan.overlap.extent)


def test_steps_are_those_asked_for_in_order(photos) -> None:
    walk = list(Loader(backend(photos), CPU, 0, 7))
    tail = list(Loader(backend(photos), CPU, 4, 7, ahead=1))
    assert (len(walk), len(tail)) == (7, 3)
    for a, b in zip(walk[4:], tail):
        assert torch.equal(a.labeled.image, b.labeled.image)
        assert torch.equal(a.labeled.target, b.labeled.target)
        assert torch.equal(a.unlabeled.image2, b.unlabeled.image2)


def test_batches_keep_their_values_while_later_ones_are_made(photos) -> None:
    kept = list(Loader(backend(photos), CPU, 0, 8))
    for step, batch in enumerate(kept):
        plan, windows = next(backend(photos)(step))
        assert torch.equal(batch.labeled.target, windows.target)
        assert torch.equal(batch.labeled.image, collate(plan, windows, CPU).labeled.image)


def test_the_dtype_is_the_one_asked_for(photos) -> None:
    (batch,) = Loader(backend(photos), CPU, 0, 1, dtype=torch.bfloat16)
    assert batch.labeled.image.dtype == batch.unlabeled.image.dtype == torch.bfloat16


def test_an_error_of_the_backend_reaches_the_reader(photos) -> None:
    def failing(start: int):
        yield from (item for item, _ in zip(backend(photos)(start), range(2)))
        raise RuntimeError("out of images")

    batches = iter(Loader(failing, CPU, 0, 10))
    next(batches), next(batches)
    with pytest.raises(RuntimeError, match="out of images"):
        next(batches)
    assert not loader_threads()


def test_leaving_early_ends_the_threads(photos) -> None:
    for batch in Loader(backend(photos), CPU, 0, 1000):
        assert batch.labeled.target.shape[0] == 2
        break
    assert not loader_threads()
