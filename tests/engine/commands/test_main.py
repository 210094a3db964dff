"""The command line: what it prints, and one clear line and exit code 2 for what a user can get wrong."""

from __future__ import annotations

import io
import json
import re
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def test_train_evaluate_predict_report(semiseg, voc_root, tmp_path, train):
    root, out = voc_root(), tmp_path / "run"
    code, text, err = semiseg(*train(root, "--out", out, "--json"))
    assert code == 0, err
    trained = json.loads(text)
    assert trained["steps"] == 2
    assert err.splitlines()[-1].endswith(f"semiseg predict {out} IMAGES")
    assert (out / "report.html").is_file()

    code, text, _ = semiseg("evaluate", out, "--json", "--device", "cpu")
    scores = json.loads(text)
    assert code == 0
    assert scores["miou"] == pytest.approx(trained["best"], abs=1e-6)

    code, text, _ = semiseg(
        "predict", out, root / "JPEGImages", "--out", tmp_path / "seen", "--json", "--device", "cpu"
    )
    files = {"out": "seen", "confidence": "seen/confidence.csv", "review": "seen/review.html"}
    places = {name: str(tmp_path / file) for name, file in files.items()}
    assert json.loads(text) == places | {"images": 9, "failed": []}
    assert len(list((tmp_path / "seen/overlays").iterdir())) == 9

    code, text, _ = semiseg("predict", out, root / "JPEGImages", "--out", tmp_path / "seen", "--device", "cpu")
    rows = (tmp_path / "seen/confidence.csv").read_text().splitlines()[1:]
    assert {row.rpartition(",")[2] for row in rows} == {"labels", "validation", "unused"}
    assert "worth labelling" not in text  # as all have masks
    image = root / "JPEGImages/2007_000001.jpg"
    code, text, _ = semiseg("predict", out, image, "--out", tmp_path / "one", "--device", "cpu")
    assert "worth labelling" not in text

    (out / "report.html").unlink()
    assert semiseg("report", out)[0] == 0
    assert (out / "report.html").is_file()


def test_help_of_train_names_the_recipes(semiseg):
    for flag in ("-h", "--help"):
        code, text, err = semiseg("train", flag)
        assert (code, err) == (0, "")
        assert text.startswith("usage: semiseg train RECIPE")
        assert "fixmatch_folder" in text


def test_prepare_doctor_and_draw(semiseg, folder_root, tmp_path, train):
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


def test_prepare_packs_all_pictures_and_masks_and_training_uses_them(semiseg, folder_root, tmp_path, train):
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


def test_the_version_is_that_of_the_installed_package(semiseg):
    assert semiseg("--version") == (0, f"semiseg {version('semiseg')}\n", "")
    assert "semiseg --version" in semiseg("--help")[1]


@pytest.mark.parametrize("command", ["train fixmatch_folder", "predict", "evaluate", "export", "replay", "compare"])
def test_help_says_once_what_holds_without_a_flag(semiseg, command):
    text = " ".join(re.sub(r"[^!-~ ]", "", semiseg(*command.split(), "--help")[1]).split())
    assert "(default: " in text
    assert re.findall(r"\(default: [^)]*\)\.? \(default: [^)]*\)", text) == []


@pytest.mark.parametrize("command", ["predict", "splits draw", "replay", "compare"])
def test_help_ends_lines_where_the_terminal_does(semiseg, monkeypatch, command):
    """And not where the source does: on a terminal as wide as the longest text, each is one line."""
    monkeypatch.setenv("COLUMNS", "2000")
    shown = re.sub(r"[^!-~ \n]", "", semiseg(*command.split(), "--help")[1])
    lines = [line.strip() for line in re.split(r"^[ -]*options[ -]*$", shown, flags=re.M, maxsplit=1)[1].splitlines()]
    texts = [line[:1] not in ("", "-") for line in lines]
    assert len(lines) > 4
    assert [line for line, both in zip(lines[1:], map(all, pairwise(texts))) if both] == []
    assert "or a published file of CAC, CPS, UniMatch, UniMatch V2 or" in semiseg("train", "cac_voc", "-h")[1]


