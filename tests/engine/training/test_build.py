"""What methods that others have written may hold: modules, networks and state of their own."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from semiseg.engine.api import train
from semiseg.engine.checkpoint import load_network
from semiseg.engine.data import prepare_data
from semiseg.engine.methods import METHODS, Method, MethodConfig
from semiseg.engine.models import ENCODERS
from semiseg.engine.training.build import build_method, open_method, parameter_groups
from semiseg.engine.training.outcome import differences, outcome
from semiseg.engine.training.signals import Stopped
from semiseg.engine.training.state import load_save
from semiseg.pipelines.errors import UsageError

CPU = torch.device("cpu")


@dataclass(kw_only=True, slots=True)
class MineConfig(MethodConfig):
    weight: float = 1.0


class Mine(Method):
    """The supervised term, and a term of labelled images by prototypes of features; two networks, the second of which
    is evaluated."""

    name = "mine"
    config_class = MineConfig
    terms: ClassVar = {"prototypes": "weight"}
    labeled_terms: ClassVar = frozenset({"supervised", "prototypes"})

    def __init__(self, config, context):
        super().__init__(config, context)
        self.networks_of_all = nn.ModuleList([context.network(), context.network()])
        self.projection = nn.Conv2d(context.classes, 4, 1)
        self.prototypes = nn.Parameter(torch.randn(4, context.classes))
        self.still = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).eval().requires_grad_(False)

    def losses(self, batch, progress):
        x, target = batch.labeled.image, batch.labeled.target
        logits = [network(self.still(x)) for network in self.networks_of_all]
        again = torch.einsum("bchw,ck->bkhw", self.projection(logits[1]), self.prototypes)
        supervised = sum(self.supervised(one, target) for one in logits)
        return self.summed({"supervised": supervised, "prototypes": self.supervised(again, target)})

    def predictor(self):
        return self.networks_of_all[1]


@pytest.fixture
def mine(tiny, voc_root, monkeypatch):
    monkeypatch.setitem(METHODS, "mine", Mine)
    recipe = tiny("supervised", data=voc_root(), steps=4, eval_every=4, save_every="2")
    return recipe.replace(method=MineConfig(), name="mine_voc")


def test_all_that_a_method_has_is_trained_each_parameter_once(mine):
    method = build_method(mine, 3)
    groups = parameter_groups(mine, method)
    names = [group["name"] for group in groups]
    networks = [f"networks_of_all.{n}.{part}" for n in (0, 1) for part in ("backbone", "head")]
    assert names == [*networks, "method"]
    assert groups[-1]["lr"] == mine.lr
    trained = [parameter for group in groups for parameter in group["params"]]
    assert len(trained) == len({*trained})
    assert {*trained} == {parameter for parameter in method.parameters() if parameter.requires_grad}
    weights = parameter_groups(mine.replace(decay="weights"), method)[-2:]
    assert [(group["name"], len(group["params"])) for group in weights] == [("method.weights", 2), ("method.rest", 1)]


def test_a_run_of_it_learns_in_all_its_parts_and_goes_on_bit_for_bit(mine):
    def stop(event):
        if event.kind == "log" and event.done == 2:
            signal.raise_signal(signal.SIGTERM)

    straight = train(mine).out
    halves = mine.replace(out=straight.with_name("halves"))
    with pytest.raises(Stopped):
        train(halves, stop)
    assert differences(outcome(straight), outcome(train(halves.replace(resume=True)).out)) == []
    torch.manual_seed(mine.seed)
    before = build_method(mine, 21).state_dict()
    _, state = load_save(straight / "checkpoints", pytest.fail)
    after = state["method"]
    for name in ("prototypes", "projection.weight", "networks_of_all.0.classifier.weight"):
        assert not torch.equal(before[name], after[name])
    assert torch.equal(before["still.0.running_mean"], after["still.0.running_mean"])


def test_a_whole_network_starts_the_one_that_is_evaluated(mine, tiny):
    source = train(tiny("supervised", data=mine.runtime.data, steps=2, eval_every=2, out=mine.runtime.out / "source"))
    recipe = mine.replace(init=source.out)
    method = open_method(recipe, prepare_data(recipe), CPU, fresh=True)
    weight = load_network(source.out).network.classifier.weight
    first, second = (network.classifier.weight for network in method.networks().values())
    assert torch.equal(second, weight)
    assert not torch.equal(first, weight)


def test_a_whole_network_starts_the_one_that_learns_where_a_teacher_is_evaluated(mine, tiny, monkeypatch):
    class Taught(Mine):
        def __init__(self, config, context):
            super().__init__(config, context)
            self.teacher = context.network().requires_grad_(False)

        def predictor(self):
            return self.teacher

    monkeypatch.setitem(METHODS, "mine", Taught)
    source = train(tiny("supervised", data=mine.runtime.data, steps=2, eval_every=2, out=mine.runtime.out / "source"))
    recipe = mine.replace(init=source.out)
    method = open_method(recipe, prepare_data(recipe), CPU, fresh=True)
    weight = load_network(source.out).network.classifier.weight
    assert torch.equal(method.networks_of_all[0].classifier.weight, weight)
    assert not torch.equal(method.teacher.classifier.weight, weight)


def test_what_a_method_has_put_to_rest_stays_so(mine):
    method = open_method(mine, prepare_data(mine), CPU, fresh=True)
    assert not any(module.training for module in method.still.modules())
    assert all(module.training for module in method.networks_of_all.modules())


def test_networks_of_other_encoders_say_how_their_images_were_normalised(mine, monkeypatch):
    """As the recipe's encoder asks for: it is the same batch."""
    other = replace(ENCODERS["few"], mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    monkeypatch.setitem(ENCODERS, "other", other)

    class Two(Mine):
        def __init__(self, config, context):
            super().__init__(config, context)
            self.second = context.network(backbone="other")

    monkeypatch.setitem(METHODS, "mine", Two)
    second = build_method(mine, 3).second
    assert second.backbone_name == "other"
    assert (second.mean, second.std) == (ENCODERS["few"].mean, ENCODERS["few"].std)


def test_terms_of_labelled_images_count_from_the_start(mine):
    method = build_method(mine.replace(method=MineConfig(weight=2.0, ramp=0.5)), 3)
    method.before_step(0, 0.0)
    terms = {"supervised": torch.tensor(1.0), "prototypes": torch.tensor(10.0)}
    assert float(method.summed(terms)["loss"]) == 21.0
    with pytest.raises(ValueError, match="mine: prototype: no term that `terms` names"):
        method.summed({"supervised": torch.tensor(1.0), "prototype": torch.tensor(1.0)})


def test_a_method_that_recipes_cannot_tell_from_another_is_refused(mine, monkeypatch):
    class Undecorated(MineConfig):
        weight: float = 3.0

    @dataclass(kw_only=True, slots=True)
    class Own(MineConfig):
        pass

    for config, says in ((Undecorated, "Undecorated: decorate it with @dataclass"), (Own, "Nameless is called 'mine'")):

        class Nameless(Mine):
            config_class = config

        monkeypatch.setitem(METHODS, "nameless", Nameless)
        with pytest.raises(UsageError, match=says):
            mine.replace(method=config()).check()


def test_settings_that_are_those_of_another_method_need_no_more_than_a_class(mine, monkeypatch):
    class Same(MineConfig):
        """Nothing new."""

    class Other(Mine):
        name = "other"
        config_class = Same

    monkeypatch.setitem(METHODS, "other", Other)
    mine.replace(method=Same()).check()


def test_a_term_without_its_setting_is_one_line(mine, monkeypatch):
    class Misspelt(Mine):
        terms: ClassVar = {"prototypes": "wieght"}

    monkeypatch.setitem(METHODS, "mine", Misspelt)
    with pytest.raises(UsageError, match="mine: the settings have no 'wieght', which shall weigh the term"):
        mine.check()
