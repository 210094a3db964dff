"""Runs that go on after a signal or a kill, and what they refuse to go on from."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine.api import train
from semiseg.engine.checkpoint import load_network
from semiseg.engine.device import Precision
from semiseg.engine.methods import METHODS
from semiseg.engine.run import Run
from semiseg.engine.training.outcome import differences, outcome
from semiseg.engine.training.replay import replay
from semiseg.engine.training.resume import changed_runtime, how_to_go_on, keep_code
from semiseg.engine.training.signals import Stopped
from semiseg.engine.training.state import load_save
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.errors import UsageError

FP32 = Precision("fp32", torch.device("cpu"))
WITH = "from here on with other settings than it began with"


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    """Parameters and buffers that a run goes on from."""
    _, state = load_save(out / "checkpoints", pytest.fail)
    return state["method"]


def test_a_run_with_a_teacher_goes_on_bit_for_bit(tiny, voc_root):
    root = voc_root()
    recipe = {"data": root, "steps": 4, "eval_every": 2}
    stopping = [signal.SIGTERM]

    def stop(event):
        if (event.kind, event.text) == ("progress", "evaluating") and stopping:  # there are two evaluations
            signal.raise_signal(stopping.pop())

    whole = Trainer(tiny("unimatch_v2", **recipe, out=root / "whole")).train()
    with pytest.raises(Stopped):
        Trainer(tiny("unimatch_v2", **recipe, out=root / "halves"), stop).train()
    halves = Trainer(tiny("unimatch_v2", **recipe, out=root / "halves", resume=True)).train()
    one, two = (weights_of(out) for out in (whole.out, halves.out))
    assert any(name.startswith("teacher.") for name in one)
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize(("backend", "told"), [("dali", True), ("resident", False), ("host", False)])
def test_another_input_is_told_where_its_windows_are_others(tiny, tmp_path, backend, told):
    recipe = tiny("supervised", data=tmp_path)
    run = Run.create(tmp_path / "begun", recipe.to_dict(), {})
    changed = changed_runtime(run, recipe.replace(backend=backend))
    run.close()
    assert changed == (f"{WITH}: backend was host and is {backend} now" if told else None)


def test_saves_of_a_version_with_other_tensors_are_one_line(tiny, voc_root, monkeypatch):
    recipe = tiny("supervised", data=voc_root(), steps=4, eval_every=2)

    def stop(event):
        if (event.kind, event.text) == ("progress", "evaluating"):
            signal.raise_signal(signal.SIGTERM)

    class Changed(METHODS["supervised"]):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.added = torch.nn.Parameter(torch.zeros(3))

    with pytest.raises(Stopped):
        Trainer(recipe, stop).train()
    monkeypatch.setitem(METHODS, "supervised", Changed)
    for go_on in (lambda: Trainer(recipe.replace(resume=True)), lambda: replay(recipe.runtime.out)):
        with pytest.raises(UsageError, match=r"^the saves hold other tensors than supervised has"):
            go_on()


def test_a_run_that_is_killed_while_it_evaluates_goes_on_bit_for_bit(tiny, voc_root):
    """From the save before, with the evaluation that it has not ended."""
    recipe = tiny("mean_teacher", data=voc_root(), steps=6, eval_every=4, save_every="3")
    straight, killed = (recipe.replace(out=recipe.runtime.out / name) for name in ("straight", "killed"))

    class Kill(BaseException):
        pass

    def kill(event):
        if (event.kind, event.text) == ("progress", "evaluating"):
            raise Kill

    Trainer(straight).train()
    with pytest.raises(Kill):
        Trainer(killed, kill).train()
    again = Trainer(killed.replace(resume=True))
    assert again.first == 3
    again.train()
    assert differences(*(outcome(one.runtime.out) for one in (straight, killed))) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
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
    steps = [json.loads(line)["step"] for line in (halves.out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_a_run_that_was_stopped_after_its_last_step_is_not_logged_twice(tiny, voc_root):
    def stop(event):
        if (event.kind, event.text) == ("progress", "evaluating"):
            signal.raise_signal(signal.SIGTERM)

    root = voc_root()
    recipe = tiny("supervised", data=root, steps=2, eval_every=2)
    with pytest.raises(Stopped, match="after step 2"):
        train(recipe, stop)
    log = (recipe.runtime.out / "log.jsonl").read_text()
    result = train(recipe.replace(resume=True))
    assert (result.out / "log.jsonl").read_text() == log
    assert result.last == result.best == json.loads(log.splitlines()[-1])["val/miou"]
    assert differences(outcome(train(recipe.replace(out=root / "whole")).out), outcome(result.out)) == []


def test_what_a_run_began_with_is_not_asked_for_again(tiny, folder_root):
    """Neither the weights, which may be gone, nor, where no list names the validation images, the images that the
    network which it began with was taught by."""
    root = folder_root(masked=29, bare=1, val=0, height=32)
    first = Trainer(tiny("supervised", layout="folder", data=root, split="all", steps=1)).train().out
    shutil.copy(root / "masks/a000.png", root / "masks/a029.png")
    recipe = tiny("supervised", layout="folder", data=root, split="all", steps=4, save_every="2", out=root / "second")

    def stop(event):
        if (event.kind, event.text) == ("progress", "evaluating"):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        Trainer(recipe.replace(init=first, eval_every=2), stop).train()
    shutil.rmtree(first)
    told = []
    out = Trainer(recipe.replace(eval_every=2, weights="imagenet", resume=True), told.append).train().out
    (shown,) = [event.values["recipe"] for event in told if event.kind == "ready"]
    assert (shown.weights, shown.init) == ("none", first)
    for name in ("best", "last"):
        saved = load_network(out / f"checkpoints/{name}.safetensors").recipe
        assert (saved["weights"], saved["init"]) == ("none", str(first))


def test_a_run_that_was_killed_before_its_first_save_starts_again(tiny, voc_root):
    root = voc_root()
    recipe = tiny("supervised", data=root)
    straight = Trainer(recipe.replace(out=root / "straight")).train()
    Trainer(recipe).run.close()
    with pytest.raises(UsageError, match="weights was none"):
        Trainer(recipe.replace(resume=True, weights="imagenet"))
    changes = {"lr": 0.5, "momentum": 0.5, "seed": 3, "power": 0.5, "labeled": replace(recipe.labeled, flip=0.0)}
    with pytest.raises(UsageError, match=r"other settings: [^,]* now(, [^,]* now){3} and 1 more; ask for the same"):
        Trainer(recipe.replace(resume=True, **changes))
    with pytest.raises(UsageError, match=r"settings: labeled\.flip was 0\.5 and is 0\.0 now; ask"):
        Trainer(recipe.replace(resume=True, labeled=changes["labeled"]))
    notes = []
    again = Trainer(recipe.replace(resume=True), lambda event: notes.append(event.text))
    assert [note for note in notes if "from the start" in note]
    assert again.first == 0
    one, two = (weights_of(out) for out in (straight.out, again.train().out))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_only_a_run_that_is_begun_and_not_finished_is_gone_on_with(tiny, voc_root):
    recipe = tiny("supervised", data=voc_root(), steps=2, eval_every=2)
    with pytest.raises(UsageError, match=r"no run has begun in .*start it without --resume"):
        Trainer(recipe.replace(resume=True))
    train(recipe)
    with pytest.raises(UsageError, match="is finished"):
        Trainer(recipe.replace(resume=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"crop": 48}, "crop was 32"), ({"lr": 0.5}, "lr was"), ({"decay": "weights"}, "decay was all")],
)
def test_resume_refuses_another_recipe(tiny, voc_root, changes, said):
    root = voc_root()
    Trainer(tiny("supervised", data=root)).train()
    with pytest.raises(UsageError, match=said):
        Trainer(tiny("supervised", data=root, resume=True, **changes))


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("cps", "classes.txt", r"the classes are not those .*their order is another"),
        ("cps", "unlabelled", r"the unlabelled images are not those .*1 are new, b000 for one"),
        ("cps", "val.txt", r"the validation images are not those .*1 are gone, a006 for one"),
        ("supervised", "unlabelled", None),
        ("cps", "images/a000.jpg", "files of the labelled images or their masks hold other than when"),
        ("cps", "masks/a000.png", "files of the labelled images or their masks hold other than when"),
        ("cps", "images/a009.jpg", "files of the unlabelled images hold other than when"),
        ("supervised", "images/a009.jpg", None),
        ("cps", "masks/a007.png", "files of the validation images or their masks hold other than when"),
        ("cps", "colours", "files of the labelled images or their masks hold other than when"),
    ],
)
def test_resume_refuses_data_that_changed(tiny, folder_root, method, change, said):
    root = folder_root()
    recipe = tiny(method, layout="folder", split="all", data=root)
    if change == "colours":
        shown = [(0, 0, 0), (200, 0, 0), (0, 0, 200)]
        listed = [f"{name}\t#{bytes(colour).hex()}" for name, colour in zip(("ground", "car", "tree"), shown)]
        (root / "classes.txt").write_text("\n".join(listed))
        for mask in (root / "masks").iterdir():
            Image.fromarray(np.array(shown, np.uint8)[np.asarray(Image.open(mask)) % 3]).save(mask)
    Trainer(recipe).train()
    if change == "colours":
        colours = [line.partition("\t")[2] for line in listed]
        (root / "classes.txt").write_text(f"ground\t{colours[0]}\ncar\t{colours[2]}\ntree\t{colours[1]}")
    elif "/" in change:
        image = Image.open(root / change)
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / change)
    elif change == "classes.txt":
        (root / change).write_text("ground\ntree\ncar\n")
    elif change == "val.txt":
        (root / change).write_text("a007\n")
        (root / "masks/a006.png").unlink()
        (root / "images/a006.jpg").unlink()
    else:
        shutil.copy(root / "images/a000.jpg", root / "images/b000.jpg")
    if said is None:
        Trainer(recipe.replace(resume=True))
        return
    with pytest.raises(UsageError, match=rf"{said}.*start a new run"):
        Trainer(recipe.replace(resume=True))


def test_what_was_told_before_a_stop_is_not_told_again(tiny, folder_root):
    """Here, that crops are without labels, and that no pseudo-label is sure enough."""
    root = folder_root()
    mask = np.full((40, 48), 255, np.uint8)
    mask[0, 0] = 1  # which few crops show
    for path in (root / "masks").iterdir():
        Image.fromarray(mask).save(path)
    recipe = tiny("fixmatch", layout="folder", split="draw:1/2@0", data=root, steps=8, eval_every=1, network="cps")
    recipe = recipe.replace(on_nan="ignore", method=replace(recipe.method, threshold=1.0))
    notes = []

    def listen(event):
        notes.append(event.text)
        if event.kind == "log" and event.done == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        Trainer(recipe, listen).train()
    before = [note for note in notes if note.startswith("warning: ")]
    Trainer(recipe.replace(resume=True), listen).train()
    assert sum("hold no labelled pixel" in note for note in before) == 1
    assert sum("nothing is sure enough" in note for note in before) == 1
    assert [note for note in notes if note.startswith("warning: ")] == before


class Mine:
    """Stands for a method of a user's: what counts is the file that its class is of."""

    name = "mine"


