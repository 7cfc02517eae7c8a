"""All commands under one name: routing-moe COMMAND [flags].

routing-moe --help                                 the commands
routing-moe train --help                           the flags of one
routing-moe train --do_train --output_dir ...      the same as routing-moe train ...
"""

import argparse
import ast
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from dataloader.errors import did_you_mean

NAME = "routing-moe"
CLI, VECTORS = "routing_moe.cli", "task.task_emb"
# {group: {command: module}}, in the order of --help.
GROUPS = {
    "gyms": {
        "build-gym": f"{CLI}.build_gym",
        "add-task": f"{CLI}.add_task",
        "list-tasks": f"{CLI}.list_tasks",
        "skill-gym": "task.skill_gym.generate",
        "conflict-gym": "task.conflict_gym.generate",
        "conflict-gym bart": "task.conflict_gym.bart",
    },
    "train and adapt": {
        "train": f"{CLI}.train",
        "merge": f"{CLI}.merge",
        "compose": f"{CLI}.compose",
        "assemble": f"{CLI}.assemble",
        "average": f"{CLI}.average",
        "finetune": f"{CLI}.finetune",
        "answer": f"{CLI}.answer",
        "export": f"{CLI}.export",
        "push": f"{CLI}.push",
    },
    "task vectors": {
        "vectors random": f"{VECTORS}.random",
        "vectors text": f"{VECTORS}.text",
        "vectors finetuned-text": f"{VECTORS}.finetuned_text",
        "vectors fisher": f"{VECTORS}.fisher",
        "vectors gradient": f"{VECTORS}.gradient",
        "vectors descriptions": f"{VECTORS}.descriptions",
        "vectors reduce": f"{VECTORS}.reduce",
        "vectors inspect": f"{VECTORS}.inspect",
    },
    "many commands": {
        "parallel": f"{CLI}.parallel",
    },
    "tables": {
        "show-scores": f"{CLI}.show_scores",
        "compare": f"{CLI}.compare",
        "collect-results": f"{CLI}.collect_results",
        "compute-arg": f"{CLI}.compute_arg",
    },
    "explain routes": {
        "inspect-routes": f"{CLI}.inspect_routes",
        "correlate-routes": f"{CLI}.correlate_routes",
        "ablate": f"{CLI}.ablate",
        "create-gif": f"{CLI}.create_gif",
        "report": f"{CLI}.report",
    },
}
COMMANDS = {name: module for commands in GROUPS.values() for name, module in commands.items()}
FIRST_OF_TWO_WORDS = {name.split()[0] for name in COMMANDS if " " in name}


class Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        """Lists the commands, each with the first line of its module, which is not imported."""
        lines = []
        for group, commands in GROUPS.items():
            lines += ["", f"{group}:"]
            lines += [f"  {name:28}{first_line(module)}" for name, module in commands.items()]
        return "\n".join([super().format_help().rstrip(), *lines, ""])


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", metavar="COMMAND", help="a command, with - or _; see below")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="its flags; --help lists them")
    words = sys.argv[1:] if argv is None else argv
    typed = parser.parse_args(words or ["--help"])
    name, flags = typed.command.replace("_", "-"), typed.flags
    if name in FIRST_OF_TWO_WORDS and flags and not flags[0].startswith("-"):
        name, flags = f"{name} {flags[0].replace('_', '-')}", flags[1:]
    if name not in COMMANDS:
        parser.error(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}; --help lists all")
    return import_module(COMMANDS[name]).main(flags)


def first_line(module: str) -> str:
    source = Path(find_spec(module).origin).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
