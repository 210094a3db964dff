"""report.html: curves, per-class IoU, pictures, throughput and settings of a run, in one self-contained file."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..pipelines.datasets.manifest import Manifest, seen
from ..pipelines.errors import UsageError
from .checkpoint import Header, load_network
from .device import Precision
from .disk import write_text, writing
from .evaluation.inference import segment_within_memory
from .evaluation.scores import percent
from .events import WARNING, Event, Listener, note, silent
from .hyperparameters import shown, summary
from .page import embedded, figure_of, head, html_table, legend, svg
from .pictures import coloured
from .protocol import Protocol
from .recipe import Recipe
from .run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLES, GAP = 6, 6
"""How many there are, and the pixels between the panels of one."""
LONGEST = 800
"""Pixels, the long side of a panel: larger ones are shrunk."""
BARS = 24
"""Classes of which a chart has bars, at most: those with the most pixels."""
PSEUDO_LABELS = {
    "pseudo/kept_pct": "count",
    "pseudo/right_pct": "right, of those that count",
    "pseudo/disagreement_pct": "the networks disagree",
}
"""The log's keys, and what a curve is called."""


def write_samples(run: Run, manifest: Manifest, device: torch.device, on_event: Listener = silent) -> None:
    """samples/<id>.png: image, truth and the best checkpoint's prediction side by side, for a few validation images.
    One that is too large for the memory, or has changed, is left out, and a note says so."""
    checkpoint = load_network(run.folder)
    checkpoint.network.to(device).to(memory_format=torch.channels_last)
    folder = run.folder / "samples"
    folder.mkdir(exist_ok=True)
    val, protocol, precision = manifest.dataset.val, checkpoint.header.evaluation, Precision("fp32", device)
    numbers = np.unique(np.linspace(0, len(val) - 1, SAMPLES).round().astype(int))
    for done, number in enumerate(numbers):
        on_event(Event("progress", "samples", done, len(numbers)))
        sample = val[number]
        try:
            image, truth = seen(manifest, sample.id)
            predicted = segment_within_memory(sample.image, checkpoint.network, image, protocol, precision).labels
        except UsageError as error:
            note(f"report: without the picture of {error}", on_event)
            continue
        assert truth is not None  # validation images have masks
        masks = (_shrunk(mask, Image.Resampling.NEAREST) for mask in (truth, predicted))
        row = [_shrunk(image, Image.Resampling.BOX), *(coloured(mask, checkpoint.header.palette) for mask in masks)]
        gap = np.full((row[0].shape[0], GAP, 3), 255, np.uint8)
        picture = np.hstack([row[0], gap, row[1], gap, row[2]])
        path = folder / f"{sample.id}.png"  # ids of images in nested folders have slashes
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path):
            Image.fromarray(picture).save(path, "PNG")
    on_event(Event("progress", "samples", len(numbers), len(numbers)))


def _shrunk(pixels: np.ndarray, filter: Image.Resampling) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, no side longer than LONGEST."""
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST), filter)
    return np.asarray(image)


def read_samples(run: Run) -> dict[str, list[np.ndarray]]:
    """What `write_samples` has left, by the images' ids: image, truth and prediction, each (H, W, 3) uint8 RGB."""
    panels = {}
    for id, path in _sample_files(run).items():
        picture = np.asarray(Image.open(path).convert("RGB"))
        width = (picture.shape[1] - 2 * GAP) // 3
        starts = (number * (width + GAP) for number in range(3))
        panels[id] = [picture[:, at : at + width] for at in starts]
    return panels


def _sample_files(run: Run) -> dict[str, Path]:
    folder = run.folder / "samples"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))}


def write_report(folder: Path) -> Path:
    """Writes report.html from what the run's folder holds; returns its path."""
    run = Run.open(folder)
    recipe = run.recipe
    header = load_network(folder).header
    path = folder / "report.html"
    write_text(path, _page(run, recipe, header, run.log))
    return path


