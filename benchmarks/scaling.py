"""How steps scale to several GPUs, on paper: what processes exchange (exchange.py) against latency and bandwidth of
links that nobody has run it on; and how well such paper foretells two processes on CPUs.

    python benchmarks/scaling.py [--rounds 12] [--results FILE] [--load WORDS]

The two must exchange exactly what was told. How long each kind takes stands beside what the link predicts that explains
all-reduces of a few sizes. Of both the quickest round counts, as others may want the cores; the median is told, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console

import command
import measurement
import rowfile
from exchange import Exchange, by_kind, exchanges, on_gpus, share, taken
from semiseg.engine.methods.cac import STRIDE, CacConfig
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.errors import UsageError
from ways import voc_recipe

GPUS = (1, 2, 4, 8, 16, 32, 64)
GPUS_A_NODE = 8
CASES = {"cac": {"crop": 320, "batch": 8}, "cutmix_cps": {"crop": 512, "batch": 8}}
"""Of a GPU, as rows of results/step.csv have them, with ResNet-50."""
SMALL = {"backbone": "resnet18", "crop": 128, "batch": 2}
"""Of each of two processes on CPUs."""


@dataclass(frozen=True, slots=True)
class Link:
    """Between processes, each of which has one."""

    bandwidth: float
    """Bytes a second, in each direction."""
    latency: float
    """Seconds, of each of the rounds in which processes pair up."""

    def gather(self, size: float, count: int) -> float:
        """Seconds in which each of `count` processes gets what all others have, `size` bytes each."""
        return math.ceil(math.log2(count)) * self.latency + (count - 1) * size / self.bandwidth

    def reduce(self, size: float, count: int) -> float:
        """Seconds of a sum over `count`: each adds up a part of the `size` bytes, then gathers the others'."""
        return 2 * self.gather(size / count, count)


@dataclass(frozen=True, slots=True)
class Links:
    """Of a cluster."""

    name: str
    node: Link
    """Between the GPUs of a node."""
    network: Link
    """Between nodes, for each GPU."""
    hosts: Link
    """Between processes on hosts."""


NETWORK = Link(50e9, 10e-6)
"""InfiniBand NDR, 400 Gb/s a port and one for each GPU (NVIDIA, DGX H100 user guide)."""
HOSTS = Link(1e9, 50e-6)
"""Gloo over TCP; assumed, and not more than some bytes go over it."""
CLUSTERS = (
    # NVLink 4: 900 GB/s a GPU in both directions together; PCIe 5: 128 GB/s (NVIDIA, H200 and H100 data sheets). The
    # latencies, here and above, are assumed.
    Links("NVLink", Link(450e9, 5e-6), NETWORK, HOSTS),
    Links("PCIe", Link(64e9, 5e-6), NETWORK, HOSTS),
)


def seconds(exchange: Exchange, processes: int, links: Links) -> float:
    """Latency and bytes over bandwidth, in two levels: a sum is made within each node, each GPU's part of it between
    nodes; rows are gathered between nodes, then within each. Raises KeyError for other operations."""
    if exchange.kind == "signals":
        return links.hosts.reduce(exchange.bytes, processes)
    inside = min(processes, GPUS_A_NODE)
    nodes, size = processes // inside, exchange.bytes
    return {
        "all_reduce": links.node.reduce(size, inside) + links.network.reduce(size / inside, nodes),
        "all_gather": links.network.gather(size, nodes) + links.node.gather(nodes * size, inside),
    }[exchange.operation]


def main(rounds: int = 12, results: Path | None = None, load: str = "") -> None:
    """Predict exchanges of GPUs, and compare predictions with two processes.

    Args:
        rounds: steps of the two.
        results: CSV file that rows are appended to.
        load: what else kept the machine busy, in words, for the rows.
    """
    rowfile.appendable(results)
    head = {"date": measurement.now(), **measurement.machine(torch.device("cpu"))}
    head |= {"load": load}
    rows = [head | row for method in CASES for row in (*predicted(method), *checked(method, rounds))]
    for row in rows:
        Console().print({name: value for name, value in row.items() if name not in head})
    if results:
        rowfile.append(rows, results)


def predicted(method: str, counts: Sequence[int] = GPUS) -> Iterator[dict[str, Any]]:
    """Rows of so many GPUs, each with the batch that one has: the step of one as it was measured, and what several add
    to it, kind by kind."""
    for processes in counts:
        recipe = recipe_of(method, processes, backbone="resnet50", **CASES[method])
        recorded = on_gpus(exchanges(recipe, processes))
        computing = {"step": step_ms(recipe, processes), "contrast": contrast_ms(recipe, processes)}
        for links in CLUSTERS:
            yield from (figures(recipe, processes, links, kind, ms=ms) for kind, ms in computing.items())
            yield from (figures(recipe, processes, links, *kind) for kind in by_kind(recorded).items())


