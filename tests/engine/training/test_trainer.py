"""Whole runs on tiny data: what a run leaves behind, going on, starting from a checkpoint."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from semiseg.engine.checkpoint import load_network
from semiseg.engine.evaluation.inference import evaluate, predict
from semiseg.engine.methods import METHODS
from semiseg.engine.protocol import Evaluation
from semiseg.engine.training.trainer import Stopped, Trainer
from semiseg.pipelines.errors import UsageError


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_log_checkpoints_and_result(tiny, voc_root, method):
    result = Trainer(tiny(method, data=voc_root())).train()
    assert (result.labeled, result.unlabeled) == (3, 0 if method == "supervised" else 3)
    lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3]
    wanted = {"loss", "loss/supervised", "lr", "images_per_s", "data_wait_pct", "memory_gib", "eta_s"}
    wanted |= {"cac": {"loss/contrastive"}, "supervised": set()}.get(method, {"loss/cps"})
    assert wanted <= set(trained[-1])
    assert lines[-1]["val/miou"] == result.last == result.best
    for name in ("recipe.json", "environment.json", "result.json", "checkpoints/best.safetensors"):
        assert (result.out / name).is_file()
    assert list((result.out / "tensorboard").iterdir())
    assert not list(result.out.rglob("*.part"))


def test_best_and_last_are_scores_of_the_log_and_have_checkpoints_of_their_own(tiny, voc_root):
    root = voc_root()
    (root / "classes.txt").write_text("".join(f"class{number}\n" for number in range(4)))  # few: scores are not all 0
    recipe = tiny("supervised", data=root, network="cps", steps=6, eval_every=1, lr=0.3)
    result = Trainer(recipe.replace(evaluation=Evaluation())).train()
    lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    scores = [line["val/miou"] for line in lines if "val/miou" in line]
    assert len(scores) == 6
    assert max(scores) > min(scores)
    assert (result.best, result.last) == (max(scores), scores[-1])
    assert result.best_step == 1 + scores.index(max(scores))
    for name, step in (("best", result.best_step), ("last", 6)):
        saved = load_network(result.out / f"checkpoints/{name}.safetensors").header
        assert (saved.step, saved.miou) == (step, scores[step - 1])


def test_the_checkpoint_alone_evaluates_to_the_same_score(tiny, voc_root):
    root = voc_root()
    result = Trainer(tiny("cps", data=root)).train()
    document = evaluate(result.out, device="cpu")
    assert document["miou"] == pytest.approx(result.best, abs=1e-6)
    assert document["images"] == 3
    assert set(document) == {"miou", "iou", "pixel_accuracy", "protocol", "images"}


def test_predict_writes_masks_colours_and_overlays(tiny, voc_root, tmp_path):
    root = voc_root()
    result = Trainer(tiny("supervised", data=root)).train()
    folder, count = predict(result.out, root / "JPEGImages", device="cpu")
    assert (folder, count) == (result.out / "predictions", 9)
    for kind, mode in (("masks", "L"), ("colours", "RGB"), ("overlays", "RGB")):
        from PIL import Image

        picture = Image.open(folder / kind / "2007_000001.png")
        assert (picture.mode, picture.size) == (mode, (56, 40))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_stopped(tiny, voc_root, number):
    """Stopped after step 2 of 4, it ends with the weights of a run that was never stopped."""
    root = voc_root()
    recipe = {"data": root, "steps": 4, "eval_every": 2}
    whole = Trainer(tiny("cac", **recipe, out=root / "whole")).train()

    def stop(event):
        if (event.kind, event.text) == ("progress", "evaluating"):
            signal.raise_signal(number)

    with pytest.raises(Stopped, match=r"after step 2; .*--resume") as stopped:
        Trainer(tiny("cac", **recipe, out=root / "halves"), stop).train()
    assert stopped.value.signal == number
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


def losses_of(recipe) -> list[float]:
    """Of every step of a whole run."""
    lines = (Trainer(recipe).train().out / "log.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def test_memory_formats_agree(tiny, voc_root):
    root = voc_root()
    recipe = tiny("supervised", data=root, network="cps", steps=1)
    last, first = (
        losses_of(recipe.replace(channels_last=channels_last, out=root / f"{channels_last}"))
        for channels_last in (True, False)
    )
    assert last == pytest.approx(first, rel=1e-4)


def test_a_compiled_run_has_the_losses_of_a_plain_one(tiny, voc_root):
    """With the network that has no dropout: compiled code draws other random numbers."""
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
    folder, count = predict(result.out, tmp_path / "mine", tmp_path / "mine" / "out", device="cpu")
    assert count == 3
    assert sorted(path.name for path in (folder / "masks").iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    assert predict(result.out, tmp_path / "mine", tmp_path / "mine" / "out", device="cpu")[1] == 3
