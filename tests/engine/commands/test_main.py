"""The command line: what it prints, and one clear line and exit code 2 for what a user can get wrong."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine import api
from semiseg.engine.evaluation import inference, scores
from semiseg.engine.training import trainer
from semiseg.pipelines import loader

SMALL = [
    *("--backbone", "resnet18", "--head-width", "16", "--weights", "none", "--crop", "32", "--batch", "2"),
    *("--steps", "2", "--threads", "1", "--device", "cpu", "--backend", "host"),
]


def train(data, *more, recipe="supervised_voc", split="draw:1/2@0"):
    return ["train", recipe, "--data", data, "--split", split, *SMALL, *more]


def test_train_evaluate_predict_report(semiseg, voc_root, tmp_path):
    root, out = voc_root(), tmp_path / "run"
    code, text, err = semiseg(*train(root, "--out", out, "--json"))
    assert code == 0, err
    trained = json.loads(text)
    assert trained["steps"] == 2
    assert (out / "report.html").is_file()

    code, text, _ = semiseg("evaluate", out, "--json", "--device", "cpu")
    scores = json.loads(text)
    assert code == 0
    assert scores["miou"] == pytest.approx(trained["best"], abs=1e-6)

    code, text, _ = semiseg(
        "predict", out, root / "JPEGImages", "--out", tmp_path / "seen", "--json", "--device", "cpu"
    )
    seen = {"out": str(tmp_path / "seen"), "confidence": str(tmp_path / "seen/confidence.csv")}
    assert json.loads(text) == seen | {"images": 9, "failed": []}
    assert len(list((tmp_path / "seen/overlays").iterdir())) == 9

    code, text, _ = semiseg("predict", out, root / "JPEGImages", "--out", tmp_path / "seen", "--device", "cpu")
    rows = (tmp_path / "seen/confidence.csv").read_text().splitlines()[1:]
    least = ", ".join(row.partition(",")[0] for row in rows[:3])
    assert f"worth labelling next: {least}; all in {tmp_path / 'seen/confidence.csv'}" in text.splitlines()
    image = root / "JPEGImages/2007_000001.jpg"
    code, text, _ = semiseg("predict", out, image, "--out", tmp_path / "one", "--device", "cpu")
    assert "worth labelling" not in text

    (out / "report.html").unlink()
    assert semiseg("report", out)[0] == 0
    assert (out / "report.html").is_file()


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


def test_settings_that_are_changed_are_told_whatever_they_are(semiseg):
    flags = ("--unlabeled.hue", "0.5", "--labeled.filter", "antialiased", "--weights", "none")
    changed, usual = (
        {line.split(" ", 1)[0] for line in semiseg("train", "cps_cityscapes", "--dry-run", *said)[1].splitlines()}
        for said in (flags, ())
    )
    assert changed - usual == {"unlabeled.hue", "labeled.filter", "weights"}


def test_prepare_doctor_and_draw(semiseg, folder_root, tmp_path):
    root = folder_root()
    code, text, _ = semiseg("prepare", "--layout", "folder", "--data", root, "--json")
    assert code == 0
    assert set(json.loads(text)["histogram"]) == {"ground", "car", "tree"}
    code, text, _ = semiseg("doctor", "--layout", "folder", "--data", root)
    assert code == 0
    assert "ready" in text
    lists = tmp_path / "lists"
    code, text, _ = semiseg(
        "splits", "draw", "--layout", "folder", "--data", root, "--share", "1/2", "--out", lists, "--json"
    )
    assert code == 0
    labeled = (lists / "labeled.txt").read_text().split()
    unlabeled = (lists / "unlabeled.txt").read_text().split()
    assert labeled
    assert not set(labeled) & set(unlabeled)
    code, _, err = semiseg(
        *train(root, "--out", tmp_path / "run", recipe="cps_folder", split=f"{lists}/labeled.txt,{lists}/unlabeled.txt")
    )
    assert code == 0, err


def test_prepare_packs_all_pictures_and_masks_and_training_uses_them(semiseg, folder_root, tmp_path):
    root = folder_root()
    source = ("--layout", "folder", "--data", root)
    assert json.loads(semiseg("prepare", *source, "--json")[1])["pack"] is None
    code, text, err = semiseg("prepare", *source, "--pack", "--json")
    assert code == 0
    (pixels,) = Path(json.loads(text)["pack"]).glob("pixels-*")
    assert f"packing 12 images: 0.1 MiB into {pixels.parent}" in err
    assert pixels.stat().st_size == 12 * 40 * 48 * 3 + 8 * 40 * 48
    code, text, err = semiseg(*train(root, "--backend", "resident", "--out", tmp_path / "run", recipe="cps_folder"))
    assert code == 0, err
    assert "ResidentBackend" in text
    assert "packing" not in text


def test_doctor_reports_faults_with_exit_code_2(semiseg, folder_root):
    root = folder_root()
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(root / "masks/a001.png")
    code, text, _ = semiseg("doctor", "--layout", "folder", "--data", root)
    assert code == 2
    assert "a001" in text
    assert "9" in text


@pytest.mark.parametrize("equal", [True, False])
def test_train_says_whether_resuming_is_exact(semiseg, voc_root, tmp_path, monkeypatch, equal):
    if not equal:
        monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    out = tmp_path / "run"
    code, text, err = semiseg(*train(voc_root(), "--out", out, "--verify-resume", "4", "--network", "cac", "--json"))
    document = json.loads(text)
    assert (code, document["equal"]) == (0 if equal else 1, equal)
    assert ("rng" in document["different"]) != equal
    assert f"resume: {'equal' if equal else 'unequal'}: 4 steps, interrupted after " in err
    assert not out.exists()


def test_unknown_names(refused):
    assert "cac_voc" in refused("train", "cac_vok")
    assert "doctor" in refused("doktor")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cac_vok"], "cac_voc"),
        (["cac_voc", "--crop", "abc"], "--crop"),
        (["cac_voc", "--split", "1/8"], "draw:1/8@SEED"),
        (["cac_voc", "--dry-run", "--crop", "321"], "--crop"),
    ],
)
@pytest.mark.parametrize("size", ["2", "two"])
def test_of_several_processes_the_first_of_each_machine_says_what_is_wrong_with_the_command_line(
    semiseg, monkeypatch, arguments, says, size
):
    """All end with the same exit code, and it may be wrong on one machine alone. What is no number of processes
    silences none."""
    monkeypatch.setenv("WORLD_SIZE", size)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        code, _, err = semiseg("train", *arguments)
        assert code == 2
        assert says in err
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert semiseg("train", *arguments) == (2, "", "")


def test_of_several_processes_the_first_shows_the_help(semiseg, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--crop" in semiseg("train", "cac_voc", "--help")[1]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert semiseg("train", "cac_voc", "--help") == (0, "", "")


def test_missing_root(refused, tmp_path):
    assert "nowhere" in refused(*train(tmp_path / "nowhere"))
    assert "--data" in refused("train", "cac_voc", *SMALL)


def test_list_naming_a_missing_file(refused, voc_root, tmp_path):
    root = voc_root()
    (tmp_path / "labeled.txt").write_text("2007_000001\n2099_000001\n")
    assert "2099_000001" in refused(*train(root, split=tmp_path / "labeled.txt"))


def test_truncated_jpeg(refused, voc_root):
    root = voc_root()
    path = root / "JPEGImages/2007_000002.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert "2007_000002.jpg" in refused(*train(root))


def test_mask_of_another_size(refused, voc_root):
    root = voc_root()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "SegmentationClass/2007_000002.png")
    assert "2007_000002.png" in refused(*train(root))


def test_rgb_mask(refused, voc_root):
    root = voc_root()
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(root / "SegmentationClass/2007_000002.png")
    assert "2007_000002.png" in refused(*train(root))


def test_label_value_outside_the_classes(refused, voc_root):
    root = voc_root()
    Image.fromarray(np.full((40, 56), 77, np.uint8)).save(root / "SegmentationClass/2007_000002.png")
    line = refused(*train(root))
    assert "2007_000002.png" in line
    assert "77" in line


def test_class_list_of_another_length_than_the_checkpoint(refused, semiseg, voc_root, folder_root, tmp_path):
    assert semiseg(*train(voc_root(), "--out", tmp_path / "run"))[0] == 0
    line = refused("evaluate", tmp_path / "run", "--data", voc_root_with_classes(voc_root, 5), "--device", "cpu")
    assert "21" in line
    assert "5" in line


def voc_root_with_classes(voc_root, count: int):
    root = voc_root(level="other/VOC2012")
    (root / "classes.txt").write_text("".join(f"class{number}\n" for number in range(count)))
    return root


def test_an_id_that_is_labelled_and_in_val(refused, voc_root, tmp_path):
    root = voc_root()
    (tmp_path / "labeled.txt").write_text("2007_000001\n2007_000009\n")
    assert "2007_000009" in refused(*train(root, split=tmp_path / "labeled.txt"))


def test_no_unlabelled_images(refused, voc_root):
    assert "unlabelled" in refused(*train(voc_root(), recipe="cps_voc", split="all"))


def test_crop_that_the_grid_of_pairs_does_not_divide(refused, voc_root):
    line = refused(*train(voc_root(), "--crop", "50", recipe="cac_voc"))
    assert "48 or 56" in line


def test_unknown_backbone(refused, voc_root):
    assert "did you mean resnet50" in refused(*train(voc_root(), "--backbone", "resnet5"))
    assert "--network dpt" in refused(*train(voc_root(), "--backbone", "dinov2_small"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(refused, voc_root):
    assert "--device" in refused(*train(voc_root(), "--device", "cuda"))


def test_unwritable_out(refused, voc_root, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--out" in refused(*train(voc_root(), "--out", tmp_path / "file" / "run"))


def test_out_that_already_holds_a_run(refused, semiseg, voc_root, tmp_path):
    root = voc_root()
    assert semiseg(*train(root, "--out", tmp_path / "run"))[0] == 0
    assert "already holds a run" in refused(*train(root, "--out", tmp_path / "run"))


def test_imagenet_weights_without_a_network(refused, voc_root, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache" / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    line = refused(*train(voc_root(), "--weights", "imagenet"))
    assert "resnet18" in line
    assert "--weights none" in line


def test_a_file_that_is_no_checkpoint(refused, tmp_path):
    (tmp_path / "notes.safetensors").write_text("hello")
    assert "notes.safetensors" in refused("evaluate", tmp_path / "notes.safetensors")
    assert "neither a checkpoint" in refused("evaluate", tmp_path / "none")


def test_predict_on_an_empty_folder(refused, semiseg, voc_root, tmp_path):
    assert semiseg(*train(voc_root(), "--out", tmp_path / "run"))[0] == 0
    (tmp_path / "empty").mkdir()
    assert "no images" in refused("predict", tmp_path / "run", tmp_path / "empty", "--device", "cpu")


def test_a_bad_file_stops_no_other(semiseg, voc_root, tmp_path):
    root = voc_root()
    assert semiseg(*train(root, "--out", tmp_path / "run"))[0] == 0
    images = root / "JPEGImages"
    (images / "2007_000002.jpg").write_bytes(b"no picture")
    (images / "._2007_000003.jpg").write_bytes(b"a file manager's")
    for _ in range(2):
        command = ["predict", tmp_path / "run", images, "--out", images / "../JPEGImages/out", "--device", "cpu"]
        code, text, err = semiseg(*command, "--json")
        assert code == 3
        assert "2007_000002.jpg cannot be decoded" in err
        done = json.loads(text)
        assert (done["images"], done["failed"]) == (8, [str(images / "2007_000002.jpg")])
        assert len(list((images / "out/masks").iterdir())) == 8


def test_init_from_other_classes_than_the_checkpoints(refused, semiseg, folder_root, tmp_path):
    small = [*SMALL, "--out", tmp_path / "run"]
    root = folder_root()
    assert semiseg("train", "supervised_folder", "--data", root, *small)[0] == 0
    command = ["train", "supervised_folder", "--data", root, "--init", tmp_path / "run", *SMALL]
    command += ["--out", tmp_path / "second"]
    (root / "classes.txt").write_text("ground\ntree\ncar\n")
    assert "in another order (ground, car, tree)" in refused(*command)
    (root / "classes.txt").write_text("ground\ncar\nbush\n")
    assert "the class 'tree' it was trained on" in refused(*command)
    (root / "classes.txt").write_text("class 0\nclass 1\nclass 2\n")
    assert semiseg(*command)[0] == 0


def test_a_file_that_changes_in_mid_run_ends_it_in_one_line(semiseg, folder_root, tmp_path, monkeypatch):
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


def test_validation_masks_that_change_in_mid_run_are_named(semiseg, folder_root, tmp_path, monkeypatch):
    root = folder_root()

    def change(*arguments, **options):
        for path in (root / "masks").iterdir():
            Image.fromarray(np.full((40, 48), 9, np.uint8)).save(path)
        return evaluate_each(*arguments, **options)

    evaluate_each = scores.evaluate_each
    monkeypatch.setattr(scores, "evaluate_each", change)
    code, _, err = semiseg(*train(root, "--out", tmp_path / "run", recipe="supervised_folder", split="all"))
    assert code == 2
    assert "changed since it was prepared" in err.splitlines()[-1]


def test_prepare_verify_reads_everything_again(semiseg, folder_root):
    root = folder_root()
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(root / "images/scan.bmp")
    prepare = ["prepare", "--layout", "folder", "--data", root, "--json"]
    folder = Path(json.loads(semiseg(*prepare)[1])["folder"])
    (copy,) = (folder / "images").iterdir()
    whole = copy.read_bytes()
    copy.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    notes = json.loads(semiseg(*prepare, "--verify")[1])["notes"]
    assert "21 files were read again: 1 converted copies were damaged or missing and are made anew" in notes[-1]
    assert copy.read_bytes() == whole
    assert json.loads(semiseg(*prepare, "--verify")[1])["notes"] == ["21 files were read again: all are as they were"]
    Image.fromarray(np.full((40, 48), 1, np.uint8)).save(root / "masks/a000.png")
    notes = json.loads(semiseg(*prepare, "--verify")[1])["notes"]
    assert "1 of them holds other bytes than when prepared last" in notes[-1]
    assert "masks/a000.png for one" in notes[-1]


def test_brackets_in_the_names_of_classes_are_no_markup(semiseg, folder_root):
    root = folder_root()
    (root / "classes.txt").write_text("[/b]\n[bold]x\nplain\\\n")
    for command in ("prepare", "doctor"):
        code, text, err = semiseg(command, "--layout", "folder", "--data", root)
        assert code == 0, err
        assert all(name in text for name in ("[/b]", "[bold]x", "plain\\"))


def test_how_pictures_are_read_goes_with_the_checkpoint(semiseg, folder_root, tmp_path):
    root, out = folder_root(), tmp_path / "run"
    new, exif = tmp_path / "new", Image.Exif()
    exif[0x0112] = 6
    new.mkdir()
    Image.fromarray(np.zeros((48, 40, 3), np.uint8)).save(new / "phone.jpg", exif=exif)
    shutil.copy(new / "phone.jpg", root / "images")
    code, text, err = semiseg(
        *train(root, "--out", out, "--files.orientation", "ignore", recipe="supervised_folder", split="all")
    )
    assert code == 0, err
    assert "all are used as they are stored" in text + err
    assert json.loads((out / "recipe.json").read_text())["files"]["orientation"] == "ignore"

    def predicted(*more):
        semiseg("predict", out, new, "--out", tmp_path / "seen", "--device", "cpu", *more)
        return Image.open(tmp_path / "seen/masks/phone.png").size

    assert predicted() == (40, 48)
    assert predicted("--files.orientation", "upright") == (48, 40)
    code, _, err = semiseg("predict", out, new, "--device", "cpu", "--files.max-megapixels", "0.001")
    assert code == 3
    assert "phone.jpg is 40x48, 0.00192 megapixels where 0.001 are the limit" in err


@pytest.mark.parametrize("error", [None, MemoryError(), RuntimeError("[enforce fail] not enough memory: you tried")])
def test_pictures_too_large_for_the_memory_are_listed_and_the_rest_is_done(
    semiseg, folder_root, tmp_path, monkeypatch, error
):
    root, out, new = folder_root(), tmp_path / "run", tmp_path / "new"
    semiseg(*train(root, "--out", out, "--evaluation.scale", "1", recipe="supervised_folder", split="all"))
    new.mkdir()
    Image.new("RGB", (320, 320)).save(new / "large.png")
    Image.new("RGB", (32, 32)).save(new / "small.png")

    def segment(network, image, *rest):
        if len(image) > 32 and error:
            raise error
        return whole(network, image, *rest)

    whole = inference.segment
    monkeypatch.setattr(inference, "segment", segment)
    monkeypatch.setattr(inference, "free_memory_of", lambda device: 10_000_000)
    protocol = ["--protocol", "slide"] if error else []
    code, text, err = semiseg("predict", out, new, "--device", "cpu", "--json", *protocol)
    assert code == 3
    assert json.loads(text)["failed"] == [str(new / "large.png")]
    assert (out / "predictions/masks/small.png").is_file()
    (line,) = [line for line in err.splitlines() if "GiB" in line]
    assert "large.png: is 320x320, for which " in line
    assert line.endswith("cut it into tiles")
    assert ("pass --protocol slide --window" in line) == (error is None)
    if error is None:
        code, _, err = semiseg("predict", out, new, "--device", "cpu", "--protocol", "slide", "--window", "32")
        assert code == 0, err


@pytest.fixture
def interrupted(monkeypatch):
    """SIGUSR1, SIGTERM and SIGINT come, one at each of the first three evaluations."""
    waiting, evaluate = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], trainer.evaluate

    def disturbed(*arguments, **options):
        if waiting:
            signal.raise_signal(waiting.pop())
        return evaluate(*arguments, **options)

    monkeypatch.setattr(trainer, "evaluate", disturbed)


@pytest.mark.usefixtures("interrupted")
def test_a_run_that_a_signal_ended_goes_on_without_its_name(semiseg, voc_root, tmp_path, monkeypatch):
    """The exit codes tell a scheduler whether to start it again."""
    root = voc_root()
    monkeypatch.chdir(tmp_path)
    arguments = train(root, "--steps", "4", "--eval-every", "1")
    for step, expected in [(1, 75), (2, 75), (3, 130)]:
        code, _, err = semiseg(*arguments, *["--resume"] * (step > 1))
        assert (code, len(err.splitlines())) == (expected, 1)
        assert f"stopped after step {step}; go on with --out runs/supervised_voc-" in err
    (run,) = (tmp_path / "runs").iterdir()
    code, out, err = semiseg(*arguments, "--resume")
    assert code == 0, err
    assert f"going on with runs/{run.name} at step 3" in out
    assert (run / "report.html").is_file()
    code, _, err = semiseg(*arguments, "--resume")
    assert code == 2
    assert err.startswith("semiseg: --resume: no unfinished run of supervised_voc is in runs; say which with --out")


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


@pytest.mark.usefixtures("interrupted")
def test_a_job_is_started_again_after_a_signal_and_goes_on_with_the_same_command(
    semiseg, voc_root, tmp_path, monkeypatch, job
):
    root, out = voc_root(), tmp_path / "run"
    arguments = train(root, "--steps", "4", "--eval-every", "1", "--requeue", "--out", out)
    code, _, err = semiseg(*arguments)
    assert (code, job.read_text()) == (75, "requeue 42\n")
    line = f"semiseg: stopped after step 1; go on with --out {out} --resume; job 42 is started again"
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


def test_requeue_without_slurm_is_one_line(refused, voc_root, tmp_path, monkeypatch, job):
    arguments = train(voc_root(), "--requeue")
    assert refused(*arguments).startswith("semiseg: --out: pass a folder")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "scontrol is not in PATH" in refused(*arguments, "--out", tmp_path / "run")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert "no job of SLURM" in refused(*arguments, "--out", tmp_path / "run")


def test_what_was_left_undone_after_the_last_step_is_done(semiseg, voc_root, tmp_path, monkeypatch):
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
