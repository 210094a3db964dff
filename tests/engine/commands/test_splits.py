"""`semiseg splits`, and runs on splits that have names."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from semiseg.engine.commands.splits import clean_text
from semiseg.pipelines.datasets import find_dataset, resolve_split
from semiseg.pipelines.datasets.registry import SPLITS, PublishedSplit, checksum

IDS = [f"2007_{number:06d}" for number in range(1, 7)]
SMALL = [
    *("--backbone", "resnet18", "--head-width", "16", "--weights", "none", "--crop", "32", "--batch", "2"),
    *("--steps", "1", "--threads", "1", "--device", "cpu", "--backend", "host"),
]


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """Two of the six training images of `voc_root`, under two names that differ by their pool."""
    for name, pool in (("voc-test-1/16", 6), ("voc-other-2", 4)):
        share = Fraction(1, 16) if "/" in name else None
        split = PublishedSplit(name, "voc", 2, pool, checksum(IDS[:2]), share, (1, 2), ("CPS",))
        monkeypatch.setitem(SPLITS, name, split)


def write(path, ids, form="{0}\n"):
    path.write_text("".join(form.format(id) for id in ids))
    return path


@pytest.mark.parametrize(
    "form",
    ["{0}\n", "{0}\r\n", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png\n", "/images/{0}.png\t/seg/{0}.png\n"],
)
def test_identify(semiseg, tmp_path, form):
    labeled = write(tmp_path / "l.txt", IDS[:2], form)
    code, text, _ = semiseg("splits", "identify", labeled, "--json")
    assert code == 0
    both = {"names": ["voc-test-1/16", "voc-other-2"], "dataset": "voc", "labeled": 2, "unlabeled": None}
    assert json.loads(text) == both
    code, text, _ = semiseg("splits", "identify", labeled, write(tmp_path / "u.txt", IDS[2:], form), "--json")
    assert json.loads(text) == both | {"names": ["voc-test-1/16"], "unlabeled": 4}
    code, text, _ = semiseg("splits", "identify", labeled)
    assert "voc-other-2: 2 labelled and 2 unlabelled images, 50-100 % of the labelled ones clean" in text


def test_identify_tells_what_it_found_of_an_unknown_list(semiseg, tmp_path):
    labeled = write(tmp_path / "l.txt", [f"x{number}" for number in range(1320)])
    code, text, err = semiseg("splits", "identify", labeled, "--json")
    assert code == 3
    assert json.loads(text) == {"names": [], "dataset": None, "labeled": 1320, "unlabeled": None}
    assert "1,320 ids" in err
    assert "voc-cps-1/8 (1,323, ae121d03)" in err
    code, _, err = semiseg("splits", "identify", write(labeled, IDS[:2]), write(tmp_path / "u.txt", IDS[2:5]))
    assert code == 3
    assert "voc-test-1/16 (4), voc-other-2 (2), but the other list leaves 3" in err


def test_check(semiseg, voc_root, tmp_path):
    root = voc_root()
    labeled, unlabeled = write(tmp_path / "l.txt", IDS[:2]), write(tmp_path / "u.txt", IDS[2:])
    data = ("--layout", "voc", "--data", root)
    code, text, _ = semiseg("splits", "check", labeled, unlabeled, *data)
    assert code == 0
    assert "voc-test-1/16: no fault found" in text
    write(unlabeled, [*IDS[1:], "2007_000009"])
    code, text, _ = semiseg("splits", "check", labeled, unlabeled)
    assert code == 2
    assert "1 labelled and unlabelled: 2007_000002" in text
    code, text, _ = semiseg("splits", "check", labeled, unlabeled, *data, "--json")
    assert code == 2
    shown = json.loads(text)
    assert not shown["ok"]
    assert [(fault["kind"], fault["ids"]) for fault in shown["faults"]] == [
        ("labelled and unlabelled", ["2007_000002"]),
        ("in val", ["2007_000009"]),
    ]
    assert semiseg("splits", "check", labeled, "--data", root)[0] == 2


def test_list_and_help(semiseg):
    code, text, _ = semiseg("splits", "list", "--json")
    assert code == 0
    listed = {split["name"]: split for split in json.loads(text)}
    assert listed["voc-cps-1/8"]["checksum"] == "ae121d03"
    assert listed.keys() == SPLITS.keys()
    assert "voc-u2pl-1/2" in semiseg("splits", "list")[1]
    assert "identify" in semiseg("splits", "--help")[1]
    assert semiseg("splits", "identfy")[0] == 2
    assert clean_text(SPLITS["voc-cps-1/8"]) == "15 %"


def test_a_run_on_a_published_name_records_it(semiseg, voc_root, tmp_path, monkeypatch):
    root, out = voc_root(), tmp_path / "run"
    monkeypatch.delenv("SEMISEG_LISTS", raising=False)
    run = ("train", "cps_voc", "--data", root, "--split", "voc-test-1/16", *SMALL, "--out", out)
    code, _, err = semiseg(*run)
    assert code == 2
    assert "--lists FOLDER" in err
    assert not out.exists()
    (tmp_path / "lists").mkdir()
    write(tmp_path / "lists/mine.txt", IDS[:2])
    code, text, err = semiseg(*run, "--lists", tmp_path / "lists")
    assert code == 0, err
    assert "the rest of the training images are unlabelled" in text
    recorded = json.loads((out / "split.json").read_text())
    assert (recorded["name"], recorded["names"]) == ("voc-test-1/16", ["voc-test-1/16"])
    assert recorded["checksum"] == checksum(IDS[:2])
    assert json.loads((out / "recipe.json").read_text())["split"] == "voc-test-1/16"
    doctor = ("doctor", "--layout", "voc", "--data", root, "--split", "voc-test-1/16")
    assert "checksum" in semiseg(*doctor, "--lists", tmp_path / "lists")[1]


def test_steps_follow_the_split_unless_they_are_given(semiseg, tmp_path):
    def steps(*arguments):
        code, text, err = semiseg("train", "cps_voc", "--dry-run", "--json", *arguments)
        assert code == 0, err
        shown = json.loads(text)
        return shown["effective"]["steps"], shown["published"]["steps"]

    assert steps() == steps("--split", "draw:30@0") == (39_338, 39_338)
    assert steps("--split", "voc-cps-1/16", "--backbone", "resnet101") == (39_680, 39_680)
    assert steps("--split", write(tmp_path / "l.txt", IDS[:2])) == (39_680, 39_680), "a file is known by its checksum"
    assert steps("--split", "draw:1/2@1", "--steps", "7") == (7, 39_660)


def test_a_bare_share_is_refused_before_any_data_is_wanted(semiseg):
    for recipe in ("cac_voc", "supervised_cityscapes"):
        code, _, err = semiseg("train", recipe, "--dry-run", "--split", "1/8")
        assert code == 2
        assert f"{'voc' if 'voc' in recipe else 'city'}-cac-0-1/8" in err


def test_a_draw_of_all_leaves_no_list_that_nothing_reads(semiseg, voc_root, tmp_path):
    source = "--layout", "voc", "--data", voc_root()
    code, text, err = semiseg("splits", "draw", *source, "--share", "6", "--out", tmp_path / "all", "--json")
    assert code == 0, err
    labeled = tmp_path / "all/labeled.txt"
    found = json.loads(text)
    assert (found["labeled"], found["unlabeled"]) == (str(labeled), None)
    assert [*labeled.parent.iterdir()] == [labeled]
    assert semiseg("splits", "check", labeled, *source)[0] == 0


def test_what_is_drawn_is_read_back_whatever_names_there_are(semiseg, folder_root, tmp_path):
    """Another image may have the name without the blanks at its ends, or what its backslash seems to separate."""
    root = folder_root(masked=8, bare=0)
    for number, id in enumerate(["a", " a", "a ", "b/c", "b\\c", "b/c "]):
        for old, end in ((root / "images", ".jpg"), (root / "masks", ".png")):
            (old / f"{id}{end}").parent.mkdir(exist_ok=True)
            (old / f"a00{number}{end}").rename(old / f"{id}{end}")
    source = "--layout", "folder", "--data", root
    for share in ("2", "3", "6"):
        code, _, err = semiseg("splits", "draw", *source, "--share", share, "--out", tmp_path / share)
        assert code == 0, err
        labeled, *unlabeled = sorted((tmp_path / share).iterdir())
        dataset = find_dataset("folder", root)
        drawn = resolve_split(f"draw:{share}@0", dataset)
        read = resolve_split(",".join(map(str, (labeled, *unlabeled))), dataset)
        assert (read.labeled, set(read.unlabeled)) == (drawn.labeled, set(drawn.unlabeled))
        code, text, _ = semiseg("splits", "check", labeled, *unlabeled, *source, "--json")
        assert (code, json.loads(text)["labeled"]) == (0, int(share))
