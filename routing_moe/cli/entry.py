"""All commands under one name: routing-moe COMMAND [flags].

routing-moe --help                                 the commands
routing-moe train --help                           the flags of one
routing-moe train --do_train --output_dir ...      the same as python -m routing_moe.cli.train ...
routing-moe vectors text --output_dir ...          the same as python -m task.task_emb.text ...
"""

import argparse
import ast
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from dataloader.command_line import ENTRY_POINT
from dataloader.errors import did_you_mean

OF_CLI = (
    *("add_task", "build_gym", "list_tasks"),
    *("train", "finetune", "merge", "show_scores", "compare", "compare_runs", "overview"),
    *("answer", "export"),
    *("collect_results", "compute_arg"),
    *("inspect_routes", "correlate_routes", "ablate", "create_gif", "report", "push"),
)
OF_TASK_EMB = ("random", "text", "finetuned_text", "fisher", "gradient", "descriptions", "reduce", "inspect")
COMMANDS = {name.replace("_", "-"): f"routing_moe.cli.{name}" for name in OF_CLI}
COMMANDS |= {f"vectors {name.replace('_', '-')}": f"task.task_emb.{name}" for name in OF_TASK_EMB}
COMMANDS |= {
    "conflict-gym": "task.conflict_gym.generate",
    "conflict-gym bart": "task.conflict_gym.bart",
    "conflict-gym relabel": "task.conflict_gym.relabel",
    "skill-gym": "task.skill_gym.generate",
    "english-bart": "task.english_bart.build",
    "english-bart denoise": "task.english_bart.denoise",
}
OF_TWO_WORDS = {name.split()[0] for name in COMMANDS if " " in name}


class Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        """Lists the commands, each with the first line of its module, which is not imported."""
        lines = [f"  {name:24}{first_line(module)}" for name, module in COMMANDS.items()]
        return "\n".join([super().format_help(), "commands:", *lines, ""])


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog=ENTRY_POINT, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", metavar="COMMAND", help="a command, with - or _; see below")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="its flags; --help lists them")
    words = sys.argv[1:] if argv is None else argv
    given = parser.parse_args(words or ["--help"])
    name, flags = given.command.replace("_", "-"), given.flags
    if name in OF_TWO_WORDS and flags and not flags[0].startswith("-"):
        name, flags = f"{name} {flags[0].replace('_', '-')}", flags[1:]
    if name not in COMMANDS:
        parser.error(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}; --help lists all")
    typed = sys.argv[0]
    try:
        sys.argv[0] = f"{ENTRY_POINT} {name}"  # for the usage in its --help
        return import_module(COMMANDS[name]).main(flags)
    finally:
        sys.argv[0] = typed


def first_line(module: str) -> str:
    source = Path(find_spec(module).origin).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
