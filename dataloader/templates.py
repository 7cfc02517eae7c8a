"""Names of tasks that are prompts of one data set: `<data set>__<template>`, such as "boolq__exam".

A name without both parts is a data set of its own.
"""

import re
from collections.abc import Iterable

_TEMPLATED = re.compile(r"(?P<dataset>.+?)__(?P<template>.+)")


def dataset_of(task: str) -> str:
    """Returns the data set of a task: the part before the first `__`, or the whole name."""
    match = _TEMPLATED.fullmatch(task)
    return match["dataset"] if match else task


def has_templates(tasks: Iterable[str]) -> bool:
    """Returns whether any of the tasks is a template of a data set."""
    return any(dataset_of(task) != task for task in tasks)
