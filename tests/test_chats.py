"""Chats and code: from tables to tokens and answers, with turns, line breaks and indents as they were."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_backbones import CAUSAL, decoder_only_tokenizer
from tiny_runs import World, typed
from tiny_tables import add_task, examples, write_table
from tokenizers import normalizers
from transformers import AutoModelForCausalLM, Qwen2Config

from dataloader.encoding import TextFormat, encode
from dataloader.errors import InputError
from dataloader.gym import Example, Gym
from dataloader.task_files import checked_turns, last_input
from routing_moe.cli.answer import main as answer
from routing_moe.evaluation.text_vectors import BARE

pytestmark = pytest.mark.usefixtures("quick_pictures")

OTHERS = "{% for m in messages if m.role != 'system' %}{% if m.role == 'assistant' %} {{ m.content }} </s>"
SHOWN = (
    " and messages[0].role == 'system' %}{{ messages[0].content }}\n<</SYS>>\n\n{% endif %}{{ m.content }}"
)
# As those of SmolLM2, Llama 2 and Mistral, which shows the system message before the last turn.
TEMPLATES = {
    "chatml": "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama 2": OTHERS + "{% else %}<s>[INST] {% if loop.first" + SHOWN + " [/INST]{% endif %}{% endfor %}",
    "mistral": "<s>" + OTHERS + "{% else %}[INST] {% if loop.last" + SHOWN + "<|end|>{% endif %}{% endfor %}",
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|end|>"]
CODE = "def f(x):\n    if x:\n\n\treturn 1"
TEXTS = ["Code only.\n  Be brief.", f"Say\n\n{CODE}", "x = 1\n    y = 2", "And so?", "No", "Why"]
ROLES = ["system", "user", "assistant", "user", "assistant", "user"]
CHAT = [{"role": role, "content": text} for role, text in zip(ROLES, TEXTS, strict=True)]
FORMAT = TextFormat(600, 64, prompt_format="chat", no_prefix=True, decoder_only=True)


def tokenizer_of(name: str):
    tokenizer = decoder_only_tokenizer(["0123456789", TEMPLATES[name], *TEXTS], has_start=True)
    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": SPECIAL})
    tokenizer.chat_template = TEMPLATES[name]
    return tokenizer


def tokens_of(tokenizer, turns: list[dict], **changed) -> list[int]:
    text, before = last_input(checked_turns(turns, "messages"))
    row = Example("a", "a", text, ("x",), (), before)
    return encode([row], tokenizer, replace(FORMAT, **changed), {"a": 0}).sources[0].tolist()


def test_an_indented_message_has_no_further_space_and_one_of_one_line_has_none():
    tokenizer = tokenizer_of("chatml")
    indented = f"    x = 1\n{CODE}"
    for text, sent in ((indented, indented), ("\tx\n\ty", "\tx\n\ty"), ("  So ", "So")):
        turns = [{"role": "user", "content": sent}]
        whole = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert tokens_of(tokenizer, [{"role": "user", "content": text}]) == whole


@pytest.mark.parametrize("prepended", ["", "a"])  # Llama 2 has a space for the "a"
@pytest.mark.parametrize("name", TEMPLATES)
def test_chats_have_the_tokens_of_the_chat_template_and_special_tokens_of_texts_are_text(name, prepended):
    tokenizer = tokenizer_of(name)
    if prepended:
        tokenizer.backend_tokenizer.normalizer = normalizers.Prepend(prepended)
    for turns in (CHAT[i:n] for i in (0, 1) for n in (2, 4, 6)):
        spelled = [turn | {"content": f"{turn['content']} {' '.join(SPECIAL)}</s> x"} for turn in turns]
        whole = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert tokens_of(tokenizer, turns) == whole
        special, found = set(tokenizer.all_special_ids), tokens_of(tokenizer, spelled)
        assert len(found) > len(whole)
        assert [t for t in found if t in special] == [t for t in whole if t in special]


def test_the_oldest_turns_are_left_out_of_long_chats_then_the_input_is_cut():
    tokenizer = tokenizer_of("chatml")
    whole, shorter, alone = (tokens_of(tokenizer, [CHAT[0], *CHAT[n:]]) for n in (1, 3, 5))
    for limit, expected in ((len(whole), whole), (len(whole) - 1, shorter), (len(shorter) - 1, alone)):
        assert tokens_of(tokenizer, CHAT, max_input_length=limit) == expected
    cut = tokenizer.decode(tokens_of(tokenizer, CHAT, max_input_length=len(alone) - 1))
    assert cut == tokenizer.decode(alone).replace("Why", "Wh")
    with pytest.raises(InputError, match="tokens are around every text"):
        tokens_of(tokenizer, CHAT, max_input_length=len(alone) - 3)


def test_a_chat_has_its_own_system_message_and_needs_a_template_but_for_text_vectors():
    tokenizer = tokenizer_of("llama 2")
    assert tokens_of(tokenizer, CHAT[1:], system=TEXTS[0]) == tokens_of(tokenizer, CHAT, system="x")
    assert "[INST] [a] Why" in tokenizer.decode(tokens_of(tokenizer, CHAT, no_prefix=False))
    with pytest.raises(InputError, match="a: its rows are chats of several turns, which need a decoder-only"):
        tokens_of(tokenizer, CHAT, prompt_format="crossfit")
    whole = "\n".join(TEXTS)
    assert tokenizer.decode(tokens_of(tokenizer, [CHAT[1] | {"content": whole}], **BARE)) == f"<s> {whole}"


# ---- from tables to answers


def test_code_keeps_line_breaks_indents_and_tabs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"\n \n    {i}:\n{CODE} \n\n", "a": [f"\tx{i}\n\ty", "z"], "m": CHAT} for i in range(20)]
    given = {"from": write_table(Path("t.jsonl"), rows), "output": "{a}", "metric": "EM"}
    assert add_task(**given, input="{q}{m[-5][content]}", keep_whitespace=True) == 0
    for text, outputs, _ in examples():
        i = text.split(":")[0].strip()
        assert (text, outputs) == (f"    {i}:\n{CODE}{TEXTS[1]}", (f"\tx{i}\n\ty", "z"))


REFUSED = [  # those with flags have an --output, too
    (CHAT[:5], dict(input="{m[content]}"), "'m[content]' joins the turns of a chat; give add-task --mess"),
    (CHAT[:5], dict(input="{m}"), "'m' joins the turns of a chat; give add-task --messages m, or one turn"),
    (CHAT[:5], dict(messages="m"), "give --input TEXT and --output TEXT, or --messages COLUMN"),
    (CHAT[:4], {}, "t.jsonl:1: the chat in '{m}' ends with the user; its last turn must be the answer"),
    (CHAT[1::2], {}, '1: the roles in "m" are user, user, user; expected user and assistant in turn, after'),
    ([CHAT[1], CHAT[2] | {"content": None}], {}, '1: "m[1][content]" is null, expected a string'),
    ([{"from": "human", "value": "x"}], {}, '1: "m" is a list, expected a list of {"role": ..., "content":'),
]


@pytest.mark.parametrize(("row", "flags", "message"), REFUSED)
def test_what_is_no_chat_is_named_with_its_line(row, flags, message, tmp_path, capsys):
    given = dict(output="{m[1][content]}") | flags if flags else dict(output=None, messages="m")
    table = write_table(tmp_path / "t.jsonl", [{"m": row, "n": i} for i in range(9)])
    assert add_task(**dict(input=None) | given | {"from": table}) == 2
    assert message in capsys.readouterr().err


def test_a_model_learns_and_answers_chats_with_their_indents(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    world, reply = World(tmp_path / "world"), "\tx\n\n\t\ty"
    turns = [[*CHAT[:3], {"role": "user", "content": f"So {i}:\n  a"}] for i in range(20)]
    rows = [{"messages": [*each, {"role": "assistant", "content": reply}]} for each in turns]
    table, world.gym = write_table(Path("new.parquet"), rows), Path("gym")
    assert add_task(**{"from": table}, input=None, output=None, messages="messages", samples=1, k=8) == 0
    assert all(list(row.before) == CHAT[:3] for row in Gym("gym").examples("reviews", "train"))
    tokenizer_of("chatml").save_pretrained("plain")
    config = Qwen2Config(**CAUSAL | dict(vocab_size=110, pad_token_id=0, max_position_embeddings=700))
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained("plain")
    flags = dict(expert_kind="lora", lora_rank=4, init_eps=None, base_lr=0.01, total_steps=60, eval_period=60)
    flags |= dict(prompt_format="chat", no_prefix=True, max_input_length=400, max_output_length=40)
    run = world.run("run", bart="plain", **flags, do_predict=True)
    assert ",1.0" in (run / "best/eval-test-performance.csv").read_text()
    write_table(Path("new.jsonl"), [{"messages": each} for each in turns])
    write_table(Path("gym.jsonl"), [dict(input=each[-1]["content"], before=CHAT[:3]) for each in turns])
    learned = dict(task="new", examples="gym/reviews/reviews_8_100_train.jsonl", steps=1)
    for name, changed in (("new.parquet", {}), ("new.jsonl", learned), ("gym.jsonl", learned)):
        capsys.readouterr()
        assert answer(typed(dict(checkpoint=run, task="reviews", inputs=name) | changed)) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["input"] for line in found] == [each[-1]["content"] for each in turns]
        assert {(line["answer"], line["was_cut"]) for line in found} == {(reply, False)}
