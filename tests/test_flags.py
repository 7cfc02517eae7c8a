"""Flags as data: what derives from the fields of a command's dataclass; what commands do without flags."""

import dataclasses
import json
from dataclasses import dataclass

import pytest

from dataloader.errors import InputError
from routing_moe import RoutingBartConfig
from routing_moe.analysis.saved_routes import KINDS
from routing_moe.cli.entry import COMMANDS, runner
from routing_moe.config import choices
from routing_moe.config.finetune import finetune_settings
from routing_moe.config.flags import (
    AT_LEAST_1,
    POSITIVE_OR_INFINITE,
    REQUIRED,
    Command,
    differences,
    flag_problems,
    flags_of,
    group,
    inherited,
    parse,
)
from routing_moe.config.train import TrainSettings, train_settings
from routing_moe.model.mergers import MERGERS
from routing_moe.model.route_sources import ROUTE_SOURCES
from routing_moe.model.routers import ROUTERS
from routing_moe.model.selection import ROUTER_MODES, select_routes

DATA = group("data")


@dataclass(frozen=True, kw_only=True)
class Bake(Command):
    program = "bake"

    oven: str = DATA(REQUIRED, "which oven", positional=True, metavar="OVEN")
    flour: str = DATA("rye", "kind of flour", choices=("rye", "wheat"), inherited=True)
    loaves: int = DATA(2, "loaves", range=AT_LEAST_1, on_resume=True)
    heat: float | None = DATA(None, "degrees (default: as the oven says)", range=POSITIVE_OR_INFINITE)
    times: list[float] | None = DATA(None, "100% of the hours", range=AT_LEAST_1)
    salt: bool = DATA(False, "add salt")
    steam: bool = DATA(True, "use steam")
    seeds: tuple[str, ...] = DATA((), "on top")
    organic: bool = DATA(False, "organic flour", negatable=True)


def test_types_and_defaults_come_from_the_field():
    given = parse(Bake, ["stove", "--loaves", "3", "--times", "1", "2.5", "--salt", "--no-steam"])
    assert given == {"oven": "stove", "loaves": 3, "times": [1.0, 2.5], "salt": True, "steam": False}
    settings = Bake(**given)
    assert (settings.flour, settings.heat) == ("rye", None)
    more = ["--seeds", "poppy", "sesame", "--no-organic"]
    assert parse(Bake, ["stove", *more]) == {
        "oven": "stove", "seeds": ("poppy", "sesame"), "organic": False
    }  # fmt: skip


def test_every_wrong_value_is_reported_as_typed():
    settings = Bake(oven="stove", flour="whaet", loaves=0, heat=float("inf"), times=[2.0, float("nan")])
    assert flag_problems(settings) == [
        "--flour is 'whaet'; choose from rye, wheat; did you mean 'wheat'?",
        "--loaves is 0; it must be at least 1",
        "--times holds nan; it must be at least 1",
    ]
    assert flag_problems(Bake(oven="stove", times=[float("inf")])) == [
        "--times holds infinite; it must be a number"
    ]


def test_a_continued_job_may_change_only_flags_with_on_resume():
    saved = {"oven": "stove", "flour": "wheat", "loaves": 9, "salt": True, "steam": True}
    found = differences(Bake(oven="stove"), saved, "the last bread")
    assert found == [
        "--flour is rye, but in the last bread it was wheat",
        "--salt is not given, but in the last bread it was given",
    ]
    assert differences(Bake(oven="stove"), saved, "the last bread", ignored={"flour", "salt"}) == []


def test_a_prediction_inherits_flags_of_the_right_type(tmp_path):
    assert inherited(Bake, {"flour": "wheat", "loaves": 9}, tmp_path) == {"flour": "wheat"}
    with pytest.raises(InputError, match="is damaged: flour is 3; give --flour"):
        inherited(Bake, {"flour": 3}, tmp_path)


# ---- the commands


