"""The tables of the documentation, from the rows that are committed: `python benchmarks/tables.py` writes them anew.

A table stands between `<!-- table NAME -->` and `<!-- end -->`. Of rows that were measured alike the newest counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rowfile import Row, committed, newest
from semiseg.engine.comparison.results import markdown
from semiseg.kernels import __all__ as OPERATORS
from trainings import ANIMALS, comparison, photographs, tuning

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "docs/performance.md",
    "docs/operations.md",
    "docs/results.md",
    "docs/tuning.md",
    "kernels/README.md",
)


def step(machine: str = "") -> str:
    """Of machines whose name begins so."""
    columns = ["method", "network", "precision", "input", "machine"]
    keys = ("method", "precision", "machine", "backbone", "crop", "batch", "backend", "compile", "graph", "load")
    lines = [
        [
            row["method"],
            f"{row['backbone']}, {row['batch']} x {row['crop']}",
            ", ".join([row["precision"], *(name for name in ("compile", "graph") if row[name] == "True")]),
            row["backend"],
            f"{row['machine']}{', ' + row['load'] if row['load'] else ''}",
            *(f"{float(row[name]):.2f}" for name in ("published_way", "ours", "ratio")),
        ]
        for row in newest("step", *keys)
        if row["machine"].startswith(machine)
    ]
    return markdown([*columns, "published way, images/s", "ours, images/s", "ratio"], lines)


def loader() -> str:
    rows = newest("loader", "loader", "kind", "machine")
    names = list(dict.fromkeys(row["loader"] for row in rows))
    found = {(row["loader"], row["kind"]): row for row in rows}
    columns = ["loader", "labelled images/s", "pairs/s", "labelled / plain", "pairs / plain"]
    lines = []
    for name in names:
        labeled, pairs = found[name, "labeled"], found[name, "pairs"]
        rates = [f"{float(row['rate']):.0f}" for row in (labeled, pairs)]
        lines.append([name, *rates, *(f"{float(row['ratio_to_plain']):.1f}" for row in (labeled, pairs))])
    return markdown(columns, lines)


WATERFALL = (
    "adds", "images/s", "times the first", "data wait", "CPU s/image", "GiB", "of the roof", "J/image",
    "first loss", "last loss", "difference",
)  # fmt: skip
ALIKE = ("machine", "device", "load", "method", "backbone", "crop", "batch", "steps", "threads", "network_threads")
"""What rows have in common that may be compared."""


def waterfalls() -> list[list[Row]]:
    """The newest rows of results/waterfall.csv, from the published way to ours, those that may be compared together."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in newest("waterfall", "row", *ALIKE):
        found.setdefault(tuple(row[key] for key in ALIKE), []).append(row)
    return list(found.values())


def waterfall_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of `WATERFALL`; the first row is what the others are compared with."""
    first = rows[0]
    return [
        [
            row["row"],
            f"{float(row['images_per_s']):.2f}",
            f"{float(row['images_per_s']) / float(first['images_per_s']):.2f}",
            f"{float(row['data_wait_pct']):.0f} %",
            *(f"{float(row[name]):.2f}" for name in ("processor_s_an_image", "memory_gib")),
            f"{float(row['roof_pct']):.0f} %",
            f"{float(row['joules_an_image']):.2f}" if row["joules_an_image"] else "",
            *(f"{float(row[name]):.4f}" for name in ("first_loss", "last_loss")),
            f"{float(row['last_loss']) - float(first['last_loss']):+.4f}",
        ]
        for row in rows
    ]


def waterfall() -> str:
    return "\n".join(f"{settings(rows[0])}:\n\n{markdown(WATERFALL, waterfall_lines(rows))}" for rows in waterfalls())


def settings(row: Row) -> str:
    """Of a waterfall, in words."""
    load = f", {row['load']}" if row["load"] else ""
    return (
        f"{row['method']}, {row['backbone']}, {row['batch']} x {row['crop']}, {row['steps']} steps, {row['machine']}, "
        f"threads of the network {row['network_threads']}, of the input {row['threads']}{load}"
    )


def kernels(chosen: Callable[[Row], bool]) -> str:
    """What a training step calls, beside the plain way."""
    keys = ("operator", "size", "mode", "provider")
    rows = [row for row in newest("kernels", *keys, "machine", "dtype") if chosen(row)]
    found = {tuple(row[key] for key in keys): row for row in rows}
    lines = []
    for (operator, size, mode, provider), row in found.items():
        if provider == "fused":
            both = found[operator, size, mode, "plain"], row
            times, memory = (
                [f"{float(one[name]):,.{digits}f}" for one in both] for name, digits in (("ms", 2), ("memory_mib", 0))
            )
            lines.append([f"`{operator}`", size, mode, *times, f"{float(row['speedup']):.1f}", *memory])
    return markdown(["operator", "size", "mode", "plain ms", "fused ms", "faster", "plain MiB", "fused MiB"], lines)


def on_gpu(row: Row) -> bool:
    return row["machine"].startswith("NVIDIA")


def on_cpu(row: Row) -> bool:
    """But depthwise convolutions, which have a table of their own."""
    return not on_gpu(row) and row["operator"] != "depthwise_conv2d"


def of_depthwise(row: Row) -> bool:
    """On a CPU; its values alone take what torch's take."""
    return row["operator"] == "depthwise_conv2d" and "backward" in row["mode"] and not on_gpu(row)


