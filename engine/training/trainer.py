"""The training loop: data in, steps, evaluations, checkpoints and log out."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...pipelines.errors import UsageError
from ..checkpoint import header_of, load_network, match_classes, save_network
from ..data import anchored, portable, prepare_data
from ..device import LOW, free_memory_of, repeatable, resolve_device, resolve_precision
from ..evaluation.scores import Scores, evaluate, finite, percent
from ..events import Event, Listener, progress_of, silent
from ..methods import Method
from ..models import Network, load_backbone
from ..recipe import Recipe
from ..run import Run, create_new, require_packages
from .build import build_method, open_loader
from .forecast import GIB, fitted
from .meters import Meters, describe
from .profiling import profiling
from .state import load_state, save_state
from .step import Step

RUNS = Path("runs")
"""Where the folders of runs are that ask for none."""
LONG = 1000
"""Steps from which on a run on the CPU is worth a forecast, which takes seconds."""


class Stopped(Exception):
    """A signal ended the run between two steps, all saved. The message says how to go on."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


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
    """mIoU in [0, 1] of the best evaluation; NaN where none gave a number."""
    best_step: int
    """-1 where none gave a number."""
    last: float
    """mIoU of the last evaluation."""
    beside: dict[str, float]
    """The same of the other networks that are evaluated, by their names in the method."""
    iou: dict[str, float]
    """Per class, of the last evaluation."""
    pixel_accuracy: float
    images_per_s: float
    data_wait_pct: float
    memory_gib: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which knows neither paths nor NaN."""
        plain = asdict(self) | {"out": str(self.out)}
        plain |= {name: finite(getattr(self, name)) for name in ("best", "last")}
        plain |= {name: {key: finite(v) for key, v in getattr(self, name).items()} for name in ("iou", "beside")}
        return plain


class Trainer:
    """One run of a recipe. Everything that a user can get wrong is checked before anything is written."""

    def __init__(self, recipe: Recipe, on_event: Listener = silent):
        recipe.check()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("torchrun: several processes are not supported yet; start one process without torchrun")
        recipe = anchored(recipe)
        self.recipe, self.on_event = recipe, on_event
        runtime = recipe.runtime
        self.folder = Path(runtime.out or RUNS)
        if not runtime.resume:
            Run.check(self.folder)
        require_packages()
        self.device = resolve_device(runtime.device)
        self.precision = resolve_precision(runtime.precision, self.device)
        self.data = prepare_data(recipe, on_event)
        recipe, told = self._fitted()
        torch.manual_seed(recipe.seed)
        self.method = self._method()
        self.step = Step(recipe, self.method, self.precision, self._note)
        self.first, self.best, self.best_step = 0, math.nan, -1
        self.seconds = 0.0
        run = self._resumed() if runtime.resume else None
        self.loader = open_loader(recipe, self.data, self.device, self.first, on_event)
        self.run = run or self._created()
        on_event(Event("ready", self._described(), values={"classes": len(self.data.dataset.classes)}))
        for line in told:
            self._note(line)

    def _fitted(self) -> tuple[Recipe, list[str]]:
        """The recipe that fits into the memory, and what it will cost, in lines; no line where nobody waits for it."""
        recipe = self.recipe
        if self.device.type == "cpu" and recipe.steps < LONG and recipe.runtime.memory_budget is None:
            return recipe, []
        classes, room = len(self.data.dataset.classes), free_memory_of(self.device)
        self.recipe, told = fitted(recipe, classes, self.precision, self._largest_image(), room)
        lines = [str(told)]
        if self.recipe.runtime.recompute != recipe.runtime.recompute:
            lines.append("recompute: on, as a step would not fit otherwise: blocks of the backbone are computed twice")
        if room is not None and max(told.memory, told.evaluation) > room:
            lines.append(f"memory: only {room / GIB:.1f} GiB are free; lower --batch or --crop if it does not do")
        return self.recipe, lines

    def _method(self) -> Method:
        recipe = self.recipe
        method = build_method(recipe, len(self.data.dataset.classes))
        sources = set()
        # A run that goes on brings its own weights.
        for number, network in enumerate(() if recipe.runtime.resume else method.networks().values()):
            if recipe.init is not None and number == 0:
                self._initialise(network)
            else:
                sources.add(load_backbone(network, recipe.weights))
        for source in sources - {None}:
            self.on_event(Event("note", f"weights: {source}"))
        method.to(self.device)
        if recipe.runtime.channels_last:
            method.to(memory_format=torch.channels_last)
        if recipe.runtime.compile:
            for network in method.modules():
                if isinstance(network, Network):
                    network.compile()
        return method.train()

    def _initialise(self, network: Network) -> None:
        checkpoint = load_network(self.recipe.init, self.recipe.layout)
        header = checkpoint.header
        places = match_classes(header, self.data.dataset.classes, f"--init: {self.recipe.init}")
        if list(places) != sorted(places):
            raise UsageError(
                f"--init: {self.recipe.init} has the same classes in another order ({', '.join(header.classes)}); "
                "write the class list in that order"
            )
        state = checkpoint.network.state_dict()
        wanted = network.state_dict()
        wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
        missing = [name for name in wanted if name not in state and not name.startswith("projector")]
        if wrong or missing:
            raise UsageError(
                f"--init: {self.recipe.init} holds another network (--network {header.network} "
                f"--backbone {header.backbone} --head-width {header.head_width}); ask for the same"
            )
        network.load_state_dict(state, strict=False)

    def _created(self) -> Run:
        if self.recipe.runtime.out is None:
            self.folder = create_new(RUNS / f"{self.recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        run = Run.create(self.folder, self.recipe.to_dict())
        run.write_json("split.json", asdict(self.data.split) | self._identity())
        return run

    def _resumed(self) -> Run:
        recipe = self.recipe
        run = Run.open(self.folder)
        before, now = (portable(anchored(of)).decisive() for of in (Recipe.from_dict(run.recipe), recipe))
        for name, value in before.items():
            if value != now[name]:
                raise UsageError(f"--resume: {name} was {value} in {self.folder} and is {now[name]} now")
        self._require_same_data(run.read_json("split.json"))
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
        self._note(f"going on with {self.folder} at step {self.first}")
        return run

    def _identity(self) -> dict[str, list[str]]:
        """What of the data must not change when a run goes on, by the words of a message; order counts."""
        split = self.data.split
        return {
            "labeled": list(split.labeled),
            "unlabeled": list(split.unlabeled),
            "val": [record.id for record in self.data.val],
            "classes": list(self.data.dataset.classes),
        }

    def _require_same_data(self, before: dict[str, Any]) -> None:
        """Raises UsageError where the data is not that with which the run began; `before` is its split.json, which
        older runs wrote without validation images and classes."""
        words = {"labeled": "labelled images", "unlabeled": "unlabelled images", "val": "validation images"}
        for name, now in self._identity().items():
            was = before.get(name, now)
            unused = name == "unlabeled" and not self.recipe.views.windows
            if was == now or unused:
                continue
            gone, new = ([one for one in these if one not in those] for these, those in ((was, now), (now, was)))
            told = (("gone", gone), ("new", new))
            changed = [f"{len(names)} are {how}, {names[0]} for one" for how, names in told if names]
            raise UsageError(
                f"--resume: the {words.get(name, name)} are not those with which {self.folder} began "
                f"({', '.join(changed) or 'their order is another'}); restore the data, or start a new run"
            )

    def _described(self) -> str:
        data, split = self.data, self.data.split
        return (
            f"data: {data.dataset.root} ({self.recipe.layout}), split {split.name} [{split.checksum}]: "
            f"{len(split.labeled)} labelled, {len(split.unlabeled)} unlabelled, {len(data.val)} validation images, "
            f"{len(data.dataset.classes)} classes\n"
            f"device: {self.device}, {self.precision.name}, {type(self.loader.backend).__name__}; run: {self.folder}"
        )

    def _largest_image(self) -> tuple[int, int]:
        """Height and width of the validation image with the most pixels."""
        return max(((record.height, record.width) for record in self.data.val), key=lambda size: size[0] * size[1])

    def _note(self, text: str) -> None:
        self.on_event(Event("note", text))

    def train(self) -> Result:
        """Trains to the last step and evaluates. Raises Stopped after a signal, when all is saved."""
        recipe, runtime = self.recipe, self.recipe.runtime
        every = runtime.eval_every or max(recipe.steps // 20, 1)
        meters = Meters(recipe, self.device)
        scores: dict[str, Scores] = {}
        began = time.perf_counter() - self.seconds
        try:
            with repeatable(runtime.deterministic), self._stoppable() as signals, self._profiled() as profiled:
                for step, batch in enumerate(meters.waited(iter(self.loader)), self.first):
                    meters.add(self.step(batch, step))
                    profiled()
                    done = step + 1
                    if done % runtime.log_every == 0 or done == recipe.steps:
                        line = meters.read(done, self.step.lr(step))
                        self._log(line)
                        self._require_finite("the loss", line["loss"], done)
                    if done % every == 0 or done == recipe.steps:
                        meters.pause()
                        self._require_finite("the loss or a weight", meters.loss() + self._largest_weight(), done)
                        scores = self._evaluate(done)
                        self.seconds = time.perf_counter() - began
                        self._save(done, scores)
                        meters.resume()
                    if signals:
                        self.seconds = time.perf_counter() - began
                        self._require_finite("the loss or a weight", meters.loss() + self._largest_weight(), done)
                        self._save_state(done)
                        raise Stopped(signals[0], f"stopped after step {done}; go on with --out {self.folder} --resume")
            if not scores:  # it was stopped after its last step, before the evaluation
                scores = self._evaluate(self.first)
                self._save(self.first, scores)
        finally:
            self.loader.close()
            self.run.close()
        result = self._result(scores, meters, time.perf_counter() - began)
        self.run.write_json("result.json", result.to_dict())
        return result

    def _log(self, line: dict[str, Any]) -> None:
        self.run.write(line)
        steps = self.recipe.steps
        self.on_event(Event("log", describe(line, steps), line["step"], steps, line))

    def _require_finite(self, what: str, value: float, done: int) -> None:
        """Raises UsageError for a value that shows that training has diverged, unless that is to be ignored."""
        if math.isfinite(value) or self.recipe.runtime.on_nan == "ignore":
            return
        kept = self.run.checkpoints / "last.safetensors"
        cure = " or with --precision fp32" if self.precision.name in LOW else ""
        raise UsageError(
            f"--lr: {what} is not finite any more at step {done}: train again with less than {self.recipe.lr:g}{cure}, "
            "look at the data with `semiseg doctor`, or go on regardless with --on-nan ignore; "
            f"{f'{kept} is from before' if kept.exists() else 'no checkpoint was saved before'}"
        )

    def _largest_weight(self) -> float:
        """The largest magnitude among the method's parameters and buffers, NaN where one is NaN."""
        values = [value for value in self.method.state_dict().values() if value.is_floating_point()]
        return float(torch.stack([value.abs().max().float() for value in values]).max())

    def _evaluate(self, done: int) -> dict[str, Scores]:
        """Of all networks that the method has for it; the first one's decides what is best."""
        scores = {
            name: evaluate(
                network,
                self.data.val,
                self.data.dataset.classes,
                self.recipe.protocol(),
                precision=self.precision,
                on_progress=progress_of("evaluating", self.on_event),
            )
            for name, network in self.method.predictors().items()
        }
        (main, *others) = scores
        first = scores[main]
        line = {"step": done, "val/miou": first.miou, "val/pixel_accuracy": first.pixel_accuracy}
        line |= {f"val/iou/{name}": iou for name, iou in first.iou.items()}
        for name in others:
            line |= {f"val/{name}/miou": scores[name].miou, f"val/{name}/pixel_accuracy": scores[name].pixel_accuracy}
        self.run.write(line)
        best = " (best)" if self.recipe.protocol().prefers(first.miou, self.best) else ""
        of = f" of the {main}" if others else ""
        beside = "".join(f", of the {name} {percent(finite(scores[name].miou))} %" for name in others)
        self._note(f"step {done}/{self.recipe.steps}  val mIoU{of} {percent(finite(first.miou))} %{best}{beside}")
        if math.isnan(first.miou) and self.recipe.runtime.on_nan == "stop":
            raise UsageError(
                "validation: mIoU is no number, because no class that counts is in a mask or a prediction; mend the "
                "validation masks (`semiseg doctor` counts their classes) or go on without scores by --on-nan ignore"
            )
        return scores

    def _save(self, done: int, scores: dict[str, Scores]) -> None:
        """best and last.safetensors hold the first network, best-NAME and last-NAME.safetensors the others."""
        kept = ["last"]
        miou = next(iter(scores.values())).miou
        if self.recipe.protocol().prefers(miou, self.best):
            self.best, self.best_step = miou, done
            kept.append("best")
        dataset = self.data.dataset
        for number, (name, network) in enumerate(self.method.predictors().items()):
            miou = scores[name].miou
            header = header_of(self.recipe, network, dataset.classes, dataset.palette, step=done, miou=miou)
            for which in kept:
                file = f"{which}-{name}" if number else which
                save_network(self.run.checkpoints / f"{file}.safetensors", network, header, self.recipe)
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

    def _result(self, scores: dict[str, Scores], meters: Meters, seconds: float) -> Result:
        split = self.data.split
        first, *_ = scores.values()
        return Result(
            out=self.run.folder,
            split=split.name,
            checksum=split.checksum,
            labeled=len(split.labeled),
            unlabeled=len(split.unlabeled) if self.recipe.views.windows else 0,
            steps=self.recipe.steps,
            best=self.best,
            best_step=self.best_step,
            last=first.miou,
            beside={name: score.miou for name, score in scores.items() if score is not first},
            iou=first.iou,
            pixel_accuracy=first.pixel_accuracy,
            images_per_s=meters.images_per_s,
            data_wait_pct=meters.data_wait_pct,
            memory_gib=meters.memory_gib(),
            seconds=seconds,
        )

    def _profiled(self) -> AbstractContextManager[Callable[[], None]]:
        """A function that is told of each step."""
        if not self.recipe.runtime.profile:
            return nullcontext(lambda: None)
        return profiling(self.folder, self.device, self._note)

    @contextmanager
    def _stoppable(self) -> Iterator[list[int]]:
        """The signals so far: Ctrl-C or a scheduler's SIGTERM stops between two steps, a second one at once."""
        signals: list[int] = []

        def stop(number: int, frame: object) -> None:
            if signals:
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
            signals.append(number)
            self._note("stopping after this step; once more to stop at once")

        if threading.current_thread() is not threading.main_thread():
            yield signals
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield signals
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