def checked(method: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Rows of two processes. Raises RuntimeError where they exchange anything else than was told."""
    recipe = recipe_of(method, 2, **SMALL)
    told, found = exchanges(recipe, 2), taken(recipe, 2, rounds)
    if found.exchanges != told:
        raise RuntimeError(f"{method}: two processes exchange {found.exchanges}, not {told}")
    link = fitted({size: min(times) for size, times in found.reductions.items()}, 2)
    for kind, these in by_kind(told).items():
        own = [times for one, times in zip(told, found.seconds, strict=True) if one.kind == kind]
        measured = {"quickest_ms": sum(map(min, own)), "median_ms": sum(map(median, own))}
        row = figures(recipe, 2, Links("gloo", link, link, link), kind, these)
        yield row | {name: round(1e3 * time, 4) for name, time in measured.items()}


def recipe_of(method: str, processes: int, *, backbone: str, crop: int, batch: int) -> Recipe:
    """batch: of each process."""
    return voc_recipe(method, Path(), "cpu", 1, backbone=backbone, crop=crop, batch=batch * processes)


def figures(
    recipe: Recipe, processes: int, links: Links, kind: str, these: Sequence[Exchange] = (), ms: float = 0.0
) -> dict[str, Any]:
    """A row of one kind; ms: that it takes besides what is exchanged."""
    one, levels = share(recipe, processes), dict.fromkeys((links.node, links.network))
    ms += 1e3 * sum(seconds(exchange, processes, links) for exchange in these)
    return {
        "method": one.method_class.name,
        "backbone": one.backbone,
        "crop": one.crop,
        "batch": one.batch,
        "processes": processes,
        "links": links.name,
        "latency_us": " ".join(f"{1e6 * link.latency:.4g}" for link in levels),
        "gb_per_s": " ".join(f"{link.bandwidth / 1e9:.4g}" for link in levels),
        "kind": kind,
        "calls": len(these),
        "bytes": sum(exchange.bytes for exchange in these),
        "predicted_ms": round(ms, 4),
        "quickest_ms": None,
        "median_ms": None,
    }


def step_ms(recipe: Recipe, processes: int) -> float:
    """Of one H200, by the newest row of a captured step in results/step.csv."""
    one = share(recipe, processes)
    keys = {"method": one.method_class.name, "backbone": one.backbone, "crop": one.crop, "batch": one.batch}
    row = newest("step", keys | {"graph": True})
    return 1e3 * int(row["images_a_step"]) / float(row["ours"])


def contrast_ms(recipe: Recipe, processes: int) -> float:
    """At most, what contrasting features with the negatives of the other processes takes: proportional to these, by the
    newest row of an H200 in results/kernels.csv; 0 for a method without."""
    if not isinstance(recipe.method, CacConfig):
        return 0.0
    keys = {"operator": "directional_contrast", "mode": "forward+backward", "provider": "fused", "dtype": "bf16"}
    row = newest("kernels", keys | {"size": "voc-r101-all"})
    rows, negatives = map(int, re.match(r"rows=(\d+) negatives=(\d+)", row["shape"]).groups())
    own = share(recipe, processes).batch * (recipe.crop // STRIDE) ** 2
    bank_of_others = recipe.method.bank_steps * 2 * own * (processes - 1)
    return float(row["ms"]) * own * bank_of_others / (rows * negatives)


def newest(name: str, values: dict[str, Any]) -> dict[str, str]:
    """The newest row of an H200 with these values. Raises UsageError where there is none."""
    for row in rowfile.newest(name, "machine", *values):
        if row["machine"] == "NVIDIA H200" and all(row[key] == str(value) for key, value in values.items()):
            return row
    raise UsageError(f"benchmarks/results/{name}.csv: no row of an NVIDIA H200 with {values}; measure one first")


def fitted(reductions: dict[int, float], processes: int) -> Link:
    """The link between so many processes that explains best how long all-reduces of so many bytes take; of each the
    error counts as a share of its seconds."""
    times = np.array(list(reductions.values()))
    terms = [
        [Link(math.inf, 1.0).reduce(size, processes), Link(1.0, 0.0).reduce(size, processes)] for size in reductions
    ]
    latency, slowness = np.linalg.lstsq(np.array(terms) / times[:, None], np.ones(len(times)), rcond=None)[0]
    return Link(float(1 / slowness), float(latency))


if __name__ == "__main__":
    command.run(main)
