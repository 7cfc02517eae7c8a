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
VECTORS = "task.task_emb"
GROUPS = {  # in the order of --help
    "to start with": "add-task train merge finetune answer vectors compare inspect-routes report parallel",
    "gyms": "build-gym list-tasks conflict-gym",
    "models": "import-gguf adapt assemble average export push",
    "tables": "show-scores collect-results compute-arg",
    "explain routes": "transfer correlate-routes ablate create-gif",
}
# Modules that are not in routing_moe/cli.
ELSEWHERE = {"vectors": VECTORS, "conflict-gym": "task.conflict_gym.generate"}
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
COMMANDS = {
    name: ELSEWHERE.get(name, f"routing_moe.cli.{name.replace('-', '_')}")
    for names in GROUPS.values()
    for name in names.split()
}
COMMANDS |= {f"vectors {method}": module for method, module in METHODS.items()}
COMMANDS |= {"conflict-gym bart": "task.conflict_gym.bart"}
del COMMANDS["vectors"]  # alone it is no command


class CommandsParser(argparse.ArgumentParser):
    """Parser of a command's name. groups: {title: names, separated by spaces}. modules: {name: module}."""

    def __init__(self, program: str, metavar: str, groups: dict, modules: dict, description: str):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=program, description=description, formatter_class=formatter)
        self.metavar, self.groups, self.modules = metavar, groups, modules
        self.add_argument("word", metavar=metavar, help=f"one of the {metavar}s below, with - or _")
        self.add_argument("flags", nargs=argparse.REMAINDER, help="its flags; --help lists them")

    def format_help(self) -> str:
        """Lists the names, each with the first line of its module's docstring."""
        lines = []
        for title, names in self.groups.items():
            lines += ["", f"{title}:"]
            lines += [f"  {name:20}{docstring(self.modules[name]).splitlines()[0]}" for name in names.split()]
        return "\n".join([super().format_help().rstrip(), *lines, ""])

    def chosen(self, arguments: list[str]) -> tuple[str, list[str]]:
        """Returns the name and its flags. Exits as argparse does for --help and unknown names."""
        typed = self.parse_args(arguments or ["--help"])
        word = typed.word.replace("_", "-")
        known = " ".join(self.groups.values()).split()
        if word not in known:
            what = f"there is no {self.metavar.lower()} {word!r}"
            self.error(f"{what}{did_you_mean(word, known)}; --help lists all")
        return word, typed.flags


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    name, flags = CommandsParser(NAME, "COMMAND", GROUPS, ELSEWHERE | COMMANDS, __doc__).chosen(arguments)
    if name == "vectors":
        description = docstring(VECTORS).splitlines()[0]
        methods = {"methods": " ".join(METHODS)}
        parser = CommandsParser(f"{NAME} vectors", "METHOD", methods, METHODS, description)
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