def unmeasured() -> str:
    """The operators of which results/kernels.csv has no row."""
    measured = {(row["operator"], on_gpu(row)) for row in newest("kernels", "operator", "machine")}
    operators = [name for name in OPERATORS if name != "box_mask"]
    lines = [
        [where, ", ".join(f"`{name}`" for name in operators if (name, gpu) not in measured)]
        for where, gpu in (("a GPU", True), ("a CPU", False))
    ]
    return markdown(["on", "operators without a row"], lines)


def kills() -> str:
    """Of each method and number of processes, over all rows."""
    found: dict[str, list[Row]] = {}
    for row in committed("kills"):
        several = f", {row['processes']} processes" if row["processes"] != "1" else ""
        found.setdefault(row["method"] + several, []).append(row)
    counted = ("kills", "timed", "placed", "torn")
    lines = [
        [
            name,
            ", ".join(dict.fromkeys(row["backend"] for row in rows)),
            f"{len(rows)}",
            *(f"{sum(int(row[kind]) for row in rows)}" for kind in counted),
            f"{sum(bool(row['different']) for row in rows)}",
        ]
        for name, rows in {**found, "all": [row for rows in found.values() for row in rows]}.items()
    ]
    columns = [
        "method",
        "input",
        "runs",
        "kills",
        "at a random time",
        "at a call",
        "behind half a file",
        "runs that ended otherwise",
    ]
    return markdown(columns, lines)


def save() -> str:
    keys = ("machine", "backbone", "crop", "batch", "precision", "device", "load")
    lines = [
        [
            f"{row['backbone']}, {row['batch']} x {row['crop']}, {row['precision']}",
            f"{row['machine']}{', ' + row['load'] if row['load'] else ''}",
            f"{float(row['state_mb']):.0f}",
            *(f"{float(row[name]):.2f}" for name in ("step_s", "copy_s", "write_s", "write_cpu_s", "lost_pct")),
        ]
        for row in newest("save", *keys)
    ]
    columns = ["network", "machine", "state, MB", "step, s", "copy, s", "write, s", "write, core s", "loss of time, %"]
    return markdown(columns, lines)


def growth() -> str:
    lines = [
        [
            *(
                row[name]
                for name in (
                    "method",
                    "backend",
                    "steps",
                    "memory_mib",
                    "bytes_a_step",
                    "more_descriptors",
                    "more_threads",
                )
            ),
        ]
        for row in newest("growth", "method", "backend", "steps", "machine")
    ]
    return markdown(
        ["method", "input", "steps", "memory, MiB", "growth, bytes a step", "descriptors more", "threads more"], lines
    )


def exchanged() -> str:
    """What each process of several hands over in a step, on GPUs."""
    lines = [
        [
            f"{row['method']}, {row['backbone']}, {row['batch']} x {row['crop']}",
            row["kind"],
            row["calls"],
            f"{int(row['bytes']):,}",
        ]
        for row in newest("scaling", "method", "links", "kind")
        if row["links"] == "NVLink" and int(row["calls"])
    ]
    return markdown(["a GPU's share", "kind", "calls", "bytes"], lines)


LINKS = ("NVLink", "PCIe")


