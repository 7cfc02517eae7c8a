"""Labelled rows of a table. Does not import torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dataloader.building.downloads import Downloads
from dataloader.building.tables import Template, Templates, column_of, examples_of, read_table
from dataloader.errors import InputError, problem_context
from dataloader.gym import Example
from dataloader.task_files import malformed_lines
from routing_moe.answering.tables import OPTIONS_COLUMN
from routing_moe.io.logs import early_notes


def labelled_rows(
    flag: str, source: str, task: str, input: str, output: str, options: Sequence[str] = ()
) -> list[Example]:
    """Returns the rows of a table as examples of a task. flag: that of the table.

    The other arguments are templates, as of `add-task`. Without options, they are those of the column
    OPTIONS_COLUMN, if there is one. Raises InputError.
    """
    keeps = Path(source).suffix == ".jsonl"  # as add-task has written it
    offered = tuple(Template("--options", text, keeps) for text in options)
    templates = Templates(Template("--input", input, keeps), (Template("--output", output, keeps),), offered)
    columns = {column_of(field) for template in templates.all for field in template.fields}
    with problem_context(f"--{flag} "):
        table = read_table(source, {*columns, OPTIONS_COLUMN}, Downloads(Path()))
    if "before" in table.columns:
        raise InputError(
            f"--{flag} {source} has chats, with turns before an input; give rows of single texts"
        )
    if OPTIONS_COLUMN in {*table.columns} - columns and not options:
        templates = replace(templates, options=(Template("column", f"{{{OPTIONS_COLUMN}}}", keeps),))
    for template in templates.all:
        template.check(table)
    rows, malformed, warnings = examples_of(table, templates, "EM")
    if malformed:
        raise malformed_lines(Path(source), malformed)
    early_notes.extend(f"warning: {warning}" for warning in warnings)
    examples = []
    for text, answers, *further in rows:
        found = further[0] if further else {}
        outputs = tuple(found.get("outputs", answers.split("\t")))
        examples.append(Example(task, task, text, outputs, tuple(found.get("options", ()))))
    return examples
