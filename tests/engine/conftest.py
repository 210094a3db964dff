"""Recipes small enough for tests, and random batches of every kind."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from few import ENCODER
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.commands.main import main
from semiseg.engine.models import ENCODERS
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.batch import Batch, Labeled, Mixed, Pair, Plain, WeakStrong

CROP, CLASSES, BATCH = 32, 3, 2

# So that tests can map a function over the tensors of a batch.
for kind in (Batch, Labeled, Plain, Pair, Mixed, WeakStrong):
    pytree.register_pytree_node(
        kind,
        lambda node: ([getattr(node, name) for name in node.__slots__], type(node)),
        lambda values, kind: kind(*values),
    )


@pytest.fixture
def terminal_minded() -> Iterator[None]:
    """A closed terminal is heard of, also where `nohup` has started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """`tiny("cac", data=ROOT, steps=3)`: the method's VOC recipe with a network of few weights on the CPU."""
    monkeypatch.setitem(ENCODERS, "few", ENCODER)

    def build(method: str, **changes) -> Recipe:
        small = {
            "network": "cac",
            "backbone": "few",
            "head_width": 16,
            "weights": "none",
            "crop": CROP,
            "batch": BATCH,
            "steps": 3,
            "eval_every": 3,
            "log_every": 1,
            "threads": 1,
            "device": "cpu",
            "precision": "fp32",
            "backend": "host",
            "split": "draw:1/2@0",
            "out": tmp_path / "run",
        }
        return load_recipe(f"{method}_voc").replace(**(small | changes))

    return build


@pytest.fixture
def around() -> dict[str, Callable[[], AbstractContextManager]]:
    """Ways in which a program around may have set torch."""
    return {
        "float64": lambda: default_dtype(torch.float64),
        "bfloat16": lambda: default_dtype(torch.bfloat16),
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "meta": lambda: torch.device("meta"),
    }


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def random_batch() -> Callable[..., Batch]:
    """`random_batch("pair", seed)`: a batch as the loader makes it, of noise."""

    def build(unlabeled: str, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def images() -> torch.Tensor:
            noise = torch.randn(BATCH, 3, CROP, CROP, generator=generator)
            return noise.contiguous(memory_format=torch.channels_last)

        target = torch.randint(0, CLASSES, (BATCH, CROP, CROP), generator=generator, dtype=torch.uint8)
        target[:, :4] = 255
        labeled = Labeled(images(), target)
        if unlabeled == "none":
            return Batch(labeled)
        if unlabeled == "plain":
            return Batch(labeled, Plain(images()))
        if unlabeled == "mixed":
            boxes = torch.tensor([[[0, 0, 16, 16], [8, 8, 24, 30], [1, 2, 3, 4]]] * BATCH, dtype=torch.int32)
            return Batch(labeled, Mixed(images(), images(), boxes))
        if unlabeled == "weak_strong":
            boxes = torch.tensor([[[4, 6, 20, 30]], [[0, 0, 0, 0]]], dtype=torch.int32)
            partner = torch.tensor([1, 0])
            valid = torch.tensor([[0, 0, CROP, CROP], [0, 4, 25, CROP]], dtype=torch.int32)
            strong = images(), images()
            return Batch(labeled, WeakStrong(images(), strong, torch.stack([boxes, boxes.flip(0)]), partner, valid))
        corner1 = torch.tensor([[0, 8], [0, 0]], dtype=torch.int32)
        corner2 = torch.tensor([[8, 0], [0, 0]], dtype=torch.int32)
        extent = torch.tensor([[24, 24], [32, 16]], dtype=torch.int32)
        flips = torch.tensor([True, False]), torch.tensor([False, False])
        return Batch(labeled, Pair(images(), images(), corner1, corner2, extent, *flips))

    return build


@pytest.fixture
def semiseg(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """`semiseg("train", ...)` runs the command in this process; returns exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["semiseg", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capsys.readouterr()

    return run
