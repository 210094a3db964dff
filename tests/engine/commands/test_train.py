"""`semiseg train`: what it says before the first step, how a run ends and goes on."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine import api
from semiseg.engine.commands import train
from semiseg.engine.evaluation import memory
from semiseg.engine.training import judge
from semiseg.engine.training.result import Result
from semiseg.pipelines import loader


def test_dry_run_needs_no_data(semiseg):
    code, text, _ = semiseg("train", "cps_cityscapes", "--dry-run", "--json")
    plan = json.loads(text)
    assert code == 0
    assert plan["effective"] == plan["published"]
    assert plan["effective"]["loss_weights"] == {"supervised": 1.0, "cps": 6.0}
    _, text, _ = semiseg("train", "cps_cityscapes", "--dry-run", "--lr", "0.01")
    assert "0.01 *" in text
    _, text, _ = semiseg("train", "unimatch_voc", "--dry-run", "--json")
    plan = json.loads(text)
    assert (plan["effective"]["schedule"], plan["published"]["schedule"]) == ("poly", "poly_late")


@pytest.mark.parametrize("split", ["draw:0@0", "draw:2/1@0", "draw:1/8"])
def test_a_draw_that_cannot_be_is_refused_without_data(refused, split):
    assert f"cannot read the split '{split}'" in refused("train", "cps_voc", "--split", split, "--dry-run")


def test_networks_beyond_the_memory_are_one_line_of_a_dry_run_too(refused, monkeypatch):
    def forecast(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(train, "forecast", forecast)
    assert "--dry-run: the networks alone need more memory" in refused("train", "fixmatch_shapes", "--dry-run")


def test_settings_that_are_changed_are_told_whatever_they_are(semiseg):
    flags = ("--unlabeled.hue", "0.5", "--labeled.filter", "antialiased", "--weights", "none")
    changed, usual = (
        {line.split(" ", 1)[0] for line in semiseg("train", "cps_cityscapes", "--dry-run", *said)[1].splitlines()}
        for said in (flags, ())
    )
    assert changed - usual == {"unlabeled.hue", "labeled.filter", "weights"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--evaluation.scale", "1000000"), ".jpg: is 56x40, for which whole, scale 1e+06 needs more than "),
        (("--evaluation.scale", "1000000"), "pass a smaller --evaluation.scale, "),
        (("--crop", "1000000"), "--batch 2 of --crop 1000000: needs more memory than there is; lower one"),
    ],
)
def test_what_is_too_large_for_the_memory_is_one_line(semiseg, voc_root, tmp_path, monkeypatch, flags, said, train):
    """Whether it is known before, or torch says so."""
    root = voc_root()
    for number in range(2):
        code, text, err = semiseg(*train(root, "--out", tmp_path / f"run{number}", "--evaluation.scale", "1", *flags))
        assert (code, "Traceback" in text + err) == (2, False)
        assert said in err.splitlines()[-1]
        monkeypatch.setattr(memory, "free_memory_of", lambda device, enough: None)


@pytest.mark.parametrize("equal", [True, False])
def test_train_says_whether_resuming_is_exact(semiseg, voc_root, tmp_path, monkeypatch, equal, train):
    if not equal:
        monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    out = tmp_path / "run"
    code, text, err = semiseg(*train(voc_root(), "--out", out, "--verify-resume", "4", "--network", "cac", "--json"))
    document = json.loads(text)
    assert (code, document["equal"]) == (0 if equal else 1, equal)
    assert ("random/cpu" in document["different"]) != equal
    assert f"resume: {'equal' if equal else 'unequal'}: 4 steps, interrupted after " in err
    assert not out.exists()


def test_unwritable_out(refused, voc_root, tmp_path, train):
    (tmp_path / "file").write_text("")
    assert "--out" in refused(*train(voc_root(), "--out", tmp_path / "file" / "run"))


def test_out_that_already_holds_a_run(refused, semiseg, voc_root, tmp_path, train):
    root = voc_root()
    assert semiseg(*train(root, "--out", tmp_path / "run"))[0] == 0
    assert "already holds a run" in refused(*train(root, "--out", tmp_path / "run"))


def test_imagenet_weights_without_a_network(refused, voc_root, monkeypatch, tmp_path, train):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache" / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    line = refused(*train(voc_root(), "--weights", "imagenet"))
    assert "resnet18" in line
    assert "--weights none" in line


def test_init_from_other_classes_than_the_checkpoints(refused, semiseg, folder_root, tmp_path, small):
    small = [*small, "--out", tmp_path / "run"]
    root = folder_root()
    assert semiseg("train", "supervised_folder", "--data", root, *small)[0] == 0
    command = ["train", "supervised_folder", "--data", root, "--init", tmp_path / "run", *small]
    command += ["--out", tmp_path / "second"]
    (root / "classes.txt").write_text("ground\ntree\ncar\n")
    assert "in another order (ground, car, tree)" in refused(*command)
    (root / "classes.txt").write_text("ground\ncar\nbush\n")
    assert "the class 'tree' it was trained on" in refused(*command)
    (root / "classes.txt").write_text("class 0\nclass 1\nclass 2\n")
    assert semiseg(*command)[0] == 0


def test_a_network_knows_the_classes_that_a_list_leaves(semiseg, folder_root, tmp_path, small):
    """From training to predictions, whose own class list says what they hold."""
    root, run = folder_root(), tmp_path / "run"
    (root / "classes.txt").write_text("0: __ignore__\n1: car\n2: tree\n")
    code, text, err = semiseg("train", "fixmatch_folder", "--data", root, "--split", "all", *small, "--out", run)
    assert code == 0, err
    assert "ignores pixels of value 0" in text
    code, text, _ = semiseg("evaluate", run, "--json")
    assert (code, list(json.loads(text)["iou"])) == (0, ["car", "tree"])
    assert semiseg("predict", run, root / "images")[0] == 0
    masks = [np.asarray(Image.open(path)) for path in (run / "predictions/masks").iterdir()]
    assert len(masks) == 12
    assert set(np.unique(masks)) <= {1, 2}
    listed = (run / "predictions/colours/classes.txt").read_text().splitlines()
    assert [line.split("\t")[:2] for line in listed] == [["1", "car"], ["2", "tree"]]


def test_a_file_that_changes_in_mid_run_ends_it_in_one_line(semiseg, folder_root, tmp_path, monkeypatch, train):
    root, steps = folder_root(), []

    def change(*arguments, **options):
        steps.append(1)
        if len(steps) == 2:
            for path in (root / "masks").iterdir():
                Image.fromarray(np.full((40, 48), 9, np.uint8)).save(path)
        return collate(*arguments, **options)

    collate = loader.collate
    monkeypatch.setattr(loader, "collate", change)
    command = train(root, "--out", tmp_path / "run", "--steps", "40", recipe="supervised_folder", split="all")
    code, _, err = semiseg(*command)
    assert code == 2
    assert [line for line in err.splitlines() if "changed since it was prepared" in line] == err.splitlines()[-1:]


def test_validation_masks_that_change_in_mid_run_are_named(semiseg, folder_root, tmp_path, monkeypatch, train):
    root = folder_root()

    def change(*arguments, **options):
        for path in (root / "masks").iterdir():
            Image.fromarray(np.full((40, 48), 9, np.uint8)).save(path)
        return evaluate_each(*arguments, **options)

    evaluate_each = judge.evaluate_each
    monkeypatch.setattr(judge, "evaluate_each", change)
    code, _, err = semiseg(*train(root, "--out", tmp_path / "run", recipe="supervised_folder", split="all"))
    assert code == 2
    assert "changed since it was prepared" in err.splitlines()[-1]


@pytest.fixture
def interrupted(monkeypatch):
    """SIGUSR1, SIGTERM and SIGINT come, one at each of the first three evaluations."""
    waiting, evaluate = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], judge.evaluate_each

    def disturbed(*arguments, **options):
        if waiting:
            signal.raise_signal(waiting.pop())
        return evaluate(*arguments, **options)

    monkeypatch.setattr(judge, "evaluate_each", disturbed)


@pytest.mark.usefixtures("interrupted")
def test_a_run_that_a_signal_ended_goes_on_without_its_name(semiseg, voc_root, tmp_path, monkeypatch, train):
    """The exit codes tell a scheduler whether to start it again."""
    root = voc_root()
    monkeypatch.chdir(tmp_path)
    arguments = train(root, "--steps", "4", "--eval-every", "1")
    for step, expected in [(1, 75), (2, 75), (3, 130)]:
        code, _, err = semiseg(*arguments, *["--resume"] * (step > 1))
        assert (code, len(err.splitlines())) == (expected, 1)
        assert f"stopped after step {step}; go on by `semiseg train runs/supervised_voc-" in err
    (run,) = (tmp_path / "runs").iterdir()
    code, out, err = semiseg(*arguments, "--resume", "--eval-every", "2")
    assert code == 0, err
    assert f"going on with runs/{run.name} at step 3" in out
    assert "from here on with other settings than it began with: eval_every was 1 and is 2 now" in out
    assert (run / "report.html").is_file()
    code, _, err = semiseg(*arguments, "--resume")
    assert code == 2
    assert err.startswith("semiseg: --resume: no unfinished run of supervised_voc is in runs; say which with --out")


@pytest.mark.usefixtures("interrupted")
def test_a_run_says_itself_how_it_goes_on(semiseg, voc_root, tmp_path, train):
    """Without the flags that it began with, and so do runs that begin as it did."""
    run = tmp_path / "run"
    code, _, err = semiseg(*train(voc_root(), "--steps", "4", "--eval-every", "1", "--lr", "0.02"), "--out", run)
    assert (code, f"go on by `semiseg train {run} --resume`" in err) == (75, True)
    for step in (2, 3):
        assert f"stopped after step {step}" in semiseg("train", run, "--resume")[2]
    code, _, err = semiseg("train", run / "recipe.json", "--resume", "--out", run)
    assert code == 0, err
    again = tmp_path / "again"
    assert semiseg("train", run, "--steps", "2", "--out", again)[0] == 0
    before, now = (json.loads((one / "recipe.json").read_text()) for one in (run, again))
    assert {name for name in before if before[name] != now[name]} == {"steps", "out"}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job of SLURM, and the file in which its scontrol, which fails if it ends in FAILS, notes what it is asked."""
    said, program = tmp_path / "said", tmp_path / "bin/scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {said}\n[ -z "$FAILS" ] || {{ echo "$FAILS" >&2; exit 1; }}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    return said


