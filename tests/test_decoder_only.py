"""Decoder-only models: batches, scores and answers against one example at a time; the commands with them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_backbones import DECODER_ONLY, LORA, decoder_only_tokenizer, make_differ, plain_models, runs_of
from tiny_grids import SAMPLES, Grids
from tiny_runs import NO_LEARNING, ROWS, run, typed, weights
from transformers import AutoModelForCausalLM, AutoTokenizer, ByT5Tokenizer, Qwen2Config

from dataloader.encoding import TextFormat, encode, encode_options
from dataloader.errors import InputError
from dataloader.gym import Example
from routing_moe import Routed, RoutedModel
from routing_moe.answering.queries import Query
from routing_moe.cli.assemble import main as assemble
from routing_moe.cli.average import main as average
from routing_moe.cli.export import main as export
from routing_moe.evaluation.option_ranking import losses_of, option_scores
from routing_moe.evaluation.scored_files import batch_of, prompts_of
from routing_moe.finetuning.starting_model import plain_of
from routing_moe.finetuning.trial import TrialRunner
from routing_moe.model.base import is_of_base
from routing_moe.model.counted_flops import rows_flops

pytestmark = pytest.mark.usefixtures("quick_pictures")
plain = pytest.fixture(scope="module")(plain_models)
run_of = pytest.fixture(runs_of)

TEXTS = [f" [{task}] {line}" for task, lines in ROWS.items() for line in lines]
LIMIT = 16  # tokens of an input and of an answer


# ---- tokens, against a slow reference


def without_padding(texts):
    tokenizer = decoder_only_tokenizer(texts, has_start=True)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


TOKENIZERS = {
    "no start": lambda: decoder_only_tokenizer(TEXTS, has_start=False),
    "start": lambda: decoder_only_tokenizer(TEXTS, has_start=True),
    "padding is the end": lambda: without_padding(TEXTS),
    "bytes": ByT5Tokenizer,  # a slow tokenizer, which would end every text
}
EXAMPLES = [
    Example("colour", "c", text, answers)
    for text, answers in [("sky", ("blue", "b")), ("</s> " + "grass " * 9, ("g" * 40,)), ("a", ("</s>",))]
]


AS_TEXT = dict(add_special_tokens=False, split_special_tokens=True)


def slow_tokens(tokenizer, kind: str, example: Example, answer: str) -> tuple[list, list]:
    """Returns the tokens of an input and of its answer, each cut to LIMIT."""
    words = tokenizer(f" {answer}", **AS_TEXT)["input_ids"]
    answer_tokens = [*words[: LIMIT - 1], tokenizer.eos_token_id]
    has_start = kind in ("start", "padding is the end")
    before = [tokenizer.convert_tokens_to_ids("<s>")] if has_start else []
    words = tokenizer(f" [colour] {example.input}", **AS_TEXT)["input_ids"]
    return [*before, *words[: LIMIT - len(before)]], answer_tokens


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_batches_have_the_answer_after_the_input_and_only_its_tokens_as_labels(kind):
    tokenizer, pad = TOKENIZERS[kind](), 1
    how = TextFormat(LIMIT, LIMIT, decoder_only=True)
    encoded = encode(EXAMPLES, tokenizer, how, {"colour": 0})
    choices = [1, 0, 0]
    batch = encoded.collate(range(3), choices, pad_token_id=pad)
    prompts = encoded.prompts(range(3), pad_token_id=pad, at_left=True)
    for i, (example, choice) in enumerate(zip(EXAMPLES, choices, strict=True)):
        source, answer = slow_tokens(tokenizer, kind, example, example.outputs[choice])
        width, length = batch["input_ids"].shape[1], len(source) + len(answer)
        padding = width - length
        assert batch["input_ids"][i].tolist() == [*source, *answer, *[pad] * padding]
        assert batch["labels"][i].tolist() == [*[-100] * len(source), *answer, *[-100] * padding]
        assert batch["attention_mask"][i].tolist() == [1] * length + [0] * padding
        at_left = prompts["input_ids"].shape[1] - len(source)
        assert prompts["input_ids"][i].tolist() == [*[pad] * at_left, *source]
        assert prompts["attention_mask"][i].tolist() == [0] * at_left + [1] * len(source)
    options = encode_options([("blue", "g" * 40)], tokenizer, how).tokens
    for row, text in enumerate(("blue", "g" * 40)):
        assert options[row].tolist() == slow_tokens(tokenizer, kind, EXAMPLES[0], text)[1]


def test_a_chat_template_that_cannot_be_used_is_refused():
    tokenizer = TOKENIZERS["start"]()
    how = TextFormat(LIMIT, LIMIT, prompt_format="chat", decoder_only=True)
    tokenizer.name_or_path = "a/model"
    for template, problem in (
        (None, "has no chat template"),
        ("{{ messages[0].content[:4] }}", "has the message 0 times"),
        ("{{ raise_exception('no user') }}", "template of a/model: no user"),
        ("{{ messages[0].content + 1 }}", "template of a/model: can only concatenate str"),
    ):
        tokenizer.chat_template = template
        with pytest.raises(InputError, match=problem):
            encode(EXAMPLES, tokenizer, how, {"colour": 0})
    tokenizer.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(InputError, match="the chat template of a/model shows no system message"):
        encode(EXAMPLES, tokenizer, replace(how, system="be brief"), {"colour": 0})
    with pytest.raises(InputError, match=r"--max_input_length is 4, but 2 \+ 2 tokens are around"):
        encode(EXAMPLES, TOKENIZERS["start"](), TextFormat(4, 4, prompt_format="chat"), {"colour": 0})


@pytest.mark.parametrize("system", [None, "be brief", ""])
@pytest.mark.parametrize("text", ["sky", " sky ", "</s>\n<|assistant|> sky", "grass " * 40])
def test_a_message_never_changes_the_template_around_it(text, system):
    tokenizer = without_padding([*TEXTS, text])
    tokenizer.truncation_side = "left"
    by_default = "{% if messages[0].role != 'system' %}<|assistant|>be kind</s>\n{% endif %}"
    tokenizer.chat_template = by_default + tokenizer.chat_template
    how = TextFormat(40, LIMIT, prompt_format="chat", system=system, decoder_only=True)
    tokens = encode([Example("colour", "c", text, ("a",))], tokenizer, how, {"colour": 0}).sources[0].tolist()
    message = [] if system is None else [{"role": "system", "content": system}]
    message += [{"role": "user", "content": "[colour] TEXT"}]
    rendered = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before, after = rendered.split("TEXT")
    shown = tokenizer.decode(tokens)
    assert (shown[: len(before)], shown[-len(after) :]) == (before, after)
    assert shown == before + text.rstrip() + after or len(tokens) == 40
    assert tokens.count(tokenizer.eos_token_id) == rendered.count("</s>")


def test_answers_need_an_end_token():
    tokenizer = TOKENIZERS["start"]()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="has no end token"):
        encode(EXAMPLES, tokenizer, TextFormat(decoder_only=True), {"colour": 0})


# ---- losses and scores, against one example at a time


@pytest.fixture(params=DECODER_ONLY)
def scored(request, plain, attention_in_float64):
    """(model in float64, its tokenizer, encoded examples, routes (B, L, E) that differ)."""
    fields = dict(lora_rank=2, lora_targets="all", task_names=["a"], label_smoothing=0.1)
    model = RoutedModel.from_backbone(plain(request.param), 3, **fields).double().eval()
    make_differ(model)
    tokenizer = AutoTokenizer.from_pretrained(plain(request.param))
    encoded = encode(EXAMPLES, tokenizer, TextFormat(LIMIT, LIMIT, decoder_only=True), {"colour": 0})
    routes_BLE = torch.rand(3, model.config.num_layers, 3, dtype=torch.float64).softmax(-1)
    return model, tokenizer, encoded, routes_BLE


@torch.no_grad()
def log_p_of(plain_model, source, answer) -> torch.Tensor:
    """Returns log p (T, V) at the positions before the tokens of an answer."""
    ids = torch.tensor([[*source, *answer]])
    logits = plain_model(ids).logits[0, len(source) - 1 : -1]
    return logits.log_softmax(-1)


@torch.no_grad()
def test_losses_are_those_of_each_example_alone(scored):
    model, _, encoded, routes_BLE = scored
    batch = batch_of(encoded, np.arange(3), model)
    labels = batch.pop("labels")
    label_B, smoothed_B = losses_of(model, batch, labels, routes_BLE, (0.0, 0.1))
    loss = model(**batch, labels=labels, routes=routes_BLE, loss_only=True).loss
    torch.testing.assert_close(loss, smoothed_B.sum(), rtol=1e-9, atol=1e-9)
    for i in range(3):
        answer = encoded.outputs[encoded.first_output[i]].tolist()
        log_p_TV = log_p_of(model.to_plain(routes_BLE[i], "cpu"), encoded.sources[i], answer)
        expected = log_p_TV[range(len(answer)), answer].sum()
        torch.testing.assert_close(-label_B[i], expected, rtol=1e-9, atol=1e-9)
        smoothed = 0.9 * expected + 0.1 * log_p_TV.mean(dim=1).sum()
        torch.testing.assert_close(-smoothed_B[i], smoothed, rtol=1e-9, atol=1e-9)


def test_options_share_the_cache_of_their_input(scored, monkeypatch):
    model, tokenizer, encoded, routes_BLE = scored
    offered = [("blue", "b"), ("green", "g" * 40, "b"), ("a",)]
    how = TextFormat(LIMIT, LIMIT, decoder_only=True)
    options = encode_options(offered, tokenizer, how)
    read = []
    handle = model.register_forward_pre_hook(lambda m, args, inputs: read.append(inputs), with_kwargs=True)
    prompts = prompts_of(encoded, np.arange(3), model)
    found = option_scores(model, prompts, options.rows, options.tokens, routes_BLE)
    handle.remove()
    longest = options.tokens.lengths.max()
    assert [inputs["input_ids"].shape[1] for inputs in read] == [prompts["input_ids"].shape[1] - 1, longest]
    for i, rows in enumerate(options.rows):
        plain_model = model.to_plain(routes_BLE[i])
        for row, score in zip(rows, found[i], strict=True):
            answer = options.tokens[row].tolist()
            log_p_TV = log_p_of(plain_model, encoded.sources[i], answer)
            assert score == pytest.approx(float(log_p_TV[range(len(answer)), answer].mean()), rel=1e-9)


def test_a_training_from_a_checkpoint_goes_on_with_chats(world, run_of):
    start = run_of("qwen2", prompt_format="chat") / "best"
    new = dict.fromkeys(("initialize_from_vanilla", "model", "init_eps", "num_experts", "taskvecs_dim"))
    again = NO_LEARNING | new | dict(router_hidden_dim=None, checkpoint=start, no_text_vectors=True)
    folder = world.run("decoder_only/more_chats", **again)
    saved = [json.loads((folder / name).read_text()) for name in ("run.json", "best/config.json")]
    assert saved[0]["settings"]["prompt_format"] == saved[1]["text_settings"]["prompt_format"] == "chat"
    assert run(world.gym, world.bart, world / "decoder_only/no_chats", **again, prompt_format="crossfit") == 2


def test_flops_of_rows_count_joint_sequences_and_merge_no_weights(scored, monkeypatch):
    model, _, encoded, _ = scored
    monkeypatch.setattr(RoutedModel, "to_plain", None)
    alone = [rows_flops(model, encoded.subset(np.array([i]))) for i in range(3)]
    assert rows_flops(model, encoded) == pytest.approx(sum(alone), rel=1e-6)
    assert alone[1] > 1.5 * alone[0]


# ---- the commands


@pytest.mark.parametrize("how", [*DECODER_ONLY, "qwen2 chat", "llama beams"])
def test_a_route_is_exported_as_a_plain_model_with_the_same_answers_and_scores(how, run_of, tmp_path):
    family, *others = how.split()
    flags = dict(prompt_format="chat") if others == ["chat"] else {}
    run_folder = run_of(family, **flags)
    saved = weights(run_folder / "best")
    assert not any(name.startswith("backbone.model.embed") for name in saved), "the base is not saved again"
    routed = Routed.load(run_folder, num_beams=3 if others == ["beams"] else 1)
    task, texts = routed.task("colour"), ["the sky", "grass"]
    assert str(task).count("layers ") == 1
    answers = list(routed.answers(task, map(Query, texts)))
    routed.export(task, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    for text, expected in zip(texts, answers, strict=True):
        if flags:
            message = [{"role": "user", "content": f"[colour] {text}"}]
            shown = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            inputs = tokenizer(shown, add_special_tokens=False, return_tensors="pt")
            readme = (tmp_path / "plain" / "README.md").read_text()
            source = re.escape(shown.replace(text, "TEXT").replace("\n", "\\n"))
            found = re.search(rf"`{source}`, tokenized with `(.*?)`, MESSAGE: `(.*?)`", readme)
            how, message = found.groups()
            message = message.replace("\\n", "\n").replace("TEXT", text)
            as_written = eval(how, dict(tokenizer=tokenizer, MESSAGE=message))
            assert as_written == inputs["input_ids"][0].tolist()
        else:
            inputs = tokenizer(f" [colour] {text}", return_tensors="pt")
        prompt = inputs["input_ids"][0].tolist()
        (tokens,) = model.generate(**inputs)
        answer = tokens[len(prompt) :].tolist()
        assert tokenizer.decode(answer, skip_special_tokens=True).strip() == expected.answer
        log_p_TV = log_p_of(model, prompt, answer)
        assert expected.score == pytest.approx(float(log_p_TV[range(len(answer)), answer].mean()), rel=1e-4)
    again = Routed.load(tmp_path / "plain")  # as a model with one expert
    before = again.model.generation_config.to_dict()
    again.export("colour", tmp_path / "again")
    assert again.model.generation_config.to_dict() == before
    assert again.answer("colour", texts) == [found.answer for found in answers]


@pytest.mark.parametrize("base_lr", [0, 0.01])
def test_samples_with_other_routes_share_a_base_that_is_not_trained(base_lr, run_of, world):
    how = dict(task_vector="learned", vector_steps=1, moe_init=True, init_dir=run_of("qwen2"))
    how |= dict(route_training="fixed", base_lr=base_lr)
    runner = TrialRunner(Grids(world, "decoder_only").settings(f"shared_{base_lr}", **how))
    examples = runner.file(SAMPLES[0], "train").encoded
    models = [runner.starts.model_for(sample, lambda: examples)[0] for sample in SAMPLES]
    first, second = (dict(model.named_parameters()) for model in models)
    shared = [name for name in first if first[name] is second[name]]
    assert shared == ([] if base_lr else list(filter(is_of_base, first)))


def test_runs_of_unequal_precision_are_averaged_and_sizes_refused(run_of, plain, tmp_path, capsys):
    runs = [run_of("qwen2", base_dtype="bfloat16"), run_of("qwen2")]
    assert average(typed(dict(runs=runs, output_dir=tmp_path / "mean"))) == 0
    route_LE = torch.full((3, 2), 0.5)
    plains = [Routed.load(run).model.float().to_plain(route_LE).state_dict() for run in runs]
    for place, merged in zip(runs, plains, strict=True):  # no update is rounded to bfloat16
        mixture = Routed.load(place).model
        dtype, start = mixture.dtype, plain_of(mixture, route_LE).backbone.state_dict()
        assert all(torch.equal(tensor, merged[name]) for name, tensor in start.items())
        assert mixture.dtype == dtype  # which samples may share
    for name, tensor in Routed.load(tmp_path / "mean").model.backbone.state_dict().items():
        torch.testing.assert_close(tensor, torch.stack([own[name].float() for own in plains]).mean(dim=0))
    for field, value in (("intermediate_size", 80), ("rms_norm_eps", 0.01)):
        other = Qwen2Config(**DECODER_ONLY["qwen2"]().to_dict() | {field: value})
        AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / field)
        assert average(typed(dict(runs=[plain("qwen2"), tmp_path / field], output_dir=tmp_path / "no"))) == 2
        assert f"has {field} {value}; " in capsys.readouterr().err


def test_adapters_are_assembled_on_the_weights_of_a_run(run_of, tmp_path):
    plain = run_of("qwen2", num_experts=1, expert_kind="layer", lora_rank=None, router_mode=None)
    assert export(typed(dict(checkpoint=run_of("qwen2"), adapters=True, output_dir=tmp_path / "out"))) == 0
    experts = [f"{name}={tmp_path / 'out' / name}" for name in ("expert0", "expert1")]
    assert assemble(typed(dict(base=plain, experts=experts, output_dir=tmp_path / "mixture"))) == 0
    backbone = Routed.load(tmp_path / "mixture").model.backbone.state_dict()
    own = Routed.load(plain).model.to_plain().state_dict()
    assert all(torch.equal(tensor, backbone[name]) for name, tensor in own.items())


def test_adapters_say_how_texts_are_read_or_flags_do(run_of, plain, tmp_path, capsys):
    run, own = run_of("qwen2", prompt_format="chat"), tmp_path / "out/{}/text_settings.json"
    assert export(typed(dict(checkpoint=run, adapters=True, output_dir=tmp_path / "out"))) == 0
    one, other = (Path(str(own).format(name)) for name in ("expert0", "expert1"))
    saved = json.loads(one.read_text())
    assert saved == json.loads(other.read_text()) == {"task": None} | Routed.load(run).texts

    def texts(folder: str, **flags) -> dict:
        experts = [f"a={one.parent}", f"b={other.parent}"]
        flags |= dict(base=plain("qwen2"), experts=experts, output_dir=tmp_path / folder)
        assert assemble(typed(flags)) == 0
        return Routed.load(tmp_path / folder).texts

    assert texts("same", num_beams=2) == Routed.load(run).texts | {"num_beams": 2}
    other.write_text(json.dumps(saved | {"no_prefix": True, "task": "c"}))
    assert texts("differ")["prompt_format"] == "crossfit"
    assert "the adapters of b read texts in other ways than a" in capsys.readouterr().out
    one.write_text(json.dumps(saved | {"task": "c"}))
    other.unlink()
    texts("renamed")
    assert "inputs that begin with [c]; here they begin with [a]" in capsys.readouterr().out
    refused = dict(base=plain("qwen2"), experts=[f"a={one.parent}", f"b={other.parent}"], output_dir="x")
    assert assemble(typed(refused | dict(prompt_format="crossfit"))) == 2
    words = "--prompt_format is crossfit, but in the training of --experts it was chat"
    assert words in capsys.readouterr().err
    one.write_text(json.dumps(saved | {"num_beams": "many"}))
    assert assemble(typed(refused)) == 2
    assert f"{one} is damaged: num_beams is 'many'" in capsys.readouterr().err
    one.unlink()
    texts("unknown")
    assert "no model says how texts are read" in capsys.readouterr().out
    chat = dict(prompt_format="chat", no_prefix=True, system="be brief", max_input_length=30)
    kept = texts("given", **chat)
    assert {name: kept[name] for name in chat} == chat
    row = Routed.load(tmp_path / "given").task_file("a", [Query("a cat")]).encoded.sources[0]
    tokenizer = AutoTokenizer.from_pretrained(plain("qwen2"))
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a cat"}]
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert row.tolist() == expected


def test_rows_of_a_route_are_named_by_layer(run_of):
    config = Routed.load(run_of("qwen2")).model.config
    assert config.row_names == ("layer 0", "layer 1", "layer 2")
    assert config.label_smoothing == 0


@pytest.mark.parametrize(
    ("family", "flags", "message"),
    [
        ("qwen2", LORA | dict(expert_mixing="parameters"), "expert_mixing is 'parameters' with low-rank"),
        ("llama", LORA | dict(append_another_bos=True), "--append_another_bos is for models with an encoder"),
        ("qwen2", LORA | dict(generate_from_bos=True), "--generate_from_bos: "),
        ("qwen2", LORA | dict(max_input_length=60), "are 72 together, but "),
        ("qwen2", LORA | dict(encoder_vanilla_layers="0"), "names [0]; the model has no encoder"),
        ("t5", LORA | dict(prompt_format="chat"), "--prompt_format chat is for decoder-only models"),
        ("t5", LORA | dict(generate_from_bos=True), "--generate_from_bos: "),
    ],
)
def test_what_a_model_cannot_do_is_refused(family, flags, message, world, plain, capsys):
    assert run(world.gym, plain(family), world / "refused", **flags) == 2
    assert message in capsys.readouterr().err
    assert not (world / "refused").exists()
