"""Flags as data: what derives from the fields of a command's dataclass."""

import dataclasses
from dataclasses import dataclass

import pytest

from dataloader.errors import InputError
from routing_moe import RoutingBartConfig
from routing_moe.analysis import correlation, recovery
from routing_moe.analysis.saved_routes import KINDS
from routing_moe.cli.entry import COMMANDS, runner
from routing_moe.config import choices
from routing_moe.config.explain import CorrelateSettings
from routing_moe.config.flags import (
    AT_LEAST_1,
    NEVER,
    POSITIVE_OR_INFINITE,
    REQUIRED,
    Command,
    build_parser,
    differences,
    flag_problems,
    flags_of,
    group,
    inherited,
    parse,
)
from routing_moe.config.tables import CollectSettings, GainSettings
from routing_moe.config.train import TrainSettings
from routing_moe.model.route_sources import ROUTE_SOURCES
from routing_moe.model.routers import ROUTERS
from routing_moe.model.selection import select_routes
from routing_moe.results import few_shot, gains

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
    minutes: int = DATA(0, "minutes of rest")
    turn_after: int = DATA(NEVER, "minutes until the loaf is turned")
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


def test_help_names_each_flag_its_choices_and_its_default_once():
    text = " ".join(build_parser(Bake).format_help().split())
    for part in (
        "OVEN",
        "{rye,wheat}",
        "(default: rye)",
        "100% of the hours",
        "(default: as the oven says)",
        "(default: never)",
    ):
        assert text.count(part) >= 1, part
    assert text.count("(default:") == 6  # flour, loaves, heat, steam, minutes, turn_after


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
    assert tuple(ROUTERS) == choices.ROUTER_TYPES
    assert tuple(ROUTE_SOURCES) == choices.ROUTE_SOURCES
    assert tuple(KINDS) == choices.ROUTE_KINDS
    with pytest.raises(ValueError, match=", ".join(choices.ROUTER_MODES)):
        select_routes(None, "none", 1.0)


def test_defaults_are_those_of_the_implementations():
    flags = flags_of(CorrelateSettings)
    for default in (correlation.PERMUTATIONS, recovery.PERMUTATIONS):
        assert f" {default} " in flags["permutations"].help
    gains_of = GainSettings(summary1="x", summary2=("y",), output_file="z")
    assert (gains_of.min_baseline, gains_of.metric) == (gains.MIN_BASELINE, few_shot.SCORES[1])
    assert set(flags_of(GainSettings)["metric"].choices) > set(few_shot.SCORES)
    assert CollectSettings(logs_dir="x", output_file="y").postfix == few_shot.BEST


def test_a_new_model_has_the_defaults_of_the_configuration():
    fields = TrainSettings(output_dir="x").architecture()
    defaults = RoutingBartConfig()
    assert fields == {name: getattr(defaults, name) for name in fields}
