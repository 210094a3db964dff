"""The training loop: data in, steps, evaluations, checkpoints and log out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ...pipelines.backends import bytes_on, keeps_decoded
from ...pipelines.errors import UsageError
from ...pipelines.memory import GIB
from ..data import prepare_data
from ..device import LOW, make_current, random_state, repeatable, resolve_device, resolve_precision, set_random_state
from ..disk import DiskFull, create_new
from ..distributed import gathered
from ..evaluation.scores import Scores
from ..events import Event, Listener, notes_to, silent
from ..memory import free_memory_of, within_memory
from ..places import with_absolute_paths
from ..processes import (
    all_reduce_max,
    broadcast_object,
    heartbeat,
    is_distributed,
    is_main,
    launched,
    local_rank,
    main_first,
    pause_watchdog,
    rank,
    world_size,
)
from ..recipe import Recipe
from ..run import Run, require_packages
from ..sheet import draw
from .build import open_loader, open_method
from .forecast import beyond_memory, fit_to_memory, forecast, share_of
from .judge import Judge, first_of, largest_weight, line_of, require_room
from .meters import IGNORED, Meters, describe
from .profiling import profiling
from .result import Result
from .resume import RUNS, changed_runtime, find_run, how_to_go_on, require_same_data, require_same_recipe, split_record
from .saver import Saver
from .signals import Stopped, at_once, ending
from .state import Save, Writer, load_method, load_save
from .step import Step
from .verdict import prove_fast_paths
from .xray import Look, Xray

LONG = 1000
"""Steps from which on a run on the CPU is worth a forecast, which takes seconds."""
MOST_IGNORED = 25
"""Percent of the labelled crops between two log lines that may be without labels; it is told once."""


class Trainer:
    """One run of a recipe. Everything that a user can get wrong is checked before anything is written."""

    def __init__(self, recipe: Recipe, on_event: Listener = silent):
        recipe.check()
        if launched() > 1 and not is_distributed():
            raise UsageError("torchrun: several processes train together by semiseg.engine.train, not by Trainer alone")
        recipe = with_absolute_paths(recipe)
        if recipe.runtime.out:
            recipe = recipe.replace(out=Path(recipe.runtime.out).expanduser())
        self.recipe, self.on_event, self._note = recipe, on_event, notes_to(on_event)
        self._too_large = lambda: beyond_memory(self.recipe, self.device, world_size())
        run = find_run(recipe)
        try:
            with nullcontext() if is_distributed() else at_once(), within_memory(self._too_large):
                self._open(run)
        except BaseException:  # the next call of this process may go on with it
            if run is not None:
                run.close()
            raise

    def _open(self, run: Run | None) -> None:
        """Everything up to the first step. run: the one that goes on."""
        runtime = self.recipe.runtime
        self.folder = run.folder if run else Path(runtime.out or RUNS)
        if run is None and is_main():
            Run.check(self.folder)
        require_packages()
        self.device = resolve_device(runtime.device, local_rank() if is_distributed() else None)
        make_current(self.device)
        self.precision = resolve_precision(runtime.precision, self.device)
        with main_first():
            saves, state = self._prepare(run)
        require_room(self.recipe, self.data, self.precision)
        self.recipe, flops, told = broadcast_object(self._fitted())
        self._build(flops, fresh=state is None)
        if run is not None:
            self._go_on(run, state)
            if changed := changed_runtime(run, self.recipe):
                self._note(changed)
        with main_first():
            self.loader = open_loader(self.recipe, self.data, self.device, self.first, self.on_event)
        self.run = run or self._created()
        self.saver = Saver(self.run.checkpoints, self.device, runtime.cadence(), saves, runtime.keep, self._note)
        facts = {"recipe": self.recipe, "classes": len(self.data.dataset.classes)}
        self.on_event(Event("ready", self._described(), values=facts))
        for line in told:
            self._note(line)
        if self.precision.emulated:
            self._note(
                f"warning: --precision {self.precision.name}: this device has no instructions for it and emulates "
                "them, which is slower than fp32; leave it out"
            )

    def _prepare(self, run: Run | None) -> tuple[list[Save], dict[str, Any] | None]:
        """The data, and the recipe with what this machine can be trusted to do; of a run that goes on its saves and its
        state, too."""
        saves: list[Save] = []
        recipe, state = self.recipe, None
        if run is not None:
            saves, state = load_save(run.checkpoints, self._note)
            require_same_recipe(run, recipe, fresh=state is None)
            # What it began with is part of what was trained, and need not be said again.
            recipe = recipe.replace(weights=run.recipe.weights, init=run.recipe.init)
        self.data = prepare_data(recipe, self.on_event, run)
        if run is not None:
            require_same_data(run, recipe, self.data)
        before = run.recipe.runtime.backend if run else None
        decoded = keeps_decoded(self.data.trained_on, self.data.manifest.folder)
        self.recipe = prove_fast_paths(recipe, self.precision, self._note, decoded, before)
        return saves, state

    def _build(self, flops: int | None, *, fresh: bool) -> None:
        """The method and what trains, measures and judges it, as before the first step. flops: of a step, if known."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        self.method = open_method(recipe, self.data, self.device, fresh=fresh, on_event=self.on_event)
        if not is_main():  # dropout is each process's own
            torch.manual_seed(recipe.seed + rank())
        self.step = Step(recipe, self.method, self.precision, self._note)
        peak = self.precision.peak_flops()
        self.meters = Meters(recipe, self.device, fastest_step=flops / peak if flops and peak else None)
        self.xray = Xray(recipe, self.data, self.precision) if recipe.views.windows else None
        self.judge = Judge(recipe, self.data, self.method, self.precision, self.on_event)
        self.first, self.seconds, self.warned = 0, 0.0, False

    def _fitted(self) -> tuple[Recipe, int | None, list[str]]:
        """The recipe that fits into the memory, the FLOPs of this process's step (what is computed again does not
        count), and what it will cost, in lines; neither where nobody waits for it."""
        recipe = self.recipe
        if self.device.type == "cpu" and recipe.steps < LONG and recipe.runtime.memory_budget is None:
            return recipe, None, []
        classes, room = len(self.data.dataset.classes), free_memory_of(self.device)
        kept = bytes_on(self.device, recipe.runtime.backend, self.data.trained_on)
        if room is not None:
            room -= kept
        processes, largest = world_size(), max((record.size for record in self.data.val), key=math.prod)
        fitting, told = fit_to_memory(recipe, classes, self.precision, largest, room, kept, processes)
        share = share_of(fitting, processes)
        lines = [str(told)]
        if fitting.runtime.recompute != recipe.runtime.recompute:
            lines.append("recompute: on, as a step would not fit otherwise: blocks of the backbone are computed twice")
        if room is not None and max(told.memory, told.evaluation) > room:
            lines.append(f"memory: only {room / GIB:.1f} GiB are free; lower --batch or --crop if it does not do")
        flops = told.flops
        if share.runtime.recompute == "on":
            flops = forecast(share.replace(recompute="off"), classes, self.precision).flops
        return fitting, flops * recipe.batch // (processes * share.batch), lines

    def _created(self) -> Run:
        if not is_main():
            return Run(broadcast_object(self.folder))
        if self.recipe.runtime.out is None:
            self.folder = create_new(RUNS / f"{self.recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        run = Run.create(self.folder, self.recipe.to_dict(), split_record(self.data))
        broadcast_object(self.folder)
        return run

    def _go_on(self, run: Run, state: dict[str, Any] | None) -> None:
        if state is None:
            self._note(f"going on with {self.folder} from the start: it was ended before its first save")
            return
        load_method(self.method, state["method"])
        self.step.load_state_dict(state["step"])
        self.meters.load_state_dict(state["meters"])
        self.first, self.seconds = state["steps_done"], state["seconds"]
        self.warned, self.judge.missed = state["warned"], state.get("missed", [])
        if self.xray and state["xray"]:
            self.xray.load_state_dict(state["xray"])
        self._note(f"going on with {self.folder} at step {self.first}")
        self.judge.load_best(run.checkpoints)
        # Last: to load a network draws numbers. A process that is new to the run keeps its own.
        own = {name: states[rank()] for name, states in state["random"].items() if rank() < len(states)}
        set_random_state(own, self.device)

    def _described(self) -> str:
        data, split = self.data, self.data.split
        return (
            f"data: {data.dataset.root} ({self.recipe.layout}), split {split.name} [{split.checksum}]: "
            f"{len(split.labeled)} labelled, {len(split.unlabeled)} unlabelled, {len(data.val)} validation images, "
            f"{len(data.dataset.classes)} classes\n"
            f"device: {self.device}, {self.precision.name}, {type(self.loader.backend).__name__}; run: {self.folder}"
        )

    def train(self, conclude: Callable[[Result], None] = lambda result: None) -> Result:
        """Trains to the last step, or while there is patience, and evaluates. Raises Stopped after a signal, all saved.
        conclude: what the process that writes makes of the result, before any other may go on with the run."""
        recipe, runtime, meters = self.recipe, self.recipe.runtime, self.meters
        every = recipe.steps_between_evaluations()
        done, scores = self.first, dict[str, Scores]()
        self.began = time.perf_counter() - self.seconds
        heartbeat("before the first step")
        try:
            with (
                within_memory(self._too_large),
                repeatable(runtime.deterministic),
                ending(self._note, patient=is_distributed()) as signals,
                self._profiled() as profiled,
            ):
                batches = iter(self.loader) if not self._past_patience(done) else iter(())
                for step, batch in enumerate(meters.waited(batches), self.first):
                    meters.add(self.step(batch, step))
                    for micro in batch.micro_batches:
                        meters.look_at(micro.labeled.target)
                    if self.step.skipped is not None:
                        meters.count_skipped(self.step.skipped)
                    profiled()
                    done = step + 1
                    heartbeat(f"step {done} done")
                    if done % runtime.log_every == 0 or done == recipe.steps:
                        self._log(meters.read(done, self.step.lr(step)))
                    if judged := done % every == 0 or done == recipe.steps:
                        with meters.aside() as evaluated:
                            self._require_sound(done)
                            # The save comes behind it, so that one of an evaluated step always holds what that found.
                            # A kill in between costs the steps since the last save, as at any other moment.
                            scores = self._evaluate(done)
                            evaluated()
                            self._save_judged(done, scores)
                    self._save_or_stop(done, signals, saved=judged)
                    if judged and self._past_patience(done):
                        break
                if not scores:  # it was stopped after its last step, which the log has
                    scores = self.judge.scores()
                    self._save_judged(done, scores)
                self._flush()
                result = self._result(done, scores, meters, time.perf_counter() - self.began)
                heartbeat("before the report")
                if is_main():
                    conclude(result)
        finally:
            self.loader.close()
            self.saver.close()
            self.run.close()
        return result

    def _past_patience(self, done: int) -> bool:
        """Whether to end after a step, as one of the processes finds."""
        (past,) = all_reduce_max(int(self.judge.past_patience()))
        if past and done < self.recipe.steps:
            since = max(self.judge.best_step, 0)
            self._note(f"--patience: no evaluation was better since that of step {since}; ends after step {done}")
        return bool(past)

    def _save_or_stop(self, done: int, signals: list[int], *, saved: bool) -> None:
        """Saves a step where it is due, unless that is `saved` already. Raises Stopped after a signal. That may reach
        one process alone; all stop after the same step."""
        save_due = not saved and is_main() and self.saver.due(done)
        ended_by, due_anywhere = all_reduce_max(signals[0] if signals else 0, int(save_due))
        if not saved and (ended_by or due_anywhere):
            self._require_sound(done)
            self._save(done)
        if ended_by:
            self._flush()
            raise Stopped(ended_by, f"stopped after step {done}; {how_to_go_on(self.run, self.method)}")

    def _write_if_room(self, write: Callable[..., None], *arguments: Any) -> None:
        """Writes to the log; what there is no room for comes with the next line."""
        if not is_main():
            return
        try:
            write(*arguments)
        except DiskFull as error:
            self._note(f"warning: the log waits, training goes on: {error}")

    def _log(self, line: dict[str, Any]) -> None:
        """Writes and tells a line of the log. Raises UsageError where it shows that training has diverged."""
        self._write_if_room(self.run.write, line)
        steps = self.recipe.steps
        self.on_event(Event("log", describe(line, steps), line["step"], steps, line))
        if (share := line[IGNORED]) > MOST_IGNORED and not self.warned:
            self.warned = True
            self._note(
                f"warning: {share:.0f} % of the labelled crops up to step {line['step']} hold no labelled pixel and "
                f"teach nothing: pass a larger --crop than {self.recipe.crop}, or look at the masks (`semiseg doctor`)"
            )
        self._require_finite("the loss", line["loss"], line["step"])
        self._require_finite("the gradient", math.nan if self.step.overflows() else 0.0, line["step"])

    def _require_finite(self, what: str, value: float, done: int) -> None:
        """Raises UsageError for a value that shows that training has diverged, unless that is to be ignored."""
        if math.isfinite(value) or self.recipe.runtime.on_nan == "ignore":
            return
        self.saver.wait()
        kept = self.run.checkpoints / "last.safetensors"
        cure = " or with --precision fp32" if self.precision.name in LOW else ""
        raise UsageError(
            f"--lr: {what} is not finite any more at step {done}: train again with less than {self.recipe.lr:g}{cure}, "
            f"look at the data with `semiseg doctor`, find the operation with `semiseg replay {self.folder}`, or go on "
            "regardless with --on-nan ignore; "
            f"{f'{kept} is from before' if kept.exists() else 'no checkpoint was saved before'}"
        )

    def _require_sound(self, done: int) -> None:
        """Raises UsageError where the state after a step is not worth a save."""
        if self.recipe.runtime.on_nan != "ignore":
            self._require_finite("the loss or a weight", self.meters.loss() + largest_weight(self.method), done)

    def _evaluate(self, done: int) -> dict[str, Scores]:
        """Evaluates all networks that the method has for it, and looks at what unlabelled images teach."""
        scores = self.judge.scores()
        look = self.xray(self.method, done - 1) if self.xray else None
        line = line_of(scores, done) | (look.line() if look else {})
        self._write_if_room(self.run.write, line)
        self.on_event(Event("note", self.judge.described(scores, done), done, self.recipe.steps, line))
        if self.xray and look:
            self._report_pseudo_labels(look, self.xray.suspicion(look, done))
        if math.isnan(first_of(scores).miou) and self.recipe.runtime.on_nan == "stop":
            raise UsageError(
                "validation: mIoU is no number, because no class that counts is in a mask or a prediction; mend the "
                "validation masks (`semiseg doctor` counts their classes) or go on without scores by --on-nan ignore"
            )
        return scores

    def _report_pseudo_labels(self, look: Look, suspicion: str | None) -> None:
        """What the unlabelled images teach, and a word where it goes wrong."""
        self._note(f"pseudo-labels: {look}")
        if suspicion:
            self._note(f"warning: pseudo-labels: {suspicion}")
        if is_main():
            dataset = self.data.dataset
            self._write_if_room(self.run.write_views, draw(look.rows, dataset.classes, dataset.palette))

    def _save_judged(self, done: int, scores: dict[str, Scores]) -> None:
        best = self.judge.note_best(scores, done)
        self._save(done, self.judge.writers(scores, done, best=best))

    def _save(self, done: int, networks: dict[str, Writer] | None = None) -> None:
        self.seconds = time.perf_counter() - self.began
        state = {
            "method": self.method.state_dict(),
            "step": self.step.state_dict(),
            "meters": self.meters.state_dict(),
            "xray": self.xray and self.xray.state_dict(),
            "warned": self.warned,
            "missed": [*self.judge.missed],
            # Of each process, one behind the other.
            "random": {name: gathered(one[None]) for name, one in random_state(self.device).items()},
            "steps_done": done,
            "seconds": self.seconds,
        }
        self._write_if_room(self.run.sync)
        if is_main():
            self.saver.save(done, state, networks)

    def _flush(self) -> None:
        """Waits until all is on the disk. Raises UsageError where it is not."""
        pause_watchdog()
        self.run.sync()
        self.saver.flush()
        broadcast_object(None)  # what the others wait for

    def _result(self, done: int, scores: dict[str, Scores], meters: Meters, seconds: float) -> Result:
        split = self.data.split
        first = first_of(scores)
        return Result(
            out=self.run.folder,
            split=split.name,
            checksum=split.checksum,
            labeled=len(split.labeled),
            unlabeled=len(split.unlabeled) if self.recipe.views.windows else 0,
            steps=done,
            best=self.judge.best,
            best_step=self.judge.best_step,
            last=first.miou,
            beside={name: score.miou for name, score in scores.items() if score is not first},
            iou=first.iou,
            pixel_accuracy=first.pixel_accuracy,
            images_per_s=meters.images_per_s,
            data_wait_pct=meters.data_wait_pct,
            memory_gib=meters.memory_gib,
            seconds=seconds,
        )

    def _profiled(self) -> AbstractContextManager[Callable[[], None]]:
        """A function that is told of each step."""
        if not self.recipe.runtime.profile or not is_main():
            return nullcontext(lambda: None)
        return profiling(self.folder, self.device, self._note)
