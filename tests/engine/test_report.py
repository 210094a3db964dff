"""The report of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from semiseg.engine import report
from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.data import prepare_data
from semiseg.engine.models import build_network
from semiseg.engine.pictures import coloured
from semiseg.engine.recipe import Recipe
from semiseg.engine.report import read_samples, write_report, write_samples
from semiseg.engine.run import Run
from semiseg.pipelines.decode import COLOUR, LABEL, read
from semiseg.pipelines.errors import UsageError

MARKUP = "<script>alert(1)</script>"


def begun(
    recipe: Recipe, folder: Path, log: str, name: str = "x", first: str = "a", step: int = 1, miou: float = 0.5
) -> Path:
    """The folder of a run with a best network, of that step and mIoU, and a log; named so, as is its split and its
    first class."""
    split = {"name": name, "checksum": name, "labeled": [], "unlabeled": [], "val": [], "classes": [first, "b"]}
    run = Run.create(folder, recipe.to_dict(), split | {"class_pct": {}, "contents": {}, "pictures": {}})
    run.close()
    network = build_network("cac", "resnet18", 2, head_width=16)
    header = header_of(recipe, network, (first, "b"), ((0, 0, 0), (1, 1, 1)), step=step, miou=miou)
    save_network(run.checkpoints / "best.safetensors", network.state_dict(), header, recipe)
    (folder / "log.jsonl").write_text(log)
    return folder


def test_a_log_without_an_evaluation_is_told(tiny, tmp_path):
    log = '{"step": 1, "loss": 2.0}\n{"step": 2, "val/mi'
    folder = begun(tiny("supervised", data=tmp_path), tmp_path / "run", log)
    with pytest.raises(UsageError, match=r"log\.jsonl holds no evaluation"):
        write_report(folder)


def test_what_stands_in_a_run_is_no_markup(tiny, tmp_path):
    """Of a run from elsewhere, in whose files anything may stand."""
    pseudo = {f"pseudo/class_pct/{MARKUP}": 100, f"pseudo/right_pct/{MARKUP}": 50}
    line = {"step": 1, "val/miou": 0.5, f"val/{MARKUP[:8]}/miou": 0.5, **pseudo}
    log = json.dumps(line) + "\n" + json.dumps(line | {"step": MARKUP}) + "\n"
    recipe = tiny("supervised", data=tmp_path, name=MARKUP)
    page = write_report(begun(recipe, tmp_path / "run", log, MARKUP, MARKUP)).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_warnings_are_shown_and_notes_are_folded(tiny, tmp_path):
    line = json.dumps({"step": 1, "val/miou": 0.5, "val/pixel_accuracy": 0.5, "val/iou/a": 0.5, "val/iou/b": 0.5})
    folder = begun(tiny("supervised", data=tmp_path), tmp_path / "run", f"{line}\n")
    assert "<h2>Warnings</h2>" not in write_report(folder).read_text()
    Run(folder).write_notes(["warning: --crop: 5 times smaller", f"data: {MARKUP}"])
    page = write_report(folder).read_text()
    assert "<h2>Warnings</h2><ul><li>--crop: 5 times smaller</li></ul>" in page
    assert "<summary>notes (1)</summary><ul><li>data: &lt;script&gt;" in page


def test_the_last_look_tells_of_each_class_what_counts_and_is_right(tiny, tmp_path):
    looks = [
        {"pseudo/kept_pct/a": kept, "pseudo/right_pct/a": right, "pseudo/kept_pct/b": None}
        for kept, right in ((10.0, 20.0), (30.0, 40.0))
    ]
    lines = [{"step": step, "val/miou": 0.5, "pseudo/class_pct/a": 100} | look for step, look in enumerate(looks, 1)]
    log = "".join(json.dumps(line) + "\n" for line in lines)
    page = write_report(begun(tiny("supervised", data=tmp_path), tmp_path / "run", log)).read_text()
    assert "<tr><td>a<td class='n'>30.0<td class='n'>40.0</tr>" in page
    assert "<tr><td>b<td class='n'>no such pixels<td class='n'>no such pixels</tr>" in page


@pytest.mark.parametrize(("bars", "title", "drawn"), [(1, "largest 1 of 2 classes", ["b"]), (2, "classes", ["a", "b"])])
def test_of_many_classes_the_largest_have_bars(tiny, tmp_path, monkeypatch, bars, title, drawn):
    monkeypatch.setattr(report, "BARS", bars)
    line = {"step": 1, "val/miou": 0.5, "pseudo/class_pct/a": 10, "pseudo/class_pct/b": 90}
    folder = begun(tiny("supervised", data=tmp_path), tmp_path / "run", json.dumps(line) + "\n")
    page = write_report(folder).read_text()
    chart = page[page.index("What unlabelled images teach") :]
    assert f"{title}, % of pixels" in chart
    assert re.findall(r"<text[^>]*>([ab])</text>", chart) == drawn


@pytest.mark.parametrize(("steps", "dots"), [((1,), 3), ((1, 2), 1)])
def test_a_run_of_one_log_line_is_drawn_as_dots(tiny, tmp_path, steps, dots):
    """Of the loss and of the learning rate, beside the one of the evaluation."""
    lines = [{"step": step, "loss": 2.0, "lr": 0.1} for step in steps] + [{"step": steps[-1], "val/miou": 0.5}]
    folder = begun(tiny("supervised", data=tmp_path), tmp_path / "run", "".join(json.dumps(x) + "\n" for x in lines))
    curves = write_report(folder).read_text().partition("<h2>Curves</h2>")[2].partition("<h2>")[0]
    assert len(re.findall(r'<g clip-path="[^"]+">\s*<use', curves)) == dots


def test_a_log_whose_lines_lost_values_is_drawn_as_far_as_it_goes(tiny, tmp_path):
    """As after a bit of a key was flipped; an environment.json that is damaged is told."""
    lines = [{"step": step, "loss": 2.0, "images_per_s": 3.0, "data_wait_pct": 5.0} for step in (1, 2, 3)]
    lines[1]["mfu_pct"] = 40.0  # of the part of a run that a known GPU made
    del lines[1]["images_per_s"], lines[2]["data_wait_pct"]
    lines += [{"step": 3, "val/miou": 0.25, "val/teacher/miou": 0.5}, {"step": 4, "val/miou": 0.5}]
    log = "".join(json.dumps(line) + "\n" for line in lines)
    folder = begun(tiny("supervised", data=tmp_path), tmp_path / "run", log)
    page = write_report(folder).read_text()
    for tile in (
        "images/s, median<b>3.0</b>",
        "data wait, median<b>5 %</b>",
        "peak memory<b></b>",
        "MFU<b>40 %</b>",
        "mIoU best<b>50.00 %</b>",
    ):
        assert tile in page
    (folder / "environment.json").write_text("{")
    with pytest.raises(UsageError, match=r"environment\.json: missing or damaged"):
        write_report(folder)
    assert (folder / "report.html").read_text() == page


def test_the_best_is_the_one_that_was_saved(tiny, tmp_path):
    """A kill may leave the line of a better network; the one that is kept is of step 0 here. Where the log has lost its
    line, or holds another of its step, nothing is known of its classes."""
    lines = [{"step": 0, "val/miou": 0.25, "val/iou/a": 0.375, "val/iou/b": 0.125}]
    lines += [{"step": 4, "val/miou": 0.75}, {"step": 7, "val/miou": 0.125, "val/iou/a": None}]
    log = "".join(json.dumps(x) + "\n" for x in lines)
    folder = begun(tiny("supervised", data=tmp_path), tmp_path / "run", log, step=0, miou=0.25)
    page = write_report(folder).read_text()
    for text in ("mIoU best<b>25.00 %</b>", "at step<b>0</b>", "mIoU last<b>12.50 %</b>", "of the network of step 0<"):
        assert text in page
    assert "<td>a<td class='n'>37.5<td class='n'>absent<td>" in page
    for lost in (lines[1:], [{"step": 0, "val/miou": 0.3, "val/iou/a": 0.5}, *lines[1:]]):
        (folder / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lost))
        page = write_report(folder).read_text()
        assert "mIoU best<b>25.00 %</b>" in page
        assert "at step<b>0</b>" in page
        assert "<td>a<td class='n'><td class='n'>absent<td>" in page
    (folder / "checkpoints/best.safetensors").rename(folder / "checkpoints/last.safetensors")
    assert "mIoU best<b>75.00 %</b>" in write_report(folder).read_text()


def test_an_evaluation_without_a_number_is_a_gap(tiny, tmp_path):
    lines = [{"step": step, "val/miou": score} for step, score in enumerate((0.5, 0.5, None, 0.6, 0.6))]
    page = write_report(
        begun(tiny("supervised", data=tmp_path), tmp_path / "run", "".join(json.dumps(x) + "\n" for x in lines))
    ).read_text()
    curve = re.search(r'<path d="(M[^"]*)" clip-path="[^"]*"[^>]*#1f77b4', page)[1]
    assert curve.count("M") == 2


def test_samples_are_read_as_they_were_written(tiny, voc_root, tmp_path):
    recipe = tiny("supervised", data=voc_root())
    data = prepare_data(recipe)
    run = Run(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    dataset = data.dataset
    network = build_network("cac", "resnet18", len(dataset.classes), head_width=16)
    header = header_of(recipe, network, dataset.classes, dataset.palette)
    save_network(run.checkpoints / "best.safetensors", network.state_dict(), header, recipe)
    write_samples(run, data.manifest, torch.device("cpu"))
    samples = read_samples(run)
    assert list(samples) == [record.id for record in data.val]
    for record in data.val:
        size = record.height, record.width
        image, truth, predicted = samples[record.id]
        np.testing.assert_array_equal(image, read(record.image, COLOUR, size))
        np.testing.assert_array_equal(truth, coloured(read(record.mask, LABEL, size), dataset.palette))
        assert predicted.shape == image.shape
        assert {*map(tuple, predicted.reshape(-1, 3))} <= {*map(tuple, dataset.palette)}
