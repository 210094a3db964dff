"""The methods' settings for data of one's own: few labels, pretrained features, hundreds or thousands of steps.

They are ours and not the published ones, which are meant for schedules of days: terms of unlabelled images come in over
the first half of the schedule, teachers follow their networks from the first step on, and the labels of the FixMatch
family count from 0.8 on. docs/results.md says what was tried. CAC keeps its published settings.
"""

from typing import Any

from semiseg.engine.methods.cps import CpsConfig
from semiseg.engine.methods.cutmix_cps import CutMixCpsConfig
from semiseg.engine.methods.cutmix_seg import CutMixSegConfig
from semiseg.engine.methods.fixmatch import FixMatchConfig
from semiseg.engine.methods.mean_teacher import MeanTeacherConfig
from semiseg.engine.methods.u2pl import U2plConfig
from semiseg.engine.methods.unimatch import UniMatchConfig
from semiseg.engine.methods.unimatch_v2 import UniMatchV2Config

RAMP = 0.5
EMA = 0.98
THRESHOLD = 0.8


def cps() -> CpsConfig:
    return CpsConfig(ramp=RAMP)


def cutmix_cps() -> CutMixCpsConfig:
    return CutMixCpsConfig(ramp=RAMP)


def mean_teacher() -> MeanTeacherConfig:
    """At the published weight of 100 the gradient of the consistency is several times that of the labels, and classes
    that are still being learnt are pushed down."""
    return MeanTeacherConfig(weight=20.0, ramp=RAMP, ema=EMA, ema_rule="ramp", ema_buffers="averaged")


def cutmix_seg() -> CutMixSegConfig:
    """At a weight of 30, which suits the figures of shapes, photographs ended below the baseline."""
    return CutMixSegConfig(weight=5.0, ramp=RAMP, ema=EMA, ema_rule="ramp")


def fixmatch() -> FixMatchConfig:
    """Labels are those of a teacher: a network that labels for itself gained nothing."""
    weights: dict[str, Any] = {"supervised_weight": 1.0, "strong_weight": 1.0}
    return FixMatchConfig(labels="teacher", ema=EMA, threshold=THRESHOLD, ramp=RAMP, **weights)


def unimatch() -> UniMatchConfig:
    """Labels are those of a teacher: with its network's own, most runs on photographs ended below."""
    weights: dict[str, Any] = {"supervised_weight": 1.0, "strong_weight": 0.5, "perturbed_weight": 0.5}
    return UniMatchConfig(labels="teacher", ema=EMA, threshold=THRESHOLD, ramp=RAMP, **weights)


def unimatch_v2() -> UniMatchV2Config:
    return UniMatchV2Config(ema=EMA, threshold=THRESHOLD, ramp=RAMP, supervised_weight=1.0, strong_weight=1.0)


def u2pl() -> U2plConfig:
    """More pixels are unreliable than as published, and the contrastive term weighs less: with the published share a
    run on shapes taught itself wrong labels and ended below the baseline, and at a weight of 1 another ended four
    points lower. Banks are small, as what a network that learns fast has put into them is soon out of date."""
    late: dict[str, Any] = {"start": 0.0, "teacher_start": 0.0, "ramp": RAMP}
    return U2plConfig(unreliable=0.6, contrastive_weight=0.1, ema=EMA, bank_size=2_000, **late)
