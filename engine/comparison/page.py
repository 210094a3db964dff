"""comparison.html: all runs of a comparison on one page, which is one file and needs no network."""

from __future__ import annotations

import html
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...pipelines.errors import UsageError
from ..checkpoint import Header, load_network
from ..disk import write_text
from ..evaluation.scores import percent
from ..hyperparameters import settings, shown
from ..page import embedded_picture, head, html_table, legend
from ..report import read_samples
from .entries import Comparison, split_of
from .figures import bars, class_gains, colours_of, curves
from .results import Finished, Line, higher_beside, lines_of, table

SIDE = 320
"""Pixels, the longer side of the largest picture."""
OWN_STYLE = """
body { max-width: 1200px } .wide td, .wide th { padding-right: 1em; vertical-align: top }
.results td, .results th { white-space: nowrap } .settings td, .settings th { font-size: 13px; max-width: 15em }
.methods { position: sticky; top: 0; background: #fffffff0; padding: .4em 0; z-index: 1; margin: 0 }
.methods i { border: 0; border-radius: 50% }
.sample { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 210px)); gap: 10px;
margin-bottom: 1.6em }
figure { margin: 0 } figure img { width: 100%; display: block } figcaption { font-size: 12px; overflow-wrap: anywhere }
figcaption b { border-bottom: 3px solid } .note { color: #666 }
"""


def write_page(comparison: Comparison, finished: Sequence[Finished]) -> Path:
    """Writes comparison.html into the comparison's folder from its finished runs; returns its path."""
    path = comparison.out / "comparison.html"
    write_text(path, _page(comparison, finished))
    return path


def _page(comparison: Comparison, finished: Sequence[Finished]) -> str:
    lines = lines_of(comparison, finished)
    colours = colours_of(comparison.baseline, comparison.rivals)
    header = next(filter(None, map(_header, finished)), None)
    classes = len(finished[0].result["iou"])
    recipe = finished[0].entry.recipe
    title = f"{len(comparison.methods)} methods on {recipe.runtime.data or recipe.layout}"
    anew = [share for share in comparison.shares if split_of(share, 0) != share]
    drawn = f", which are drawn anew for each seed at {', '.join(anew)}" if anew else ""
    seeds = f"seed{'s' if len(comparison.seeds) > 1 else ''} {', '.join(map(str, comparison.seeds))}"
    about = (
        f"{len(finished)} of {len(comparison.entries)} runs, {seeds}; baseline {comparison.baseline}; evaluated "
        f"{comparison.judged}. Runs of one share and seed have the same labelled images{drawn}."
    )
    named = "".join(
        f"<span><i style='background:{colours[method]}'></i>{html.escape(method)}</span>" for method in colours
    )
    parts = [
        f"{head(title, OWN_STYLE)}<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>",
        _lines(lines),
        "<p class='note'>Mean ± standard deviation over the seeds. Gains, in points, are over the baseline of the same "
        "share and seed. The best evaluation is chosen by the validation images themselves, the last is not.</p>",
        *(f"<p class='note'>{html.escape(told)}</p>" for told in higher_beside(lines)),
        f"<p class='legend methods'>{named}</p>",
        "<h2>Means and seeds</h2><p class='note'>A bar is the mean, a dot a seed.</p>",
        bars(lines, colours),
        "<h2>Curves</h2><p class='note'>Thin: a seed; bold: their mean; the band: from the least to the largest. "
        "An axis begins at the lowest score after the first quarter of the evaluations.</p>",
        curves(lines, colours),
        *_class_gains(comparison, lines, colours),
        *_samples(lines, header, colours),
        "<h2>Settings</h2>",
        _settings(lines, classes),
        "<h2>Runs</h2>",
        _runs(finished, comparison.out),
        "</html>",
    ]
    return "\n".join(parts)


def _header(run: Finished) -> Header | None:
    """The header of a run's network; None where its checkpoints were deleted, as they may be when it is finished."""
    try:
        return load_network(run.entry.folder).header
    except UsageError:
        return None


def _lines(lines: Sequence[Line]) -> str:
    columns, rows = table(lines)
    return f"<div class='results'>{html_table(columns, rows, numbers=range(1, len(columns)))}</div>"


def _class_gains(comparison: Comparison, lines: Sequence[Line], colours: dict[str, str]) -> Iterable[str]:
    for share in comparison.shares:
        own = [line for line in lines if line.share == share]
        rivals = [line for line in own if line.method != comparison.baseline]
        if rivals and len(rivals) < len(own):
            yield f"<h2>Gain of each class, labels: {html.escape(share)}</h2>"
            yield "<p class='note'>IoU over the baseline's, last evaluation; a bar is the mean, a dot a seed.</p>"
            yield class_gains(rivals, own[0], colours)


