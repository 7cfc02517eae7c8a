"""The commands with other backbones: training, scoring, adapters, export, grids and vectors."""

import dataclasses
import json
import shutil
from functools import partial
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from forks import in_two_processes
from tiny_backbones import LORA, MEASURES, SOFT, WITH_ENCODER, make_differ, plain_models, runs_of
from tiny_grids import QUICK, Grids, results
from tiny_runs import ROWS, TRAIN_TASKS, assert_close, assert_equal, run, typed, weights
from tiny_vectors import run as compute_vectors
from tiny_vectors import vectors
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, DynamicCache

from dataloader.errors import InputError
from routing_moe import Routed, RoutedModel, RoutingBartForConditionalGeneration
from routing_moe.answering.export import export_adapter
from routing_moe.answering.queries import Query
from routing_moe.cli.assemble import main as assemble
from routing_moe.cli.merge import main as merge
from routing_moe.cli.transfer import main as transfer
from routing_moe.config.train import train_settings
from routing_moe.evaluation.option_ranking import losses_of
from routing_moe.evaluation.scoring import generation_limits
from routing_moe.optim.step import Stepper

pytestmark = pytest.mark.usefixtures("quick_pictures")
plain = pytest.fixture(scope="module")(plain_models)
run_of = pytest.fixture(runs_of)

ROUTER = ("num_experts", "taskvecs_dim", "router_hidden_dim")
COLUMNS = pytest.mark.parametrize("family", ["t5", "mbart", "qwen2"])  # of the table in docs/backbones.md


# ---- every family


@pytest.mark.parametrize("family", WITH_ENCODER)
def test_a_route_is_exported_as_a_plain_model_with_the_same_answers(family, run_of, plain, tmp_path):
    run_folder = run_of(family)
    scores = pd.read_csv(run_folder / "best/eval-test-performance.csv")
    assert scores[MEASURES].notna().all(axis=None)
    saved = weights(run_folder / "best")
    assert not any(name.startswith("backbone.shared") for name in saved), "the base is not saved again"
    routed = Routed.load(run_folder)
    task, texts = routed.task("colour"), ["the sky", "grass"]
    answers = [found.answer for found in routed.answers(task, map(Query, texts))]
    routed.export(task, tmp_path / "plain")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    for text, expected in zip(texts, answers, strict=True):
        inputs = tokenizer(f" [colour] {text}", return_tensors="pt")
        (tokens,) = model.generate(**inputs)
        assert tokenizer.decode(tokens, skip_special_tokens=True).strip() == expected
    again = Routed.load(tmp_path / "plain")  # as a model with one expert
    assert again.answer("colour", texts) == answers


