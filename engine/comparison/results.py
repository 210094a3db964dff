"""What came of the runs of a comparison: a row a run, a line a method and share, as CSV and as tables."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..disk import write_rows
from .entries import Comparison, Entry

MEASURED = {"images_per_s": 1, "data_wait_pct": 1, "memory_gib": 2}
"""Numbers of the results that the table has means of, and their digits."""
RESULT = {
    "split": str,
    "checksum": str,
    "labeled": int,
    "unlabeled": int,
    "steps": int,
    "best": float | None,
    "best_step": int,
    "last": float | None,
    "pixel_accuracy": float | None,
    **dict.fromkeys((*MEASURED, "seconds"), float),
    "beside": dict,
    "iou": dict,
}
ENVIRONMENT = {"gpu": str | None, "processor": str, "threads": int, "packages": dict, "commit": str | None}
"""What of the files of a run is read here."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is finished."""

    entry: Entry
    result: dict[str, Any]
    """Its result.json."""
    environment: dict[str, Any]
    """The machine that it began on."""

    @classmethod
    def read(cls, entry: Entry) -> Finished:
        """Raises UsageError where its files are damaged."""
        run = entry.run
        return cls(entry, run.read_json("result.json", RESULT), run.read_json("environment.json", ENVIRONMENT))

    @property
    def on_gpu(self) -> bool:
        return self.environment["gpu"] is not None and self.entry.recipe.runtime.device != "cpu"

    @property
    def hours(self) -> float:
        """Hours of a GPU; without one, of processor cores."""
        return self.result["seconds"] / 3600 * (1 if self.on_gpu else self.environment["threads"])

    def row(self) -> dict[str, Any]:
        """For results.csv: shares in [0, 1], times in seconds, the IoU of each class at the last step."""
        entry, result, environment = self.entry, self.result, self.environment
        return {
            "method": entry.method,
            "share": entry.share,
            "seed": entry.seed,
            **{name: result[name] for name in RESULT if name not in ("beside", "iou")},
            "machine": environment["gpu"] if self.on_gpu else environment["processor"],
            "threads": environment["threads"],
            "torch": environment["packages"].get("torch"),
            "commit": environment["commit"],
            "command": shlex.join(("semiseg", *entry.command)),
            **{f"{name}/last": miou for name, miou in result["beside"].items()},
            **{f"iou/{name}": iou for name, iou in result["iou"].items()},
        }


def finished_of(comparison: Comparison) -> list[Finished]:
    """What there is of the runs so far, in their order."""
    return [Finished.read(entry) for entry in comparison.entries if entry.run.finished]


def write_csv(path: Path, finished: Sequence[Finished]) -> None:
    """One row a run. The file is there whole, or as it was before."""
    rows = [one.row() for one in finished]
    columns = [*dict.fromkeys(name for row in rows for name in row)]
    write_rows(path, [columns, *([row.get(name) for name in columns] for row in rows)])


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over seeds."""

    mean: float
    deviation: float | None
    """None of a single value."""

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """None of no value; NaN where one is none."""
        if not values:
            return None
        known = [value for value in values if value is not None and not math.isnan(value)]
        if len(known) < len(values):
            return cls(math.nan, None)
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)

    def text(self, *, signed: bool = False) -> str:
        """In per cent, or in points with their sign."""
        if math.isnan(self.mean):
            return "-"
        deviation = "" if self.deviation is None else f" ± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:{'+' if signed else ''}.2f}{deviation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A method at a labelled share, over its seeds."""

    method: str
    share: str
    runs: tuple[Finished, ...]
    pairs: tuple[tuple[Finished, Finished], ...]
    """Each run beside the baseline's of its share and seed, where that is finished; empty for the baseline."""

    @property
    def best(self) -> Spread:
        return self._spread("best")

    @property
    def last(self) -> Spread:
        return self._spread("last")

    @property
    def best_gain(self) -> Spread | None:
        """Of the gains over the baseline; None where there are no pairs."""
        return Spread.of(self.gains("best"))

    @property
    def last_gain(self) -> Spread | None:
        return Spread.of(self.gains("last"))

    def _spread(self, name: str) -> Spread:
        spread = Spread.of([run.result[name] for run in self.runs])
        assert spread is not None  # a line has a run
        return spread

    def gains(self, name: str) -> list[float]:
        """How much more each run scores than the baseline's beside it; NaN where one of them has no score."""
        scores = [(run.result[name], baseline.result[name]) for run, baseline in self.pairs]
        return [math.nan if None in pair else pair[0] - pair[1] for pair in scores]

    def mean(self, name: str) -> float:
        """The runs' mean of a number of their results."""
        return statistics.fmean(run.result[name] for run in self.runs)

    @property
    def beside(self) -> list[str]:
        """The networks that are evaluated beside those that are saved as the best."""
        return [*self.runs[0].result["beside"]]

    def last_of(self, name: str) -> Spread | None:
        """Of the last scores of one of these."""
        return Spread.of([run.result["beside"].get(name) for run in self.runs])

    @property
    def labeled(self) -> tuple[int, int]:
        """The least and the largest number of labelled images: draws differ where masks are missing."""
        counts = [run.result["labeled"] for run in self.runs]
        return min(counts), max(counts)

    @property
    def hours(self) -> float:
        """Hours of all runs together."""
        return sum(run.hours for run in self.runs)


