"""The teacher: its rule, its buffers, its place outside of the optimizer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from semiseg.engine.device import Precision
from semiseg.engine.methods.ema import Teacher, TeacherConfig
from semiseg.engine.training.build import build_method, parameter_groups
from semiseg.engine.training.step import Step
from semiseg.pipelines.errors import UsageError

FP32 = Precision("fp32", torch.device("cpu"))
TEACHERS = ("mean_teacher", "cutmix_seg", "unimatch_v2")


def pair(**settings) -> tuple[nn.Module, Teacher]:
    """A student of a normalised convolution with dropout, and its teacher."""
    networks = [nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout()).double() for _ in range(2)]
    return networks[0], Teacher(networks[1], TeacherConfig(**settings)).double()


@pytest.mark.parametrize(("rule", "kept"), [("ramp", [0, 0.5, 2 / 3, 0.7, 0.7]), ("constant", [0.7] * 5)])
def test_the_teacher_follows_by_its_rule(rule, kept):
    student, teacher = pair(ema=0.7, ema_rule=rule)
    teacher.become(student)
    expected = {name: value.clone() for name, value in student.state_dict().items()}
    torch.manual_seed(0)
    for k, share in enumerate(kept):
        assert teacher.kept(k) == pytest.approx(share)
        student.train()(torch.randn(3, 1, 4, 4).double())  # moves running statistics
        for parameter in student.parameters():
            parameter.data += torch.randn_like(parameter)
        teacher.expect(k)
        teacher.follow(student)
        for name, value in student.state_dict().items():
            if value.is_floating_point():
                expected[name] = share * expected[name] + (1 - share) * value
            else:
                expected[name] = value
        for name, value in teacher.network.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)
        assert k > 0 or rule == "constant" or all(map(torch.equal, teacher.network.parameters(), student.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_averages_that_would_stand_still_are_refused(dtype):
    with pytest.raises(UsageError, match=r"teacher: an average of torch.b?float16 stands still; keep .* float32"):
        Teacher(nn.Conv2d(1, 2, 1).to(dtype), TeacherConfig(ema=0.996))


@pytest.mark.parametrize("buffers", ["averaged", "copied", "own"])
def test_whose_batch_statistics_the_teacher_has(buffers):
    student, teacher = pair(ema=0.5, ema_rule="constant", ema_buffers=buffers)
    teacher.become(student)
    teacher.train()
    _, norm, dropout = teacher.network
    assert (norm.training, dropout.training) == (buffers == "own", False)
    images = torch.ones(2, 1, 3, 3).double()
    student.train()(4 * images)
    before = teacher.network[1].running_mean.clone()
    teacher(images)
    passed = teacher.network[1].running_mean.clone()
    assert torch.equal(passed, before) is (buffers != "own")
    teacher.expect(0)
    teacher.follow(student)
    expected = {"averaged": (before + student[1].running_mean) / 2, "copied": student[1].running_mean, "own": passed}
    torch.testing.assert_close(teacher.network[1].running_mean, expected[buffers])
    assert teacher.network[1].num_batches_tracked == 1


@pytest.mark.parametrize("name", TEACHERS)
def test_no_optimizer_sees_the_teacher_and_its_state_is_the_method_s(tiny, name):
    recipe = tiny(name)
    method = build_method(recipe, 3)
    trained = {id(p) for group in parameter_groups(recipe, method) for p in group["params"]}
    assert not trained & {id(p) for p in method.teacher.parameters()}
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert any(key.startswith("teacher.") for key in method.state_dict())
    assert list(method.predictors()) == ["teacher", "student"]
    assert method.predictor() is method.teacher.network


def test_the_teacher_starts_as_the_student_and_gets_no_gradient(tiny, random_batch):
    recipe = tiny("unimatch_v2")
    method = build_method(recipe, 3).train()
    step = Step(recipe, method, FP32)
    assert all(map(torch.equal, method.teacher.network.state_dict().values(), method.student.state_dict().values()))
    step(random_batch("weak_strong"), 0)
    assert all(p.grad is None for p in method.teacher.parameters())
    assert not method.train().teacher.network.training


def test_best_by_student_makes_the_student_the_saved_one(tiny):
    recipe = tiny("unimatch_v2")
    method = build_method(recipe.replace(method=replace(recipe.method, best="student")), 3)
    assert list(method.predictors()) == ["student", "teacher"]
    assert method.predictor() is method.student


@pytest.mark.parametrize("name", ["fixmatch", "unimatch"])
def test_a_teacher_is_there_only_where_it_labels(tiny, name):
    recipe = tiny(name)
    assert list(build_method(recipe, 3).predictors()) == ["student"]
    taught = recipe.replace(method=replace(recipe.method, labels="teacher"))
    assert list(build_method(taught, 3).predictors()) == ["teacher", "student"]


@pytest.mark.parametrize("name", [*TEACHERS, "fixmatch"])
@pytest.mark.parametrize("ema", [1.0, -0.1])
def test_an_average_outside_of_its_range_is_one_line(tiny, name, ema):
    recipe = tiny(name)
    with pytest.raises(UsageError, match=r"^--method.ema: must be in \[0, 1\)"):
        recipe.replace(method=replace(recipe.method, ema=ema)).check()
    recipe.replace(method=replace(recipe.method, ema=0.0)).check()