@pytest.mark.parametrize("family", WITH_ENCODER)
def test_losses_and_log_likelihoods_are_those_of_logits(family, plain):
    model = RoutedModel.from_backbone(plain(family), 3, lora_rank=2, task_names=["a"], label_smoothing=0.1)
    model = model.double().eval()
    saved = AutoModelForSeq2SeqLM.from_pretrained(plain(family)).double()
    assert torch.equal(model.get_output_embeddings().weight, saved.get_output_embeddings().weight)
    make_differ(model)
    inputs = torch.randint(3, 90, (2, 7))
    batch = dict(input_ids=inputs, attention_mask=torch.ones_like(inputs))
    labels = torch.randint(3, 90, (2, 4))
    labels[1, 2:] = -100
    routes = torch.rand(2, model.config.num_layers, 3, dtype=torch.float64).softmax(-1)
    loss = model(**batch, labels=labels, routes=routes, loss_only=True).loss
    plain_2, uniform_2 = losses_of(model, batch, labels, routes, smoothings=(0.0, 1.0))
    losses = []
    for i, route in enumerate(routes):  # a slow reference: one example at a time, with its plain model
        row = {name: tensor[i, None] for name, tensor in batch.items()}
        own = labels[i, None][labels[i, None] != -100][None]
        log_p = model.to_plain(route)(**row, labels=own).logits.log_softmax(-1)
        (chosen,) = log_p.gather(2, own[..., None]).sum(dim=(1, 2))
        torch.testing.assert_close(plain_2[i], -chosen, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(uniform_2[i], -log_p.mean(dim=-1).sum(), rtol=1e-9, atol=1e-9)
        losses.append(-0.9 * chosen - 0.1 * log_p.mean(dim=-1).sum())
    torch.testing.assert_close(loss, sum(losses), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", WITH_ENCODER)
def test_scores_are_those_of_the_logits_of_a_plain_model(family, run_of):
    routed = Routed.load(run_of(family))
    task, tokenizer, options = routed.task("colour"), routed.tokenizer, ("green", "blue it is")
    model, inputs = routed.model.to_plain(task.route_LE), tokenizer(" [colour] the sky", return_tensors="pt")
    start = model.config.decoder_start_token_id

    def score(answer) -> float:
        logits = model(**inputs, decoder_input_ids=torch.tensor([[start, *answer[:-1]]])).logits[0]
        return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).mean().item()

    for beams in (1, 3):
        (found,) = routed.answers(task, [Query("the sky")], num_beams=beams)
        decoding = dataclasses.replace(routed.decoding, num_beams=beams)
        limits = generation_limits(model.config, decoding, tokenizer)
        answer = model.generate(**inputs, **limits)[0, 1:].tolist()
        assert found.score == pytest.approx(score(answer), rel=1e-4)
    (found,) = routed.answers(task, [Query("the sky", options)])
    expected = {option: score(tokenizer(f" {option}")["input_ids"]) for option in options}
    assert found.option_scores == pytest.approx(expected, rel=1e-4)


# ---- runs


@pytest.mark.parametrize("family", ["flan-t5", "qwen2"])
def test_a_resumed_run_is_that_of_an_uninterrupted_one(family, world, plain):
    flags = dict(bart=plain(family), **LORA, base_lr=1e-3, exploration_epsilon=0.2, checkpoint_period=1)
    name = f"ed/{family}"
    whole, resumed = world.run(f"{name}/whole", **flags), world.resumed(f"{name}/resumed", **flags)
    assert_equal(weights(resumed / "last"), weights(whole / "last"))
    assert (resumed / "losses.csv").read_bytes() == (whole / "losses.csv").read_bytes()


@pytest.mark.parametrize("family", ["flan-t5", "llama"])
def test_two_processes_take_the_same_steps_as_one(family, world, plain, tmp_path):
    flags = dict(bart=plain(family), **SOFT, adam_epsilon=1e-3, total_steps=2, do_predict=True)
    one, two = world.run(f"ed/{family}/one_process", **flags), world / f"ed/{family}/two_processes"
    codes, _ = in_two_processes(tmp_path, lambda: run(world.gym, output_dir=two, **flags))
    assert codes == [0, 0]
    assert_close(weights(two / "last"), weights(one / "last"))
    name = "best/eval-test-performance.csv"
    pd.testing.assert_frame_equal(*(pd.read_csv(f / name) for f in (two, one)), rtol=1e-5)


@pytest.mark.parametrize("family", ["bart", "t5", "mbart", "qwen2"])
def test_less_memory_changes_no_step(family, world, plain):
    bart = world.bart if family == "bart" else plain(family)
    flags = SOFT | dict(bart=bart, total_steps=2, max_input_length=24)
    usual = world.run(f"ed/usual/{family}", **flags)
    saving = world.run(f"ed/saving/{family}", **flags, gradient_checkpointing=True)
    assert_close(weights(saving / "last"), weights(usual / "last"))


@pytest.fixture
def in_bfloat16(run_of):
    """in_bfloat16(family): the folder of a run whose base is in bfloat16; made once."""
    return partial(run_of, total_steps=2, base_dtype="bfloat16")


def types(checkpoint) -> set:
    return {tensor.dtype for tensor in weights(checkpoint).values()}


@COLUMNS
def test_a_frozen_base_may_be_in_bfloat16(family, in_bfloat16):
    assert types(in_bfloat16(family) / "best") == {torch.float32}
    assert Routed.load(in_bfloat16(family)).model.backbone.dtype == torch.bfloat16


def test_a_base_that_is_trained_or_of_a_checkpoint_has_no_other_type(world, plain, in_bfloat16, capsys):
    assert run(world.gym, plain("t5"), world / "x", **SOFT, base_dtype="bfloat16", base_lr=1e-3) == 2
    assert "--base_dtype" in capsys.readouterr().err
    start = dict.fromkeys((*ROUTER, "initialize_from_vanilla")) | dict(checkpoint=in_bfloat16() / "best")
    assert run(world.gym, None, world / "x", **SOFT | start, base_dtype="float32") == 2
    assert "--base_dtype is float32, but the checkpoint's is bfloat16" in capsys.readouterr().err


def test_the_second_stage_has_the_base_in_bfloat16_again(world, plain, in_bfloat16):
    flags = dict(routes_from=in_bfloat16(), model=plain("t5"), output_dir=world / "ed/bfloat16_stage2")
    assert merge(typed(flags)) == 0
    assert Routed.load(flags["output_dir"] / "init").model.backbone.dtype == torch.bfloat16


@pytest.mark.parametrize("how", [dict(route_training="plain"), dict(route_training="router", base_lr=0.01)])
def test_a_base_in_bfloat16_is_fine_tuned_in_float32(how, world, plain, in_bfloat16):
    grids, changed = Grids(world, "bfloat16"), QUICK | dict(learning_rate_list=[0.01], save_best=True)
    start = dict(moe_init=True, init_dir=in_bfloat16(), bart=plain("t5"), max_input_length=40)
    folder = grids.run(how["route_training"], **changed, **start, **how)
    (saved,) = folder.rglob("model.safetensors")
    assert types(saved.parent) == {torch.float32}


def test_a_base_in_bfloat16_has_gradient_vectors(world, in_bfloat16, tmp_path):
    flags = dict(max_input_length=40, max_output_length=12, weights="layers")
    assert compute_vectors("gradient", world.gym, in_bfloat16(), tmp_path / "v", **flags) == 0
    assert np.isfinite(np.stack(list(vectors(tmp_path / "v").values()))).all()


@COLUMNS
def test_both_stages_given_routes_and_the_transfer_of_tasks(family, world, plain, run_of, capsys):
    stage1, name = run_of(family), f"ed/stage2/{family}"
    flags = dict(routes_from=stage1, model=plain(family), output_dir=world / name)
    assert merge(typed(flags)) == 0
    stage2 = dict.fromkeys(("initialize_from_vanilla", "model", "init_eps", *ROUTER))
    stage2 |= dict(router_lr=0, task_model_lr=0, total_steps=2, checkpoint_name="init")
    trained, folder = weights(stage1 / "best"), world.run(name, **stage2)
    router = {name: tensor for name, tensor in trained.items() if name.startswith("router.")}
    assert_equal({name: weights(folder / "last")[name] for name in router}, router)
    routes = dict.fromkeys((*ROUTER, "router_lr", "task_model_lr")) | dict(task_routes="tasks")
    routes |= dict(vanilla_checkpoint=dense(world, plain, family))
    deltas = world.run(f"ed/deltas/{family}", bart=plain(family), **LORA, **routes)
    assert transfer([str(deltas), "--rows", "2"]) == 0
    assert set(json.loads((deltas / "transfer/groups.json").read_text())) == set(TRAIN_TASKS)
    capsys.readouterr()


def dense(world, plain, family: str):
    """Returns the run of a model without experts, of which all weights were trained."""
    name = f"ed/dense/{family}"
    if not (world / name).exists():
        one = dict.fromkeys((*ROUTER, "init_eps", "router_lr", "task_model_lr")) | dict(num_experts=1)
        world.run(name, bart=plain(family), **one, max_input_length=40, total_steps=2)
    return world / name


@COLUMNS
def test_assembled_adapters_answer_as_their_models(family, plain, run_of, tmp_path):
    pytest.importorskip("peft", reason="the extra [peft] is not installed")
    routed, texts = Routed.load(run_of(family)), ["the sky", "grass"]
    for task in ("colour", "count"):
        export_adapter(routed, routed.task(task), tmp_path / task)
    experts = [f"{task}={tmp_path / task}" for task in ("colour", "count")]
    flags = dict(base=plain(family), experts=experts, output_dir=tmp_path / "assembled")
    assert assemble(typed(flags)) == 0
    assembled = Routed.load(tmp_path / "assembled", max_input_length=40, max_output_length=12, num_beams=1)
    for task in ("colour", "count"):
        assert assembled.answer(task, texts) == routed.answer(task, texts)


@pytest.mark.parametrize(
    ("flag", "family"),
    [
        *((f"task_vector {kind}", "t5") for kind in ("auto", "nearest", "learned")),
        *(("task_vector nearest", family) for family in ("pegasus", "qwen2")),
        ("route_training logits", "t5"),
    ],
)
def test_grids_start_from_a_route_of_a_mixture(flag, family, world, plain, run_of):
    grids, (name, value) = Grids(world, f"encoder_decoders/{family}"), flag.split()
    how = QUICK | dict(learning_rate_list=[0.01], moe_init=True, init_dir=run_of(family), bart=plain(family))
    folder = grids.run(value, **how, **{name: value}, max_input_length=40, vector_steps=3)
    assert np.isfinite(results(folder)["test_performance"]).all()


@pytest.mark.parametrize(("family", "kind"), [("flan-t5", "t5"), ("qwen2", "qwen2")])
def test_a_plain_model_is_fine_tuned_and_saved_as_one(family, kind, world, plain):
    grids = Grids(world, f"encoder_decoders/{family}")
    how = QUICK | dict(learning_rate_list=[0.01], checkpoint=plain(family) / "model.safetensors")
    folder = grids.run("plain", **how, bart=plain(family), save_best=True, max_input_length=40)
    (saved,) = folder.rglob("config.json")
    assert json.loads(saved.read_text())["model_type"] == kind


# ---- vectors


@pytest.mark.parametrize("family", ["t5", "pegasus", "llama"])
def test_gradient_vectors_are_those_of_a_backward_pass(family, world, plain, tmp_path):
    flags = dict(max_input_length=40, max_output_length=12, projection_dim=0, weights="layers")
    assert compute_vectors("gradient", world.gym, plain(family), tmp_path / "v", **flags) == 0
    found = vectors(tmp_path / "v")["count"]
    kind = AutoModelForCausalLM if family == "llama" else AutoModelForSeq2SeqLM
    model = kind.from_pretrained(plain(family)).eval()
    tokenizer = AutoTokenizer.from_pretrained(plain(family))
    rows = [line.split("\t") for line in ROWS["count"] * 2]
    for row in rows:
        source, labels = (tokenizer(f" {text}")["input_ids"] for text in row)
        if family == "llama":
            labels = [*labels[1:], tokenizer.eos_token_id]  # an answer has no token before it, but an end
            logits = model(torch.tensor([[*source, *labels]])).logits[0, len(source) - 1 : -1]
        else:
            logits = model(torch.tensor([source]), labels=torch.tensor([labels])).logits[0]
        (-F.cross_entropy(logits, torch.tensor(labels), reduction="sum") / len(rows)).backward()
    in_layers = [p for name, p in model.named_parameters() if ".block." in name or ".layers." in name]
    expected = [parameter.grad.flatten() for parameter in in_layers]
    np.testing.assert_allclose(found, torch.cat(expected), rtol=1e-3, atol=1e-5)


def test_text_vectors_of_a_decoder_are_means_of_last_states(world, plain, tmp_path, capsys, monkeypatch):
    flags = dict(max_input_length=40)
    with monkeypatch.context() as without_cache:
        without_cache.setattr(DynamicCache, "update", None)
        assert compute_vectors("text", world.gym, plain("llama"), tmp_path / "v", **flags) == 0
    model = AutoModelForCausalLM.from_pretrained(plain("llama")).model
    tokenizer = AutoTokenizer.from_pretrained(plain("llama"))
    texts = [f" {line.split(chr(9))[0]}" for line in ROWS["count"]]
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt"))[0][0, 1:].mean(dim=0) for text in texts]
    np.testing.assert_allclose(vectors(tmp_path / "v")["count"], torch.stack(states).mean(dim=0), rtol=1e-4)
    assert compute_vectors("text", world.gym, plain("llama"), tmp_path / "w", **flags, pooling="bos") != 0
    assert "--pooling bos: a decoder-only model" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["byt5", "mbart", "qwen2"])
