"""Flags as data: the fields of one frozen dataclass per command, from which parser and checks derive.

    DATA = group("data")

    @dataclass(frozen=True, kw_only=True)
    class Settings(Command):
        program = "routing-moe train"
        train_dir: str = DATA("data", "gym folder", inherited=True)
        seed: int = DATA(42, "seed of all random draws", range=SEED)

A new flag is one such line. The annotation gives its type: bool is a switch, `list[...]` or `tuple[...]`
takes several values, `X | None` may be left out. `Flag` says what else a field declares.
"""

import argparse
import dataclasses
import math
import sys
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

from dataloader.command_line import Parser
from dataloader.errors import InputError, did_you_mean

NEVER = 10_000_000_000  # a default that no count of a run reaches, shown as "never" in the help
REQUIRED = dataclasses.MISSING  # the default of a flag that must be given


@dataclass(frozen=True)
class Range:
    """The numbers or texts that a flag accepts, also each of a list. NaN is never accepted."""

    holds: Callable[[Any], bool]
    must_be: str
    infinite: bool = False


AT_LEAST_1 = Range(lambda value: value >= 1, "at least 1")
POSITIVE = Range(lambda value: value > 0, "greater than 0")
POSITIVE_OR_INFINITE = dataclasses.replace(POSITIVE, infinite=True)
NOT_NEGATIVE = Range(lambda value: value >= 0, "0 or greater")
PROBABILITY = Range(lambda value: 0 <= value <= 1, "from 0 to 1")
SEED = Range(lambda value: 0 <= value < 2**32, "0 or greater and below 2**32")


@dataclass(frozen=True)
class Flag:
    """What a field declares besides its name, type and default.

    help: without the default, unless that is None and needs an explanation
    choices: the accepted values
    on_resume: whether a resumed run may have another value
    inherited: whether a prediction takes the value from its training run
    new_model: the value where None is given and a model is made; otherwise the checkpoint decides
    compared_as: "scoring" or "budget": a comparison of runs reports different values under this name
    is_path: whether a continued job compares the content of the file instead of its path
    negatable: whether a switch also has a --no-... flag
    parse: converts the text of the command line to the value
    positional: whether the value is given without the flag's name
    """

    help: str
    group: str
    choices: Collection[str] | None = None
    range: Range | None = None
    on_resume: bool = False
    inherited: bool = False
    new_model: Any = None
    compared_as: str | None = None
    is_path: bool = False
    negatable: bool = False
    parse: Callable[[str], Any] | None = None
    metavar: str | None = None
    positional: bool = False


def group(title: str) -> Callable[..., Any]:
    """Returns the function that declares the flags of a group: (default, help, **fields of `Flag`)."""
    return partial(_declare, title)


def _declare(title: str, default: Any, help: str, **fields) -> Any:
    return dataclasses.field(default=default, metadata={"flag": Flag(help, title, **fields)})


@dataclass(frozen=True, kw_only=True)
class Command:
    """Base of the flags of a command. program, usage: for its help; groups: their order there.

    Flags of a `tuple[...]` hold tuples, so that settings are hashable.
    """

    program: ClassVar[str]
    usage: ClassVar[str] = ""
    groups: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def flags_of(command: type | Command) -> dict[str, Flag]:
    """Returns {name: flag} of a command's fields."""
    fields = dataclasses.fields(command)
    return {field.name: field.metadata["flag"] for field in fields if "flag" in field.metadata}


# ---- the command line


def command_line(command: type[Command], argv: list[str] | None) -> list[str]:
    """Returns the words of a command, as they are recorded. argv: its flags; None: those of this process."""
    return [*command.program.split(), *(sys.argv[1:] if argv is None else argv)]


def parse(command: type[Command], argv: list[str] | None, description: str | None = None) -> dict[str, Any]:
    """Returns {name: value} of the flags on the command line; other fields of the command are not in it.

    Exits as argparse does for --help and for unknown flags, for which it suggests the most similar one.
    """
    given = build_parser(command, description).parse_args(argv)
    tuples = {field.name for field in dataclasses.fields(command) if container(field.type) is tuple}
    return {name: tuple(value) if name in tuples else value for name, value in vars(given).items()}


def build_parser(command: type[Command], description: str | None = None) -> Parser:
    """Returns the parser of a command's flags; those that are not given are not in its result."""
    parser = Parser(
        command.program,
        usage=f"%(prog)s {command.usage}" if command.usage else None,
        description=description,
        argument_default=argparse.SUPPRESS,
    )
    fields = [field for field in dataclasses.fields(command) if "flag" in field.metadata]
    titles = dict.fromkeys([*command.groups, *(field.metadata["flag"].group for field in fields)])
    groups = {title: parser.add_argument_group(title) for title in titles}
    for field in fields:
        flag = field.metadata["flag"]
        # Python reserves words such as `from`: the flag --from is the field `from_`.
        name = field.name if flag.positional else f"--{field.name.removesuffix('_')}"
        groups[flag.group].add_argument(name, **_argument(field, flag))
    return parser


