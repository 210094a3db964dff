import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "bench_loader.py"


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_json_is_all_of_stdout_and_compares_the_loaders(voc_root, tmp_path) -> None:
    pytest.importorskip("nvidia.dali")
    results = tmp_path / "loader.csv"
    done = run("--data", voc_root(), "--json", "--rounds", 1, "--seconds", 0.1, "--results", results)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name in ("plain", "host", "dali", "resident"):
        assert result[name]["labeled_images_per_s"] > 0
        assert result[name]["pairs_per_s"] > 0
    for name in ("host", "dali", "resident"):
        for kind, key in (("labeled", "labeled_images_per_s"), ("pairs", "pairs_per_s")):
            own, plain = result[name][key], result["plain"][key]
            rounding = 0.005 + own / plain * 0.051 * (1 / own + 1 / plain)  # of the ratio, and of the rates, one digit
            assert result["ratio_to_plain"][name][kind] == pytest.approx(own / plain, abs=rounding)
    rows = list(csv.DictReader(results.open()))
    assert [(row["kind"], row["loader"]) for row in rows] == [
        (kind, name) for kind in ("labeled", "pairs") for name in ("plain", "host", "dali", "resident")
    ]
    assert float(rows[3]["rate"]) == result["resident"]["labeled_images_per_s"]
    assert float(rows[7]["ratio_to_plain"]) == result["ratio_to_plain"]["resident"]["pairs"]
    assert all(row["machine"] and row["torch"] and row["threads"] == "2" for row in rows)
    assert result["settings"]["images"] == 9
    assert result["environment"]["packages"]["torch"]
    assert result["environment"]["cores"] >= 1


def test_a_wrong_root_is_one_line_and_exit_code_2(tmp_path) -> None:
    done = run("--data", tmp_path, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "JPEGImages" in done.stderr
    assert len(done.stderr.splitlines()) == 1