def scaling() -> str:
    """Milliseconds of so many GPUs by kind, with either of the links."""
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for row in newest("scaling", "method", "processes", "links", "kind"):
        if row["links"] in LINKS:
            times = found.setdefault((row["method"], row["processes"]), {})
            times[row["links"], row["kind"]] = float(row["predicted_ms"])
    named = ("gradients", "batch statistics", "negatives")
    lines = []
    for (method, processes), times in found.items():
        kinds = [{kind: ms for (other, kind), ms in times.items() if other == links} for links in LINKS]
        computing = [(one.pop("step"), one.pop("contrast")) for one in kinds]
        exchanging = [sum(one.values()) for one in kinds]
        others = [sum(ms for kind, ms in one.items() if kind not in named) for one in kinds]
        whole = [sum(own) + ms for own, ms in zip(computing, exchanging)]
        cells = [[one.get(kind, 0.0) for one in kinds] for kind in named]
        cells += [others, [100 * ms / every for ms, every in zip(exchanging, whole)]]
        cells += [[int(processes) * own[0] / every for own, every in zip(computing, whole)]]
        step, contrast = computing[0]
        texts = [" / ".join(f"{value:.1f}" for value in cell) for cell in cells]
        lines.append([method, processes, f"{step:.1f}", f"{contrast:.1f}", *texts])
    columns = ["method", "GPUs", "step of one", "contrast", *named, "others", "exchange, % of the step"]
    return markdown([*columns, "times one GPU"], lines)


def gloo() -> str:
    lines = [
        [
            f"{row['method']}, {row['backbone']}, {row['batch']} x {row['crop']}",
            row["kind"], row["calls"], f"{int(row['bytes']):,}",
            *(f"{float(row[name]):.2f}" for name in ("predicted_ms", "quickest_ms", "median_ms")),
        ]
        for row in newest("scaling", "method", "links", "kind")
        if row["links"] == "gloo"
    ]  # fmt: skip
    columns = ["a process's share", "kind", "calls", "bytes", "predicted, ms", "quickest, ms", "median, ms"]
    return markdown(columns, lines)


def fuzz() -> str:
    """Of each kind of input, over all rows of the newest commit that it was tried at."""
    found: dict[str, list[Row]] = {}
    for row in committed("fuzz"):
        rows = found.setdefault(row["input"], [])
        rows[:] = [one for one in rows if one["commit"] == row["commit"]] + [row]
    lines = [
        [name.replace("_", " "), *(f"{sum(int(row[of]) for row in rows)}" for of in ("tried", "read", "found"))]
        for name, rows in found.items()
    ]
    return markdown(["kind of input", "tried", "made an input", "neither taken nor refused"], lines)


COMPARISONS = dict.fromkeys(
    (
        "shapes", "shapes_separate", "demo", "demo_bf16", "camvid", "camvid_32nd", "camvid_fp32", "camvid_weighted",
        "camvid_weighted_settled", "camvid_settled", "camvid_320", "camvid_gpu",
    ),
    (),
) | dict.fromkeys(("animals", "animals_settled"), ANIMALS)  # fmt: skip
"""Results of `semiseg compare` by their names, and the classes that a mean is of; none: all."""
TABLES: dict[str, Callable[[], str]] = {
    "step": step,
    "gpu": partial(step, "NVIDIA"),
    "loader": loader,
    "waterfall": waterfall,
    "kernels": partial(kernels, on_gpu),
    "kernels_cpu": partial(kernels, on_cpu),
    "depthwise": partial(kernels, of_depthwise),
    "unmeasured": unmeasured,
    **{name: partial(comparison, name, classes) for name, classes in COMPARISONS.items()},
    "photographs": photographs,
    "tuning": tuning,
    "kills": kills,
    "save": save,
    "growth": growth,
    "exchanged": exchanged,
    "scaling": scaling,
    "gloo": gloo,
    "fuzz": fuzz,
}


def written(text: str) -> str:
    """A page with its tables made anew."""

    def table(match: re.Match) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", table, text, flags=re.S)


def main() -> int:
    """Writes the tables; with --check only says whether they would change."""
    stale = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text()
        after = written(before)
        if after != before:
            stale.append(page)
            if "--check" not in sys.argv:
                path.write_text(after)
    print("\n".join(stale) or "all tables are those of the rows")
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
