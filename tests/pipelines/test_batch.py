"""What methods are given: of every kind of views, the fields that it has and no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.pipelines.batch import Mixed, Pair, Plain, WeakStrong, Windows
from semiseg.pipelines.loader import collate
from semiseg.pipelines.plan import Plan
from semiseg.pipelines.views import KINDS, Augmentation, Sampling, ViewSpec

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
    "weak_strong": {"weak": (4, 3, 128, 128), "boxes": (1, 4, 1, 4), "partner": (4,), "valid": (4, 4)},
}
DTYPES = {"image": torch.float32, "weak": torch.float32, "flip": torch.bool, "partner": torch.int64}
TYPES = {"none": type(None), "plain": Plain, "pair": Pair, "mixed": Mixed, "weak_strong": WeakStrong}


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
        assert part.dtype != torch.float32 or part.is_contiguous(memory_format=order)


def test_the_order_in_memory_changes_no_value(photos, run) -> None:
    plan, windows = next(run(photos.host(), photos.planner("mixed")))
    last, first = (collate(plan, windows, CPU, **COLOURS, channels_last=channels) for channels in (True, False))
    assert torch.equal(last.labeled.image, first.labeled.image)
    assert torch.equal(last.unlabeled.image2, first.unlabeled.image2)


@pytest.mark.parametrize("partner", ["other", "reversed", "same"])
def test_strong_views_share_the_weak_one_s_window(photos, run, partner) -> None:
    """Without colours all views are the same picture, in each of the windows: those of the images and, where they are
    partners, other ones of the same images."""
    spec, sampling = ViewSpec(unlabeled="weak_strong", strong=2), Sampling(cutmix_partner=partner)
    plain = Augmentation(range=(0.5, 2.0), filter="linear")
    planner = photos.planner(views=spec, sampling=sampling, unlabeled=plain, unlabeled_batch=4)
    plan, windows = next(run(photos.host(), planner))
    assert len(windows.unlabeled) == 1  # cut once
    views = collate(plan, windows, CPU, **COLOURS).unlabeled
    count = 8 if partner == "same" else 4
    assert views.weak.shape == (count, 3, 128, 128)
    assert len(views.strong) == 2
    assert all(torch.equal(strong, views.weak) for strong in views.strong)
    assert (views.boxes.shape, views.partner.shape, views.valid.shape) == ((2, 4, 1, 4), (4,), (count, 4))
    assert views.boxes.permute(1, 0, 2, 3).flatten(1, 2).tolist() == plan.boxes.tolist()


def test_what_is_not_valid_is_padding(photos, run, tmp_path) -> None:
    """Padding is black, on the left of flipped windows; images are white."""
    spec = ViewSpec(unlabeled="weak_strong")
    small = Augmentation(scale="own", range=(0.2, 0.4), filter="antialiased", fill="black")
    white = [replace(record, image=tmp_path / f"{record.id}.png", image_mark=None) for record in photos.records]
    for record in white:
        Image.new("RGB", (record.width, record.height), "white").save(record.image)
    planner = photos.planner(views=spec, unlabeled=small, unlabeled_batch=6)
    plan, windows = next(run(photos.host(records=white), planner))
    seen = collate(plan, windows, CPU, mean=(0.0,) * 3, std=(1.0,) * 3).unlabeled
    shown = torch.zeros(6, 128, 128)
    for image, (top, left, bottom, right) in zip(shown, seen.valid.tolist()):
        image[top:bottom, left:right] = 1
    assert torch.equal(seen.weak, shown[:, None].expand(-1, 3, -1, -1))
    assert (seen.valid[:, 1] > 0).any()
    assert (seen.valid[:, 3] < 128).any()


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("padding", ["corner", "centre"])
@pytest.mark.parametrize("kind", ["none", "weak_strong"])
def test_padding_of_labels_is_ignored_or_taught_as_the_first_class(photos, run, kind, padding, flip) -> None:
    """What masks ignore inside the image stays ignored."""

    def target(**changes) -> tuple[Plan, Windows, torch.Tensor]:
        small = Augmentation(scale="own", range=(0.2, 0.4), padding=padding, flip=flip, **changes)
        plan, windows = next(run(photos.host(), photos.planner(kind, batch=7, labeled=small)))
        return plan, windows, collate(plan, windows, CPU, **COLOURS).labeled.target

    plan, windows, ignored = target()
    assert torch.equal(ignored, windows.target)
    _, untouched, taught = target(padding_label="first_class")
    assert torch.equal(untouched.target, windows.target)  # a backend's own, which it fills again
    assert (taught.shape, taught.dtype) == (ignored.shape, ignored.dtype)
    (view,) = plan.labeled.views
    outside = np.ones(ignored.shape, bool)
    for mask, (top, left), (height, width) in zip(outside, view.pad, view.inside):
        mask[top : top + height, left : left + width] = False
    outside = torch.from_numpy(outside).flip(2) if flip else torch.from_numpy(outside)
    assert (ignored[outside] == 255).all()
    assert (ignored[~outside] == 255).any()
    assert outside.flatten(1).any(1).sum() > 3
    assert torch.equal(taught, ignored.masked_fill(outside, 0))


def test_a_pair_knows_its_geometry_as_planned(photos, run) -> None:
    plan, windows = next(run(photos.host(), photos.planner("pair", unlabeled_batch=4)))
    pair = collate(plan, windows, CPU, **COLOURS).unlabeled
    for name in ("corner1", "corner2", "extent"):
        assert getattr(pair, name).tolist() == getattr(plan.overlap, name).tolist()
    assert [pair.flip1.tolist(), pair.flip2.tolist()] == [view.flip.tolist() for view in plan.unlabeled[0].views]
