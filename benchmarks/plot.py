"""The plots of the documentation, from the rows that are committed: `python benchmarks/plot.py` draws them anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.figure import Figure

import tables

COLUMNS = {"images_per_s": "training images/s", "processor_s_an_image": "processor seconds an image"}
WATERFALL, CAMVID = (tables.ROOT / "docs" / f"{name}.svg" for name in ("waterfall", "camvid"))
BASELINE, RIVAL, ALL = "#767676", "#4477aa", "#bbbbbb"


def waterfall(groups: Sequence[Sequence[tables.Row]], path: Path) -> None:
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


def comparison(groups: Sequence[Sequence[tables.Row]], path: Path) -> None:
    """Mean mIoU of the last evaluation as bars, one a method and share, with a dot for each run; the first group is the
    baseline."""
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(groups)), layout="constrained")
    axes = figure.subplots()
    baseline, share = (groups[0][0][name] for name in ("method", "share"))
    for place, runs in enumerate(groups):
        scores = [100 * float(run["last"]) for run in runs]
        colour = RIVAL if runs[0]["method"] != baseline else BASELINE if runs[0]["share"] == share else ALL
        axes.barh(place, fmean(scores), color=colour, alpha=0.5, height=0.7)
        axes.text(max(*scores, fmean(scores)) + 1, place, f"{fmean(scores):.1f}", va="center")
        axes.plot(scores, [place] * len(scores), "o", color=colour, markersize=4)
    labels = [f"{runs[0]['method']}, {runs[0]['labeled']} labelled" for runs in groups]
    axes.set_yticks(range(len(groups)), labels)
    axes.set(xlabel="mIoU of the last evaluation, %; a dot is a run")
    axes.set_xmargin(0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    drawn(figure, path)


def drawn(figure: Figure, path: Path) -> None:
    """The same file from the same rows, with its words as words."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "semiseg"}):
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    waterfall(tables.waterfalls(), WATERFALL)
    comparison(list(tables.compared("camvid").values()), CAMVID)
