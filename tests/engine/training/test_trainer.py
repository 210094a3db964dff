"""Whole runs on tiny data: what a run leaves behind, going on, starting from a checkpoint."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from semiseg.engine.checkpoint import load_network
from semiseg.engine.evaluation.inference import evaluate_checkpoint, predict_folder
from semiseg.engine.recipe import Files
from semiseg.engine.report import write_report
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.errors import UsageError

METHODS = ("supervised", "cac", "cps", "cutmix_cps")
PLAIN = {"protocol": None, "window": None, "device": "cpu", "precision": "auto"}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_log_checkpoints_and_result(tiny, voc_root, method):
    result = Trainer(tiny(method, data=voc_root())).train()
    assert 0 <= result.last <= result.best <= 1
    assert (result.labeled, result.unlabeled) == (3, 0 if method == "supervised" else 3)
    lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3]
    wanted = {"loss", "loss/supervised", "lr", "images_per_s", "data_wait_pct", "memory_gib", "eta_s"}
    wanted |= {"cac": {"loss/contrastive"}, "supervised": set()}.get(method, {"loss/cps"})
    assert wanted <= set(trained[-1])
    assert lines[-1]["val/miou"] == pytest.approx(result.last)
    for name in ("recipe.json", "environment.json", "result.json", "checkpoints/best.safetensors"):
        assert (result.out / name).is_file()
    assert list((result.out / "tensorboard").iterdir())
    assert not list(result.out.rglob("*.part"))


def test_the_checkpoint_alone_evaluates_to_the_same_score(tiny, voc_root):
    root = voc_root()
    result = Trainer(tiny("cps", data=root)).train()
    scores, document = evaluate_checkpoint(result.out, None, Files(), batch=None, **PLAIN)
    assert scores.miou == pytest.approx(result.best, abs=1e-6)
    assert document["images"] == 3
    assert set(document) == {"miou", "iou", "pixel_accuracy", "protocol", "images"}


def test_predict_writes_masks_colours_and_overlays(tiny, voc_root, tmp_path):
    root = voc_root()
    result = Trainer(tiny("supervised", data=root)).train()
    folder, count = predict_folder(result.out, root / "JPEGImages", None, **PLAIN)
    assert (folder, count) == (result.out / "predictions", 9)
    for kind, mode in (("masks", "L"), ("colours", "RGB"), ("overlays", "RGB")):
        from PIL import Image

        picture = Image.open(folder / kind / "2007_000001.png")
        assert (picture.mode, picture.size) == (mode, (56, 40))


def test_an_interrupted_run_goes_on_where_it_stopped(tiny, voc_root, monkeypatch):
    """Stopped after step 2 of 4, it ends with the weights of a run that was never stopped."""
    root = voc_root()
    recipe = {"data": root, "steps": 4, "eval_every": 2}
    whole = Trainer(tiny("cac", **recipe, out=root / "whole")).train()

    first = Trainer(tiny("cac", **recipe, out=root / "halves"))
    evaluate = first._evaluate

    def stop(done):
        signal.raise_signal(signal.SIGINT)
        return evaluate(done)

    monkeypatch.setattr(first, "_evaluate", stop)
    with pytest.raises(UsageError, match="--resume"):
        first.train()
    second = Trainer(tiny("cac", **recipe, out=root / "halves", resume=True))
    assert second.first == 2
    halves = second.train()
    one, two = (load_network(out / "checkpoints/last.safetensors").network for out in (whole.out, halves.out))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    with pytest.raises(UsageError, match="finished"):
        Trainer(tiny("cac", **recipe, out=root / "halves", resume=True))
    steps = [json.loads(line)["step"] for line in (halves.out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"crop": 48}, "crop was 32"), ({"lr": 0.5}, "lr was"), ({"decay": "weights"}, "decay was all")],
)
def test_resume_refuses_another_recipe(tiny, voc_root, changes, said):
    root = voc_root()
    Trainer(tiny("supervised", data=root)).train()
    with pytest.raises(UsageError, match=said):
        Trainer(tiny("supervised", data=root, resume=True, **changes))


def test_a_folder_where_a_run_has_begun_is_refused(tiny, voc_root):
    root = voc_root()
    Trainer(tiny("supervised", data=root))
    with pytest.raises(UsageError, match="delete it"):
        Trainer(tiny("supervised", data=root))


def test_init_starts_from_a_checkpoint(tiny, voc_root):
    root = voc_root()
    result = Trainer(tiny("supervised", data=root)).train()
    saved = load_network(result.out).network.state_dict()
    again = Trainer(tiny("cps", data=root, init=result.out, out=root / "again"))
    for name, tensor in again.method.branch1.state_dict().items():
        torch.testing.assert_close(tensor, saved[name])
    with pytest.raises(UsageError, match="another network"):
        Trainer(tiny("cps", data=root, init=result.out, out=root / "third", head_width=24))


def test_the_report_is_one_file_with_curves_classes_and_pictures(tiny, voc_root):
    result = Trainer(tiny("cps", data=voc_root())).train()
    page = write_report(result.out).read_text()
    assert page.count("<svg") == 2
    assert page.count("data:image/png;base64,") == 3
    assert "aeroplane" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_memory_formats_agree(tiny, voc_root):
    root = voc_root()
    losses = []
    for channels_last in (True, False):
        out = root / f"{channels_last}"
        Trainer(tiny("supervised", data=root, network="cps", channels_last=channels_last, out=out)).train()
        losses.append(json.loads((out / "log.jsonl").read_text().splitlines()[0])["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_images_that_differ_by_their_extension_keep_it(tiny, voc_root, tmp_path):
    from PIL import Image

    result = Trainer(tiny("supervised", data=voc_root())).train()
    (tmp_path / "mine").mkdir()
    for name in ("a.jpg", "a.png", "b.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / "mine" / name)
    folder, count = predict_folder(result.out, tmp_path / "mine", tmp_path / "mine" / "out", **PLAIN)
    assert count == 3
    assert sorted(path.name for path in (folder / "masks").iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    assert predict_folder(result.out, tmp_path / "mine", tmp_path / "mine" / "out", **PLAIN)[1] == 3
