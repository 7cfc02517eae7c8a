"""Labelled rows of a table. Does not import torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dataloader.building.downloads import Downloads
from dataloader.building.tables import Template, Templates, column_of, examples_of, read_table
from dataloader.errors import problem_context
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
    offered = tuple(Template("--options", text) for text in options)
    templates = Templates(Template("--input", input), (Template("--output", output),), offered)
    columns = {column_of(field) for template in templates.all for field in template.fields}
    with problem_context(f"--{flag} "):
        table = read_table(source, {*columns, OPTIONS_COLUMN}, Downloads(Path()))
    if OPTIONS_COLUMN in {*table.columns} - columns and not options:
        templates = replace(templates, options=(Template("column", f"{{{OPTIONS_COLUMN}}}"),))
    for template in templates.all:
        template.check(table)
    rows, malformed, warnings = examples_of(table, templates, "EM")
    if malformed:
        raise malformed_lines(Path(source), malformed)
    early_notes.extend(f"warning: {warning}" for warning in warnings)
    examples = []
    for text, answers, *further in rows:
        offered = further[0].get("options", ()) if further else ()
        examples.append(Example(task, task, text, tuple(answers.split("\t")), tuple(offered)))
    return examples
