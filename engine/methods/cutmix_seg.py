"""CutMix-Seg: Semi-supervised semantic segmentation needs strong, varied perturbations (French et al., BMVC 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ...kernels import mixed_pseudo_label, pseudo_label, upsample_mse
from ...pipelines.batch import Batch, WeakStrong
from ...pipelines.views import ViewSpec
from .consistency import Mixing, shown_in_mixed
from .ema import Teacher, TeacherConfig, TeacherMethod
from .method import PseudoLabels
from .programs import PROGRAMS


@dataclass(kw_only=True, slots=True)
class CutMixSegConfig(TeacherConfig):
    """Squared error against a teacher's probabilities on mixed images."""

    weight: float = 1.0
    """Weight of the consistency: a sum over classes, a mean over all pixels."""
    threshold: float = 0.97
    """A pixel of which the teacher is at least so sure counts as confident."""
    confidence: Literal["mean", "pixel"] = "mean"
    """mean: the share of confident pixels of the batch weighs all pixels alike; pixel: confident pixels alone count."""
    ema_rule: Literal["ramp", "constant"] = "constant"

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from TeacherConfig.faults(self)
        yield from self.bounded("threshold", 0, 1)


class CutMixSeg(Mixing, TeacherMethod):
    """On a strong view that is mixed with a partner's, the student has the probabilities that a teacher gives either
    image's weak view, mixed alike.

    loss = CE(f(x), y) + weight c mean sum over classes of (softmax f(mix(strong)) - softmax mix(g(weak)))^2
    """

    name = "cutmix_seg"
    config_class = CutMixSegConfig
    config: CutMixSegConfig
    teacher: Teacher
    steady = True
    views = ViewSpec(unlabeled="weak_strong", strong=1, cutmix="always")
    terms: ClassVar = {"consistency": "weight"}

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        return {"evaluation.protocol": PROGRAMS["cutmix_seg"].protocol_on(layout)}

    def losses(self, batch: Batch[WeakStrong], progress: float) -> dict[str, Tensor]:
        u = batch.unlabeled
        wanted = self.teacher(u.weak)
        logits, mixed = self.student.logits_of_each(batch.labeled.image, self.mixed_view(u, 0))
        supervised = self.supervised(logits, batch.labeled.target)
        consistency = self.mean_of_processes(
            self.squared_error,
            mixed,
            *self.with_partners(wanted, u),
            u.boxes[0],
            *self.with_partners(u.valid, u),
        )
        return self.summed({"supervised": supervised, "consistency": consistency})

    def pseudo_labels(self, batch: Batch[WeakStrong]) -> PseudoLabels:
        """Confident pixels are the kept ones, though those of the batch may weigh all alike."""
        u = batch.unlabeled
        weak = u.trained_on(u.weak)
        label, confidence = pseudo_label(u.trained_on(self.teacher(u.weak)), (self.crop, self.crop))
        views = {"weak": weak, "strong, mixed": self.mixed_view(u, 0)}
        kept = confidence >= self.config.threshold
        alone, other = self.config.confidence == "pixel", self.students_labels(weak)
        return PseudoLabels(views, label, kept=kept, kept_alone=alone, other=other)

    def squared_error(
        self, logits: Tensor, own: Tensor, partners: Tensor, boxes: Tensor, valid: Tensor, partners_valid: Tensor
    ) -> Tensor:
        """The mean over all pixels, of which those that show padding have no error."""
        size = (self.crop, self.crop)
        _, confidence = mixed_pseudo_label(own, partners, boxes, size)
        confident = confidence >= self.config.threshold
        weight = shown_in_mixed(valid, partners_valid, boxes, size)
        if self.config.confidence == "pixel":
            return upsample_mse(logits, own, size, other=partners, boxes=boxes, pixel_weight=weight & confident)
        error = upsample_mse(logits, own, size, other=partners, boxes=boxes, pixel_weight=weight)
        return self.average(confident.to(error.dtype).mean()) * error