@pytest.mark.usefixtures("terminal_minded")
def test_a_job_whose_terminal_is_closed_is_not_started_again(semiseg, voc_root, tmp_path, monkeypatch, job, train):
    def disturbed(*arguments, **options):
        signal.raise_signal(signal.SIGHUP)
        return evaluate(*arguments, **options)

    evaluate = judge.evaluate_each
    monkeypatch.setattr(judge, "evaluate_each", disturbed)
    code, *_ = semiseg(*train(voc_root(), "--steps", "2", "--eval-every", "1", "--requeue", "--out", tmp_path / "run"))
    assert (code, job.exists()) == (75, False)


@pytest.mark.usefixtures("interrupted")
def test_a_job_is_started_again_after_a_signal_and_goes_on_with_the_same_command(
    semiseg, voc_root, tmp_path, monkeypatch, job, train
):
    root, out = voc_root(), tmp_path / "a run"
    arguments = train(root, "--steps", "4", "--eval-every", "1", "--requeue", "--out", out)
    code, _, err = semiseg(*arguments)
    assert (code, job.read_text()) == (75, "requeue 42\n")
    line = f"semiseg: stopped after step 1; go on by `semiseg train '{out}' --resume`; job 42 is started again"
    assert err.splitlines() == [line]
    monkeypatch.setenv("FAILS", "Job is held")
    code, _, err = semiseg(*arguments)
    assert (code, job.read_text()) == (75, 2 * "requeue 42\n")
    assert err.endswith("warning: job 42 is not started again: Job is held (scontrol requeue 42)\n")
    code, _, err = semiseg(*arguments)  # Ctrl-C: no job is to be started again
    assert (code, job.read_text()) == (130, 2 * "requeue 42\n")
    code, text, err = semiseg(*arguments)
    assert code == 0, err
    assert f"going on with {out} at step 3" in text
    assert "other settings" not in text


