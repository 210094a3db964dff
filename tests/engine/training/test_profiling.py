"""`--profile`: a trace of some steps, and what took longest in words."""

from __future__ import annotations

import gzip
import json
import re

from semiseg.engine import train
from semiseg.engine.training.profiling import PROFILED, SHOWN, SKIPPED


def test_a_profile_is_a_trace_of_some_steps_and_the_most_expensive_items(tiny, voc_root, capfd):
    said = []
    recipe = tiny("cps", data=voc_root(), steps=SKIPPED + PROFILED + 1, eval_every=SKIPPED + PROFILED + 1, profile=True)
    result = train(recipe, on_event=said.append)
    assert capfd.readouterr().err == ""
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