def _page(run: Run, recipe: Recipe, header: Header, lines: list[dict[str, Any]]) -> str:
    scored = [line for line in lines if "val/miou" in line]
    if not scored:
        raise UsageError(f"{run.folder}: log.jsonl holds no evaluation; go on with the run by --resume")
    trained = [line for line in lines if "loss" in line]
    saved = (run.checkpoints / "best.safetensors").exists()
    best = line_of_saved(scored, header) if saved else best_of(scored, recipe.protocol())
    tiles = {
        "mIoU best": f"{percent(best['val/miou'])} %",
        "at step": f"{best['step']}",
        "mIoU last": f"{percent(scored[-1]['val/miou'])} %",
        **{f"mIoU last, of the {name}": f"{percent(scored[-1][key])} %" for key, name in beside(scored[-1]).items()},
        "images/s, median": f"{np.median(rates):.1f}" if (rates := _values(trained, "images_per_s")) else "",
        "data wait, median": f"{np.median(waits):.0f} %" if (waits := _values(trained, "data_wait_pct")) else "",
        "peak memory": f"{max(memory):.2f} GiB" if (memory := _values(trained, "memory_gib")) else "",
        **({"MFU": f"{np.median(shares):.0f} %"} if (shares := _values(trained, "mfu_pct")) else {}),
    }
    numbers = (f"<div>{html.escape(name)}<b>{html.escape(value)}</b></div>" for name, value in tiles.items())
    split = run.split
    unlabeled = len(split["unlabeled"]) if recipe.views.windows else 0
    counts = f"{len(split['labeled'])} labelled and {unlabeled} unlabelled images"
    about = (
        f"{recipe.runtime.data or recipe.layout}, split {split['name']} [{split['checksum']}]: {counts}, "
        f"seed {recipe.seed}; {len(split['val'])} validation images, evaluated {recipe.protocol()}"
    )
    parts = [
        f"{head(recipe.name)}<h1>{html.escape(recipe.name)}</h1>",
        f"<p>{html.escape(about)}</p>",
        f"<div class='tiles'>{''.join(numbers)}</div>",
        *_notes(run),
        "<h2>Curves</h2>",
        _curves(trained, scored),
        *_pseudo_labels(run, scored, header),
        "<h2>IoU of each class</h2>",
        _classes(header, best, scored[-1]),
        f"<h2>Image, truth, prediction of the network of step {header.step}</h2>",
        _samples(run, header),
        "<h2>Speed and memory</h2>",
        _speed(trained),
        "<h2>Effective hyper-parameters</h2>",
        html_table((), [(name, shown(value)) for name, value in summary(recipe, len(header.classes)).items()], [1]),
        f"<details><summary>recipe.json</summary><pre>{_file(run, 'recipe.json')}</pre></details>",
        f"<details><summary>environment.json</summary><pre>{_file(run, 'environment.json')}</pre></details></html>",
    ]
    return "\n".join(parts)


def _notes(run: Run) -> Iterator[str]:
    """Warnings, open, and other notes, folded."""
    warnings, others = ([text for text in run.notes if text.startswith(WARNING) is of] for of in (True, False))
    if warnings:
        yield f"<h2>Warnings</h2>{_listed(text.removeprefix(WARNING) for text in warnings)}"
    if others:
        yield f"<details><summary>notes ({len(others)})</summary>{_listed(others)}</details>"