def commands() -> list[type[Command]]:
    """All classes of flags below `Command` that belong to a command."""
    for place in COMMANDS.values():
        runner(place)
    found, below = [], [Command]
    while below:
        below = [each for cls in below for each in cls.__subclasses__()]
        found += [cls for cls in below if hasattr(cls, "program") and cls is not Bake]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", commands())
def test_every_default_is_a_valid_value(command):
    required = {field.name: field.type for field in dataclasses.fields(command) if field.default is REQUIRED}
    values = {name: 2 if kind is int else "x" for name, kind in required.items()}
    given = {name: next(iter(flags_of(command)[name].choices or [value])) for name, value in values.items()}
    assert flag_problems(command(**given)) == []


def test_choices_are_the_names_of_the_implementations():
    for added in (ROUTERS, ROUTER_MODES, ROUTE_SOURCES, MERGERS):
        assert all(map(callable, added.values()))
    assert tuple(KINDS) == choices.ROUTE_KINDS
    with pytest.raises(ValueError, match=", ".join(choices.ROUTER_MODES)):
        select_routes(None, "none", 1.0)


def test_a_new_model_has_the_defaults_of_the_configuration():
    fields = TrainSettings(output_dir="x").architecture()
    defaults = RoutingBartConfig()
    assert fields == {name: getattr(defaults, name) for name in fields}


# ---- what commands do without flags: the published scripts' values


def test_training_has_the_values_of_the_published_scripts():
    settings = train_settings({"output_dir": "new"})
    assert (settings.do_train, settings.do_predict) == (True, True)
    assert (settings.initialize_from_vanilla, settings.start.described) == (True, "facebook/bart-base")
    assert (settings.total_steps, settings.eval_period, settings.step_size) == (30_000, 750, 32)
    assert (settings.learning_rate, settings.router_lr, settings.task_model_lr) == (1e-5, 1e-3, 1e-2)


@pytest.mark.parametrize("named", [{"checkpoint_name": "init"}, {"checkpoint": "{}/init"}])
@pytest.mark.parametrize(("kind", "rate"), [("layer", 1e-5), ("lora", 1e-3)])
def test_the_learning_rate_is_that_of_the_kind_of_experts(kind, rate, named, tmp_path):
    folder = {"output_dir": str(tmp_path)}
    assert train_settings(folder | {"expert_kind": kind}).learning_rate == rate
    (tmp_path / "init").mkdir()
    (tmp_path / "init/config.json").write_text(json.dumps({"expert_kind": kind}))
    start = folder | {name: value.format(tmp_path) for name, value in named.items()}
    assert train_settings(start).learning_rate == rate
    assert train_settings(start | {"learning_rate": 3e-5}).learning_rate == 3e-5
    assert train_settings(start).initialize_from_vanilla is False


def test_a_resumed_run_keeps_its_start_and_its_rate(tmp_path):
    given = {"output_dir": str(tmp_path)}
    saved = given | dict(initialize_from_vanilla=False, learning_rate=2e-4, checkpoint_name="init")
    (tmp_path / "run.json").write_text(json.dumps({"settings": saved}))
    given["resume"] = True
    settings = train_settings(given)
    assert (settings.initialize_from_vanilla, settings.learning_rate) == (False, 2e-4)
    assert train_settings(given | {"learning_rate": 1e-4}).learning_rate == 1e-4


def test_fine_tuning_has_the_published_grid_and_trains_and_predicts():
    given = {"task_dir": "gym/t", "output_dir": "out", "checkpoint": "None"}
    settings = finetune_settings(given).with_lists()
    assert (settings.do_train, settings.do_predict) == (True, True)
    assert settings.start.described == "facebook/bart-base"
    assert (settings.learning_rate_list, settings.bsz_list) == ([1e-5, 2e-5, 5e-5], [2, 4, 8])
    assert (settings.total_steps, settings.eval_period, settings.warmup_steps) == (1000, 100, 100)
    assert (settings.gradient_accumulation_steps, settings.weight_decay) == (1, 0.01)
    assert settings.max_grad_norm == 0.1
    alone = finetune_settings({"task_dir": "gym/t", "output_dir": "out", "do_predict": True})
    assert (alone.do_train, alone.do_predict) == (False, True)
