"""The plots of the documentation, from the rows that are committed: `python benchmarks/plot.py` draws them anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.figure import Figure

import rowfile
import tables
import trainings

COLUMNS = {"images_per_s": "training images/s", "processor_s_an_image": "processor seconds an image"}
WATERFALL, PHOTOGRAPHS = (tables.ROOT / "docs" / f"{name}.svg" for name in ("waterfall", "photographs"))
BASELINE, RIVAL, ALL = "#767676", "#4477aa", "#bbbbbb"


def waterfall(groups: Sequence[Sequence[rowfile.Row]], path: Path) -> None:
    """Images a second, and seconds of processors an image, as bars; one group of rows below the other."""
    figure = Figure(figsize=(10, sum(0.8 + 0.32 * len(rows) for rows in groups)), layout="constrained")
    for pair, rows in zip(figure.subplots(len(groups), 2, sharey="row", squeeze=False), groups):
        for axes, (column, label) in zip(pair, COLUMNS.items()):
            values = [float(row[column]) for row in rows]
            bars = axes.barh([row["row"] for row in rows], values, color="#4c78a8")
            axes.bar_label(bars, [f"{value:.2f}  ({value / values[0]:.2f}x)" for value in values], padding=4)
            axes.set(xlabel=label, xlim=(0, 1.4 * max(values)))
            axes.spines[["top", "right"]].set_visible(False)
        pair[0].set_title(tables.settings(rows[0]), fontsize=9, loc="left")
        pair[0].invert_yaxis()
    drawn(figure, path)


def comparison(sets: Sequence[trainings.Gains], path: Path) -> None:
    """Bars of the means, with a dot for each run that has the baseline's labels."""
    heights = [len(one.points) for one in sets]
    figure = Figure(figsize=(8, 0.9 * len(sets) + 0.36 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(sets), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, one in zip(panels, sets):
        for place, (key, runs) in enumerate(one.points.items()):
            colour = RIVAL if key[1] == one.labeled else ALL
            axes.barh(place, fmean(runs), color=colour, alpha=0.5, height=0.7)
            axes.text(max(*runs, fmean(runs), 0) + 0.2, place, f"{fmean(runs):+.1f}", va="center")
            if colour == RIVAL:
                axes.plot(runs, [place] * len(runs), "o", color=colour, markersize=4)
        axes.axvline(0, color=BASELINE, linewidth=1)
        axes.set_yticks(range(len(one.points)), [broken(*key) for key in one.points])
        axes.set_title(headed(one), fontsize=9, loc="left")
        axes.set_xmargin(0.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.invert_yaxis()
    axes.set_xlabel("points of mIoU more; a dot is a draw of the labelled images")
    drawn(figure, path)


def headed(one: trainings.Gains) -> str:
    """What a panel shows, and what its gains are over."""
    return f"{one.title}: {100 * one.mean:.1f} % by {one.baseline}, {one.labeled} labelled"


def broken(method: str, labeled: str) -> str:
    """The name of a bar, with flags on a line of their own."""
    return f"{method}, {labeled} labelled".replace(" --", "\n--")


def drawn(figure: Figure, path: Path) -> None:
    """The same file from the same rows, with its words as words."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "semiseg"}):
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    waterfall(tables.waterfalls(), WATERFALL)
    comparison(trainings.gains(), PHOTOGRAPHS)
