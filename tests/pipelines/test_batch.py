"""What methods are given: of every kind of views, the fields that it has and no others."""

import pytest
import torch

from semiseg.pipelines.batch import Mixed, Pair, Plain
from semiseg.pipelines.loader import collate
from semiseg.pipelines.views import KINDS

CPU = torch.device("cpu")
COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FIELDS = {
    "none": {},
    "plain": {"image": (4, 3, 128, 128)},
    "pair": {
        **{name: (4, 3, 128, 128) for name in ("image1", "image2")},
        **{name: (4, 2) for name in ("corner1", "corner2", "extent")},
        **{name: (4,) for name in ("flip1", "flip2")},
    },
    "mixed": {"image1": (4, 3, 128, 128), "image2": (4, 3, 128, 128), "boxes": (4, 3, 4)},
}
DTYPES = {"image": torch.float32, "flip": torch.bool}
TYPES = {"none": type(None), "plain": Plain, "pair": Pair, "mixed": Mixed}


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_holds_what_the_views_ask_for(photos, run, kind, channels_last) -> None:
    plan, windows = next(run(photos.host(), photos.planner(kind, unlabeled_batch=4)))
    assert len(windows.unlabeled) == KINDS[kind].windows
    batch = collate(plan, windows, CPU, **COLOURS, channels_last=channels_last)
    order = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.labeled.image.shape == (2, 3, 128, 128)
    assert batch.labeled.image.is_contiguous(memory_format=order)
    assert (batch.labeled.target.shape, batch.labeled.target.dtype) == ((2, 128, 128), torch.uint8)
    assert type(batch.unlabeled) is TYPES[kind]
    for name, shape in FIELDS[kind].items():
        part = getattr(batch.unlabeled, name)
        assert (part.shape, part.dtype) == (shape, DTYPES.get(name.rstrip("12"), torch.int32)), name
        assert part.ndim < 4 or part.is_contiguous(memory_format=order)


def test_the_order_in_memory_changes_no_value(photos, run) -> None:
    plan, windows = next(run(photos.host(), photos.planner("mixed")))
    last, first = (collate(plan, windows, CPU, **COLOURS, channels_last=channels) for channels in (True, False))
    assert torch.equal(last.labeled.image, first.labeled.image)
    assert torch.equal(last.unlabeled.image2, first.unlabeled.image2)


def test_a_pair_knows_its_geometry_as_planned(photos, run) -> None:
    plan, windows = next(run(photos.host(), photos.planner("pair", unlabeled_batch=4)))
    pair = collate(plan, windows, CPU, **COLOURS).unlabeled
    for name in ("corner1", "corner2", "extent"):
        assert getattr(pair, name).tolist() == getattr(plan.overlap, name).tolist()
    assert [pair.flip1.tolist(), pair.flip2.tolist()] == [view.flip.tolist() for view in plan.unlabeled[0].views]
