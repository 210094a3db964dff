"""Losses and weights do not depend on the number of processes: every method, two processes against one, in float64."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from few import ENCODER
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.data import prepare_data
from semiseg.engine.methods import METHODS
from semiseg.engine.models import ENCODERS
from semiseg.engine.recipe import Recipe
from shares import trained

PROGRAM = Path(__file__).with_name("shares.py")
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


CASES = {
    **{name: (name, {}) for name in ("supervised", "cps", "cutmix_cps", "mean_teacher")},
    "cac": ("cac", {"start": 0.2, "threshold": 0.1}),
    "cutmix_seg": ("cutmix_seg", {"threshold": 0.3}),  # of which some pixels are sure, and not all
    **{name: (name, {"threshold": 0.1}) for name in ("fixmatch", "unimatch", "unimatch_v2")},
    "u2pl": ("u2pl", {"start": 0.2}),
    "u2pl, accumulated": ("u2pl", {"recipe": {"accumulate": 2}}),
    "u2pl, published": ("u2pl", {"published": True}),
    "supervised with short gradients": ("supervised", {"recipe": {"clip": 0.05}}),
    "supervised with OHEM": ("supervised", {"ohem": 0.2, "ohem_threshold": 0.01}),
    "supervised with class weights": ("supervised", {"class_weights": "auto"}),
    "cac, published": ("cac", {"start": 0.0, "threshold": 0.1, "published": True}),
    "cac in one call": ("cac", {"start": 0.0, "threshold": 0.1, "recipe": {"grouped": True}}),
    "cac computed twice": ("cac", {"start": 0.0, "threshold": 0.1, "recipe": {"recompute": "on"}}),
    **{f"{name}, accumulated": (name, {"recipe": {"accumulate": 2}}) for name in ("supervised", "cps", "cutmix_cps")},
    "cac, accumulated": ("cac", {"start": 0.0, "threshold": 0.1, "recipe": {"accumulate": 2}}),
    "cutmix_seg, accumulated": ("cutmix_seg", {"threshold": 0.1, "recipe": {"accumulate": 2}}),
    "unimatch, accumulated": ("unimatch", {"threshold": 0.1, "recipe": {"accumulate": 2}}),
    "unimatch_v2, accumulated": ("unimatch_v2", {"threshold": 0.1, "published": True, "recipe": {"accumulate": 2}}),
    "cutmix_seg as one batch": ("cutmix_seg", {"threshold": 0.1, "recipe": {"batch_statistics": "joint"}}),
    "cps with OHEM, published": ("cps", {"ohem": 0.2, "published": True}),
    "cutmix_seg by pixel": ("cutmix_seg", {"confidence": "pixel", "threshold": 0.1}),
    "fixmatch with a teacher": ("fixmatch", {"labels": "teacher", "threshold": 0.1}),
    "unimatch with a teacher": ("unimatch", {"labels": "teacher", "threshold": 0.1}),
    "unimatch, published": ("unimatch", {"threshold": 0.1, "published": True}),
    "unimatch, mixed labels": ("unimatch", {"threshold": 0.1, "labels": "mixed", "perturbed_statistics": "shared"}),
    "unimatch_v2, published": ("unimatch_v2", {"threshold": 0.1, "published": True}),
}
"""Each method as it is, and what is computed otherwise by a setting."""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, list[dict]]:
    """By case, of one process and then of either of two: losses and state."""
    folder = tmp_path_factory.mktemp("shares")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMISEG_CACHE", str(folder / "cache"))
        patch.setitem(ENCODERS, "few", ENCODER)
        recipes = {name: recipe(name, *case) for name, case in CASES.items()}
        (folder / "recipes.json").write_text(json.dumps({name: one.to_dict() for name, one in recipes.items()}))
        prepare_data(recipes["cac"])
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        processes = [
            subprocess.Popen([sys.executable, PROGRAM, folder], env=os.environ | group | {"RANK": r, "LOCAL_RANK": r})
            for r in "01"
        ]
        alone = {name: trained(one) for name, one in recipes.items()}
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    both = [torch.load(folder / f"trained-{number}.pt") for number in range(2)]
    return {name: [alone[name], *(one[name] for one in both)] for name in CASES}


def recipe(name: str, method: str, settings: dict) -> Recipe:
    """Ten steps, or three of a variant, of a small network with a batch of 8, on the embedded data set. Its windows are
    padded, some more than others."""
    settings = dict(settings)
    small = {"network": "cac", "backbone": "few", "head_width": 8, "weights": "none", "batch": 8, "crop": 32}
    small |= {
        "steps": 10 if method == name else 3,
        "lr": 0.02,
        "split": "draw:1/8@0",
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
    }
    built = load_recipe(f"{method}_shapes")
    built = built.as_published() if settings.pop("published", False) else built
    built = built.replace(**small, backend="host", graph="off", **settings.pop("recipe", {}))
    narrow = replace(built.labeled, range=(0.5, 1.0), base=1.0)
    return built.replace(labeled=narrow, method=replace(built.method, **settings))


@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_are_those_of_one_process(case, results):
    alone, *both = results[case]
    terms = METHODS[CASES[case][0]].terms
    assert all(alone[term].abs().min() > 0 for term in terms)
    for one in both:
        assert one.keys() == alone.keys()
        for name, expected in alone.items():
            if name.startswith("bank.") and case.startswith("cac"):  # the same rows, in the order of the processes
                continue
            torch.testing.assert_close(
                one[name], expected, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_the_processes_stay_alike_bit_for_bit(results):
    for _, first, second in results.values():
        assert all(torch.equal(first[name], second[name]) for name in first)
