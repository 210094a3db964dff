"""`semiseg compare`: what it prints and writes, what it refuses in one line, and how it goes on."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semiseg.pipelines.datasets import shapes

SMALL = [
    *("--backbone", "resnet18", "--head-width", "16", "--weights", "none", "--crop", "32", "--batch", "2"),
    *("--device", "cpu", "--backend", "host", "--precision", "fp32", "--log-every", "1"),
]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def refused(semiseg, tmp_path):
    """`refused("cac_folder", …)` -> the one line of an exit with code 2, after which no run has begun."""

    def run(*arguments) -> str:
        code, _, err = semiseg("compare", *arguments, "--out", tmp_path / "compared")
        assert code == 2, err
        assert not (tmp_path / "compared").exists()
        (line,) = [line for line in err.splitlines() if line.strip()]
        assert line.startswith("semiseg: ")
        return line

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name recipes, the baseline first: cac_cityscapes"),
        (["cac_folderr"], "no recipe is called 'cac_folderr'"),
        (
            ["cac_folder", "--stepz", "3"],
            "Unrecognized options: --stepz, 3; perhaps you meant --steps; `semiseg train cac_folder --help`",
        ),
        (["cac_folder", "--steps", "few"], "--steps"),
        (["cac_folder", "--seeds", "few"], "--seeds: must be a whole number, is 'few'; `semiseg compare"),
        (["supervised_folder", "cac_folder --method.weigth 1"], "--method.weigth"),
        (["supervised_shapes", "fixmatch_shapes", "--method.threshold", "1"], "flags of one recipe alone stand behind"),
        (["supervised_shapes", "fixmatch_shapes", "--method.ramp", "0.2"], "flags of one recipe alone stand behind"),
        (["supervised_folder", "cac_folder '"], "no name of a recipe"),
        (["cac_folder", "--seeds", "0"], "--seeds must be at least 1"),
        (["cac_folder", "--seed", "3"], "--seed: a comparison sets it; pass --seeds"),
        (["cac_folder", "--split=all"], "--split: a comparison sets it; pass --shares"),
        (["cac_folder --resume"], "--resume: a comparison sets it"),
        (["cac_folder --dry_run"], "--dry-run: a comparison sets it; pass it for all runs together"),
        (["cac_folder", "--requeue"], "--requeue: a comparison sets it; exit code 75 says that the job is to be asked"),
        (["cac_folder", "--verify-resume", "8"], "--verify-resume: a comparison sets it; try it by `semiseg train`"),
        (["cac_folder", "--baseline", "cps_folder"], "--baseline: 'cps_folder' is none of"),
        (["cac_folder"], "--data: the recipe cac_folder needs"),
        (["cac_folder", "--data", "/nowhere"], "/nowhere"),
        (["cac_folder", "--crop", "33", "--data", "."], "--crop"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_run_starts(refused, arguments, said):
    assert said in refused(*arguments)


def test_nothing_is_written_into_the_folder_of_a_run(semiseg, folder_root, tmp_path):
    (tmp_path / "recipe.json").touch()
    words = ["supervised_folder", "--data", folder_root(), "--out", tmp_path]
    code, _, err = semiseg("compare", *words)
    assert (code, err.strip()) == (2, f"semiseg: --out: {tmp_path} is the folder of a run: choose another folder")


def test_a_dry_run_tells_what_would_be_run(semiseg, folder_root, tmp_path):
    data, out = folder_root(), tmp_path / "compared"
    methods = ["supervised_folder", "cac_folder", "cac_folder --lr 0.5"]
    words = [*methods, "--data", data, "--seeds", 2, "--shares", "1/2", "all", "--out", out, "--dry-run", "--json"]
    code, text, err = semiseg("compare", *words, "--steps", "9")
    assert code == 0, err
    runs = json.loads(text)
    assert len(runs) == 12
    assert {run["state"] for run in runs} == {"to do"}
    commands = [shlex.split(run["command"]) for run in runs]
    assert commands[2] == [
        *("semiseg", "train", "cac_folder", "--data", str(data), "--steps", "9", "--lr", "0.5", "--split"),
        *("draw:1/2@0", "--seed", "0", "--out", str(out / "cac_folder_lr_0.5-1of2-seed0")),
    ]
    assert not out.exists()


def test_what_the_makefile_compares_can_be_compared(semiseg, own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "TRAIN", 16)
    monkeypatch.setattr(shapes, "VAL", 2)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    for name, out in (("DEMO", "runs/demo"), ("COMPARE", "runs/compare")):
        words = shlex.split(re.search(rf"^{name} := (.*)$", text, re.MULTILINE)[1])
        assert f"semiseg compare $({name}) --out {out}\n" in text
        code, _, err = semiseg("compare", *words, "--dry-run")
        assert code == 0, err


def test_a_comparison_that_is_killed_goes_on_and_ends_in_a_table_csv_and_a_page(
    semiseg, folder_root, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "compared"
    words = [
        "supervised_folder",
        "supervised_folder --lr 0.5",
        "--data",
        folder_root(),
        "--shares",
        "1/2",
        "--seeds",
        1,
        *SMALL,
    ]
    words = [*map(str, words), "--steps", "40", "--eval-every", "40", "--out", str(out), "--jobs", "1"]
    command = [sys.executable, "-m", "semiseg.engine.commands.main", "compare", *words]
    log = out / "supervised_folder-1of2-seed0/log.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 240
        while not log.exists() and time.monotonic() < end:
            time.sleep(0.01)
        code, _, err = semiseg("compare", *words)
        assert code == 2
        assert "another comparison is at work" in err
        os.kill(process.pid, signal.SIGKILL)
    # The run that was at work stops by itself, all saved.
    printed = Path(f"{log.parent}.log")
    while "stopped after step" not in printed.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    stopped = int(re.search(r"stopped after step (\d+)", printed.read_text())[1])
    assert stopped < 40

    code, text, err = semiseg("compare", *words, "--json")
    while "another comparison is at work" in err and time.monotonic() < end:  # until it is gone
        code, text, err = semiseg("compare", *words, "--json")
    assert code == 0, err
    assert f"at step {stopped}" in printed.read_text()
    baseline, rival = json.loads(text)["table"]
    assert (baseline["method"], baseline["last_gain"]) == ("supervised_folder", None)
    assert rival["last_gain"] == pytest.approx(rival["last"] - baseline["last"])
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == words[:2]
    assert len({row["checksum"] for row in rows}) == 1
    assert json.loads(text)["page"] == str(out / "comparison.html")
    assert words[1] in (out / "comparison.html").read_text()
    assert "mIoU best % | gain | mIoU last % | gain" in (out / "table.md").read_text()

    code, _, err = semiseg("compare", *words)  # finished: nothing is trained
    assert code == 0
    code, _, err = semiseg("compare", *words, "--steps", "41")
    assert code == 2
    assert "began with other settings: steps was 40 and is 41 now; ask for the same" in err


def test_a_run_that_diverges_is_missing_and_the_others_are_compared(semiseg, folder_root, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "compared"
    methods = ["supervised_folder --lr 1e30 --optimizer sgd", "supervised_folder"]
    words = [*methods, "--data", folder_root(), "--shares", "1/2", "--seeds", 1, "--steps", 3, "--out", out, *SMALL]
    code, text, err = semiseg("compare", *words, "--jobs", 1, "--json")
    assert code == 1
    document = json.loads(text)
    assert [line["method"] for line in document["table"]] == ["supervised_folder"]
    (missing,) = document["missing"]
    assert "lr_1e30" in missing
    assert Path(document["page"]).is_file()
    last = err.strip().splitlines()[-1]
    assert re.search(
        r"semiseg: supervised_folder --lr 1e30.* failed: --lr: the loss is .*; the same command tries again$", last
    )
