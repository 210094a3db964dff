"""Whether one result of a benchmark is slower than another: `semiseg bench compare BASE.json NEW.json`.

Both are what `bench_step.py --json` or `bench_loader.py --json` printed. Rates of the rounds are compared by an exact
rank test, one-sided; results of other machines, settings or versions of torch are refused, and so few rounds that none
could be told from chance. Exits with 1 where a rate is lower by chance in fewer than 5 of 100 cases and its median by
more than 3 %.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

import command
from semiseg.pipelines.errors import UsageError

LIKELY, NOTABLE = 0.05, 0.03
ENVIRONMENT = ("processor", "instructions", "cores", "threads", "gpu")


def slower(base: list[float], new: list[float]) -> float:
    """The probability of ranks as low as those of `new` or lower, were both drawn from one distribution: the share of
    all choices of as many values whose ranks sum up to no more. Equal values share their ranks."""
    every = [*base, *new]
    # Twice the mean rank, a whole number.
    ranks = [sum(other < value for other in every) + sum(other <= value for other in every) + 1 for value in every]
    choices: list[Counter[int]] = [Counter({0: 1}), *(Counter() for _ in new)]
    """By how many are chosen: how often each sum occurs."""
    for rank in ranks:
        for count in range(len(new), 0, -1):
            for total, times in choices[count - 1].items():
                choices[count][total + rank] += times
    own = sum(ranks[len(base) :])
    sums = choices[-1]
    return sum(times for total, times in sums.items() if total <= own) / sums.total()


def rates(document: dict[str, Any]) -> dict[str, list[float]]:
    """The rates of each round by name: `ours`, `dali labeled`."""
    found: dict[str, list[float]] = {}
    for name, values in document["rounds"].items():
        if isinstance(values, dict):
            found |= {f"{name} {kind}": rounds for kind, rounds in values.items()}
        else:
            found[name] = values
    return found


def read(path: Path) -> dict[str, Any]:
    """A document with its rates. Raises UsageError for anything else than what a benchmark prints."""
    try:
        document = json.loads(path.read_text())
        found = rates(document)
        if not found or not all(rounds and all(0 < rate < math.inf for rate in rounds) for rounds in found.values()):
            raise ValueError("a rate is missing, or not above 0")
        packages, settings = document["environment"]["packages"], document["settings"]
        told = {"environment": document["environment"], "packages": packages, "settings": settings}
        return {"rates": found, **{name: dict(values) for name, values in told.items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not what a benchmark printed with --json ({error}): make it anew") from None


def alike(base: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises UsageError where the two were not measured alike."""
    pairs = [(name, *(document["environment"].get(name) for document in (base, new))) for name in ENVIRONMENT]
    pairs += [("torch", *(document["packages"].get("torch") for document in (base, new)))]
    names = {**base["settings"], **new["settings"]}
    pairs += [(name, *(document["settings"].get(name) for document in (base, new))) for name in names]
    for name, one, other in pairs:
        if one != other:
            raise UsageError(f"{name} was {one} in the first result and is {other} in the second: measure both alike")
    if only := base["rates"].keys() ^ new["rates"].keys():
        raise UsageError(f"only one result has {min(only)}: measure both with one version of the benchmark")
    for name in base["rates"]:
        first, second = (len(document["rates"][name]) for document in (base, new))
        if 1 / math.comb(first + second, second) >= LIKELY:
            raise UsageError(
                f"{first} and {second} rounds are too few to tell lower rates from chance: measure both with --rounds 4"
            )


def main(base: tyro.conf.Positional[Path], new: tyro.conf.Positional[Path], /) -> int:
    """Compare two results of one benchmark.

    Args:
        base: the result to compare with.
        new: the result to judge.
    """
    documents = read(base), read(new)
    alike(*documents)
    table = Table("what", "base", "new", "new / base", "slower by chance")
    worse = False
    for name, before in documents[0]["rates"].items():
        after = documents[1]["rates"][name]
        ratio, chance = median(after) / median(before), slower(before, after)
        bad = chance < LIKELY and ratio < 1 - NOTABLE
        worse |= bad and name.split()[0] not in ("plain", "published_way")
        table.add_row(
            name, f"{median(before):.4g}", f"{median(after):.4g}", f"{ratio:.3f}", f"{chance:.3f}{' *' if bad else ''}"
        )
    Console().print(table)
    return int(worse)


if __name__ == "__main__":
    command.run(main)