def test_requeue_without_slurm_is_one_line(refused, voc_root, tmp_path, monkeypatch, job, train):
    arguments = train(voc_root(), "--requeue")
    assert refused(*arguments).startswith("semiseg: --out: pass a folder")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "scontrol is not in PATH" in refused(*arguments, "--out", tmp_path / "run")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert "no job of SLURM" in refused(*arguments, "--out", tmp_path / "run")


def test_what_was_left_undone_after_the_last_step_is_done(semiseg, voc_root, tmp_path, monkeypatch, train):
    """Ended between the last save and the report, as by a full disk."""

    def interrupted(folder):
        raise KeyboardInterrupt  # the signal itself is ignored by what a shell starts in the background

    arguments = train(voc_root(), "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(api, "write_report", interrupted)
        assert semiseg(*arguments)[0] == 130
    assert not (tmp_path / "run/result.json").exists()
    code, out, err = semiseg(*arguments, "--resume", "--json")
    assert code == 0, err
    assert (tmp_path / "run/report.html").is_file()
    assert json.loads(out)["best"] == json.loads((tmp_path / "run/result.json").read_text())["best"]


@pytest.mark.parametrize(("student", "told"), [(0.31, True), (0.3, False), (float("nan"), False)])
def test_a_student_above_the_best_teacher_is_told(semiseg, voc_root, tmp_path, monkeypatch, train, student, told):
    def of_two_networks(recipe, listener):
        return Result(
            out=recipe.runtime.out, split="", checksum="", labeled=1, unlabeled=1, steps=2, best=0.3, best_step=1,
            last=0.2, beside={"student": student}, iou={}, pixel_accuracy=0.5, images_per_s=1.0, data_wait_pct=0.0,
            memory_gib=1.0, seconds=1.0,
        )  # fmt: skip

    monkeypatch.setattr(api, "train", of_two_networks)
    code, said, err = semiseg(*train(voc_root(), "--out", tmp_path / "run"))
    assert code == 0, err
    line = f"the student ends higher, with 31.00 %: {tmp_path / 'run/checkpoints/last-student.safetensors'}"
    assert (line in said.splitlines()) == told
    assert ("ends higher" in said) == told