def test_what_a_stream_cannot_take_is_escaped(semiseg, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    code, *_ = semiseg("--help")
    stream.flush()
    assert code == 0
    assert stream.buffer.getvalue().startswith(b"usage: semiseg COMMAND [--help] \\u2026\n")


def test_help_says_what_a_recipe_sets_otherwise(semiseg, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from dataclasses import replace\n"
        "from semiseg.recipes.supervised_shapes import recipe as shapes\n"
        "def recipe():\n"
        "    return replace(shapes(), name='mine', bn_momentum=0.017)\n"
    )
    text = " ".join(re.sub(r"[^!-~ ]", "", semiseg("train", str(script), "--help")[1]).split())
    assert "(here: 0.017)" in text
    assert text.count("(here: ") == 1


def test_unknown_names(refused):
    assert "no recipe is called 'cac_vok'; did you mean cac_voc" in refused("train", "cac_vok")
    assert "there are cac_cityscapes, cac_folder, " in refused("train", "deeplab")
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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["train", "cac_voc", "--stepz", "3"],
            "Unrecognized options: --stepz, 3; perhaps you meant --steps; `semiseg tr",
        ),
        (["train", "cac_voc", "--device"], "Missing value for argument '--device'"),
        (["doctor", "--layout", "foldr"], "invalid choice 'foldr' for argument '--layout'"),
        (["export", "x", "--size", "480"], "--size: must be INT INT, is '480'; `semiseg export"),
        (["export", "x", "--size", "it's", "x"], """--size: must be INT INT, is "it's" 'x'; `semiseg export"""),
        (["train", "cac_shapes", "--steps", ""], "--steps: must be a whole number, is ''; `semiseg train"),
        (["train", "cac_shapes", "--labeled.range", "1", "x"], "--labeled.range: must be float, float, is '1', 'x'; "),
        (["train", "cac_shapes", "--evaluation.scales", "x"], "--evaluation.scales: cannot be 'x'; `semiseg train"),
        (["evaluate", "x", "--window", "many"], "--window: must be INT, is 'many'; `semiseg evaluate"),
        (["train", "cac_shapes", "--steps", "few"], "--steps: must be a whole number, is 'few'; `semiseg train"),
        (["train", "cac_shapes", "--method.ramp", "x"], "--method.ramp: must be a number, is 'x'; `semiseg train"),
        (["predict", "x", "y", "--precision", "fp8"], "expected one of auto, bf16, fp16, fp32, tf32; `semiseg predict"),
        (["predict"], "Missing from semiseg predict: CHECKPOINT A run's folder"),
        (
            ["evaluate", "run", "--protocl", "whole"],
            "--protocl, whole; perhaps you meant --protocol; `semiseg evaluate --",
        ),
        (["splits", "draw"], "Missing from semiseg splits draw: --out PATH"),
        (["bench", "--sizez", "tiny"], "perhaps you meant --sizes"),
    ],
)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_what_is_wrong_with_a_command_line_is_one_line(refused, monkeypatch, arguments, says, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert says in refused(*arguments)


def test_a_tilde_behind_an_equals_sign_is_the_users_home(semiseg, folder_root, monkeypatch, tmp_path):
    """Shells leave it as it is."""
    root = folder_root()
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = semiseg("show", "--layout=folder", "--data=~/own", "a000", "--out=~/sheet.png")
    assert (code, err) == (0, "")
    assert (tmp_path / "sheet.png").exists()
    assert root == tmp_path / "own"


def test_missing_root(refused, tmp_path, train, small):
    assert "nowhere" in refused(*train(tmp_path / "nowhere"))
    assert "--data" in refused("train", "cac_voc", *small)


def test_list_naming_a_missing_file(refused, voc_root, tmp_path, train):
    root = voc_root()
    (tmp_path / "labeled.txt").write_text("2007_000001\n2099_000001\n")
    assert "2099_000001" in refused(*train(root, split=tmp_path / "labeled.txt"))


def test_truncated_jpeg(refused, voc_root, train):
    root = voc_root()
    path = root / "JPEGImages/2007_000002.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert "2007_000002.jpg" in refused(*train(root))


def test_mask_of_another_size(refused, voc_root, train):
    root = voc_root()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "SegmentationClass/2007_000002.png")
    assert "2007_000002.png" in refused(*train(root))


def test_rgb_mask(refused, voc_root, train):
    root = voc_root()
    Image.fromarray(np.full((40, 56, 3), (9, 0, 0), np.uint8)).save(root / "SegmentationClass/2007_000002.png")
    assert "2007_000002.png is in colour and shows #090000" in refused(*train(root))


def test_label_value_outside_the_classes(refused, voc_root, train):
    root = voc_root()
    Image.fromarray(np.full((40, 56), 77, np.uint8)).save(root / "SegmentationClass/2007_000002.png")
    line = refused(*train(root))
    assert "2007_000002.png" in line
    assert "77" in line


def test_class_list_of_another_length_than_the_checkpoint(refused, semiseg, voc_root, folder_root, tmp_path, train):
    assert semiseg(*train(voc_root(), "--out", tmp_path / "run"))[0] == 0
    line = refused("evaluate", tmp_path / "run", "--data", voc_root_with_classes(voc_root, 5), "--device", "cpu")
    assert "21" in line
    assert "5" in line


def voc_root_with_classes(voc_root, count: int):
    root = voc_root(level="other/VOC2012")
    (root / "classes.txt").write_text("".join(f"class{number}\n" for number in range(count)))
    return root


def test_an_id_that_is_labelled_and_in_val(refused, voc_root, tmp_path, train):
    root = voc_root()
    (tmp_path / "labeled.txt").write_text("2007_000001\n2007_000009\n")
    assert "2007_000009" in refused(*train(root, split=tmp_path / "labeled.txt"))


def test_no_unlabelled_images(refused, voc_root, train):
    assert "unlabelled" in refused(*train(voc_root(), recipe="cps_voc", split="all"))


def test_crop_that_the_grid_of_pairs_does_not_divide(refused, voc_root, train):
    line = refused(*train(voc_root(), "--crop", "50", recipe="cac_voc"))
    assert "48 or 56" in line


def test_unknown_backbone(refused, voc_root, train):
    assert "did you mean resnet50" in refused(*train(voc_root(), "--backbone", "resnet5"))
    assert "--network dpt" in refused(*train(voc_root(), "--backbone", "dinov2_small"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(refused, voc_root, train):
    assert "--device" in refused(*train(voc_root(), "--device", "cuda"))


def test_a_file_that_is_no_checkpoint(refused, tmp_path):
    (tmp_path / "notes.safetensors").write_text("hello")
    assert "notes.safetensors" in refused("evaluate", tmp_path / "notes.safetensors")
    assert "neither a checkpoint" in refused("evaluate", tmp_path / "none")


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
