"""`--profile`: a trace of some steps, and what took longest in words."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import re

from semiseg.engine import train
from semiseg.engine.training.profiling import PROFILED, SHOWN, SKIPPED


def test_the_profiler_s_own_log_is_silent(tiny, voc_root, tmp_path, capfd):
    """In a process of its own: a profiler that was at work before has read how much to say."""
    out = tmp_path / "run"
    recipe = tiny("supervised", data=voc_root(), steps=SKIPPED + PROFILED, profile=True, out=out, backbone="resnet18")
    child = multiprocessing.get_context("spawn").Process(target=train, args=(recipe,))
    child.start()
    child.join()
    assert (child.exitcode, capfd.readouterr().err) == (0, "")
    assert (out / "trace.json.gz").exists()


def test_a_profile_is_a_trace_of_some_steps_and_the_most_expensive_items(tiny, voc_root):
    said = []
    recipe = tiny("cps", data=voc_root(), steps=SKIPPED + PROFILED + 1, eval_every=SKIPPED + PROFILED + 1, profile=True)
    result = train(recipe, on_event=said.append)
    with gzip.open(result.out / "trace.json.gz") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("cat") == "user_annotation"]
    for name in ("plan", "decode", "collate", "losses", "gradients", "optimizer"):
        assert any(event["name"] == name for event in events), name
    assert sum(event["name"] == "losses" for event in events) == PROFILED
    (text,) = [event.text for event in said if "most expensive" in event.text]
    items = re.findall(r"^ +(\d+\.\d+) +(\d+\.\d)%  \S", text, re.MULTILINE)
    assert len(items) == SHOWN
    times = [float(time) for time, _ in items]
    assert times == sorted(times, reverse=True)
    assert 0 < sum(float(share) for _, share in items) <= 100.5
    assert f"trace of {PROFILED} steps: {result.out / 'trace.json.gz'}" in text


def test_a_run_too_short_to_be_profiled_says_so(tiny, voc_root):
    said = []
    result = train(tiny("supervised", data=voc_root(), steps=3, profile=True), on_event=said.append)
    assert not (result.out / "trace.json.gz").exists()
    assert any(event.text.startswith("no trace: steps 6 to 10 of a process are profiled") for event in said)
