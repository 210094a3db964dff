"""Comparisons whose runs are finished without any training."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.engine.catalogue import load_recipe
from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.comparison.entries import Comparison, Entry, folder_of, split_of
from semiseg.engine.models import build_network
from semiseg.engine.run import Run

CLASSES = ("ground", "car", "tree")
PALETTE = ((0, 0, 0), (255, 128, 0), (0, 128, 0))
ENVIRONMENT = {"gpu": None, "processor": "a processor", "threads": 2, "packages": {"torch": "2.0"}, "commit": "c0ffee"}


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Comparison]:
    """`planned(["supervised_folder", "cps_folder"], ["1/2"], 2, steps=3)`: the runs, none of which has begun. The first
    method is the baseline; recipes are changed by what else is given."""

    def build(methods, shares=("1/2",), seeds=1, **changes) -> Comparison:
        out = tmp_path / "compared"
        entries = []
        for seed in range(seeds):
            for share in shares:
                for method in methods:
                    own = {
                        "split": split_of(share, seed),
                        "seed": seed,
                        "out": folder_of(out, method, share, seed),
                        "head_width": 16,
                        "steps": 20,
                        "device": "cpu",
                    }
                    recipe = load_recipe(method.split()[0]).replace(**(own | changes))
                    command = ("train", *method.split(), "--seed", str(seed))
                    entries.append(Entry(method=method, share=share, seed=seed, recipe=recipe, command=command))
        return Comparison(out=out, entries=tuple(entries), baseline=methods[0])

    return build


@pytest.fixture
def finish() -> Callable[..., None]:
    """`finish(entry, last=0.5)`: makes it a finished run with that mIoU, a point more at its best, in the middle."""

    saved: dict[tuple[str, ...], Path] = {}  # a network of each is enough for all runs

    def write(entry: Entry, last: float | None = 0.5, classes=CLASSES, samples=("one",), **changes) -> None:
        best = None if last is None else last + 0.01
        split = {"name": entry.recipe.split, "checksum": "0123abcd", "labeled": ["a"], "unlabeled": [], "val": ["b"]}
        split |= {"classes": list(classes), "class_pct": {}, "contents": {}, "pictures": {}}
        run = Run(entry.folder)
        run.checkpoints.mkdir(parents=True)
        run.write_json("recipe.json", entry.recipe.to_dict())
        run.write_json("split.json", split)
        run.write_json("environment.json", ENVIRONMENT)
        steps = entry.recipe.steps
        for step, miou in ((steps // 2, best), (steps, last)):
            run.write({"step": step, "val/miou": miou})
        run.close()
        checkpoint = run.checkpoints / "best.safetensors"
        if classes in saved:
            os.link(saved[classes], checkpoint)
        else:
            network = build_network("cac", "resnet18", len(classes), head_width=16)
            header = header_of(entry.recipe, network, classes, PALETTE[: len(classes)])
            save_network(checkpoint, network.state_dict(), header, entry.recipe)
            saved[classes] = checkpoint
        for number, name in enumerate(samples):
            path = run.folder / "samples" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 3 * 10 + 2 * 6, 3), 50 * number, np.uint8)).save(path)
        iou = {name: None if last is None else last + 0.1 * number for number, name in enumerate(classes)}
        result = {
            "out": str(run.folder),
            "split": entry.recipe.split,
            "checksum": "0123abcd",
            "labeled": 4,
            "unlabeled": 4,
            "steps": steps,
            "best": best,
            "best_step": steps // 2,
            "last": last,
            "beside": {},
            "iou": iou,
            "pixel_accuracy": 0.9,
            "images_per_s": 10.0 + entry.seed,
            "data_wait_pct": 1.0,
            "memory_gib": 0.5,
            "seconds": 3600.0,
        }
        run.write_json("result.json", result | changes)

    return write
