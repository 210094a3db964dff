"""The plots of the documentation, from the rows that are committed: `python benchmarks/plot.py` draws them anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.figure import Figure

import tables

COLUMNS = {"images_per_s": "training images/s", "processor_s_an_image": "processor seconds an image"}
WATERFALL, PHOTOGRAPHS = (tables.ROOT / "docs" / f"{name}.svg" for name in ("waterfall", "photographs"))
BASELINE, RIVAL, ALL = "#767676", "#4477aa", "#bbbbbb"
SETS = {
    "CamVid": ("camvid", ()),
    "CamVid, float32": ("camvid_fp32", ()),
    "CamVid, 4000 steps": ("camvid_settled", ()),
    "CamVid, crop 320": ("camvid_gpu", ()),
    "Animals of VOC": ("animals", tables.ANIMALS),
    "Animals of VOC, 2400 steps": ("animals_settled", tables.ANIMALS),
}
"""Photographs by their titles: the rows, and the classes that count, all of none."""


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


def gains() -> dict[str, dict[str, list[float]]]:
    """Of each of SETS by recipe and labels how many points of mIoU each run has gained, at its last evaluation, over
    the first recipe's run of the same draw."""
    found: dict[str, dict[str, list[float]]] = {}
    for title, (name, classes) in SETS.items():
        baseline, *others = tables.compared(name).values()
        before = {row["seed"]: tables.last(row, classes) for row in baseline}
        mean = 100 * fmean(before.values())
        named = f"{title}: {mean:.1f} % by {baseline[0]['method']}, {baseline[0]['labeled']} labelled"
        found[named] = {
            f"{rows[0]['method']}, {rows[0]['labeled']} labelled": [
                100 * (tables.last(row, classes) - before[row["seed"]]) for row in rows
            ]
            for rows in others
        }
    return found


def comparison(sets: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """The `gains` as bars of their means, with a dot for each run."""
    heights = [len(groups) for groups in sets.values()]
    figure = Figure(figsize=(8, 0.9 * len(sets) + 0.36 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(sets), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, (title, groups) in zip(panels, sets.items()):
        for place, (name, runs) in enumerate(groups.items()):
            colour = ALL if name.startswith("supervised") else RIVAL
            axes.barh(place, fmean(runs), color=colour, alpha=0.5, height=0.7)
            axes.text(max(*runs, fmean(runs), 0) + 0.2, place, f"{fmean(runs):+.1f}", va="center")
            axes.plot(runs, [place] * len(runs), "o", color=colour, markersize=4)
        axes.axvline(0, color=BASELINE, linewidth=1)
        axes.set_yticks(range(len(groups)), list(map(broken, groups)))
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xmargin(0.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.invert_yaxis()
    axes.set_xlabel("points of mIoU more; a dot is a draw of the labelled images")
    drawn(figure, path)


def broken(name: str) -> str:
    """With flags on a line of their own."""
    return name.replace(" --", "\n--")


def drawn(figure: Figure, path: Path) -> None:
    """The same file from the same rows, with its words as words."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "semiseg"}):
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    waterfall(tables.waterfalls(), WATERFALL)
    comparison(gains(), PHOTOGRAPHS)
