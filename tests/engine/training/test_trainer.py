"""Whole runs on tiny data: what they leave behind, going on, starting from a checkpoint. Evaluations: test_judge.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine import device as device_module
from semiseg.engine.api import train
from semiseg.engine.checkpoint import load_network
from semiseg.engine.device import Precision
from semiseg.engine.evaluation.inference import evaluate
from semiseg.engine.evaluation.prediction import predict
from semiseg.engine.methods import METHODS
from semiseg.engine.recipe import Files
from semiseg.engine.run import Run
from semiseg.engine.training import forecast as forecast_module
from semiseg.engine.training import trainer as trainer_module
from semiseg.engine.training import verdict
from semiseg.engine.training.forecast import forecast
from semiseg.engine.training.trainer import Trainer
from semiseg.kernels.check import Result
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.lane import leaves

FP32 = Precision("fp32", torch.device("cpu"))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_log_checkpoints_and_result(tiny, voc_root, method):
    result = Trainer(tiny(method, data=voc_root())).train()
    assert (result.labeled, result.unlabeled) == (3, 0 if method == "supervised" else 3)
    lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3]
    wanted = {"loss", "loss/supervised", "lr", "images_per_s", "data_wait_pct", "memory_gib", "eta_s"}
    wanted |= {"ignored_crops_pct"}
    wanted |= {f"loss/{term}" for term in METHODS[method].terms}
    assert wanted <= set(trained[-1])
    assert lines[-1]["val/miou"] == result.last == result.best
    for name in ("recipe.json", "environment.json", "split.json", "checkpoints/best.safetensors"):
        assert (result.out / name).is_file()
    assert list((result.out / "tensorboard").iterdir())
    assert not [*result.out.rglob("*.part"), *result.out.rglob("*.new")]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "supervised"])
def test_a_step_may_show_more_unlabelled_images_than_labelled_ones(tiny, voc_root, method, monkeypatch):
    seen, losses = [], METHODS[method].losses
    monkeypatch.setattr(METHODS[method], "losses", lambda *given: (seen.append(given[1]), losses(*given))[1])
    recipe = tiny(method, data=voc_root(), steps=1, eval_every=1, unlabeled_ratio=2)
    result = Trainer(recipe).train()
    (batch,) = seen
    assert len(batch.labeled.image) == 2
    images = [tensor for tensor in leaves(batch.unlabeled, torch.Tensor) if tensor.ndim == 4 and tensor.shape[1] == 3]
    assert images
    assert {len(image) for image in images} <= {4, 8}  # 8: with the partners that are mixed in
    assert recipe.images_a_step == 2 + recipe.views.windows * 4
    assert Run.open(result.out).log[0]["loss"] > 0


def test_a_run_is_evaluated_at_its_end_however_short(tiny, voc_root):
    result = Trainer(tiny("supervised", data=voc_root(), eval_every=None)).train()
    assert [line["step"] for line in Run.open(result.out).log if "val/miou" in line] == [3]
    assert result.best_step == 3


def test_the_checkpoint_alone_evaluates_to_the_same_score(monkeypatch, tiny, voc_root):
    # A processor whose own choice would be bf16: the training's was fp32.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(device_module, "pays_off", lambda: True)
    root = voc_root()
    result = Trainer(tiny("cps", data=root)).train()
    document = evaluate(result.out, device="cpu")
    assert document["miou"] == pytest.approx(result.best, abs=1e-6)
    assert document["images"] == 3
    by_class = {"iou", "class_precision", "recall", "dice"}
    means = {"miou", "mdice", "pixel_accuracy"}
    assert set(document) == {*means, *by_class, "classes", "confusion", "protocol", "precision", "images"}


def test_predict_writes_masks_colours_and_overlays(tiny, voc_root, tmp_path):
    root = voc_root()
    result = Trainer(tiny("supervised", data=root)).train()
    folder, count, *_ = predict(result.out, root / "JPEGImages", device="cpu")
    assert (folder, count) == (result.out / "predictions", 9)
    for kind, mode in (("masks", "L"), ("colours", "RGB"), ("overlays", "RGB")):
        from PIL import Image

        picture = Image.open(folder / kind / "2007_000001.png")
        assert (picture.mode, picture.size) == (mode, (56, 40))


def test_a_run_keeps_as_many_saves_as_are_asked_for(tiny, voc_root):
    out = Trainer(tiny("supervised", data=voc_root(), steps=4, save_every="1", keep=3)).train().out
    assert sorted(path.stem for path in (out / "checkpoints").glob("*.pt")) == ["state-2", "state-3", "state-4"]


def test_a_folder_where_a_run_has_begun_is_refused(tiny, voc_root):
    root = voc_root()
    Trainer(tiny("supervised", data=root))
    with pytest.raises(UsageError, match=r"already holds a run; .*--resume"):
        Trainer(tiny("supervised", data=root))


@pytest.mark.parametrize(
    ("size", "says"),
    [("", "is not a folder"), ("1", "is not a folder"), ("2", "^torchrun: .*cannot find the others"), ("two", "'two'")],
)
def test_a_world_without_torchrun_is_refused_in_one_line(tiny, tmp_path, monkeypatch, size, says):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UsageError, match=says) as refused:
        train(tiny("supervised", data=tmp_path / "missing"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS"])
def test_a_place_among_processes_that_is_no_number_is_refused(tiny, tmp_path, monkeypatch, name):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, "first")
    with pytest.raises(UsageError, match=f"{name} is 'first', which is no number"):
        train(tiny("supervised", data=tmp_path / "missing"))


def test_a_trainer_that_has_not_joined_the_others_is_refused(tiny, tmp_path, monkeypatch):
    """Each process would train on the whole batch."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"train together by semiseg\.engine\.train"):
        Trainer(tiny("supervised", data=tmp_path / "missing"))