def test_a_method_whose_code_has_changed_is_told(tmp_path):
    run, told = Run(tmp_path), []
    keep_code(run, Mine(), told.append)
    assert (tmp_path / "method.py").read_text() == Path(__file__).read_text()
    keep_code(run, Mine(), told.append)
    assert not told
    (tmp_path / "method.py").write_text("name = 'mine'")
    keep_code(run, Mine(), told.append)
    assert [text.startswith("warning: the code of the method mine is not that") for text in told] == [True]


def test_how_a_run_goes_on_depends_on_its_method_and_its_name(tmp_path):
    own = METHODS["cac"].__new__(METHODS["cac"])
    assert how_to_go_on(Run(tmp_path), own) == f"go on by `semiseg train {tmp_path} --resume`"
    assert how_to_go_on(Run(Path("cac_voc")), own) == "go on by `semiseg train ./cac_voc --resume`"
    assert how_to_go_on(Run(tmp_path), Mine()) == f"go on by its script and --out {tmp_path} --resume"


def test_a_method_of_semiseg_is_known_by_its_version(tmp_path):
    keep_code(Run(tmp_path), METHODS["cac"].__new__(METHODS["cac"]), pytest.fail)
    keep_code(Run(tmp_path), type("Typed", (), {"__module__": "__main__", "name": "typed"})(), pytest.fail)
    assert not [*tmp_path.iterdir()]