@pytest.mark.parametrize("method", ["text", "fisher", "finetuned_text"])
def test_vectors_of_other_methods(method, family, world, plain, tmp_path):
    flags = dict(max_input_length=40) | ({} if method == "text" else dict(max_output_length=12))
    assert compute_vectors(method, world.gym, plain(family), tmp_path / method, **flags) == 0
    assert np.isfinite(np.stack(list(vectors(tmp_path / method).values()))).all()


def test_the_token_before_a_text_must_be_one_of_the_tokenizer(world, plain, tmp_path, capsys):
    flags = dict(max_input_length=40, pooling="bos")
    assert compute_vectors("text", world.gym, plain("t5"), tmp_path / "run", **flags) == 2
    assert "has no token <s> before texts" in capsys.readouterr().err
    assert run(world.gym, plain("mbart"), tmp_path / "run", **LORA, append_another_bos=True) == 2
    assert "the tokenizer has no token <s>; leave it out" in capsys.readouterr().err


# ---- in Python, and refusals


def test_a_mixture_is_trained_in_a_few_lines(world, plain, tmp_path):
    fields = dict(num_experts=2, lora_targets="all", router_mode="softmax", task_names=TRAIN_TASKS)
    model = RoutedModel.from_backbone(plain("t5"), **fields)
    tokenizer = AutoTokenizer.from_pretrained(plain("t5"))
    how = dict(total_steps=3, train_batch_size=4, max_input_length=40, max_output_length=12)
    how["tasks"] = ["colour"]
    AcceleratorState._reset_state(reset_partial_state=True)
    routed = Routed.train(model, tokenizer, world.gym, tmp_path / "model", mixed_precision="bf16", **how)
    assert len(routed.answer("colour", ["sky"], options=["blue", "green"])) == 1
    assert routed.model.config.random_vectors == [task for task in TRAIN_TASKS if task not in how["tasks"]]
    AcceleratorState._reset_state(reset_partial_state=True)
    assert routed.texts["max_input_length"] == 40
    with pytest.raises(Exception, match="'total_step' is no setting of training; did you mean 'total_steps'"):
        Routed.train(model, tokenizer, world.gym, tmp_path / "other", total_step=3)
    wrong = dict(append_another_bos=True, total_steps=0)
    with pytest.raises(InputError) as raised:
        Routed.train(model, AutoTokenizer.from_pretrained(world.bart), world.gym, tmp_path / "other", **wrong)
    messages = "total_steps is 0; it", "append_another_bos: the model has no token <s>", "the tokenizer"
    assert all(map(str.startswith, raised.value.problems, messages))