def test_init_starts_from_a_checkpoint(tiny, voc_root):
    root = voc_root()
    result = Trainer(tiny("supervised", data=root)).train()
    saved = load_network(result.out).network.state_dict()
    again = Trainer(tiny("cps", data=root, init=result.out, out=root / "again"))
    for name, tensor in again.method.branch1.state_dict().items():
        torch.testing.assert_close(tensor, saved[name])
    with pytest.raises(UsageError, match="another network"):
        Trainer(tiny("cps", data=root, init=result.out, out=root / "third", head_width=24))


def losses_of(recipe) -> list[float]:
    """Of every step of a whole run."""
    lines = (Trainer(recipe).train().out / "log.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.parametrize("has", [True, False])
def test_a_run_that_emulates_its_precision_says_so(tiny, voc_root, monkeypatch, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has}, raising=False)
    told = []
    Trainer(tiny("supervised", data=voc_root(), precision="bf16"), told.append)
    warnings = [event.text for event in told if event.text.startswith("warning: --precision bf16")]
    assert len(warnings) == (0 if has else 1)


def test_the_device_of_a_run_is_the_current_one(tiny, voc_root, monkeypatch):
    """By which what waits for data is measured, where there are several GPUs."""
    chosen = []
    monkeypatch.setattr(trainer_module, "make_current", chosen.append)
    assert chosen == [Trainer(tiny("supervised", data=voc_root())).device]


@pytest.mark.parametrize("method", ["fixmatch", "unimatch_v2"])
def test_a_run_on_the_cpu_leaves_a_gpu_alone(tiny, voc_root, monkeypatch, method):
    """Which another process may have to itself. (Torch's AdamW asks for its stream, which makes it ready.)"""

    def made_ready():
        raise AssertionError("the GPU is made ready")

    recipe = tiny(method, data=voc_root(), steps=2, device="cpu", optimizer="sgd")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", made_ready)
    out = train(recipe).out
    assert evaluate(out, device="cpu")["images"] == 3


@pytest.mark.parametrize("kept", [0, 3 << 30])
def test_images_that_a_gpu_keeps_are_not_free_for_steps(tiny, voc_root, monkeypatch, kept):
    """Of hardly more than 3 GiB, of which decoded images take three, too little is left."""
    told = []
    monkeypatch.setattr(trainer_module, "LONG", 0)
    monkeypatch.setattr(trainer_module, "free_memory_of", lambda device: int(3.0001 * 2**30))
    monkeypatch.setattr(trainer_module, "bytes_on", lambda device, name, records: kept)
    Trainer(tiny("supervised", data=voc_root()), told.append)
    assert any("are free; lower" in event.text for event in told) is (kept > 0)


def test_memory_formats_agree(tiny, voc_root):
    root = voc_root()
    recipe = tiny("supervised", data=root, network="cps", steps=1)
    last, first = (
        losses_of(recipe.replace(channels_last=channels_last, out=root / f"{channels_last}"))
        for channels_last in (True, False)
    )
    assert last == pytest.approx(first, rel=1e-4)


def test_a_compiled_run_has_the_losses_of_a_plain_one(tiny, voc_root, monkeypatch):
    """With the network that has no dropout: compiled code draws other random numbers."""
    monkeypatch.setattr(verdict, "examine", lambda part: [Result(part.name, "cpu", "fp32", "compiled")])
    root = voc_root()
    recipe = tiny("supervised", data=root, network="cps")
    torch.compiler.reset()
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="compil"):
        Trainer(recipe.replace(compile=True, out=root / "refused")).train()  # so it does compile
    plain = losses_of(recipe.replace(out=root / "plain"))
    fused = losses_of(recipe.replace(compile=True, out=root / "fused"))
    assert fused[0] == pytest.approx(plain[0], rel=1e-4)
    assert fused == pytest.approx(plain, rel=0.02)  # steps carry roundings on