def _listed(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>"


def line_of_saved(scored: Sequence[dict[str, Any]], header: Header) -> dict[str, Any]:
    """The log line of the evaluation of the best checkpoint, without the classes where the log lost it. A kill may
    leave the line of a better network that was never saved, and a damaged save one of another network at that step."""
    known = {"step": header.step, "val/miou": header.miou}
    return next((line for line in scored if known.items() <= line.items()), known)


def best_of(scored: Sequence[dict[str, Any]], protocol: Protocol) -> dict[str, Any]:
    """The log line of the evaluation whose network is the best checkpoint; the last one where none gave a number."""
    best: dict[str, Any] = {}
    for line in scored:
        if line["val/miou"] is not None and protocol.prefers(line["val/miou"], best.get("val/miou", math.nan)):
            best = line
    return best or scored[-1]


def beside(line: dict[str, Any]) -> dict[str, str]:
    """The log's keys for the mIoU of networks that are evaluated beside the one that is saved, and their names."""
    parts = {key: key.split("/") for key in line}
    return {
        key: part[1]
        for key, part in parts.items()
        if len(part) == 3 and (part[0], part[2]) == ("val", "miou") and part[1] != "iou"
    }


def _values(lines: list[dict], name: str) -> list[float]:
    """The values of a name, of the lines that have it."""
    return [line[name] for line in lines if line.get(name) is not None]


def _curve(axes: Axes, lines: list[dict], name: str, **style: Any) -> None:
    """A value by its steps, where any line knows it; a single one is a dot, as no line could be seen."""
    known = [line for line in lines if line.get(name) is not None]
    if known:
        style = {"marker": "o" if len(known) == 1 else ""} | style
        axes.plot(_values(known, "step"), _values(known, name), **style)


def _label(axes: Axes, title: str, highest: float | None = None) -> None:
    """A title, and limits for curves over steps whose values start at 0: up to `highest`, or with room above what is
    the highest of them."""
    axes.set(title=title, xlabel="step")
    axes.set_xlim(left=0)
    if highest is not None:
        axes.set_ylim(0, highest)
        return
    highest = max((np.nanmax([0.0, *np.asarray(line.get_ydata())]) for line in axes.lines), default=0.0)
    if np.isfinite(highest) and highest > 0:
        axes.set_ylim(0, 1.06 * highest)


def _curves(trained: list[dict], scored: list[dict]) -> str:
    figure = figure_of(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name in sorted({name for line in trained for name in line if name.startswith("loss")}):
        _curve(left, trained, name, label=name.removeprefix("loss/"), linewidth=1)
    _label(left, "losses")
    if left.lines:
        left.legend(frameon=False)
    steps = [line["step"] for line in scored]
    for name, label in ({"val/miou": "the saved one"} | beside(scored[-1])).items():
        values = [math.nan if line.get(name) is None else 100 * line[name] for line in scored]
        middle.plot(steps, values, marker="o", markersize=3, label=label)
    if len(middle.lines) > 1:
        middle.legend(frameon=False)
    _label(middle, "validation mIoU, %")
    _curve(right, trained, "lr")
    _label(right, "learning rate")
    return svg(figure)


def _speed(trained: list[dict]) -> str:
    figure = figure_of(figsize=(11, 2.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _curve(left, trained, "images_per_s", label="total", linewidth=1)
    _curve(left, trained, "compute_images_per_s", label="without data wait", linewidth=1)
    _label(left, "images/s")
    if left.lines:
        left.legend(frameon=False)
    _curve(middle, trained, "data_wait_pct", linewidth=1)
    _label(middle, "data wait, %", 100)
    _curve(right, trained, "memory_gib", linewidth=1)
    _label(right, "peak memory, GiB")
    return svg(figure)


def _classes(header: Header, best: dict, last: dict) -> str:
    rows = ["<table><tr><th>class<th class='n'>best %<th class='n'>last %<th style='width:26em'></tr>"]
    for name, colour in zip(header.classes, header.palette, strict=True):
        values = [line.get(f"val/iou/{name}") for line in (best, last)]
        absent = ["" if f"val/iou/{name}" not in line else "absent" for line in (best, last)]
        texts = [none if value is None else f"{100 * value:.1f}" for value, none in zip(values, absent)]
        width = 100 * (values[0] or 0)
        rows.append(
            f"<tr><td>{html.escape(name)}<td class='n'>{texts[0]}<td class='n'>{texts[1]}"
            f"<td><div class='bar' style='width:{width:.1f}%;background:rgb{tuple(colour)}'></div></tr>"
        )
    return "".join(rows) + "</table>"


def _pseudo_labels(run: Run, scored: list[dict], header: Header) -> list[str]:
    """What unlabelled images taught: curves, the classes beside those of the labels, and of the last look how many of
    each class's pixels count and are right, and the views."""
    looks = [line for line in scored if any(name.startswith("pseudo/") for name in line)]
    if not looks:
        return []
    figure = figure_of(figsize=(11, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    for name, label in PSEUDO_LABELS.items():
        _curve(left, looks, name, label=label, marker="o", markersize=3)
    _label(left, "pseudo-labels, % of pixels", 100)
    if left.lines:
        left.legend(frameon=False)
    labels = {name: run.split["class_pct"].get(name, 0) for name in header.classes}
    taught = {name: looks[-1].get(f"pseudo/class_pct/{name}") or 0 for name in header.classes}
    largest = sorted(header.classes, key=lambda name: -max(labels[name], taught[name]))[:BARS]
    names = [name for name in header.classes if name in largest]
    places = np.arange(len(names))
    right.bar(places - 0.2, [labels[name] for name in names], 0.4, label="labels", color="#bbbbbb")
    right.bar(places + 0.2, [taught[name] for name in names], 0.4, label="pseudo-labels that count", color="#4477aa")
    title = f"largest {BARS} of {len(labels)} classes" if len(labels) > BARS else "classes"
    right.set_title(f"{title}, % of pixels", loc="left")
    right.set(ylabel="% (logarithmic)", yscale="symlog")
    right.set_xticks(places, names, rotation=40, ha="right", parse_math=False)
    right.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    sheet = run.folder / "views.png"
    picture = f"<p class='samples'>{embedded(sheet.read_bytes())}</p>" if sheet.exists() else ""
    return ["<h2>What unlabelled images teach</h2>", svg(figure), _sure_classes(looks[-1], header.classes), picture]


def _sure_classes(look: dict[str, Any], classes: Sequence[str]) -> str:
    """A row for each class: of what is called so, how much counts; of that, how much is right. What is known of them
    is a column; nothing without any."""
    columns = {"pseudo/kept_pct": "count, % of those called so", "pseudo/right_pct": "right, % of those that count"}
    known = [key for key in columns if any(f"{key}/{name}" in look for name in classes)]
    if not known:
        return ""
    rows = []
    for name in classes:
        values = [look.get(f"{key}/{name}") for key in known]
        rows.append([name, *("no such pixels" if value is None else f"{value:.1f}" for value in values)])
    head = ["pseudo-labels, last look", *(columns[key] for key in known)]
    return html_table(head, rows, range(1, len(head)))


def _samples(run: Run, header: Header) -> str:
    pictures = (f"<p>{html.escape(id)}{embedded(path.read_bytes())}</p>" for id, path in _sample_files(run).items())
    return f"{legend(header.classes, header.palette)}<div class='samples'>{''.join(pictures)}</div>"


def _file(run: Run, name: str) -> str:
    return html.escape(json.dumps(run.read_json(name), indent=1)) if (run.folder / name).exists() else ""
