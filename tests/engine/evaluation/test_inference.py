"""Scores on data as it is said, or as in the training."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from semiseg.engine import evaluate, export, predict, train
from semiseg.engine.data import locate
from semiseg.engine.evaluation import inference
from semiseg.engine.recipe import Files
from semiseg.pipelines.errors import UsageError


def test_other_data_is_judged_by_its_own_masks(judged, tmp_path):
    checkpoint = judged()
    assert evaluate(checkpoint, device="cpu")["pixel_accuracy"] == 1
    assert evaluate(checkpoint, tmp_path / "b", device="cpu")["pixel_accuracy"] == 0
    (tmp_path / "a").rename(tmp_path / "moved")
    assert evaluate(checkpoint, tmp_path / "moved", device="cpu")["pixel_accuracy"] == 1


def test_classes_in_another_order_have_the_same_scores_and_tables(judged, tmp_path):
    """All is called ground: of the masks y has a quarter of car, z none."""
    checkpoint = judged()
    documents = {}
    for order in ("ground car", "car ground"):
        (tmp_path / "a/classes.txt").write_text(order.replace(" ", "\n"))
        ground, car = order.split().index("ground"), order.split().index("car")
        mask = np.full((32, 40), ground, np.uint8)
        Image.fromarray(mask).save(tmp_path / "a/labels/z.png")
        mask[:, :10] = car
        Image.fromarray(mask).save(tmp_path / "a/labels/y.png")
        documents[order] = evaluate(checkpoint, device="cpu", out=tmp_path / order)
    document = documents["ground car"]
    assert document == documents["car ground"] == evaluate(checkpoint, device="cpu")
    assert document["classes"] == ["ground", "car"]
    assert document["confusion"] == [[2240, 0], [320, 0]]
    assert document["iou"] == {"ground": 0.875, "car": 0}
    assert document["class_precision"] == {"ground": 0.875, "car": None}
    assert document["recall"] == {"ground": 1, "car": 0}
    assert document["dice"] == {"ground": pytest.approx(14 / 15), "car": 0}
    assert document["mdice"] == pytest.approx(7 / 15)
    for order in documents:
        written = {path.name: path.read_text().splitlines()[1:] for path in (tmp_path / order).iterdir()}
        assert written == {
            "scores.csv": ["ground,0.875000,0.875000,1.000000,0.933333,2240", "car,0.000000,,0.000000,0.000000,320"],
            "images.csv": ["y,0.375000,0.750000,1280", "z,1.000000,1.000000,1280"],
            "confusion.csv": ["ground,2240,0", "car,320,0"],
        }


def test_several_protocols_leave_their_tables_in_a_folder_each(judged, tmp_path):
    for _ in range(2):  # the second time over the first one's
        evaluate(judged(), device="cpu", protocol=("whole", "slide"), out=tmp_path / "out")
    names = {"scores.csv", "images.csv", "confusion.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"whole", "slide"}
    assert all({path.name for path in folder.iterdir()} == names for folder in (tmp_path / "out").iterdir())


def test_of_processes_that_evaluate_together_the_first_one_writes(judged, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "is_main", lambda: False)
    assert evaluate(judged(), device="cpu", out=tmp_path / "out")["images"] == 2
    assert not (tmp_path / "out").exists()


def test_what_a_run_held_out_is_judged_also_when_masks_have_come_since(tiny, folder_root):
    """A tenth of 29 masks is two images, of 30 three: the third was a labelled one."""
    root, said = folder_root(masked=29, bare=1, val=0, height=32), []
    recipe = tiny("supervised", layout="folder", data=root, split="all", steps=1)
    held_out = {sample.id for sample in locate(recipe).val}
    run = train(recipe).out
    before = evaluate(run, device="cpu", on_event=said.append)
    assert before["images"] == len(held_out) == 2
    notes = [f"data: no val.txt in {root}: 2 of 29 images with masks are held out for validation"]
    assert [event.text for event in said if event.kind == "note"] == notes
    said.clear()
    alone = shutil.copy(run / "checkpoints/best.safetensors", root.parent / "alone.safetensors")
    evaluate(alone, device="cpu", on_event=said.append)
    (unknown,) = [event.text for event in said if event.kind == "note" and event.text not in notes]
    assert unknown.startswith(f"warning: data: which images taught {alone} is not known, as it lies outside of its run")
    shutil.copy(root / "masks/a000.png", root / "masks/a029.png")
    assert len(locate(recipe).val) == 3
    said.clear()
    assert evaluate(run, device="cpu", on_event=said.append) == before
    assert any("2 images are judged, those that the run held out" in event.text for event in said)
    (root.parent / "link").symlink_to(root)
    for spelled in (root, root / "images/..", root.parent / "link"):
        assert evaluate(run, spelled, device="cpu") == before

    moved = root.parent / "moved"
    root.rename(moved)
    said.clear()
    assert evaluate(run, moved, device="cpu", on_event=said.append) == before
    assert any("2 images are judged, those that the run held out" in event.text for event in said)
    assert not any("labelled in the training" in event.text for event in said)
    moved.rename(root)
    (root / "val.txt").write_text("\n".join([*sorted(held_out), "a000"]))
    said.clear()
    assert evaluate(run, device="cpu", on_event=said.append)["images"] == 3
    assert any(
        "warning: data: 1 of 3 images, a000 for one, were labelled in the training" in event.text for event in said
    )
    (root / "val.txt").unlink()
    gone, left = sorted(held_out)
    (root / f"masks/{gone}.png").unlink()
    told = (
        f"warning: data: only 1 of the 2 images are judged that the run held out: {gone}, for one, or its mask, is gone"
    )
    for place in (root, moved):
        said.clear()
        root.rename(place) if place != root else None
        assert evaluate(run, place, device="cpu", on_event=said.append)["images"] == 1
        assert told in [event.text for event in said]
    moved.rename(root)
    (root / f"masks/{left}.png").unlink()
    with pytest.raises(UsageError, match="none of the 2 images that the run held out is there"):
        evaluate(run, device="cpu")


def test_pictures_that_a_run_held_out_are_known_under_any_name_and_other_data_that_shares_one_is_other_data(
    tiny, folder_root
):
    root, said = folder_root(masked=40, bare=0, val=0, height=32), []
    recipe = tiny("supervised", layout="folder", data=root, split="all", steps=1)
    held_out = sorted(sample.id for sample in locate(recipe).val)
    twin = next(f"a{number:03d}" for number in range(40) if f"a{number:03d}" not in held_out)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):  # two of one picture, which are held out both
        shutil.copy(root / f"{kind}/{held_out[0]}.{suffix}", root / f"{kind}/{held_out[1]}.{suffix}")
        shutil.copy(root / f"{kind}/{held_out[2]}.{suffix}", root / f"{kind}/{twin}.{suffix}")
    run = train(recipe).out
    before = evaluate(run, device="cpu")
    assert before["images"] == len(held_out) == 4
    moved = root.parent / "moved"
    shutil.copytree(root, moved)
    assert evaluate(run, moved, device="cpu") == before

    for path in [*(moved / "images").iterdir(), *(moved / "masks").iterdir()]:
        path.rename(path.with_name(f"b{path.name}"))
    evaluate(run, moved, device="cpu", on_event=said.append)
    assert not any("is gone" in event.text for event in said)

    other = root.parent / "other"
    shutil.copytree(root, other)
    for path in (other / "images").iterdir():
        if path.stem != held_out[3]:
            path.write_bytes((root / f"images/{path.name}").read_bytes() + b"another")
    assert evaluate(run, other, device="cpu")["images"] == 40


def test_of_a_folder_for_testing_all_masks_count(tiny, folder_root):
    """Not a tenth, held out as if the rest were to be trained on."""
    root, said = folder_root(masked=29, bare=1, val=0), []
    run = train(tiny("supervised", layout="folder", data=root, split="all", steps=1)).out
    tests = folder_root(masked=20, bare=1, val=0, height=36, root="tests")
    whole = evaluate(run, tests, device="cpu", on_event=said.append)
    assert whole["images"] == 20
    assert any("these are not the training's images: all 20 with masks are judged" in event.text for event in said)

    ids = [f"a{number:03d}" for number in range(20)]
    (tests / "val.txt").write_text("\n".join(ids))
    assert evaluate(run, tests, device="cpu") == whole
    (tests / "val.txt").unlink()
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (tests / kind / "val").mkdir()
        for id in ids:
            (tests / f"{kind}/{id}.{suffix}").rename(tests / f"{kind}/val/{id}.{suffix}")
    assert evaluate(run, tests, device="cpu") == whole

    labeled = json.loads((run / "split.json").read_text())["labeled"]
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (tests / kind / "val").rename(tests / kind / "more")
        for id in labeled[:3]:
            shutil.copy(root / f"{kind}/{id}.{suffix}", tests / f"{kind}/taught{id}.{suffix}")
    said.clear()
    assert evaluate(run, tests, device="cpu", on_event=said.append) == whole
    assert any("all 23 with masks are judged instead, but for 3 that were labelled" in event.text for event in said)
    said.clear()
    assert evaluate(run, tests, part="all", device="cpu", on_event=said.append)["images"] == 23
    assert any("3 of 23 images" in event.text and "labelled in the training" in event.text for event in said)

    (tests / "train.txt").write_text("\n".join(f"more/{id}" for id in ids[:5]))
    (tests / "test.txt").write_text(f"more/{ids[19]}\n")
    said.clear()
    assert evaluate(run, tests, device="cpu", on_event=said.append)["images"] == 19
    assert any("but for 3 that were labelled there; those for testing are left" in event.text for event in said)
    assert evaluate(run, tests, part="all", device="cpu")["images"] == 23

    for name in ("train.txt", "test.txt"):
        (tests / name).unlink()
    for path in (tests / "masks").rglob("*.png"):
        if path.stem != ids[7]:
            path.unlink()
    for part in ("val", "all"):
        assert evaluate(run, tests, part=part, device="cpu")["images"] == 1
    for kind in ("images", "masks"):
        (tests / kind / "more").rename(tests / kind / "test")
    for part in ("test", "all"):
        assert evaluate(run, tests, part=part, device="cpu")["images"] == 1
    with pytest.raises(UsageError, match=r"no training image in .* has a mask"):
        evaluate(run, tests, device="cpu")

    only = folder_root(masked=29, bare=0, val=0, root="only")
    for folder in ("images", "masks"):
        for path in (only / folder).iterdir():
            if path.stem not in labeled:
                path.unlink()
    with pytest.raises(UsageError, match=f"all {len(labeled)} images with masks were labelled in the t.*--part"):
        evaluate(run, only, device="cpu")


def test_parts_of_a_data_set_are_judged(judged, tmp_path):
    checkpoint = judged()
    assert evaluate(checkpoint, part="all", device="cpu")["images"] == 3
    with pytest.raises(UsageError, match=r"^--part test: .* no such images .*; add masks, or list them in test\.txt"):
        evaluate(checkpoint, part="test", device="cpu")
    (tmp_path / "a/val.txt").write_text("y\n")
    (tmp_path / "a/test.txt").write_text("z\n")
    Image.fromarray(np.full((32, 40), 1, np.uint8)).save(tmp_path / "a/labels/z.png")
    assert evaluate(checkpoint, device="cpu")["pixel_accuracy"] == 1
    tested = evaluate(checkpoint, part="test", device="cpu")
    assert (tested["images"], tested["pixel_accuracy"]) == (1, 0)
    assert evaluate(checkpoint, part="all", device="cpu")["images"] == 3
    for part in ("TEST", None):
        with pytest.raises(UsageError, match=f"--part: must be one of val, test, all, is {part}"):
            evaluate(checkpoint, part=part, device="cpu")


def test_an_option_leaves_those_of_the_training_as_they_are(judged):
    checkpoint = judged(val_list="one.txt")
    assert evaluate(checkpoint, device="cpu")["images"] == 1
    assert evaluate(checkpoint, device="cpu", files={"orientation": "ignore", "masks": None})["images"] == 1
    assert evaluate(checkpoint, device="cpu", files={"val_list": "val.txt"})["images"] == 2


def test_a_list_beside_the_training_s_data_is_not_taken_for_other_data(judged, tmp_path):
    (tmp_path / "mine.txt").write_text("z\n")
    checkpoint = judged(val_list=tmp_path / "mine.txt")
    assert evaluate(checkpoint, device="cpu")["images"] == 1
    with pytest.raises(UsageError, match=r"--files\.val-list: was .*mine\.txt, outside of .*; say what it is for .*b"):
        evaluate(checkpoint, tmp_path / "b", device="cpu")
    assert evaluate(checkpoint, tmp_path / "b", device="cpu", files={"val_list": "one.txt"})["images"] == 1
    assert evaluate(checkpoint, tmp_path / "b", part="all", device="cpu")["images"] == 3


def test_pictures_that_the_training_had_as_labels_are_told_on_other_data(tiny, voc_root, tmp_path):
    out = train(tiny("supervised", data=voc_root(), steps=1)).out
    labeled = json.loads((out / "split.json").read_text())["labeled"]
    other = voc_root(level="other/VOC2012")
    lists = other / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("2007_000009\n")
    (lists / "val.txt").write_text("".join(f"2007_{number:06d}\n" for number in range(1, 9)))
    told = []
    evaluate(out, other, device="cpu", on_event=lambda event: told.append(event.text))
    assert f"warning: data: {len(labeled)} of 8 images, {labeled[0]} for one, were labelled in the training" in told


def test_a_folder_of_the_training_that_other_data_has_not_is_told_as_such(tiny, voc_root):
    root = voc_root()
    (root / "SegmentationClass").rename(root / "labels")
    out = train(tiny("supervised", data=root, steps=1, files=Files(masks="labels"))).out
    other = voc_root(level="other/VOC2012")
    with pytest.raises(UsageError, match=r"labels.* \(the training had --files.masks labels; say what it is here\)"):
        evaluate(out, other, device="cpu")
    (root / "labels").rename(root / "gone")
    with pytest.raises(UsageError) as error:
        evaluate(out, device="cpu")
    assert "the training had" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"absent": "zeros"}, "--absent: must be one of"),
        ({"background": "no"}, "--background: must be true or false"),
        ({"flip": "no"}, "--flip: must be true or false"),
        ({"protocol": "nope"}, "--protocol: must be one of"),
        ({"scales": 1.0}, "--scales: must be a list"),
        ({"scales": ("a",)}, "--scales: must be a number"),
        ({"window": 64.5}, "--window: must be a whole number"),
        ({"widow": 64}, "widow: a protocol has no such setting; it has window"),
        ({"name": "slide"}, "name: a protocol has no such setting"),
        ({"multiple": 0}, "--multiple: must be a multiple of 1, is 0"),
        ({"window": 16}, "--window: whole sees images in one piece; pass --protocol slide, or leave it out"),
    ],
)
def test_settings_that_are_none_are_refused_by_all_that_take_them(judged, tmp_path, settings, says):
    checkpoint, pictures = judged(), tmp_path / "a/images"
    for use in (evaluate, lambda *its, **own: predict(*its, pictures, **own), export):
        with pytest.raises(UsageError, match=says):
            use(checkpoint, **settings)


def test_windows_are_those_of_the_protocols_that_have_any(judged):
    checkpoint = judged()
    both = evaluate(checkpoint, device="cpu", protocol=("whole", "slide"), window=16)
    assert both["protocols"]["slide"] == evaluate(checkpoint, device="cpu", protocol="slide", window=16)
    assert both["protocols"]["slide"]["protocol"].startswith("slide 16")


def test_a_layout_that_there_is_not_is_refused(judged, tmp_path):
    for use in (evaluate, lambda *its, **own: predict(*its, tmp_path / "a/images", **own), export):
        with pytest.raises(UsageError, match="unknown layout 'foo': choose one of voc"):
            use(judged(), layout="foo")


def test_a_precision_that_there_is_not_is_refused(judged, tmp_path):
    checkpoint = judged()
    for use in (evaluate, lambda *its, **own: predict(*its, tmp_path / "a/images", **own)):
        with pytest.raises(UsageError, match="--precision: must be one of auto, fp32, tf32, bf16, fp16, is 'bfloat16'"):
            use(checkpoint, precision="bfloat16")


def test_one_protocol_may_be_named_by_itself(judged):
    checkpoint = judged()
    assert evaluate(checkpoint, device="cpu", protocol="slide") == evaluate(
        checkpoint, device="cpu", protocol=["slide"]
    )


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"orientaton": "ignore"}, "files: orientaton is not how pictures are read; there are orientation, max_mega"),
        ({"max_megapixels": "a"}, "--files.max-megapixels: must be a number above 0"),
    ],
)
def test_files_are_not_read_in_ways_that_there_are_not(judged, tmp_path, files, says):
    with pytest.raises(UsageError, match=says):
        predict(judged(), tmp_path / "a/images", files=files)


@pytest.mark.parametrize("size", [64, (64,), (64.5, 64), ("64", "64")])
def test_sizes_of_an_export_are_two_whole_numbers(judged, size):
    with pytest.raises(UsageError, match="--size"):
        export(judged(), size=size)