def test_images_that_differ_by_their_extension_keep_it(tiny, voc_root, tmp_path):
    from PIL import Image

    result = Trainer(tiny("supervised", data=voc_root())).train()
    (tmp_path / "mine").mkdir()
    for name in ("a.jpg", "a.png", "b.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / "mine" / name)
    folder, count, *_ = predict(result.out, tmp_path / "mine", tmp_path / "mine" / "out", device="cpu")
    assert count == 3
    assert sorted(path.name for path in (folder / "masks").iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    assert predict(result.out, tmp_path / "mine", tmp_path / "mine" / "out", device="cpu")[1] == 3


def test_nobody_goes_on_with_a_run_whose_report_is_being_written(tiny, voc_root):
    recipe, asked = tiny("supervised", data=voc_root()), []

    def conclude(result):
        asked.append(result.steps)
        with pytest.raises(UsageError, match="another process"):
            Trainer(recipe.replace(resume=True))

    Trainer(recipe).train(conclude)
    assert asked == [3]


@pytest.mark.parametrize("recompute", ["off", "on"])
def test_mfu_is_the_forecast_s_flops_at_the_peak_beside_the_time_of_a_step(monkeypatch, tiny, voc_root, recompute):
    """On a processor whose peak were known. What is computed a second time does not count."""
    peak = 1e9
    monkeypatch.setattr(Precision, "peak_flops", lambda precision: peak)
    recipe = tiny("supervised", data=voc_root(), steps=1, log_every=1, memory_budget=100.0, backbone="resnet18")
    result = Trainer(recipe.replace(recompute=recompute)).train()
    (line,) = (line for line in Run.open(result.out).log if "loss" in line)
    classes = len(load_network(result.out).header.classes)
    flops = forecast(recipe.replace(recompute="off"), classes, Precision("fp32", torch.device("cpu"))).flops
    seconds = recipe.batch / line["images_per_s"]
    assert line["mfu_pct"] == pytest.approx(100 * flops / peak / seconds)


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass"])
def test_a_run_is_not_written_among_the_pictures_of_its_data(tiny, voc_root, folder):
    root = voc_root()
    before = sorted(root.rglob("*"))
    with pytest.raises(UsageError, match=f"--out: .*{folder} holds images or masks of the data; choose another folder"):
        Trainer(tiny("supervised", data=root, out=root / folder))
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("part", "flag"), [("train", "--split: no pixel of the 3"), ("val", "--files.val-list: no pix")]
)
def test_masks_without_a_pixel_that_counts_are_refused(tiny, voc_root, part, flag):
    root = voc_root()
    for id in (root / f"ImageSets/Segmentation/{part}.txt").read_text().split():
        path = root / f"SegmentationClass/{id}.png"
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    with pytest.raises(UsageError, match=flag):
        Trainer(tiny("supervised", data=root))
    assert not (root / "run").exists()


def test_classes_that_nothing_teaches_or_judges_are_told_at_the_start(tiny, folder_root):
    root = folder_root()
    for number in (6, 7):  # the validation images
        mask = np.asarray(Image.open(root / f"masks/a{number:03d}.png")).copy()
        mask[mask == 2] = 0
        Image.fromarray(mask).save(root / f"masks/a{number:03d}.png")
    mask = np.asarray(Image.open(root / "masks/a000.png")).copy()
    Image.fromarray(np.where(mask == 1, 0, mask)).save(root / "masks/a000.png")
    (root / "labelled.txt").write_text("a000\n")
    notes = []
    recipe = tiny("supervised", layout="folder", split=str(root / "labelled.txt"), data=root)
    trainer = Trainer(recipe, lambda event: notes.append(event.text) if event.kind == "note" else None)
    assert [note for note in notes if note.startswith("classes: ")] == [
        "classes: in no labelled image of the split, nothing teaches them: car",
        "classes: in no validation mask, predicted anywhere they count as 0 in the mIoU: tree",
    ]
    masks = [np.asarray(Image.open(root / f"masks/a{number:03d}.png")) for number in (0, 6)]
    counts = tuple(sum(int((mask == value).sum()) for mask in masks) for value in range(3))
    assert trainer.data.manifest.counts(["a000", "a006"]) == counts


@pytest.mark.parametrize("labelled", [False, True])
def test_crops_without_labels_are_told_once(tiny, folder_root, labelled):
    root = folder_root()
    for path in [] if labelled else (root / "masks").iterdir():
        mask = np.full((40, 48), 255, np.uint8)
        mask[0] = np.arange(48) % 3  # few crops show the first row
        Image.fromarray(mask).save(path)
    notes = []
    recipe = tiny("supervised", layout="folder", split="all", data=root, steps=4, crop=16, network="cps")
    folder = Trainer(recipe, lambda event: notes.append(event.text)).train().out
    shares = [line["ignored_crops_pct"] for line in Run.open(folder).log if "loss" in line]
    warnings = [note for note in notes if "hold no labelled pixel" in note]
    if labelled:
        assert (shares, warnings) == ([0] * 4, [])
        return
    first = next(step for step, share in enumerate(shares, 1) if share > 25)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"warning: {shares[first - 1]:.0f} % of the labelled crops up to step {first} hold")
    assert "larger --crop than 16" in warnings[0]


