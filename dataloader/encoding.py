"""Converts examples to token ids: " [task_name] input" for the encoder, " answer" for the decoder.

A decoder-only model reads both as one sequence: the input, which does not end, then the answer, which does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from jinja2 import TemplateError  # which torch needs, too

from dataloader.encoded import EncodedExamples, EncodedOptions, Ragged, offsets_of
from dataloader.errors import InputError, did_you_mean, in_brief
from dataloader.gym import Example
from dataloader.progress import ProgressBar
from dataloader.task_files import Turns, trimmed

NO_LIMIT = 10**9  # tokens
TEXTS_PER_CALL = 4096  # bounds the Python lists that the tokenizer returns
HIDDEN_NAME = "task"  # replaces every task name with hide_task_names
PROGRESS_FROM = 20_000  # texts; fewer are tokenized too quickly for a progress bar
MESSAGE = "[[message]]"  # stands for an input in a chat template
EARLIER = re.compile(r"\[\[message (\d+)\]\]")  # stand for the turns before it
AS_TEXT = dict(add_special_tokens=False, split_special_tokens=True)
# Before a chat template: prompts of another day are the same (Llama 3, SmolLM3).
SAME_DAY = (
    "{%- macro strftime_now(format) -%}26 {{ 'Jul' if '%b' in format else 'July' }} 2024{%- endmacro -%}"
)


@dataclass(frozen=True)
class TextFormat:
    """How texts become token ids. Lengths are in tokens and include the special tokens at both ends.

    append_another_bos: adds "<s>" before the text; hide_task_names: replaces task names by HIDDEN_NAME;
    no_prefix: leaves [task] out. prompt_format: "chat": inputs are messages of the user in the tokenizer's
    chat template; system: the system message before them, None: the template's own, if any. decoder_only:
    whether one model reads input and answer as one sequence.
    """

    max_input_length: int = 512
    max_output_length: int = 64
    do_lowercase: bool = False
    append_another_bos: bool = False
    hide_task_names: bool = False
    no_prefix: bool = False
    prompt_format: str = "crossfit"
    system: str | None = None
    decoder_only: bool = False

    def __post_init__(self):
        shortest = 3 if self.append_another_bos else 2
        for name in ("max_input_length", "max_output_length"):
            if (length := getattr(self, name)) <= shortest:
                raise InputError(f"--{name} is {length}, must be at least {shortest + 1} to hold a token")

    @classmethod
    def of(cls, settings, config=None) -> "TextFormat":
        """Returns the format in a command's settings; fields that the settings lack keep their defaults.

        config: of the model that reads the texts; None: one with an encoder.
        """
        names = [field.name for field in fields(cls) if hasattr(settings, field.name)]
        decoder_only = config is not None and not config.is_encoder_decoder
        return cls(**{name: getattr(settings, name) for name in names}, decoder_only=decoder_only)

    def without_limits(self) -> "TextFormat":
        """Returns the format in which no text is cut."""
        return replace(self, max_input_length=NO_LIMIT, max_output_length=NO_LIMIT)

    def source(self, example: Example) -> str:
        """Returns the text of an input. The leading space is part of the format, but not of a message."""
        if example.before and self.prompt_format != "chat":
            how = "a decoder-only model and --prompt_format chat"
            raise InputError(f"{example.sample}: its rows are chats of several turns, which need {how}")
        if self.no_prefix and self.prompt_format == "chat":
            return self._written(example.input)
        prefix = f" [{HIDDEN_NAME if self.hide_task_names else example.task}]"
        return self._written(f"{'' if self.no_prefix else prefix} {example.input}")

    def turns(self, before: Turns = ()) -> list[dict]:
        """Returns the turns before an input; their own message of the system replaces `system`."""
        has_own = bool(before) and before[0]["role"] == "system"
        turns = [] if has_own or self.system is None else [{"role": "system", "content": self.system}]
        return turns + [turn | {"content": self._written(turn["content"])} for turn in before]

    def target(self, output: str) -> str:
        """Returns the text of one answer. An indent takes the place of the leading space."""
        return self._written(output if output[:1].isspace() else f" {output}")

    def _written(self, text: str) -> str:
        text = trimmed(text) if self.prompt_format == "chat" else text
        return text.lower() if self.do_lowercase else text


# ---------------------------------------------------------------------------- tokenization


def encode(
    examples: Sequence[Example], tokenizer, text_format: TextFormat, task_ids: Mapping[str, int]
) -> EncodedExamples:
    """Returns the examples tokenized with a Hugging Face tokenizer. task_ids: {task name: id}.

    Text that looks like a special token ("</s>" in a web page) is encoded as text.
    """
    for example in examples:
        if example.task not in task_ids:
            raise InputError(f"task '{example.task}' has no task id{did_you_mean(example.task, task_ids)}")
        if not example.outputs:
            raise InputError(f"{example.sample}: an example has no output: {example.input!r}")
    sources = [text_format.source(example) for example in examples]
    targets = [text_format.target(output) for example in examples for output in example.outputs]
    n_outputs = [len(example.outputs) for example in examples]
    return EncodedExamples(
        sources=_tokenize(sources, tokenizer, text_format, "inputs", [each.before for each in examples]),
        outputs=_tokenize(targets, tokenizer, text_format, "outputs"),
        first_output=offsets_of(n_outputs),
        task_ids_N=np.array([task_ids[example.task] for example in examples], dtype=np.int64),
        decoder_only=text_format.decoder_only,
    )


def encode_options(options: Sequence[Sequence[str]], tokenizer, text_format: TextFormat) -> EncodedOptions:
    """Returns the tokenized answer options of N examples, in the format of outputs in `encode`."""
    texts = list(dict.fromkeys(option for offered in options for option in offered))
    tokens = _tokenize([text_format.target(text) for text in texts], tokenizer, text_format, "options")
    first_with: dict[bytes, int] = {}
    row_of = {text: first_with.setdefault(tokens[i].tobytes(), i) for i, text in enumerate(texts)}
    return EncodedOptions(
        tokens, [np.array([row_of[text] for text in offered], dtype=np.int64) for offered in options]
    )


def _tokenize(texts: list[str], tokenizer, text_format: TextFormat, what: str, earlier=()) -> Ragged:
    """Returns the token ids of the texts, cut between the tokens around them.

    what: "inputs" or others. earlier: of inputs, the turns before each.
    """
    limit = "max_input_length" if what == "inputs" else "max_output_length"
    before, lead, after = _around(texts, tokenizer, text_format, what == "inputs")
    room = getattr(text_format, limit) - len(before) - len(after)
    if room <= len(tokenizer(lead.strip(" "), **AS_TEXT)["input_ids"]):  # the lead is not cut
        taken = f"{len(before)} + {len(after)} tokens are around every text"
        raise InputError(f"--{limit} is {getattr(text_format, limit)}, but {taken}")
    tokenizer.truncation_side = "right"  # at the left there may be the lead
    rows: list[np.ndarray] = []
    is_quiet = len(texts) <= PROGRESS_FROM
    with ProgressBar(total=len(texts), desc=f"tokenizing {what}", unit="text", disable=is_quiet) as progress:
        for start in range(0, len(texts), TEXTS_PER_CALL):
            chunk = [lead + text for text in texts[start : start + TEXTS_PER_CALL]]
            found = tokenizer(chunk, truncation=True, max_length=room, padding=False, **AS_TEXT)["input_ids"]
            rows += [np.array([*before, *row, *after], dtype=np.int32) for row in found]
            progress.update(len(chunk))
    for i, turns in enumerate(earlier):
        if turns and text_format.prompt_format == "chat":
            rows[i] = _with_turns(texts[i], text_format.turns(turns), tokenizer, text_format)
    if tokenizer.is_fast:  # otherwise every checkpoint would save the maximum length
        tokenizer.backend_tokenizer.no_truncation()
    return Ragged.of(rows)


def _with_turns(text: str, turns: list[dict], tokenizer, text_format: TextFormat) -> np.ndarray:
    """Returns the tokens of a text after its turns: if too many, without the oldest of user and assistant."""
    own, turns = (turns[:1], turns[1:]) if turns[0]["role"] == "system" else ([], turns)
    while turns:
        before, lead, after = around_message(tokenizer, own + turns)
        row = [*before, *tokenizer(lead + text, **AS_TEXT)["input_ids"], *after]
        if len(row) <= text_format.max_input_length:
            return np.array(row, dtype=np.int32)
        turns = turns[2:]
    alone = replace(text_format, system=own[0]["content"] if own else None)
    return _tokenize([text], tokenizer, alone, "inputs")[0]


def _around(texts: list[str], tokenizer, text_format: TextFormat, are_inputs: bool) -> tuple[list, str, list]:
    """Returns what is around every text: tokens before it, text that is a part of its own, tokens after it.

    They are the tokenizer's, or those of a chat template. In a decoder-only model, nothing ends an input, and
    the end token an answer, which starts without one.
    """
    if text_format.decoder_only and not are_inputs:
        if tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end token (eos_token), with which answers end")
        return [], "", [tokenizer.eos_token_id]
    if text_format.prompt_format == "chat":
        return around_message(tokenizer, text_format.turns())
    asked = dict(split_special_tokens=True, return_special_tokens_mask=True)
    sample = tokenizer(max(texts, key=len, default="")[:80], **asked)
    tokens, own = sample["input_ids"], np.flatnonzero(np.array(sample["special_tokens_mask"]) == 0)
    first, end = (own[0], own[-1] + 1) if len(own) else (len(tokens), len(tokens))
    before, after = tokens[:first], tokens[end:]
    if text_format.append_another_bos:
        if tokenizer.bos_token_id is None:  # which the configuration of a Pegasus does not tell
            raise InputError("--append_another_bos: the tokenizer has no token <s>; leave it out")
        before = [tokenizer.bos_token_id, *before]
    lead = " " if text_format.append_another_bos else ""
    return before, lead, [] if text_format.decoder_only else after


def rendered(tokenizer, message: str, turns: Sequence[dict] = ()) -> str:
    """Returns a message of the user in the tokenizer's chat template, up to where the answer begins.

    turns: those before it, such as one of the system; (): the template's own, if any. Raises InputError.
    """
    if not tokenizer.chat_template:
        raise InputError("--prompt_format chat: the tokenizer has no chat template; give crossfit")
    try:
        text = tokenizer.apply_chat_template(
            [*turns, {"role": "user", "content": message}],
            chat_template=SAME_DAY + tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # Qwen3 and SmolLM3: the answer begins without thoughts
        )
    except (TemplateError, TypeError, ValueError) as error:  # of jinja, or of what a template calls
        problem = f"template of {tokenizer.name_or_path}: {in_brief(error)}"
        raise InputError(f"--prompt_format chat: {problem}; give crossfit") from None
    if missing := [turn["role"] for turn in turns if turn["content"].strip() not in text]:
        which = f"the chat template of {tokenizer.name_or_path} shows no {missing[0]} message"
        raise InputError(f"--prompt_format chat: {which}")
    return text


def around_message(tokenizer, turns: Sequence[dict] = ()) -> tuple[list, str, list]:
    """Returns `_around` of a message of the user in a chat template. turns: those before it.

    What follows the template's last special token is tokenized with the message: a tokenizer of SentencePiece
    (Llama 2, Mistral) adds a space to each part. A special token that a turn spells is text.
    """
    marks = [turn | {"content": f"[[message {i}]]"} for i, turn in enumerate(turns)]
    parts = rendered(tokenizer, MESSAGE, marks).split(MESSAGE)
    if len(parts) != 2:
        raise InputError(f"--prompt_format chat: the chat template has the message {len(parts) - 1} times")
    before, after = parts
    if len(EARLIER.findall(before)) != len(turns):
        raise InputError("--prompt_format chat: the chat template has a turn twice, or after a later one")
    added = tokenizer.get_added_vocab()
    ends = (before.rfind(token) + len(token) for token in added if token in before)
    start = max(ends, default=0)
    first, lead = before[:start], before[start:]
    fill = partial(EARLIER.sub, lambda mark: turns[int(mark[1])]["content"])
    special = "|".join(map(re.escape, sorted(added, key=len, reverse=True)))
    tokens = []
    for part in filter(None, re.split(f"({special})", first)):  # special tokens in turns are text
        tokens += [added[part]] if part in added else tokenizer(fill(part), **AS_TEXT)["input_ids"]
    texts = after, lead + MESSAGE, lead + MESSAGE + after
    after, message, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    if whole[: len(message)] == message:  # else a token has a part of both
        after = whole[len(message) :]
    return tokens, fill(lead), after