@pytest.mark.parametrize("kind", ["layer", "lora"])
def test_a_training_in_python_has_the_rates_and_temperatures_of_the_command(kind, world, tmp_path):
    fields = dict(num_experts=2, task_names=TRAIN_TASKS, router_mode="softmax", expert_kind=kind, lora_rank=2)
    model = RoutingBartForConditionalGeneration.from_bart(world.bart, **fields)
    how = dict(total_steps=3, train_batch_size=4, max_input_length=24, max_output_length=6)
    tokenizer = AutoTokenizer.from_pretrained(world.bart)
    AcceleratorState._reset_state(reset_partial_state=True)
    with patch("routing_moe.answering.training.Stepper", wraps=Stepper) as stepper:
        routed = Routed.train(model, tokenizer, world.gym, tmp_path / "model", **how)
    of_command = train_settings(dict(train_dir=world.gym, output_dir="new", expert_kind=kind))
    recipe = stepper.call_args.args[2]
    for name in ("learning_rate", "router_lr", "task_model_lr", "initial_tau", "minimum_tau", "anneal_rate"):
        assert getattr(recipe, name) == getattr(of_command, name)
    assert routed.model.config.router_temperature == recipe.temperature(3)  # as of the command


def test_an_mbart_must_generate_from_the_token_that_answers_start_with(world, plain, tmp_path, capsys):
    shutil.copytree(plain("mbart"), tmp_path / "mbart")
    path = tmp_path / "mbart/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"decoder_start_token_id": 1}))
    assert run(world.gym, tmp_path / "mbart", tmp_path / "run", **LORA) == 2
    assert "is 1, but answers are trained to start with 96 (en_XX)" in capsys.readouterr().err