def test_no_two_predictions_have_one_name(tiny, voc_root, tmp_path):
    result = Trainer(tiny("supervised", data=voc_root())).train()
    (tmp_path / "mine").mkdir()
    for name in ("x.jpg", "x.png", "x.jpg.png", "y.png"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "mine" / name)
    done = predict(result.out, tmp_path / "mine", device="cpu")
    written = sorted(path.name for path in (done.out / "masks").iterdir())
    assert written == ["x.jpg.png", "x.jpg.png.png", "x.png.png", "y.png.png"]


def test_a_checkpoint_is_scored_by_the_names_of_its_classes(tiny, folder_root):
    root, other = folder_root(), folder_root(root="other")
    recipe = tiny("supervised", layout="folder", data=root, steps=6, network="cps", lr=0.3)
    out = Trainer(recipe).train().out
    (other / "classes.txt").write_text("tree\nground\ncar\n")
    for mask in (other / "masks").iterdir():
        Image.fromarray(np.array([1, 2, 0], np.uint8)[np.asarray(Image.open(mask))]).save(mask)
    first, second = (evaluate(out, data, device="cpu") for data in (root, other))
    assert first == second
    assert len({round(iou, 6) for iou in first["iou"].values()}) > 1
    (other / "classes.txt").write_text("tree\nground\nbus\n")
    with pytest.raises(UsageError, match="the class 'car' it was trained on"):
        evaluate(out, other, device="cpu")


def test_a_run_finds_its_data_from_any_folder(tiny, folder_root, tmp_path, monkeypatch):
    root = folder_root(masked=8, bare=2, val=0)
    (root / "lists").mkdir()
    (root / "lists/val.txt").write_text("a000\na001\n")
    (tmp_path / "labelled.txt").write_text("a002\na003\n")
    monkeypatch.chdir(tmp_path)
    files = Files(val_list=Path("lists/val.txt"))
    recipe = tiny("supervised", layout="folder", data=Path("own"), files=files, split="labelled.txt", out=Path("run"))
    Trainer(recipe).train()
    kept = Run.open(tmp_path / "run").recipe
    assert kept.runtime.data == root
    assert (kept.files.val_list, kept.split) == (root / "lists/val.txt", str(tmp_path / "labelled.txt"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate(tmp_path / "run", device="cpu")["images"] == 2
    # A run that goes on may find its data moved, by its own words.
    root.rename(tmp_path / "moved")
    (tmp_path / "labelled.txt").rename(tmp_path / "elsewhere/labelled.txt")
    Trainer(recipe.replace(data=tmp_path / "moved", out=tmp_path / "run", resume=True)).train()


def test_a_run_that_needs_it_computes_blocks_twice_says_so_and_ends_with_the_same_weights(
    tiny, voc_root, monkeypatch, tmp_path
):
    recipe, events = tiny("cps", data=voc_root(), crop=64), []
    Trainer(recipe).train()
    plain, twice = (forecast(recipe.replace(recompute=value), 21, FP32) for value in ("off", "on"))
    smaller = replace(plain, memory=plain.memory - 1)
    monkeypatch.setattr(
        forecast_module, "forecast", lambda recipe, *_: smaller if recipe.runtime.recompute == "on" else plain
    )
    budget = smaller.memory / 2**30
    trainer = Trainer(recipe.replace(memory_budget=budget, out=tmp_path / "twice"), events.append)
    trainer.train()
    assert any(event.text.startswith("recompute: on, as a step would not fit otherwise") for event in events)
    assert trainer.run.recipe.runtime.recompute == "on"
    assert twice.flops > plain.flops
    one, other = (load_network(tmp_path / name / "checkpoints/last.safetensors") for name in ("run", "twice"))
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
