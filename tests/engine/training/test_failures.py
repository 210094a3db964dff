"""What ends a run before its last step, what it says then, and what is left to go on from."""

from __future__ import annotations

import errno
import math
import os
import signal
from pathlib import Path

import pytest
import torch

from semiseg.engine.checkpoint import load_network
from semiseg.engine.device import Precision
from semiseg.engine.disk import DiskFull
from semiseg.engine.evaluation.export import export
from semiseg.engine.evaluation.inference import evaluate
from semiseg.engine.methods.supervised import Supervised
from semiseg.engine.run import Run
from semiseg.engine.training import saver as saver_module
from semiseg.engine.training.replay import replay
from semiseg.engine.training.signals import Stopped
from semiseg.engine.training.state import load_save
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.errors import UsageError

FP32 = Precision("fp32", torch.device("cpu"))


def state_of(out: Path) -> dict:
    """What a run goes on from."""
    _, state = load_save(out / "checkpoints", pytest.fail)
    return state


def test_a_full_disk_ends_a_run_only_where_the_last_save_needs_it(tiny, voc_root, monkeypatch):
    root = voc_root()
    recipe = tiny("supervised", data=root, steps=4, eval_every=2)
    failures, write_save = [], saver_module.write_save

    def full(folder, step, *rest):
        if step in failures:
            raise DiskFull("--out: cannot write it (No space left on device)")
        return write_save(folder, step, *rest)

    monkeypatch.setattr(saver_module, "write_save", full)
    failures[:], notes = [2], []
    result = Trainer(recipe, lambda event: notes.append(event.text)).train()
    assert [note for note in notes if note.startswith("warning: step 2 is not saved, training goes on")]
    assert load_network(result.out).header.step == result.best_step  # that of step 2 came with the next save
    failures[:] = [4]
    with pytest.raises(UsageError, match="No space left"):
        Trainer(recipe.replace(out=root / "fails")).train()
    assert state_of(root / "fails")["steps_done"] == 2
    failures.clear()
    resumed = Trainer(recipe.replace(out=root / "fails", resume=True)).train()
    assert (resumed.best, resumed.best_step, resumed.last) == (result.best, result.best_step, result.last)


def test_gradients_that_are_never_finite_end_a_run_in_half_precision_too(tiny, voc_root, monkeypatch):
    """The scaler passes over every step: losses and weights stay finite, and nothing is learnt."""
    losses = Supervised.losses

    def without_gradient(self, batch, progress):
        values = losses(self, batch, progress)
        nothing = (0 * self.network.classifier.weight).abs().sum().sqrt()  # 0, of a gradient that is no number
        return values | {"loss": values["loss"] + nothing}

    monkeypatch.setattr(Supervised, "losses", without_gradient)
    recipe = tiny("supervised", data=voc_root(), steps=20, eval_every=20, log_every=5, precision="fp16")
    with pytest.raises(UsageError, match=r"the gradient is not finite any more at step 20: .* --precision fp32"):
        Trainer(recipe).train()
    lines = Run.open(recipe.runtime.out).log
    assert [line["skipped_steps_pct"] for line in lines] == [100.0] * 4
    assert replay(recipe.runtime.out).what.startswith("the gradient of ")
    Trainer(recipe.replace(on_nan="ignore", out=recipe.runtime.out / "regardless")).train()


@pytest.mark.parametrize("gone", [".", "checkpoints", "tensorboard"])
def test_a_folder_that_is_deleted_in_mid_run_ends_it_in_one_line(tiny, voc_root, gone):
    recipe = tiny("supervised", data=voc_root(), steps=20, eval_every=5, save_every="1")

    def delete(event):
        if event.kind == "log" and event.done == 3:  # at once, as a save may be on its way into it
            (recipe.runtime.out / gone).resolve().rename(recipe.runtime.out.with_name("gone"))

    with pytest.raises(
        UsageError, match=r"^--out: cannot write [^\n]* \(No such file or directory\); [^\n]*$"
    ) as error:
        Trainer(recipe, delete).train()
    assert not isinstance(error.value, DiskFull)


def test_a_disk_that_becomes_read_only_in_mid_run_ends_it_in_one_line(tiny, voc_root, monkeypatch):
    recipe = tiny("supervised", data=voc_root(), steps=20, save_every="1")

    def closed(path, *arguments, **options):
        if Path(path).is_relative_to(recipe.runtime.out):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return replace(path, *arguments, **options)

    replace = os.replace
    with pytest.raises(UsageError, match=r"^--out: cannot write .* \(Read-only file system\); ") as error:
        Trainer(recipe, lambda event: event.kind == "log" and monkeypatch.setattr(os, "replace", closed)).train()
    assert not isinstance(error.value, DiskFull)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_run_that_diverges_stops_and_keeps_the_checkpoint_before(tiny, voc_root, monkeypatch, log_every):
    """Found at a log line or, where there is none, before the next checkpoint."""
    recipe = tiny("supervised", data=voc_root(), steps=6, eval_every=2, log_every=log_every)
    trainer = Trainer(recipe)
    losses = trainer.method.losses

    def diverging(batch, progress):
        return {name: loss * (math.nan if progress >= 0.5 else 1) for name, loss in losses(batch, progress).items()}

    monkeypatch.setattr(trainer.method, "losses", diverging)
    with pytest.raises(UsageError, match=r"^--lr: the loss.* not finite.*--on-nan ignore; .*last.safetensors is from"):
        trainer.train()
    for name in ("best", "last"):
        saved = load_network(trainer.folder / f"checkpoints/{name}.safetensors")
        assert saved.header.step == 2
        assert all(value.isfinite().all() for value in saved.network.state_dict().values())
    assert state_of(trainer.folder)["steps_done"] == 2


def test_a_run_whose_weights_overflow_saves_nothing(tiny, voc_root):
    """The loss is that before the step which broke the weights."""
    changes = {"backbone": "resnet18", "lr": 1e38, "backbone_lr": 1.0}
    trainer = Trainer(tiny("supervised", data=voc_root(), steps=2, eval_every=1, **changes))
    with pytest.raises(UsageError, match=r"not finite any more at step [12].*no checkpoint was saved before"):
        trainer.train()
    assert not list(trainer.run.checkpoints.iterdir())


def test_a_run_goes_on_regardless_where_that_is_asked_for(tiny, voc_root, tmp_path):
    recipe = tiny("supervised", data=voc_root(), lr=1e38, backbone_lr=1.0, on_nan="ignore")
    result = Trainer(recipe).train()
    assert (result.steps, result.best_step) == (3, -1), "class 0 everywhere has a score, and is no network"
    assert not (result.out / "checkpoints/best.safetensors").exists()
    last = result.out / "checkpoints/last.safetensors"
    for use in (
        lambda: evaluate(result.out, device="cpu"),
        lambda: export(last, tmp_path / "network.pt2", size=(32, 32)),
        lambda: Trainer(recipe.replace(out=tmp_path / "next", init=last)),
    ):
        with pytest.raises(UsageError, match="holds weights that are no numbers"):
            use()
    assert not (tmp_path / "network.pt2").exists()


@pytest.mark.usefixtures("terminal_minded")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_before_the_first_step_ends_a_run_at_once(tiny, voc_root, number):
    recipe = tiny("supervised", data=voc_root())
    handler = signal.getsignal(number)

    def stop(event):
        if event.kind == "note":
            signal.raise_signal(number)

    with pytest.raises(Stopped, match="before the first step") as stopped:
        Trainer(recipe, stop)
    assert stopped.value.signal == number
    assert signal.getsignal(number) is handler
    assert Trainer(recipe).train().steps == 3