def _argument(field: dataclasses.Field, flag: Flag) -> dict[str, Any]:
    kind, several = scalar_type(field.type)
    arguments: dict[str, Any] = {"help": _help(field, flag).replace("%", "%%")}
    if not flag.positional:
        arguments["dest"] = field.name
    if field.default is REQUIRED and not flag.positional:
        arguments["required"] = True
    if kind is bool:
        negatable = flag.negatable or field.default is not False
        return arguments | {"action": argparse.BooleanOptionalAction if negatable else "store_true"}
    if several and not flag.parse:
        arguments["nargs"] = "*" if flag.positional and field.default is not REQUIRED else "+"
    arguments["type"] = flag.parse or kind
    if flag.metavar or flag.choices:
        arguments["metavar"] = flag.metavar or f"{{{','.join(flag.choices)}}}"
    return arguments


def scalar_type(annotation: Any) -> tuple[type, bool]:
    """Returns (int, False) for `int | None`, (float, True) for `list[float] | None` or `tuple[float, ...]`."""
    annotation = not_none(annotation)
    if container(annotation) in (list, tuple):
        return get_args(annotation)[0], True
    return annotation, False


def not_none(annotation: Any) -> Any:
    """Returns int for `int | None`."""
    if isinstance(annotation, types.UnionType):
        return next(part for part in get_args(annotation) if part is not types.NoneType)
    return annotation


def container(annotation: Any) -> type | None:
    """Returns tuple for `tuple[float, ...] | None`, None for a single value."""
    return get_origin(not_none(annotation))


def _help(field: dataclasses.Field, flag: Flag) -> str:
    if flag.new_model:
        return f"{flag.help} (default: {shown(flag.new_model)}, or the checkpoint's)"
    if field.default is False or field.default in (None, REQUIRED, "", ()):  # 0 equals False
        return flag.help
    return f"{flag.help} (default: {shown(field.default)})"


def shown(value: Any) -> str:
    """Returns a default for the help: 1e-05 as 1e-5, NEVER as never."""
    if value == NEVER:
        return "never"
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-").replace("e+0", "e")
    if isinstance(value, list | tuple):
        return " ".join(map(shown, value))
    return str(value)


# ---- checks that follow from the fields


def flag_problems(settings: Command) -> list[str]:
    """Returns problems of values out of range and of unknown choices."""
    return [problem for problems in _problems_by_flag(settings).values() for problem in problems]


def with_valid_values(settings: Any) -> Any:
    """Returns the settings with defaults in place of values with `flag_problems`, for further checks."""
    wrong = _problems_by_flag(settings)
    defaults = {field.name: field.default for field in dataclasses.fields(settings) if field.name in wrong}
    return dataclasses.replace(settings, **defaults)


def _problems_by_flag(settings: Any) -> dict[str, list[str]]:
    """Returns {name: problems} of the flags with a wrong value, in the order of the fields."""
    by_flag = {}
    for name, flag in flags_of(settings).items():
        value = getattr(settings, name)
        several = isinstance(value, list | tuple)
        reasons = [_reason(flag, one) for one in (value if several else [value]) if one is not None]
        problems = [f"--{name} {'holds' if several else 'is'} {reason}" for reason in reasons if reason]
        by_flag |= {name: problems} if problems else {}
    return by_flag


def _reason(flag: Flag, value: Any) -> str | None:
    """Returns why the flag does not accept a value, or None."""
    if flag.choices and value not in flag.choices:
        return f"{value!r}; choose from {', '.join(flag.choices)}{did_you_mean(value, flag.choices)}"
    if value in (math.inf, -math.inf) and not (flag.range and flag.range.infinite):
        return "infinite; it must be a number"
    if flag.range and not flag.range.holds(value):
        return f"{value}; it must be {flag.range.must_be}"
    return None


def differences(
    settings: Any, saved: Mapping[str, Any], where: str, ignored: Collection[str] = ()
) -> list[str]:
    """Returns problems of settings that must not change but had another value in `where`.

    saved: the values there; ignored: names that may differ.
    """
    fixed = {name for name, flag in flags_of(settings).items() if not flag.on_resume} - set(ignored)
    return changed({name: value for name, value in settings.to_dict().items() if name in fixed}, saved, where)


def existing_paths(settings: Any) -> set[str]:
    """Returns the names of path flags whose file exists, or that are not given.

    They may differ from those of an earlier call, because checksums of the files are compared instead.
    """
    paths = {name: getattr(settings, name) for name, flag in flags_of(settings).items() if flag.is_path}
    return {name for name, path in paths.items() if path is None or Path(path).exists()}


def changed(values: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> list[str]:
    """Returns problems of the flags, {name: value}, that had another value in `where`, if it saved one.

    A tuple equals the list that JSON makes of it.
    """
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return [
        f"--{name} is {_as_typed(value)}, but in {where} it was {_as_typed(saved[name])}"
        for name, value in values.items()
        if name in saved and saved[name] != value
    ]


def _as_typed(value: Any) -> str:
    if value is None or value is False or value == []:
        return "not given"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "given" if value is True else str(value)


def inherited(
    command: type[Command], saved: Mapping[str, Any], path: Path, names: Collection[str] | None = None
) -> dict[str, Any]:
    """Returns the saved values of flags in the run.json `path`. Raises InputError for wrong types.

    names: of the flags; None: those that a prediction takes from its training run.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(command)}
    if names is None:
        names = [name for name, flag in flags_of(command).items() if flag.inherited]
    values = {name: saved[name] for name in names if name in saved}
    wrong = [name for name, value in values.items() if not isinstance(value, kinds[name])]
    if wrong:
        raise InputError(f"{path} is damaged: {name} is {values[name]!r}; give --{name}" for name in wrong)
    return values
