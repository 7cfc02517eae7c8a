"""Grids of few-shot fine-tuning: result rows, selection by dev score, scores, and effects of flags."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from tiny_grids import (
    ONE_EXPERT,
    QUICK,
    SAMPLES,
    TASK,
    best_rates,
    learned,
    log_of,
    outcomes,
    predictions,
    results,
)
from tiny_runs import assert_equal, weights
from transformers import AutoTokenizer, BartForConditionalGeneration

from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from dataloader.metrics import evaluate
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.config.finetune import Configuration
from routing_moe.config.shared import StepSettings
from routing_moe.evaluation.scored_files import Decoding, load_task_files
from routing_moe.evaluation.scoring import predict
from routing_moe.finetuning.grid import Grid
from routing_moe.finetuning.trial import Trial, TrialRunner
from routing_moe.optim.step import Stepper


def name_of(sample: str, lr: float, bsz: int = 6) -> str:
    return f"{sample}_lr{lr}_bsz{bsz}"


def file_of(grids, sample: str, part: str):
    tokenizer, lengths = AutoTokenizer.from_pretrained(grids.bart), TextFormat(24, 8)
    (file,) = load_task_files(Gym(grids.gym), [TASK], part, sample, tokenizer, lengths, {TASK: 0})
    return file


# ---- the table


def test_the_table_has_a_row_for_each_configuration_and_one_for_the_best_of_each_sample(finished_grid):
    table = results(finished_grid)
    assert list(table.columns) == [
        "prefix", "lr", "bsz", "dev_performance", "test_performance", "best_step", "route", "vector_seen",
        "active_parameters", "total_parameters", "flops_per_example", "steps", "total_flops", "select_by",
    ]  # fmt: skip
    expected = [(name, lr) for sample in SAMPLES for name, lr in ((sample, 0.03), (sample, 0.1))]
    own = table[~table["prefix"].str.endswith("_best")]
    assert list(zip(own["prefix"], own["lr"], strict=True)) == expected
    assert table["prefix"].tolist() == [name for s in SAMPLES for name in (s, s, f"{s}_best")]
    for sample in SAMPLES:
        rows = own[own["prefix"] == sample].drop(columns="prefix")
        best = table[table["prefix"] == f"{sample}_best"].drop(columns="prefix").iloc[0]
        assert best.equals(rows.loc[rows["dev_performance"].idxmax()])
    assert table["dev_performance"].nunique() > 1  # otherwise these tests distinguish nothing
    assert set(table["route"]) == {"none"}
    assert table["active_parameters"].equals(table["total_parameters"])  # a plain BART
    assert (table["flops_per_example"] > table["total_parameters"]).all()


def made_up(grid, dev_of: dict[Configuration, float | None]) -> pd.DataFrame:
    (grid.folder / "configurations").mkdir(parents=True)
    for i, (c, dev) in enumerate(dev_of.items()):
        row = dict.fromkeys(grid.columns) | dict(dev_performance=dev, test_performance=float(i), route="none")
        grid.keep(c, row | dict(prefix=c.prefix, lr=c.lr, bsz=c.bsz, predictions={}))
    return grid.table().set_index("prefix")


def test_the_best_is_the_first_of_equal_scores_once_all_of_a_sample_are_finished(grids):
    settings = grids.settings("made_up", learning_rate_list=[0.2, 0.1], bsz_list=[4, 2])
    grid = Grid(settings, Gym(grids.gym))
    grid.load({})
    points = [(lr, bsz) for lr in (0.1, 0.2) for bsz in (2, 4)]  # sorted, in any given order
    assert grid.configurations == [Configuration(s, *point) for s in SAMPLES for point in points]
    first, second = ([Configuration(s, *point) for point in points] for s in SAMPLES)
    dev = [0.2, 0.5, 0.5, None]
    backwards = dict(list(zip(first, dev, strict=True))[::-1]) | dict(zip(second[:3], dev, strict=False))
    table = made_up(grid, backwards)
    best = table.loc[f"{SAMPLES[0]}_best"]
    assert (best["lr"], best["bsz"], best["dev_performance"]) == (0.1, 4, 0.5)
    assert f"{SAMPLES[1]}_best" not in table.index
    assert len(table) == 8


# ---- scores


def trained_by_hand(grids, sample: str, lr: float) -> tuple[list[float], float, list[str]]:
    """Returns (dev score of each evaluation, test score and predictions of the best), by a simple loop."""
    model = RoutingBartForConditionalGeneration.from_bart(str(grids.bart), 1, 0.0, task_names=[TASK])
    tokenizer, accelerator = AutoTokenizer.from_pretrained(grids.bart), Accelerator(cpu=True)
    train, dev, test = (file_of(grids, sample, part) for part in ("train", "dev", "test"))
    decoding = Decoding(num_beams=2, max_output_length=8)
    steps = dict(train_batch_size=6, total_steps=6, warmup_steps=1, max_grad_norm=1.0)
    recipe = StepSettings(learning_rate=lr, **steps, seed=42)
    stepper = Stepper(model, train.encoded, recipe, accelerator)
    scores, best = [], None
    for step in range(6):
        stepper.step(step)
        if step % 2:
            scores.append(predict(model, tokenizer, [dev], decoding, accelerator)[0]["performance"].item())
            if scores[-1] > max(scores[:-1], default=-1):
                best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(best)
    scored, ((texts,),), _ = predict(model, tokenizer, [test], decoding, accelerator)
    return scores, scored["performance"].item(), texts


def test_test_is_scored_with_the_weights_of_the_best_dev_score(grids, finished_grid):
    for name, outcome in outcomes(finished_grid).items():
        if not name.startswith(SAMPLES[0]):
            continue
        scores, test, texts = trained_by_hand(grids, outcome["prefix"], outcome["lr"])
        assert [(step // 2 - 1, dev) for step, _, dev in outcome["curve"]] == list(enumerate(scores))
        assert outcome["dev_performance"] == max(scores)
        assert outcome["best_step"] == 2 * (1 + int(np.argmax(scores)))
        assert outcome["test_performance"] == test
        if outcome["lr"] == best_rates(finished_grid)[outcome["prefix"]]:
            lines = predictions(finished_grid)[f"{outcome['prefix']}_best_test.jsonl"].splitlines()
            assert [json.loads(line)["prediction"] for line in lines] == texts


def test_a_configuration_has_the_same_results_alone_and_after_others_in_any_order(grids, finished_grid):
    settings, expected = grids.settings("order"), outcomes(finished_grid)
    runner = TrialRunner(settings)
    for configuration in settings.configurations()[:0:-2]:  # the first of them alone
        outcome = runner.run(configuration)
        same = expected[name_of(outcome["prefix"], outcome["lr"])]
        assert {k: v for k, v in same.items() if k != "data"} == {
            k: v for k, v in json.loads(json.dumps(outcome)).items() if k != "predictions"
        }


def test_the_best_model_of_a_sample_is_a_plain_bart_with_the_reported_score(grids, finished_grid):
    for sample in SAMPLES:
        folder = finished_grid / f"models/{sample}_best"
        bart = BartForConditionalGeneration.from_pretrained(folder).eval()
        tokenizer, file = AutoTokenizer.from_pretrained(folder), file_of(grids, sample, "test")
        batch = file.encoded.collate(range(3), pad_token_id=bart.config.pad_token_id)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        tokens = bart.generate(**inputs, num_beams=2, max_length=9)
        answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        row = results(finished_grid).set_index("prefix").loc[f"{sample}_best", "test_performance"]
        golden = [list(example.outputs) for example in file.examples]
        assert evaluate([text.strip() for text in answers], golden, "Rouge-L") == pytest.approx(row)


def test_prediction_without_training_scores_the_initial_model(grids):
    folder = grids.run("start", do_train=None, learning_rate_list=None, bsz_list=None, samples="first")
    table, sample = results(folder), SAMPLES[0]
    assert table["prefix"].tolist() == [sample, f"{sample}_best"]
    assert table[["lr", "bsz"]].isna().all(axis=None)
    assert table["best_step"].tolist() == [0, 0]
    start = TrialRunner(grids.settings("unused", learning_rate_list=[0.0], total_steps=1, warmup_steps=0))
    unmoved = start.run(Configuration(sample, 0.0, 6))
    assert outcomes(folder)[sample]["test_performance"] == unmoved["test_performance"]
    assert predictions(folder)[f"{sample}_best_test.jsonl"] == unmoved["predictions"]["test"]


# ---- the end of a configuration


ONE = dict(samples="first", learning_rate_list=[0.1], eval_period=1)


def test_wait_step_ends_a_configuration_after_that_many_scores_without_improvement(grids, monkeypatch):
    coming = iter([0.1, 0.5, 0.5, 0.4])
    monkeypatch.setattr(Trial, "score", lambda *_: ({"performance": next(coming)}, ""))
    outcome = outcomes(grids.run("waiting", wait_step=2, do_predict=None, **ONE))[name_of(SAMPLES[0], 0.1)]
    assert [score for *_, score in outcome["curve"]] == [0.1, 0.5, 0.5, 0.4]
    assert (outcome["best_step"], outcome["steps"]) == (2, 4)


def test_epochs_end_a_configuration_and_its_last_step_has_a_score(grids):
    changed = ONE | dict(eval_period=100, num_train_epochs=1.2)  # 12 examples: two steps of 6
    outcome = outcomes(grids.run("epochs", **changed))[name_of(SAMPLES[0], 0.1)]
    assert outcome["steps"] == 3
    assert [step for step, *_ in outcome["curve"]] == [3]


def test_a_configuration_that_diverges_is_reported_and_is_not_the_best(grids):
    folder = grids.run("diverged", samples="first", warmup_steps=0, learning_rate_list=[0.1, 1e38])
    table = results(folder).set_index("prefix")
    assert table.loc[SAMPLES[0], "dev_performance"].isna().tolist() == [False, True]
    assert table.loc[f"{SAMPLES[0]}_best", "lr"] == 0.1
    assert "no dev score; the loss is nan at step 2; tasks in the batch: naming; " in log_of(folder)
    outcome = outcomes(folder)[name_of(SAMPLES[0], 1e38)]
    assert (outcome["steps"], outcome["test_performance"]) == (1, None)


def test_a_dev_loss_that_is_not_a_number_ends_a_configuration_as_diverged(grids, monkeypatch):
    coming = iter([1.5, None])
    monkeypatch.setattr(Trial, "score", lambda *_: ({"answer_loss": next(coming)}, ""))
    by_loss = dict(measures=["answer_loss"], select_by="answer_loss", do_predict=None)
    folder = grids.run("nan_loss", **ONE, **by_loss)
    outcome = outcomes(folder)[name_of(SAMPLES[0], 0.1)]
    assert (outcome["best_step"], outcome["dev_answer_loss"], outcome["steps"]) == (1, 1.5, 2)
    assert "the dev answer_loss after step 2 is not a number" in log_of(folder)
    coming = iter([None])
    untrained = dict(do_train=None, task_dir=grids.gym / TASK, samples="first", do_predict=True)
    (outcome,) = outcomes(grids.run("nan_untrained", code=1, **by_loss | untrained)).values()
    assert outcome["diverged"] == "the dev answer_loss after step 0 is not a number"


def test_without_any_score_there_is_no_best(grids):
    flags = dict(samples="first", warmup_steps=0, learning_rate_list=[1e38], save_best=True)
    folder = grids.run("all_diverged", code=1, **flags)
    assert f"{SAMPLES[0]}: no configuration has a dev score, all diverged" in log_of(folder)
    assert results(folder)["prefix"].tolist() == [SAMPLES[0]]
    assert predictions(folder) == {}
    assert not (folder / "models").exists()
    assert "best of 0 samples: none" in log_of(folder)


# ---- starts and flags


def test_frozen_embeddings_do_not_change_and_everything_else_is_trained(grids, finished_grid):
    folder = grids.run("frozen", freeze_embeds=True, save_best=True, **QUICK | dict(learning_rate_list=[0.1]))
    before, after = weights(grids.bart), weights(folder / f"models/{SAMPLES[0]}_best")
    embeddings = {
        "model.shared.weight",
        *(f"model.{s}.embed_positions.weight" for s in ("encoder", "decoder")),
        *(f"model.{s}.layernorm_embedding.{p}" for s in ("encoder", "decoder") for p in ("weight", "bias")),
    }
    assert before.keys() == after.keys()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert embeddings <= same
    keys = {name for name in before if "k_proj.bias" in name}  # which do not affect the output
    assert same - keys - embeddings == {"final_logits_bias"}
    moved = weights(finished_grid / f"models/{SAMPLES[0]}_best")
    assert not any(torch.equal(before[name], moved[name]) for name in embeddings)


def test_the_same_start_in_any_form_gives_the_same_grid(grids, tmp_path):
    quick, best = QUICK | dict(learning_rate_list=[0.1]), f"models/{SAMPLES[0]}_best"
    expected = grids.run("by_model", save_best=True, **quick)
    pt, run = tmp_path / "weights.pt", grids.world.run("one_expert", **ONE_EXPERT)
    torch.save({f"module.{name}": tensor for name, tensor in weights(grids.bart).items()}, pt)
    for path in (pt, run):
        folder = grids.run(f"by_{path.name}", checkpoint=path, save_best=True, **quick)
        assert learned(folder) == learned(expected)
        assert predictions(folder) == predictions(expected)
        assert_equal(weights(folder / best), weights(expected / best))


def test_inputs_have_the_format_that_the_start_was_trained_with(grids):
    start = grids.mixture("hidden", hide_task_names=True)
    settings = grids.settings("hidden_start", moe_init=True, init_dir=start)
    assert (settings.hide_task_names, settings.do_lowercase) == (True, False)


def test_options_are_ranked_if_the_task_has_them(grids, tmp_path):
    options = ["it is green", "it is blue", "it is red"]
    (tmp_path / TASK).mkdir()
    for part in ("train", "dev", "test"):
        lines = [dict(input=f"what is {word}", outputs=[word], options=options) for word in options]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / TASK / f"{SAMPLES[0]}_{part}.jsonl").write_text(text)
    (tmp_path / "metrics.json").write_text(json.dumps({TASK: "ACC"}))
    folder = grids.run("ranked", gym=tmp_path, scoring="rank", **QUICK)
    lines = predictions(folder)[f"{SAMPLES[0]}_best_test.jsonl"].splitlines()
    for line in map(json.loads, lines):
        assert line["scores"].keys() == set(options)
        assert line["prediction"] == max(line["scores"], key=line["scores"].get)
