"""The report of a run."""

from __future__ import annotations

import json

import pytest

from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.models import build_network
from semiseg.engine.report import write_report
from semiseg.engine.run import Run
from semiseg.pipelines.errors import UsageError

MARKUP = "<script>alert(1)</script>"


def test_a_log_without_an_evaluation_is_told(tiny, tmp_path):
    recipe = tiny("supervised", data=tmp_path)
    run = Run.create(tmp_path / "run", recipe.to_dict(), {"name": "x", "checksum": "", "labeled": [], "unlabeled": []})
    run.close()
    network = build_network("cac", "resnet18", 2, head_width=16)
    header = header_of(recipe, network, ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    save_network(run.checkpoints / "best.safetensors", network.state_dict(), header, recipe)
    (run.folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "val/mi')
    with pytest.raises(UsageError, match=r"log\.jsonl holds no evaluation"):
        write_report(run.folder)


def test_what_stands_in_a_run_is_no_markup(tiny, tmp_path):
    """Of a run from elsewhere, in whose files anything may stand."""
    recipe = tiny("supervised", data=tmp_path, name=MARKUP)
    split = {"name": MARKUP, "checksum": MARKUP, "labeled": [], "unlabeled": []}
    run = Run.create(tmp_path / "run", recipe.to_dict(), split)
    run.close()
    network = build_network("cac", "resnet18", 2, head_width=16)
    header = header_of(recipe, network, (MARKUP, "b"), ((0, 0, 0), (1, 1, 1)))
    save_network(run.checkpoints / "best.safetensors", network.state_dict(), header, recipe)
    line = {"step": 1, "val/miou": 0.5, f"val/{MARKUP[:8]}/miou": 0.5, f"pseudo/class_pct/{MARKUP}": 100}
    (run.folder / "log.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line | {"step": MARKUP}) + "\n")
    page = write_report(run.folder).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
