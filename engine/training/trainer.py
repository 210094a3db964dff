"""The training loop: data in, steps, evaluations, checkpoints, log and report out."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...pipelines.backends import open_backend
from ...pipelines.batch import Backend
from ...pipelines.datasets.manifest import sizes_of
from ...pipelines.errors import UsageError
from ...pipelines.loader import Loader
from ...pipelines.plan import Planner
from ...pipelines.views import Drawing
from .. import console
from ..checkpoint import load_network, save_network
from ..data import prepare_data
from ..device import resolve_device, resolve_precision
from ..evaluation.scores import Scores, evaluate, finite
from ..methods import Method
from ..models import Network, load_backbone
from ..models.encoders.imagenet import FILL, IMAGENET_MEAN, IMAGENET_STD
from ..recipe import Recipe
from ..report import write_samples
from ..run import Run
from .build import build_method
from .meters import Meters, describe
from .state import load_state, save_state
from .step import Step

# What may change when a run goes on, because it changes no result, or none beyond rounding.
FREE = {
    *("out", "resume", "device", "backend", "threads", "precision", "channels_last", "compile"),
    *("eval_every", "log_every", "json", "dry_run", "data", "lists", "weights", "init", "published"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished run comes down to."""

    out: Path
    split: str
    checksum: str
    """Of the labelled ids."""
    labeled: int
    unlabeled: int
    steps: int
    best: float
    """mIoU in [0, 1] of the best evaluation."""
    best_step: int
    last: float
    """mIoU of the last evaluation."""
    iou: dict[str, float]
    """Per class, of the last evaluation."""
    pixel_accuracy: float
    images_per_s: float
    data_wait_pct: float
    memory_gib: float
    seconds: float


