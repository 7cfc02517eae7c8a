"""What all studies share: flags that environment variables may set, and settings kept with their runs."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, did_you_mean
from dataloader.jsonfile import load_json_object
from routing_moe.cli.console import reporting_errors
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.flags import (
    AT_LEAST_1,
    Command,
    changed,
    differences,
    flag_problems,
    flags_of,
    group,
    parse,
    scalar_type,
)
from routing_moe.config.merge import MergeSettings
from routing_moe.config.train import TrainSettings
from routing_moe.studies.runs import NESTED, Runner

RUNNING = group("running")
SETTINGS_FILE = "study.json"
# Flags that a command cannot be parsed without, and that studies add.
REQUIRED_FLAGS = {
    TrainSettings: ("--output_dir", ""),
    MergeSettings: ("--routes_from", "", "--model", "", "--output_dir", ""),
    FinetuneSettings: ("--task_dir", "", "--output_dir", ""),
}


@dataclass(frozen=True, kw_only=True)
class Script(Command):
    """Flags that environment variables may set: {flag: variable}, if it is not the flag in upper case."""

    variables: ClassVar[Mapping[str, str]] = {}
    takes_further: ClassVar[bool] = False  # whether unknown flags are for another command
    further_flags_of: ClassVar[type[Command] | None] = None  # the command that can check them

    further: tuple[str, ...] = ()  # unknown flags and their values

    def to_dict(self) -> dict[str, Any]:
        """Returns the flags as JSON holds them."""
        return json.loads(json.dumps({name: getattr(self, name) for name in flags_of(self)}, default=str))

    def resolved(self) -> Self:
        """Returns the settings with defaults that depend on other flags."""
        return self

    def problems(self) -> list[str]:
        """Returns values that are out of range or given more than once."""
        return flag_problems(self) + [
            f"--{name} has a value more than once"
            for name in flags_of(self)
            if isinstance(value := getattr(self, name), tuple) and len(set(value)) < len(value)
        ]


@dataclass(frozen=True, kw_only=True)
class Study(Script):
    """Flags of a study of many runs."""

    # fmt: off
    output_dir: Path = RUNNING(Path("models/study"), "folder of the study", on_resume=True)
    jobs: int = RUNNING(1, "runs at the same time, which divide the cores, or the visible GPUs", range=AT_LEAST_1, on_resume=True)
    ray: str | None = RUNNING(None, "address of a Ray cluster that runs them, --jobs at a time: a run is a task with one CPU and its share of a GPU; folders are on a file system that all machines share (default: this machine)", on_resume=True)
    # fmt: on

    def runner(self, threads: int | None = None) -> Runner:
        """Returns what does the runs; keeps the settings that they depend on."""
        self.save_settings()
        return Runner(self.output_dir, self.jobs, self.ray, threads)

    def problems(self) -> list[str]:
        """Adds differences from the settings of the runs in the folder."""
        saved = self.output_dir / SETTINGS_FILE
        before = load_json_object(saved, "the settings of a study") if saved.is_file() else {}
        had, own = before.get("further", {}), self.fixed_further
        given = had | own if "further" in before else ()
        of_command = fields(self.further_flags_of or Script)
        defaults = {field.name: field.default for field in of_command if field.name in given}
        further = changed(defaults | own, defaults | had, str(saved))
        return super().problems() + differences(self, before, str(saved)) + further

    @property
    def fixed_further(self) -> dict[str, Any]:
        """The further flags that runs depend on, {name: value}."""
        if not self.further_flags_of:
            return {}
        known, given = flags_of(self.further_flags_of), parse_further(self.further_flags_of, self.further)
        fixed = {n: value for n, value in given.items() if not (known[n].on_resume or known[n].is_path)}
        return json.loads(json.dumps(fixed, default=str))

    def save_settings(self) -> None:
        """Writes the settings that `problems` compares with those of a later call."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        fixed = {name: value for name, value in self.to_dict().items() if not flags_of(self)[name].on_resume}
        further = {"further": self.fixed_further} if self.further_flags_of else {}
        write_text(self.output_dir / SETTINGS_FILE, json.dumps(fixed | further, indent=1))


def run_study(
    run: Callable[[Any], int | None], study: type[Script], argv: list[str] | None, description: str | None
) -> int:
    """Returns the exit code of `run(settings)`. A flag wins over its environment variable."""
    further = [] if study.takes_further else None
    values = parse(study, words_of(study, argv), description, further)
    if further and study.further_flags_of:  # its error for a wrong flag comes before any run
        parse_further(study.further_flags_of, further)
    with reporting_errors(lambda: "run the same command to continue") as result:
        settings = study(**values, further=tuple(further or ())).resolved()
        if problems := settings.problems():
            raise InputError(problems)
        result.exit_code = run(settings) or 0
    return result.exit_code


def words_of(study: type[Script], argv: list[str] | None) -> list[str]:
    """Returns the flags of environment variables, then those of a command line, which win. argv: None is the process's.

    A study does not read variables again in the commands that it calls.
    """
    variables = {} if NESTED in os.environ else os.environ
    return [*from_environment(study, variables), *(sys.argv[1:] if argv is None else argv)]


def parse_further(command: type[Command], further: Iterable[str]) -> dict[str, Any]:
    """Returns the values of further flags of a command."""
    return parse(command, [*further, *REQUIRED_FLAGS[command]])


def part_of(
    argv: list[str] | None, metavar: str, parts: Mapping[str, Any], default: str | None = None
) -> tuple[Any, list[str]]:
    """Returns the part that the first word of a command line names, and the other words. argv: None is the process's.

    default: the part if the first word is a flag, or there is none. Ends the process for an unknown name, as argparse does.
    """
    line = sys.argv[1:] if argv is None else argv
    if default and (not line or line[0].startswith("-")):
        return parts[default], line
    if not line or line[0] in ("-h", "--help"):
        return next(iter(parts.values())), ["--help"]
    name, *others = line
    if name not in parts:
        guess = did_you_mean(name, parts)
        print(f"error: unknown {metavar} {name!r}{guess}; give one of {', '.join(parts)}", file=sys.stderr)
        raise SystemExit(2)
    return parts[name], others


def leading_words(line: list[str]) -> tuple[list[str], list[str]]:
    """Returns the words of a command line before its first flag, and the rest."""
    count = next((i for i, word in enumerate(line) if word.startswith("-")), len(line))
    return line[:count], line[count:]


def from_environment(study: type[Script], environment: Mapping[str, str]) -> list[str]:
    """Returns flags for the variables that are set: --seeds 1 2 for SEEDS="1 2", --upcycle for UPCYCLE=yes."""
    words = []
    for field in fields(study):
        variable = study.variables.get(field.name, field.name.upper())
        text, (kind, several) = environment.get(variable), scalar_type(field.type)
        if text is None or "flag" not in field.metadata or (kind is bool and text == "no"):
            continue
        if kind is bool and text.strip() not in ("yes", ""):
            print(f"error: {variable} is {text!r}; it must be yes or no", file=sys.stderr)
            raise SystemExit(2)
        if not text.strip() and not field.name.endswith("_flags"):  # TRAIN_FLAGS="" is no flags
            continue
        if kind is bool:
            words.append(f"--{field.name}")
        elif several:
            words += [f"--{field.name}", *shlex.split(text)]
        else:
            words.append(f"--{field.name}={text}")
    return words
