"""Reads one task file: each row has an input, accepted answers and, in JSON lines, optional answer options.

    x_train.tsv      a line: input TAB answer [TAB another answer ...]
    x_train.jsonl    a line: {"input": "...", "outputs": ["answer", ...], "options": ["answer", "other", ...]}
                     of a chat, also "before": [{"role": ..., "content": "..."}, ...]

Both are UTF-8. JSON texts may contain tabs and line breaks, TSV texts may not.
"""

import codecs
import os
import re
from pathlib import Path

from dataloader.errors import InputError, counted
from dataloader.jsonfile import kind_of, parse_json_object
from dataloader.metrics import answer_problem

PROBLEMS_SHOWN = 5  # of one file

Row = tuple[str, tuple[str, ...]]  # input, accepted answers
JsonRow = tuple  # ... and options, () for none; and the turns before the input, if there are any
Turns = tuple[dict[str, str], ...]  # {"role": ..., "content": ...} each

_CHAT = re.compile(r"(system )?(user assistant )*(user )?")


def malformed_lines(path: Path, lines: list[tuple[int, str]]) -> InputError:
    """Returns the error for the malformed lines of one file, pairs of a line number and what is wrong."""
    more = f", the first {PROBLEMS_SHOWN} of them" if len(lines) > PROBLEMS_SHOWN else ""
    advice = "add-task, train, finetune and vectors leave them out with --skip_malformed"
    head = f"{path}: {counted(len(lines), 'malformed line')}{more} ({advice}):"
    shown = [f"{path.name}:{number}: {problem}" for number, problem in lines[:PROBLEMS_SHOWN]]
    return InputError("\n  ".join([head, *shown]))


def read_task_file(
    path: str | os.PathLike, skip_malformed: bool = False, metric: str | None = None
) -> tuple[list[Row | JsonRow], int]:
    """Returns the rows of a .jsonl file (JSON lines) or another one (TSV), and the number of skipped lines.

    Lines end only at "\\n" or "\\r\\n", because texts may contain other line separators. metric: a line whose
    answer it cannot use is malformed. Raises one InputError for all malformed lines of the file, unless they
    are skipped and counted, and for a file without a usable line.
    """
    path = Path(path)
    is_json = path.suffix == ".jsonl"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content:
        form = '{"input": text, "outputs": [text, ...]}' if is_json else "input TAB answer"
        raise InputError(f"{path} is empty, expected lines of {form}")
    rows: list[tuple] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            text = line.removesuffix(b"\r").decode("utf-8")
            if not text.strip():
                raise ValueError("blank line")
            row = _parse_json(text) if is_json else _parse_fields(text)
            if problem := answer_problem(row[1][0], metric):
                raise ValueError(problem)
            rows.append(row)
        except UnicodeDecodeError as error:
            problems.append((number, f"byte {error.start + 1} of the line is not UTF-8"))
        except ValueError as error:
            problems.append((number, str(error)))
    if problems and not skip_malformed:
        raise malformed_lines(path, problems)
    if not rows:
        raise InputError(
            f"{path} has no usable line, all {len(problems)} are malformed, such as: {problems[0][1]}"
        )
    return rows, len(problems)


def _parse_fields(text: str) -> Row:
    """Returns the row of a TSV line, without spaces around fields and empty answers. Raises ValueError."""
    if "\r" in text:
        raise ValueError("carriage return inside the line")
    # Split before stripping: stripping the whole line would make the answer the input if the input is empty.
    source, *answers = (field.strip() for field in text.split("\t"))
    if not answers:
        raise ValueError("no answer (no tab in the line)")
    outputs = tuple(answer for answer in answers if answer)
    if not outputs or not source:
        raise ValueError("empty input" if outputs else "empty answer")
    return source, outputs


def _parse_json(text: str) -> JsonRow:
    """Returns the row of a JSON line. "options" may be missing or null. Raises ValueError."""
    line = parse_json_object(text)
    if missing := [key for key in ("input", "outputs") if key not in line]:
        raise ValueError(f'no "{missing[0]}" (its keys: {", ".join(line) or "none"})')
    row = checked_row(line["input"], line["outputs"], line.get("options"))
    before = checked_turns(line.get("before") or [], "before", are_before=True)
    return (*row, before) if before else row


def checked_row(source, outputs, options=None) -> JsonRow:
    """Returns the `trimmed` texts. Raises ValueError for one that is no text, or empty."""
    accepted = _checked_texts(outputs, "outputs")
    offered = () if options is None else _checked_texts(options, "options")
    if options is not None and len(set(offered)) < max(2, len(offered)):
        raise ValueError('"options" are not two or more different texts')
    if options is not None and not set(accepted) & set(offered):
        raise ValueError(f'"options" holds none of the outputs ({accepted[0]!r} is not among them)')
    return _checked_text(source, "input"), accepted, offered


def _checked_texts(texts, name: str) -> tuple[str, ...]:
    if not isinstance(texts, list) or not texts:
        kind = "an empty list" if texts == [] else kind_of(texts)
        raise ValueError(f'"{name}" is {kind}, expected a list of strings')
    return tuple(_checked_text(text, f"{name}[{index}]") for index, text in enumerate(texts))


def _checked_text(value, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{name}" is {kind_of(value)}, expected a string')
    if not value.strip():
        raise ValueError(f'"{name}" is empty')
    return trimmed(value)


def trimmed(text: str) -> str:
    """Returns the text without empty lines around it, spaces at its end and a single space before it.

    More white space at the start of several lines is an indent, as of code, and stays.
    """
    text = re.sub(r"\A\s*[\r\n]", "", text).rstrip()
    if "\n" not in text:
        return text.strip()
    return text[1:] if re.match(r" \S", text) else text


# ---------------------------------------------------------------------------- chats


def checked_turns(value, name: str, are_before: bool = False) -> Turns:
    """Returns the turns of a chat, or those before the user's last. name: of the value. Raises ValueError."""
    if not isinstance(value, list) or not all(isinstance(turn, dict) and "role" in turn for turn in value):
        raise ValueError(f'"{name}" is {kind_of(value)}, expected a list of {{"role": ..., "content": ...}}')
    roles = [turn["role"] for turn in value]
    if not _CHAT.fullmatch("".join(f"{role} " for role in roles)) or (are_before and roles[-1:] == ["user"]):
        order = "user and assistant in turn, after one or no system" + are_before * ", up to the assistant"
        raise ValueError(f'the roles in "{name}" are {", ".join(map(str, roles))}; expected {order}')
    contents = [_checked_text(turn.get("content"), f"{name}[{i}][content]") for i, turn in enumerate(value)]
    return tuple({"role": r, "content": content} for r, content in zip(roles, contents, strict=True))


def last_input(turns: Turns) -> tuple[str, Turns]:
    """Returns the user's last text and the turns before it, without an answer to it. Raises ValueError."""
    turns = turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
    if not turns or turns[-1]["role"] != "user":
        raise ValueError("the chat has no turn of the user")
    return turns[-1]["content"], turns[:-1]


def whole_text(text: str, before: Turns) -> str:
    """Returns a text after the turns before it, each on lines of its own."""
    return "\n".join([*(turn["content"] for turn in before), text])
