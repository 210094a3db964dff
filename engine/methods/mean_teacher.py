"""Mean Teacher (Tarvainen and Valpola, NeurIPS 2017) for segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ...kernels import upsample_mse
from ...pipelines.batch import Batch, WeakStrong
from ...pipelines.views import ViewSpec
from .consistency import inside
from .ema import Teacher, TeacherConfig, TeacherMethod
from .method import PseudoLabels
from .programs import cps_switches


@dataclass(kw_only=True, slots=True)
class MeanTeacherConfig(TeacherConfig):
    """Squared error against a teacher's probabilities."""

    weight: float = 100.0
    """Weight of the consistency, which is a mean over pixels and classes."""
    ema_rule: Literal["ramp", "constant"] = "constant"
    ema_buffers: Literal["averaged", "copied", "own"] = "own"


class MeanTeacher(TeacherMethod):
    """A strong view has the probabilities that a teacher gives the weak view.

    loss = CE(f(x), y) + weight mean (softmax f(strong) - softmax g(weak))^2
    """

    name = "mean_teacher"
    config_class = MeanTeacherConfig
    config: MeanTeacherConfig
    teacher: Teacher
    steady = True
    views = ViewSpec(unlabeled="weak_strong", strong=1, cutmix="never")
    terms: ClassVar = {"consistency": "weight"}

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        return cps_switches(layout) | {"method.best": "student"}

    def losses(self, batch: Batch[WeakStrong], progress: float) -> dict[str, Tensor]:
        u = batch.unlabeled
        wanted = self.teacher(u.weak)
        logits, strong = self.student.logits_of_each(batch.labeled.image, u.strong[0])
        supervised = self.supervised(logits, batch.labeled.target)
        consistency = self.mean_of_processes(self.squared_error, strong, wanted, u.valid)
        return self.summed({"supervised": supervised, "consistency": consistency})

    def pseudo_labels(self, batch: Batch[WeakStrong]) -> PseudoLabels:
        u = batch.unlabeled
        views = {"weak": u.weak, "strong": u.strong[0]}
        return PseudoLabels(views, self.label(self.teacher(u.weak)), other=self.students_labels(u.weak))

    def squared_error(self, logits: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
        """The mean over classes and over the pixels that show an image and not padding."""
        size = (self.crop, self.crop)
        shown = inside(valid, size)
        count = shown.sum()
        error = upsample_mse(logits, wanted, size, pixel_weight=shown, normalizer=count) / logits.shape[1]
        return self.weighed(error, count)
