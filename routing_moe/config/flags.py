"""Flags as data: the fields of one frozen dataclass per command, from which parser and checks derive.

    DATA = group("data")

    @dataclass(frozen=True, kw_only=True)
    class Settings(Command):
        program = "routing-moe train"
        train_dir: str = DATA("data", "gym folder", inherited=True)
        seed: int = DATA(42, "seed of all random draws", range=SEED)

A new flag is one such line. Of its type, bool is a switch, `list[...]` or `tuple[...]` takes several values,
`X | None` may be left out.
"""

import argparse
import dataclasses
import math
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

from dataloader.errors import InputError, did_you_mean

NEVER = 10_000_000_000  # a default that no count of a run reaches, shown as "never" in the help
REQUIRED = dataclasses.MISSING  # the default of a flag that must be given
# {usual name of a flag: the names here, of which a command has some}
INSTEAD = {
    "--lr": ("--learning_rate", "--learning_rate_list"),
    "--batch_size": ("--train_batch_size", "--bsz_list", "--predict_batch_size"),
    "--epochs": ("--num_train_epochs",),
}


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
NAME = Range(lambda value: Path(value).name == value != "..", "a name, without folders")


@dataclass(frozen=True)
class Flag:
    """What a field declares besides its name, type and default."""

    help: str  # without the default, unless that is None and needs an explanation
    group: str
    choices: Collection[str] | None = None
    range: Range | None = None
    on_resume: bool = False  # whether a resumed run may have another value
    inherited: bool = False  # whether a prediction takes the value from its training run
    new_model: Any = None  # the value of None where a model is made; otherwise the checkpoint decides
    compared_as: str | None = None  # the name of differences in a comparison of runs: scoring or budget
    is_path: bool = False  # whether a continued job compares the content of the file instead of its path
    negatable: bool = False  # whether a switch also has a --no-... flag
    parse: Callable[[str], Any] | None = None  # converts the text of the command line to the value
    metavar: str | None = None
    positional: bool = False  # whether the value is given without the flag's name


def group(title: str) -> Callable[..., Any]:
    """Returns the function that declares the flags of a group: (default, help, **fields of `Flag`)."""

    def declare(default: Any, help: str, **fields) -> Any:
        return dataclasses.field(default=default, metadata={"flag": Flag(help, title, **fields)})

    return declare


@dataclass(frozen=True, kw_only=True)
class Command:
    """Base of the flags of a command. program: its words. groups: their order in the help."""

    program: ClassVar[str]
    groups: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def flags_of(command: type | Command) -> dict[str, Flag]:
    """Returns {name: flag} of a command's fields."""
    fields = dataclasses.fields(command)
    return {field.name: field.metadata["flag"] for field in fields if "flag" in field.metadata}


# ---- the command line


class Parser(argparse.ArgumentParser):
    """Suggests the right flag for an unknown one."""

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            hints = map(self._instead_of, (word for word in unknown if word.startswith("-")))
            self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(dict.fromkeys(hints))}")
        return parsed

    def _instead_of(self, unknown: str) -> str:
        """Returns "; did you mean ...?" for an unknown flag, or "" when nothing is close."""
        known = self._option_string_actions
        right = [flag for flag in INSTEAD.get(unknown.partition("=")[0], ()) if flag in known]
        return f"; did you mean {' or '.join(right)}?" if right else did_you_mean(unknown, known)


def command_line(command: type[Command], argv: list[str] | None) -> list[str]:
    """Returns the words of a command, as they are recorded. argv: its flags; None: those of this process."""
    return [*command.program.split(), *(sys.argv[1:] if argv is None else argv)]


def parse(command: type[Command], argv: list[str] | None, description: str | None = None) -> dict[str, Any]:
    """Returns {name: value} of the flags on the command line only. Exits as argparse does."""
    given = build_parser(command, description).parse_args(argv)
    tuples = {field.name for field in dataclasses.fields(command) if value_type(field.type)[1] is tuple}
    return {name: tuple(value) if name in tuples else value for name, value in vars(given).items()}


def build_parser(command: type[Command], description: str | None = None) -> Parser:
    """Returns the parser of a command's flags; those that are not given are not in its result."""
    parser = Parser(
        prog=command.program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviated flag would change its meaning when a new one is added
        argument_default=argparse.SUPPRESS,
    )
    needed = argparse.ArgumentParser(command.program, add_help=False)  # whose usage is short
    fields = [field for field in dataclasses.fields(command) if "flag" in field.metadata]
    titles = dict.fromkeys([*command.groups, *(field.metadata["flag"].group for field in fields)])
    groups = {title: parser.add_argument_group(title) for title in titles}
    for field in fields:
        flag = field.metadata["flag"]
        # Python reserves words such as `from`: the flag --from is the field `from_`.
        name = field.name if flag.positional else f"--{field.name.removesuffix('_')}"
        for part in (groups[flag.group], *([needed] if flag.positional or field.default is REQUIRED else [])):
            part.add_argument(name, **_argument(field, flag))
    parser.usage = f"{' '.join(needed.format_usage().split()[1:])} [flags, see --help]"
    return parser


def _argument(field: dataclasses.Field, flag: Flag) -> dict[str, Any]:
    kind, several = value_type(field.type)
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


def value_type(annotation: Any) -> tuple[type, type | None]:
    """Returns (int, None) for `int | None`, (float, tuple) for `tuple[float, ...] | None`."""
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not types.NoneType)
    if (container := get_origin(annotation)) in (list, tuple):
        return get_args(annotation)[0], container
    return annotation, None


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
    return " ".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


# ---- checks that follow from the fields


def flag_problems(settings: Command) -> list[str]:
    """Returns problems of values out of range and of unknown choices."""
    flags = flags_of(settings)
    return value_problems({name: getattr(settings, name) for name in flags}, flags)


def value_problems(values: Mapping[str, Any], flags: Mapping[str, Flag]) -> list[str]:
    """Returns problems of the values, {name: value}, of the flags; other names are not looked at."""
    problems = []
    for name, flag in flags.items():
        if name not in values:
            continue
        value = values[name]
        several = isinstance(value, list | tuple)
        reasons = [_reason(flag, part) for part in (value if several else [value]) if part is not None]
        problems += [f"--{name} {'holds' if several else 'is'} {reason}" for reason in reasons if reason]
    return problems


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
    """Returns problems of fixed settings (but those `ignored`) that had another value in `where`, `saved`."""
    fixed = {name for name, flag in flags_of(settings).items() if not flag.on_resume} - set(ignored)
    return changed({name: value for name, value in settings.to_dict().items() if name in fixed}, saved, where)


def existing_paths(settings: Any) -> set[str]:
    """Returns the names of path flags whose file exists: its checksum is compared instead."""
    paths = {name: getattr(settings, name) for name, flag in flags_of(settings).items() if flag.is_path}
    return {name for name, path in paths.items() if path is not None and Path(path).exists()}


def changed(values: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> list[str]:
    """Returns problems of the flags, {name: value}, that had another value in `where`, if it saved one."""
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
    """Returns the saved values of these flags in a run.json; None: of those of a prediction."""
    kinds = {field.name: field.type for field in dataclasses.fields(command)}
    if names is None:
        names = [name for name, flag in flags_of(command).items() if flag.inherited]
    values = {name: saved[name] for name in names if name in saved}
    wrong = [name for name, value in values.items() if not isinstance(value, kinds[name])]
    if wrong:
        raise InputError(f"{path} is damaged: {name} is {values[name]!r}; give --{name}" for name in wrong)
    return values
