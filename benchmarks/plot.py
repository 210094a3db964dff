"""The plot of the documentation, from the rows that are committed: `python benchmarks/plot.py` draws it anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

import tables

COLUMNS = {"images_per_s": "training images/s", "processor_s_an_image": "processor seconds an image"}
PLOT = tables.ROOT / "docs" / "waterfall.svg"


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
    # The same file from the same rows, with its words as words.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "semiseg"}):
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    waterfall(tables.waterfalls(), PLOT)
