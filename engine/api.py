"""The library from Python: train a recipe, score and use what came of it. Nothing is printed; a listener is told.

from semiseg.engine import evaluate, load_recipe, predict, train

recipe = load_recipe("cac_voc", data="VOCdevkit", steps=1000)
result = train(recipe, on_event=lambda event: print(event.text))
scores = evaluate(result.out)
"""

from __future__ import annotations

from ..pipelines.errors import UsageError
from .catalogue import load_recipe
from .checkpoint import Checkpoint, load_network
from .device import as_started
from .evaluation.export import Export, ExportError, export
from .evaluation.inference import Segmentation, evaluate
from .evaluation.prediction import Predictions, predict
from .evaluation.segmenter import Segmenter
from .events import Event, Listener, notes_to, silent
from .processes import is_main, joined
from .recipe import Recipe
from .report import write_report, write_samples
from .run import Notes
from .training.result import Result
from .training.resume import keep_code
from .training.signals import Stopped
from .training.trainer import Trainer

__all__ = [
    "Checkpoint",
    "Event",
    "Export",
    "ExportError",
    "Predictions",
    "Recipe",
    "Result",
    "Segmentation",
    "Segmenter",
    "Stopped",
    "UsageError",
    "evaluate",
    "export",
    "load_network",
    "load_recipe",
    "predict",
    "train",
]


@as_started()
def train(recipe: Recipe, on_event: Listener = silent) -> Result:
    """Trains a recipe, evaluates it and leaves a run's folder (`result.out`) with report.html.

    Under torchrun its processes train together: each must call it, as often as the others, the first one writes and
    tells the listener, and all get the result. What the program around has set in torch does not count
    (`as_started`), but for its number of threads.

    Raises UsageError, before anything is written, for whatever a user can mend; Stopped after a signal, all saved. Of
    several processes the first that fails does so, the others raise SystemExit.
    """
    with joined(recipe.runtime.timeout):
        notes = Notes(on_event) if is_main() else None
        trainer = Trainer(recipe, notes or silent)
        if notes:
            notes.keep_in(trainer.run)
            keep_code(trainer.run, trainer.method, notes_to(notes))

        def conclude(result: Result) -> None:
            write_samples(trainer.run, trainer.data.manifest, trainer.device, trainer.on_event)
            write_report(result.out)
            trainer.run.write_json("result.json", result.to_dict())  # last: with it a run is finished

        return trainer.train(conclude)