def _samples(lines: Sequence[Line], header: Header | None, colours: dict[str, str]) -> Iterable[str]:
    """The same images as each method sees them, of one seed of each share: the first that most methods have."""
    for share in dict.fromkeys(line.share for line in lines):
        own = [line for line in lines if line.share == share]
        seeds = Counter(run.entry.seed for line in own for run in line.runs)
        seed = max(sorted(seeds), key=seeds.__getitem__)
        runs = {line.method: run for line in own for run in line.runs if run.entry.seed == seed}
        if len(runs) == 1 and len(colours) > 1:  # nothing to lay side by side
            continue
        samples = {method: read_samples(run.entry.run) for method, run in runs.items()}
        yield f"<h2>The same images, labels: {html.escape(share)}, seed {seed}</h2>"
        yield legend(header.classes, header.palette) if header else ""
        for name in next(iter(samples.values())):
            image, truth, _ = next(iter(samples.values()))[name]
            panels = [_panel("image", image), _panel("truth", truth)]
            for method, pictures in samples.items():
                if name in pictures:
                    panels.append(_panel(method, pictures[name][2], colours[method]))
            yield f"<p>{html.escape(name)}</p><div class='sample'>{''.join(panels)}</div>"


def _panel(caption: str, picture: np.ndarray, colour: str = "transparent") -> str:
    """A picture no larger than a page has room for; masks keep their colours."""
    reduced, photograph = Image.fromarray(picture), caption == "image"
    reduced.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS if photograph else Image.Resampling.NEAREST)
    shown = embedded_picture(np.asarray(reduced), "JPEG" if photograph else "PNG")
    return f"<figure>{shown}<figcaption><b style='border-color:{colour}'>{html.escape(caption)}</b></figure>"


def _settings(lines: Sequence[Line], classes: int) -> str:
    """Those in which the methods differ, and below those in which all agree that have them; of the first share that
    each has. A method's own settings are among the former if not all have them."""
    known = {line.method: line.runs[0] for line in reversed(lines)}
    known = {line.method: known[line.method] for line in lines}
    values = {method: settings(run.entry.recipe, classes) for method, run in known.items()}
    names = dict.fromkeys(name for own in values.values() for name in own)
    different, alike = [], []
    for name in names:
        row = [shown(own[name]) if name in own else "" for own in values.values()]
        had = [shown(own[name]) for own in values.values() if name in own]
        if len(set(had)) > 1 or (name.startswith("method.") and len(had) < len(values)):
            different.append([name, *row])
        else:
            alike.append([name, had[0]])
    columns = ["", *values]
    numbers = range(1, len(columns))
    same = html_table(["", "all methods that have it"], alike, numbers=[1])
    shares = dict.fromkeys(line.share for line in lines)
    said = ", ".join(dict.fromkeys(run.entry.share for run in known.values()))
    note = f"<p class='note'>Of the runs with labels {html.escape(said)}.</p>" if len(shares) > 1 else ""
    return (
        f"{note}<div class='settings'>{html_table(columns, different, numbers)}</div>"
        f"<details><summary>the same for all</summary>{same}</details>"
    )


def _runs(finished: Sequence[Finished], out: Path) -> str:
    """Each run with its report and the command that makes it again; then the machines."""
    columns = ["run", "split", "best %", "at step", "last %", "seconds", "machine"]
    rows: list[list[str]] = []
    machines: dict[str, str] = {}
    commands: list[str] = []
    for one in finished:
        row, result = one.row(), one.result
        environment = {name: value for name, value in one.environment.items() if name != "command"}
        machine = machines.setdefault(json.dumps(environment, indent=1), f"{row['machine']} ({len(machines) + 1})")
        scores = [percent(result["best"]), f"{result['best_step']}", percent(result["last"])]
        split = f"{result['split']} [{result['checksum']}]"
        rows.append([str(one.entry), split, *scores, f"{result['seconds']:.0f}", machine])
        commands.append(shlex.join(("semiseg", *one.entry.command)))
    links = [f"{one.entry.folder.relative_to(out).as_posix()}/report.html" for one in finished]
    return (
        html_table(columns, rows, numbers=[2, 3, 4, 5], links=links)
        + f"<details><summary>commands</summary><pre>{html.escape(chr(10).join(commands))}</pre></details>"
        + "".join(
            f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>"
            for text, name in machines.items()
        )
    )
