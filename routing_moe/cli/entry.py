"""All commands under one name: routing-moe COMMAND [flags].

    routing-moe --help                                 the commands
    routing-moe train --help                           the flags of one
    routing-moe train --train_dir data/gym --output_dir models/moe

The scripts in example_scripts/ are experiments made of these commands.
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
    "to start with": {
        "add-task": f"{CLI}.add_task",
        "train": f"{CLI}.train",
        "merge": f"{CLI}.merge",
        "finetune": f"{CLI}.finetune",
        "answer": f"{CLI}.answer",
        "vectors": VECTORS,
        "compare": f"{CLI}.compare",
        "inspect-routes": f"{CLI}.inspect_routes",
        "report": f"{CLI}.report",
        "parallel": f"{CLI}.parallel",
    },
    "gyms": {
        "build-gym": f"{CLI}.build_gym",
        "list-tasks": f"{CLI}.list_tasks",
        "skill-gym": "task.skill_gym.generate",
        "conflict-gym": "task.conflict_gym.generate",
    },
    "models": {
        "assemble": f"{CLI}.assemble",
        "average": f"{CLI}.average",
        "export": f"{CLI}.export",
        "push": f"{CLI}.push",
    },
    "tables": {
        "show-scores": f"{CLI}.show_scores",
        "collect-results": f"{CLI}.collect_results",
        "compute-arg": f"{CLI}.compute_arg",
    },
    "explain routes": {
        "transfer": f"{CLI}.transfer",
        "correlate-routes": f"{CLI}.correlate_routes",
        "ablate": f"{CLI}.ablate",
        "create-gif": f"{CLI}.create_gif",
    },
}
METHODS = {  # a module, or module:class
    "random": f"{VECTORS}.settings:RandomSettings",
    "text": f"{VECTORS}.settings:TextSettings",
    "finetuned-text": f"{VECTORS}.settings:FinetunedTextSettings",
    "fisher": f"{VECTORS}.settings:FisherSettings",
    "gradient": f"{VECTORS}.settings:GradientSettings",
    "descriptions": f"{VECTORS}.settings:DescriptionSettings",
    "reduce": f"{VECTORS}.reduce",
    "inspect": f"{VECTORS}.inspect",
}
COMMANDS = {name: module for commands in GROUPS.values() for name, module in commands.items()}
COMMANDS |= {f"vectors {method}": module for method, module in METHODS.items()}
COMMANDS |= {"conflict-gym bart": "task.conflict_gym.bart"}
del COMMANDS["vectors"]  # alone it is no command


class Parser(argparse.ArgumentParser):
    """Parser of the first word of a command line. groups: {title: {word: module}}."""

    def __init__(self, program: str, metavar: str, groups: dict[str, dict[str, str]], description: str):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=program, description=description, formatter_class=formatter)
        self.metavar, self.groups = metavar, groups
        self.add_argument("word", metavar=metavar, help=f"one of the {metavar}s below, with - or _")
        self.add_argument("flags", nargs=argparse.REMAINDER, help="its flags; --help lists them")

    def format_help(self) -> str:
        """Lists the words, each with the first line of its module's docstring."""
        lines = []
        for title, modules in self.groups.items():
            lines += ["", f"{title}:"]
            lines += [f"  {word:20}{docstring(module).splitlines()[0]}" for word, module in modules.items()]
        return "\n".join([super().format_help().rstrip(), *lines, ""])

    def chosen(self, words: list[str]) -> tuple[str, list[str]]:
        """Returns the word and its flags. Exits as argparse does for --help and unknown words."""
        typed = self.parse_args(words or ["--help"])
        word = typed.word.replace("_", "-")
        known = [name for modules in self.groups.values() for name in modules]
        if word not in known:
            what = f"there is no {self.metavar.lower()} {word!r}"
            self.error(f"{what}{did_you_mean(word, known)}; --help lists all")
        return word, typed.flags


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    name, flags = Parser(NAME, "COMMAND", GROUPS, __doc__).chosen(words)
    if name == "vectors":
        description = docstring(VECTORS).splitlines()[0]
        parser = Parser(f"{NAME} vectors", "METHOD", {"methods": METHODS}, description)
        method, flags = parser.chosen(flags)
        name = f"vectors {method}"
    elif flags and f"{name} {flags[0]}" in COMMANDS:
        name, flags = f"{name} {flags[0]}", flags[1:]
    return runner(COMMANDS[name]).main(flags)


def runner(place: str):
    """Returns what has the `main` of a command: a module, or of "module:class" the class."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name) if name else import_module(module)


def docstring(place: str) -> str:
    """Returns the docstring of a module, or of a class in it, which is not imported."""
    module, _, name = place.partition(":")
    tree = ast.parse(Path(find_spec(module).origin).read_text(encoding="utf-8"))
    return ast.get_docstring(next((node for node in tree.body if getattr(node, "name", None) == name), tree))


if __name__ == "__main__":
    sys.exit(main())
