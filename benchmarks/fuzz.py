"""Gives hostile files and flags to what reads them, led by the branches that are taken in our own code.

    python benchmarks/fuzz.py headers [--runs 100000] [--results FILE]

The kinds of input, and what must become of them, are those of `readers.py`. Needs atheris: `pip install atheris`.
An input that is neither taken nor refused is made small and told by hypothesis, and ends the program with 1; one that
takes a minute, or 4 GB, is told by libFuzzer and ends it with 70 or 71.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

try:
    import atheris
except ImportError:
    sys.exit("fuzz.py: atheris, which leads the fuzzing, is missing; run `pip install atheris`")

with atheris.instrument_imports(include=["semiseg"]):
    from readers import READERS, Test

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase

import command
import measurement
import rowfile
from semiseg.pipelines.errors import UsageError

LONGEST = 4096
"""Bytes of which hypothesis makes an input."""
FIRST = 64
"""Inputs of noise that the fuzzer begins with."""


def main(name: str, /, runs: int = 100_000, seed: int = 0, results: Path | None = None) -> None:
    """Try one kind of input so often.

    Args:
        name: of the kind.
        runs: how many inputs.
        seed: of the fuzzer and of what it begins with.
        results: CSV file that a row is appended to.
    """
    if name not in READERS:
        raise UsageError(f"{name}: no kind of input; there are {', '.join(READERS)}")
    rowfile.appendable(results)
    home = Path(tempfile.mkdtemp())
    for folder in ("files", "tried"):
        (home / folder).mkdir()
    noise = np.random.default_rng(seed)
    for number in range(FIRST):
        (home / f"tried/{number}").write_bytes(noise.bytes(LONGEST >> number % 4))
    test = settings(
        database=DirectoryBasedExampleDatabase(home / "found"),
        phases=[Phase.reuse, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )(READERS[name](home / "files"))
    fuzz_one_input = test.hypothesis.fuzz_one_input
    counts = {"tried": 0, "read": 0, "found": 0}
    began = time.monotonic()

    def one_input(data: bytes) -> None:
        counts["tried"] += 1
        try:
            counts["read"] += fuzz_one_input(data) is not None
        except Exception:
            counts["found"] = 1
            show(test)
        if counts["found"] or counts["tried"] == runs:
            row = {"date": measurement.now(), **measurement.machine(torch.device("cpu"))}
            row |= {"input": name, "seed": seed, **counts, "seconds": round(time.monotonic() - began)}
            if results:
                rowfile.append([row], results)
            print(row, flush=True)
            shutil.rmtree(home)
            os._exit(counts["found"])  # libFuzzer never returns

    limits = ["-timeout=60", "-rss_limit_mb=4096", f"-max_len={LONGEST}", "-len_control=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, f"-seed={seed + 1}", f"-artifact_prefix={home}/", f"{home}/tried"], one_input)
    atheris.Fuzz()


def show(test: Test) -> None:
    """The smallest input that is as bad as the one that was found."""
    try:
        test()
    except Exception:
        traceback.print_exc()


if __name__ == "__main__":
    command.run(main)
