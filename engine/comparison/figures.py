"""What a comparison looks like: curves, means with a dot for every seed, and what each class gains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..page import figure_of, svg
from .results import Finished, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASELINE = "#767676"
COLOURS = ("#4477aa", "#ee6677", "#228833", "#e69f00", "#66ccee", "#aa3377", "#8c564b", "#000000", "#bcbd22", "#4b0082")
"""Told apart by all eyes as far as ten can be (Paul Tol, bright, and some more)."""
WIDTH = 11.5
"""Inches of every figure."""
COLUMNS = 3
"""Panels side by side."""
FEWEST = 8
"""Bars that a panel has room for at least."""
LONGEST = 24
"""Characters of a class's name that a figure has room for."""


def colours_of(baseline: str, rivals: Sequence[str]) -> dict[str, str]:
    """The colour of each method, the same in every figure."""
    return {baseline: BASELINE} | dict(zip(rivals, cycle(COLOURS)))


def curves(lines: Sequence[Line], colours: dict[str, str]) -> str:
    """Validation mIoU over steps, a panel for each share: every seed thin, their mean bold, between them a band. An
    axis begins at the lowest score after the first quarter of the evaluations, in which methods learn the most."""
    shares = list(dict.fromkeys(line.share for line in lines))
    panels = _panels(shares, height=4.4)
    late, scores = [], []
    for line in lines:
        axes, colour = panels[line.share], colours[line.method]
        runs = [_scores(run) for run in line.runs]
        for run in runs:
            axes.plot(list(run), list(run.values()), color=colour, linewidth=0.8, alpha=0.55)
        steps = sorted(set.intersection(*map(set, runs)))
        late += [run[step] for run in runs for step in steps[len(steps) // 4 :]]
        scores += [score for run in runs for score in run.values()]
        at = [[run[step] for run in runs] for step in steps]
        axes.plot(steps, [fmean(values) for values in at], color=colour, linewidth=2.2, marker="o", markersize=3)
        axes.fill_between(steps, [min(v) for v in at], [max(v) for v in at], color=colour, alpha=0.1, linewidth=0)
    low, high = min(_known(late), default=0), max(_known(scores), default=0)
    spare = 0.1 * (high - low) + 0.1
    for share, axes in panels.items():
        axes.set_title(f"labels: {share}", parse_math=False)
        axes.set(xlabel="step", ylabel="validation mIoU, %", ylim=(low - spare, high + spare))
    return _drawn(panels)


def bars(lines: Sequence[Line], colours: dict[str, str]) -> str:
    """Mean mIoU of each method by share, best and last, and below the gain over the baseline; a dot is a seed."""
    figure = figure_of(figsize=(WIDTH, 6.4), layout="constrained")
    (best, last), (best_gain, last_gain) = figure.subplots(2, 2, sharey="row")
    for axes, gains, name in ((best, best_gain, "best"), (last, last_gain, "last")):
        scores = [(line, [100 * _number(run.result[name]) for run in line.runs]) for line in lines]
        differences = [(line, [100 * gain for gain in line.gains(name)]) for line in lines]
        _bars(axes, scores, colours)
        _bars(gains, differences, colours)
        axes.set_title(f"mIoU, {name} evaluation, %")
        gains.set_title(f"gain over the baseline, {name} evaluation, points")
        gains.axhline(0, color="#222", linewidth=0.8)
    return svg(figure)


def class_gains(lines: Sequence[Line], baseline: Line, colours: dict[str, str]) -> str:
    """What each class gains over the baseline at one share by the last evaluation, a panel a method; a dot is a seed.
    Classes that are not there are left out."""
    scored = [run.result["iou"] for run in baseline.runs]
    classes = [name for name in scored[0] if any(iou.get(name) is not None for iou in scored)]
    panels = _panels([line.method for line in lines], height=0.9 + 0.24 * len(classes), share_axes=True)
    for line in lines:
        axes, colour = panels[line.method], colours[line.method]
        for place, name in enumerate(classes):
            pairs = [[one.result["iou"].get(name) for one in pair] for pair in line.pairs]
            gains = [100 * (iou - other) for iou, other in pairs if None not in (iou, other)]
            if gains:
                axes.barh(place, fmean(gains), color=colour, alpha=0.45, height=0.72)
                axes.plot(gains, [place] * len(gains), "o", color=colour, markersize=3.2)
        axes.axvline(0, color="#222", linewidth=0.8)
        axes.set_title(line.method, parse_math=False)
        axes.set(xlabel="points")
    first = next(iter(panels.values()))
    shown = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in classes]
    first.set_yticks(range(len(classes)), shown, parse_math=False)
    first.set_ylim(len(classes) - 0.4, -0.6)
    return _drawn(panels)


def _bars(axes: Axes, values: Sequence[tuple[Line, list[float]]], colours: dict[str, str]) -> None:
    """Grouped by share."""
    groups: dict[str, list[tuple[str, list[float]]]] = {}
    for line, numbers in values:
        if known := _known(numbers):
            groups.setdefault(line.share, []).append((colours[line.method], known))
    start, middles = 0, []
    for group in groups.values():
        for place, (colour, numbers) in enumerate(group, start):
            axes.bar(place, fmean(numbers), color=colour, alpha=0.45, width=0.8)
            axes.plot([place] * len(numbers), numbers, "o", color=colour, markersize=3.6)
        middles.append(start + (len(group) - 1) / 2)
        start += len(group) + 1
    spare = max(FEWEST - (start - 1), 0) / 2  # so that few bars are no walls
    axes.set_xlim(-0.7 - spare, start - 1.3 + spare)
    axes.set_xticks(middles, [f"labels: {share}" for share in groups], parse_math=False)
    _plain(axes)


def _panels(names: Sequence[str], *, height: float, share_axes: bool = False) -> dict[str, Axes]:
    """An empty panel for each name, so many in a row."""
    columns = min(len(names), COLUMNS)
    rows = -(-len(names) // columns)
    width = WIDTH if columns > 1 else 0.7 * WIDTH
    figure = figure_of(figsize=(width, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_axes, sharey=share_axes or "row").flatten()
    for axes in grid[len(names) :]:
        axes.remove()
    for axes in grid[: len(names)]:
        _plain(axes)
        axes.tick_params(labelbottom=True)
    return dict(zip(names, grid))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="#eee", linewidth=0.8)
    axes.set_axisbelow(True)


def _drawn(panels: dict[str, Axes]) -> str:
    return svg(next(iter(panels.values())).figure)  # type: ignore[arg-type]


def _scores(run: Finished) -> dict[int, float]:
    """Validation mIoU in per cent, by step."""
    return {line["step"]: 100 * _number(line["val/miou"]) for line in run.entry.run.log if "val/miou" in line}


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _number(value: Any) -> float:
    return math.nan if value is None else value