def lines_of(comparison: Comparison, finished: Sequence[Finished]) -> list[Line]:
    """A line for each method and share of which a run is finished; the baseline is the first of its share."""
    by_key = {(one.entry.method, one.entry.share, one.entry.seed): one for one in finished}
    lines = []
    for share in comparison.shares:
        for method in [comparison.baseline, *comparison.rivals]:
            runs = tuple(by_key[key] for seed in comparison.seeds if (key := (method, share, seed)) in by_key)
            if not runs:
                continue
            pairs = tuple(
                (run, by_key[key])
                for run in runs
                if method != comparison.baseline and (key := (comparison.baseline, share, run.entry.seed)) in by_key
            )
            lines.append(Line(method=method, share=share, runs=runs, pairs=pairs))
    return lines


def table(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, for a person: mean ± standard deviation over the seeds; gains in points."""
    hours = "GPU h" if any(run.on_gpu for line in lines for run in line.runs) else "core h"
    columns = ["method", "labelled", "steps", "seeds", "mIoU best %", "gain", "mIoU last %", "gain"]
    columns += ["images/s", "data wait %", "GiB", hours]
    rows = []
    for line in lines:
        result = line.runs[0].result
        scores = []
        for score, gain in ((line.best, line.best_gain), (line.last, line.last_gain)):
            fewer = f" (of {len(line.pairs)})" if len(line.pairs) < len(line.runs) else ""
            scores += [score.text(), gain.text(signed=True) + fewer if gain else ""]
        measured = [f"{line.mean(name):.{digits}f}" for name, digits in MEASURED.items()]
        seeds = f"{len(line.runs)} ({', '.join(str(run.entry.seed) for run in line.runs)})"
        labeled = "-".join(map(str, sorted(set(line.labeled))))
        counts = [f"{labeled} ({line.share})", f"{result['steps']}", seeds]
        rows.append([line.method, *counts, *scores, *measured, f"{line.hours:.2f}"])
    return columns, rows


def higher_beside(lines: Sequence[Line]) -> list[str]:
    """A word where networks that are evaluated beside those that are saved as the best end higher on the mean, as a
    student whose teacher lags does after few steps."""
    told = []
    for line in lines:
        for name in line.beside:
            scores = [(run.result["beside"].get(name), run.result["last"]) for run in line.runs]
            pairs = [(one, last) for one, last in scores if one is not None and last is not None]
            if not pairs or statistics.fmean(one - last for one, last in pairs) <= 0:
                continue
            higher, mean = sum(one > last for one, last in pairs), statistics.fmean(one for one, _ in pairs)
            told.append(
                f"{line.method}, {line.share}: the {name} ends higher in {higher} of {len(pairs)} runs, with "
                f"{100 * mean:.2f} % on the mean (last-{name}.safetensors)"
            )
    return told


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as GitHub shows it."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [columns, ["---"] + ["---:"] * (len(columns) - 1), *cells])


def plain_lines(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The lines for JSON: shares in [0, 1], means and `_sd` over the seeds; None where there is no number."""

    def pair(name: str, spread: Spread | None) -> dict[str, float | None]:
        values = (spread.mean, spread.deviation) if spread else (None, None)
        return {
            key: None if v is None or math.isnan(v) else v for key, v in zip((name, f"{name}_sd"), values, strict=True)
        }

    return [
        {
            "method": line.method,
            "share": line.share,
            "labeled": line.labeled[0],
            "labeled_most": line.labeled[1],
            "seeds": len(line.runs),
            "steps": line.runs[0].result["steps"],
            **pair("best", line.best),
            **pair("best_gain", line.best_gain),
            **pair("last", line.last),
            **pair("last_gain", line.last_gain),
            **{f"{name}_last": pair("last", line.last_of(name))["last"] for name in line.beside},
            "gain_seeds": len(line.pairs),
            **{name: line.mean(name) for name in MEASURED},
            "hours": line.hours,
        }
        for line in lines
    ]
