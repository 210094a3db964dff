"""What trainings reached: the tables of comparisons and of what was tried, and what photographs gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rowfile import Row, committed
from semiseg.engine.comparison.results import Spread, markdown

ANIMALS = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
PHOTOGRAPHS = {
    "Animals of VOC": ("animals", ANIMALS),
    "Animals of VOC, longer": ("animals_settled", ANIMALS),
    "CamVid": ("camvid", ()),
    "CamVid, class weights": ("camvid_weighted", ()),
    "CamVid, longer": ("camvid_settled", ()),
    "CamVid, class weights, longer": ("camvid_weighted_settled", ()),
    "CamVid, crop 320": ("camvid_320", ()),
    "CamVid, crop 320, on a GPU": ("camvid_gpu", ()),
}
"""By their titles: the rows, and the classes that count, all of none."""


def compared(name: str) -> dict[tuple[str, str], list[Row]]:
    """The runs of a comparison, results/NAME.csv, by share and method."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in committed(name):
        groups.setdefault((row["share"], row["method"]), []).append(row)
    return groups


def last(row: Row, classes: Sequence[str] = ()) -> float:
    """The mIoU of a run's last evaluation, over some of the classes or as it was reported."""
    return fmean(float(row[f"iou/{one}"]) for one in classes) if classes else float(row["last"])


def comparison(name: str, classes: Sequence[str] = ()) -> str:
    """The results.csv of `semiseg compare`, committed as results/NAME.csv: its first method is the baseline. classes:
    those that the mean of the last evaluation is of, all by default."""
    groups = {key: {row["seed"]: row for row in rows} for key, rows in compared(name).items()}
    baseline = next(iter(groups))[1]
    lines = []
    for (share, method), runs in groups.items():
        beside = groups.get((share, baseline), {})
        gains = [
            last(row, classes) - last(beside[seed], classes)
            for seed, row in runs.items()
            if seed in beside and row is not beside[seed]
        ]
        first = next(iter(runs.values()))
        lines.append(
            [
                f"`{method}`",
                f"{first['labeled']} ({share})",
                first["steps"],
                f"{len(runs)}",
                Spread.of([last(row, classes) for row in runs.values()]).text(),
                Spread.of(gains).text(signed=True) if gains else "",
                *([Spread.of([float(row["best"]) for row in runs.values()]).text()] if not classes else []),
            ]
        )
    best = ["best mIoU %"] if not classes else []
    columns = ["recipe", "labelled images", "steps", "seeds", "last mIoU %", "gain", *best]
    return markdown(columns, lines)


def tuning() -> str:
    """Single runs that led to the settings of `recipes/own.py`; see docs/results.md."""
    columns = ["data", "method", "labelled", "steps", "batch", "long sides, pixels", "optimizer, lr, backbone"]
    columns += ["settings", "strong views", "pixels that count %", "of them right %", "last mIoU %"]
    lines = [
        [
            *(row[name] for name in ("data", "method", "labeled", "steps", "batch", "long_side")),
            f"{row['optimizer']} {row['lr']}, {row['backbone_lr']}",
            *(row[name] for name in ("settings", "strong_views", "kept_pct", "right_pct")),
            f"{100 * float(row['last']):.1f}",
        ]
        for row in committed("tuning")
    ]
    return markdown(columns, lines)


@dataclass(frozen=True)
class Gains:
    """Of a set of photographs, how many points of mIoU each run has gained at its last evaluation."""

    title: str
    steps: str
    baseline: str
    labeled: str
    mean: float
    """Of the baseline's runs, in [0, 1]."""
    points: dict[tuple[str, str], list[float]]
    """By recipe and labels. Over the baseline's run of the same draw; where other images are labelled, one number: the
    mean over the baseline's."""

    @property
    def draws(self) -> int:
        return max(map(len, self.points.values()))


def gains() -> list[Gains]:
    """Those of PHOTOGRAPHS; of a recipe that was trained as it is and with flags, as it is."""
    found = []
    for title, (name, classes) in PHOTOGRAPHS.items():
        groups = list(compared(name).values())
        as_they_are = {rows[0]["method"] for rows in groups}
        (first, *_), *others = groups
        before = {row["seed"]: last(row, classes) for row in groups[0]}
        one = Gains(title, first["steps"], first["method"], first["labeled"], fmean(before.values()), {})
        for rows in others:
            method, labeled = rows[0]["method"], rows[0]["labeled"]
            recipe, *flags = method.split()
            if flags and recipe in as_they_are:
                continue
            if labeled == one.labeled:
                points = [100 * (last(row, classes) - before[row["seed"]]) for row in rows]
            else:
                points = [100 * (fmean(last(row, classes) for row in rows) - one.mean)]
            one.points[method, labeled] = points
        found.append(one)
    return found


def photographs() -> str:
    """A row a set: the baseline, and what all labels and each method bring."""
    lines = []
    for one in gains():
        largest_first = sorted(one.points.items(), key=lambda item: -fmean(item[1]))
        told = {
            method.replace("_folder", "") if labeled == one.labeled else "all labels": f"{fmean(points):+.1f}"
            + (f" (of {len(points)})" if 1 < len(points) < one.draws else "")
            for (method, labeled), points in largest_first
        }
        whole, fixmatch = (told.pop(name, "") for name in ("all labels", "fixmatch"))
        others = ", ".join(f"`{method}` {gain}" for method, gain in told.items())
        lines.append([one.title, one.steps, str(one.draws), f"{100 * one.mean:.1f}", whole, fixmatch, others])
    columns = ["images", "steps", "draws", "supervised, mIoU %", "all labels", "FixMatch", "others"]
    return markdown(columns, lines)