class Trainer:
    """One run of a recipe. Everything that a user can get wrong is checked before anything is written."""

    def __init__(self, recipe: Recipe):
        recipe.check()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("torchrun: several processes are not supported yet; start one process without torchrun")
        self.recipe = recipe
        self.folder = recipe.out or Path("runs") / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if not recipe.resume:
            Run.check(self.folder)
        self.device = resolve_device(recipe.device)
        self.precision = resolve_precision(recipe.precision, self.device)
        self.data = prepare_data(recipe)
        torch.manual_seed(recipe.seed)
        self.method = self._method()
        self.step = Step(recipe, self.method, self.device, self.precision)
        self.planner, self.backend = self._pipeline()
        self.first, self.best, self.best_step = 0, -math.inf, -1
        self._stopped = False
        self.seconds = 0.0
        self.run = self._open_run()

    def _method(self) -> Method:
        recipe = self.recipe
        method = build_method(recipe, len(self.data.classes))
        # A run that goes on brings its own weights.
        for network in () if recipe.resume else method.networks().values():
            if recipe.init is not None and network is method.predictor():
                self._initialise(network)
            else:
                load_backbone(network, recipe.weights)
        method.to(self.device)
        if recipe.channels_last:
            method.to(memory_format=torch.channels_last)
        if recipe.compile:
            for network in method.networks().values():
                network.compile()
        return method.train()

    def _initialise(self, network: Network) -> None:
        checkpoint = load_network(self.recipe.init, self.recipe.layout)
        if len(checkpoint.classes) != len(self.data.classes):
            raise UsageError(
                f"--init: {self.recipe.init} was trained on {len(checkpoint.classes)} classes, "
                f"the data set has {len(self.data.classes)}; pass a checkpoint or a class list that fits"
            )
        state = checkpoint.network.state_dict()
        wanted = network.state_dict()
        wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
        missing = [name for name in wanted if name not in state and not name.startswith("projector")]
        if wrong or missing:
            other = checkpoint.recipe
            raise UsageError(
                f"--init: {self.recipe.init} holds another network (--network {other.network} "
                f"--backbone {other.backbone} --head-width {other.head_width}); ask for the same"
            )
        network.load_state_dict(state, strict=False)

    def _pipeline(self) -> tuple[Planner, Backend]:
        recipe, data = self.recipe, self.data
        names = [*data.split.labeled, *data.split.unlabeled]
        records = [data.manifest.records[name] for name in names]
        drawing = Drawing(
            views=self.method.views,
            crop=recipe.crop,
            batch=recipe.batch,
            unlabeled_batch=recipe.unlabeled_batch,
            labeled=recipe.labeled,
            unlabeled=recipe.unlabeled,
            sampling=recipe.sampling,
            seed=recipe.seed,
            fill=FILL,
        )
        count = len(data.split.labeled)
        planner = Planner(sizes_of(records), range(count), range(count, len(names)), drawing)
        return planner, open_backend(recipe.backend, records, self.device, recipe.threads)

    def _open_run(self) -> Run:
        recipe, split = self.recipe, asdict(self.data.split)
        if not recipe.resume:
            run = Run.create(self.folder, recipe.to_dict())
            run.write_json("split.json", split)
            return run
        run = Run.open(self.folder)
        before, now = run.recipe, recipe.to_dict()
        for name in before.keys() - FREE:
            if before[name] != now.get(name):
                raise UsageError(f"--resume: {name} was {before[name]} in {self.folder} and is {now.get(name)} now")
        if run.read_json("split.json")["checksum"] != split["checksum"]:
            raise UsageError(
                f"--resume: split {recipe.split} means other images than in {self.folder}; the data has changed"
            )
        state = load_state(run.checkpoints / "last.state.pt")
        if state["steps_done"] == recipe.steps and (run.folder / "result.json").exists():
            raise UsageError(f"--resume: {self.folder} is finished; choose another --out to train again")
        self.method.load_state_dict(state["method"])
        self.step.load_state_dict(state["step"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.first, self.best, self.best_step = state["steps_done"], state["best"], state["best_step"]
        self.seconds = state["seconds"]
        console.say(f"going on with {self.folder} at step {self.first}")
        return run

    def train(self) -> Result:
        recipe = self.recipe
        every = recipe.eval_every or max(recipe.steps // 20, 1)
        meters = Meters(recipe, self.device)
        scores: Scores | None = None
        began = time.perf_counter() - self.seconds
        loader = Loader(
            self.planner,
            self.backend,
            self.device,
            self.first,
            recipe.steps,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            channels_last=recipe.channels_last,
        )
        done = self.first
        try:
            with self._stoppable(), console.progress("training", recipe.steps) as bar:
                for step, batch in enumerate(meters.waited(iter(loader)), self.first):
                    meters.add(self.step(batch, step))
                    done = step + 1
                    if done % recipe.log_every == 0 or done == recipe.steps:
                        line = meters.read(done, self.step.lr(step))
                        self.run.write(line)
                        bar(done, note=f"loss {line['loss']:.3f}")
                        if not bar.visible:
                            console.say(describe(line, recipe.steps))
                    if done % every == 0 or done == recipe.steps:
                        meters.pause()
                        scores = self._evaluate(done)
                        self.seconds = time.perf_counter() - began
                        self._save(done, scores.miou)
                        meters.resume()
                    if self._stopped:
                        self.seconds = time.perf_counter() - began
                        self._save_state(done)
                        raise UsageError(f"stopped after step {done}; go on with --out {self.run.folder} --resume")
            if scores is None:  # it was stopped after its last step, before the evaluation
                scores = self._evaluate(done)
                self._save(done, scores.miou)
        finally:
            loader.close()
            self.run.close()
        result = Result(
            out=self.run.folder,
            split=self.data.split.name,
            checksum=self.data.split.checksum,
            labeled=len(self.data.split.labeled),
            unlabeled=len(self.data.split.unlabeled) if self.method.views.unlabeled != "none" else 0,
            steps=recipe.steps,
            best=self.best,
            best_step=self.best_step,
            last=scores.miou,
            iou=scores.iou,
            pixel_accuracy=scores.pixel_accuracy,
            images_per_s=meters.images_per_s,
            data_wait_pct=meters.data_wait_pct,
            memory_gib=meters.memory_gib(),
            seconds=time.perf_counter() - began,
        )
        self.run.write_json("result.json", result_dict(result))
        write_samples(self.run, self.data.val, self.device)
        return result

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Ctrl-C or a scheduler's SIGTERM stops between two steps, all saved; a second one stops at once."""

        def stop(*_):
            if self._stopped:
                raise KeyboardInterrupt
            self._stopped = True
            console.say("stopping after this step; once more to stop at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _evaluate(self, done: int) -> Scores:
        recipe = self.recipe
        with console.progress("evaluating", len(self.data.val)) as bar:
            scores = evaluate(
                self.method.predictor(),
                self.data.val,
                self.data.classes,
                recipe.evaluation,
                crop=recipe.crop,
                device=self.device,
                autocast=self.step.autocast,
                on_progress=bar,
            )
        line = {"step": done, "val/miou": scores.miou, "val/pixel_accuracy": scores.pixel_accuracy}
        self.run.write(line | {f"val/iou/{name}": iou for name, iou in scores.iou.items()})
        best = " (best)" if recipe.evaluation.prefers(scores.miou, self.best) else ""
        console.say(f"step {done}/{recipe.steps}  val mIoU {100 * scores.miou:.2f} %{best}")
        return scores

    def _save(self, done: int, miou: float) -> None:
        names = ["last"]
        if self.recipe.evaluation.prefers(miou, self.best) or self.best_step < 0:
            self.best, self.best_step = miou, done
            names.append("best")
        dataset = self.data.manifest.dataset
        for name in names:
            path = self.run.checkpoints / f"{name}.safetensors"
            network = self.method.predictor()
            save_network(path, network, self.recipe, dataset.classes, dataset.palette, step=done, miou=miou)
        self._save_state(done)

    def _save_state(self, done: int) -> None:
        state = {
            "method": self.method.state_dict(),
            "step": self.step.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "steps_done": done,
            "best": self.best,
            "best_step": self.best_step,
            "seconds": self.seconds,
        }
        save_state(self.run.checkpoints / "last.state.pt", state)


def result_dict(result: Result) -> dict[str, Any]:
    """For JSON, which knows neither paths nor NaN."""
    plain = asdict(result) | {"out": str(result.out)}
    plain |= {name: finite(getattr(result, name)) for name in ("best", "last")}
    plain["iou"] = {name: finite(iou) for name, iou in result.iou.items()}
    return plain
