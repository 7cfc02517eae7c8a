"""Measures beside a task's metric: answer loss and rank accuracy, by hand and in whole runs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import test_ranking
import torch
from mistakes import Place
from test_ranking import OPTIONS, ROUTES, TOKENS
from tiny_files import Words, accelerator
from tiny_grids import SAMPLES, TASK, outcomes, results
from tiny_runs import NO_LEARNING, run, write_ranked_gym

from routing_moe.checkpoints.folder import load_progress
from routing_moe.cli import collect_results
from routing_moe.evaluation.batches import routes_of_file
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.evaluation.scoring import answer, predict
from routing_moe.results.scores import read_scores

ALL = ("performance", "answer_loss", "rank_accuracy")
DECODING = Decoding(num_beams=1, max_output_length=5, batch_size=4, random_draws=2, measures=ALL)
COLUMNS = ["answer_loss", "loss_per_answer", "rank_accuracy"]

file = test_ranking.file  # the fixture


@pytest.fixture
def without_options(file) -> TaskFile:
    """The same examples as a file of task "a" without options."""
    return TaskFile("a", "a_6_13", "test", "EM", file.examples, file.encoded)


def measured(model, files, using=None, **changed) -> pd.DataFrame:
    scores, *_ = predict(model, Words(), files, replace(DECODING, **changed), using or accelerator())
    return scores[COLUMNS].astype(float)


# ---- by hand


@pytest.mark.parametrize("kind", ["one expert", "one-hot"])
@torch.no_grad()
def test_the_answer_loss_is_that_of_the_stock_bart(make_model, file, without_options, kind):
    model = make_model(bart_fields=dict(init_std=0.8), **ROUTES[kind])
    files = [file, without_options]
    losses = []
    for one in files:
        (route,) = model.routes_for([one.task])
        bart, total, tokens = model.to_bart(route), 0.0, 0
        for i in range(len(one.examples)):
            batch = one.encoded.collate([i], pad_token_id=1)
            labels = batch["labels"]
            mean = bart(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
            total, tokens = total + float(mean) * labels.numel(), tokens + labels.numel()
        losses.append((total / tokens, total / len(one.examples)))
    found = measured(model, files)
    np.testing.assert_allclose(found[COLUMNS[:2]], losses, rtol=1e-9)


def planted(make_model, order: str):
    """Returns a model that ranks options by their place in `order`, the likeliest first, for every input."""
    model = make_model(num_experts=1, bart_fields=dict(init_std=0.001))
    for place, name in enumerate(order):
        for token in TOKENS[name][1:-1]:
            model.final_logits_bias[0, token] = 3.0 * (len(order) - place)
    return model


@pytest.mark.parametrize("scoring", ["generate", "rank"])
def test_rank_accuracy_is_the_share_of_examples_whose_likeliest_option_is_accepted(
    make_model, file, without_options, scoring
):
    model = planted(make_model, "yxwzv")
    # Of the options xyz, yw, zx, wxyz, vx, yz the first is accepted; the model chooses y, y, x, y, x, y.
    files = [file, without_options]
    assert measured(model, files, scoring=scoring)["rank_accuracy"].tolist() == pytest.approx(
        [2 / 6, np.nan], nan_ok=True
    )
    file.options[0] = file.options[1] = ()  # generated, so they do not count
    found = measured(model, files, scoring=scoring)
    assert found["rank_accuracy"][0] == 1 / 4
    file.examples[2] = replace(file.examples[2], outputs=("z", "X."))
    assert measured(model, files, scoring=scoring)["rank_accuracy"][0] == 1 / 4
    by_em = replace(file, metric="EM")  # which ignores the full stop
    assert measured(model, [by_em], scoring=scoring)["rank_accuracy"][0] == 2 / 4


def test_measures_along_random_routes_are_means_over_the_draws(make_model, file):
    model = make_model(bart_fields=dict(init_std=0.4), **ROUTES["random for each example"])
    assert len(list(routes_of_file(model, file, DECODING))) == 2
    (found,) = measured(model, [file]).itertuples(index=False)
    (draws,) = answer(model, Words(), [file], replace(DECODING, scoring="rank"), accelerator())
    first = [[text == own[0] for text, own in zip(draw.texts, OPTIONS, strict=True)] for draw in draws]
    assert first[0] != first[1]
    assert found.rank_accuracy == pytest.approx(np.mean(first))
    assert found.loss_per_answer == pytest.approx(3 * found.answer_loss)  # answers have 3 tokens


# ---- whole runs


@pytest.fixture(scope="module")
def finished(world) -> Place:
    """A place with a run of one step with all measures, of whose tasks three have options."""
    gym = write_ranked_gym(world / "measured" / "gym")
    place = Place(world / "measured", gym, world.bart)
    flags = dict(measures=list(ALL), do_predict=True, predict_split="test", **NO_LEARNING)
    assert run(gym, world.bart, place.out, **flags) == 0
    return place


def test_a_run_has_the_measures_of_each_evaluation(finished):
    dev = pd.read_csv(finished.out / "1-steps/dev_results.csv")
    assert dev["rank_accuracy"].isna().tolist() == [True, False]  # colour, label
    losses = pd.read_csv(finished.out / "losses.csv")
    assert losses["dev_answer_loss"].item() == pytest.approx(dev["answer_loss"].mean())
    for part in ("dev", "test"):
        scores = read_scores(finished.out / f"best/eval-test_tasks-{part}-performance.csv")
        assert scores["rank_accuracy"].isna().tolist() == [False, False, True]  # given, listed, plural
        assert "scoring" not in scores


def test_training_by_answer_loss_makes_no_answers_and_keeps_the_lowest_loss(finished, monkeypatch):
    """The rate is so high that the loss rises again; the report has no curve of dev scores."""
    out = finished.folder / "by_loss"
    flags = dict(select_by="answer_loss", total_steps=4, eval_period=1, save_period=1, learning_rate=3.0)
    with monkeypatch.context() as patch:
        patch.delattr("routing_moe.evaluation.scoring.answer")
        assert run(finished.gym, finished.bart, out, **flags) == 0
    losses = pd.read_csv(out / "losses.csv").set_index("steps")
    assert losses["dev_performance"].isna().all()
    best = losses["dev_answer_loss"].idxmin()
    assert best != losses.index[-1]
    progress = load_progress(out / "best")
    assert (progress["step"], "dev_performance" in progress) == (best, False)
    dev = pd.read_csv(out / f"{best}-steps/dev_results.csv", index_col=0)
    assert dev["answer_loss"].mean() == pytest.approx(losses["dev_answer_loss"].min())
    assert list(dev) == ["task_prefix", "sample", "metric", "n", "answer_loss", "loss_per_answer"]


# ---- few-shot fine-tuning


@pytest.fixture(scope="module")
def by_loss(grids):
    """A grid whose best steps and configurations are those of the least dev answer loss."""
    return grids.run("by_loss", select_by="answer_loss", save_best=True)


def test_steps_and_configurations_are_chosen_by_the_dev_answer_loss(by_loss, finished_grid):
    table, other = results(by_loss), outcomes(finished_grid)
    assert list(table.columns[3:7]) == [
        *("dev_performance", "test_performance", "dev_answer_loss", "test_answer_loss")
    ]
    for sample in SAMPLES:
        own = table[table["prefix"] == sample].drop(columns="prefix")
        best = table[table["prefix"] == f"{sample}_best"].drop(columns="prefix").iloc[0]
        assert best.equals(own.loc[own["dev_answer_loss"].idxmin()])
    for name, outcome in outcomes(by_loss).items():
        steps, _, scores, losses = zip(*outcome["curve"], strict=True)
        best = int(np.argmin(losses))
        assert outcome["best_step"] == steps[best]
        assert (outcome["dev_performance"], outcome["dev_answer_loss"]) == (scores[best], losses[best])
        assert [row[:3] for row in outcome["curve"]] == other[name]["curve"]  # only the choice differs
    assert set(table["select_by"]) == {"answer_loss"}
    assert [o["best_step"] for o in outcomes(by_loss).values()] != [o["best_step"] for o in other.values()]


def test_summaries_have_the_measures_and_say_what_was_chosen_by(by_loss, tmp_path, capsys):
    (tmp_path / TASK).mkdir()
    (tmp_path / TASK / "results.csv").write_text((by_loss / "results.csv").read_text())
    table = tmp_path / "table.csv"
    assert collect_results.main(["--logs_dir", str(tmp_path), "--output_file", str(table)]) == 0
    summary = pd.read_csv(table).set_index("entry")
    best = results(by_loss).set_index("prefix").loc[[f"{sample}_best" for sample in SAMPLES]]
    assert summary.loc["mean", "test_answer_loss"] == pytest.approx(best["test_answer_loss"].mean())
    assert summary.loc["std", "dev_answer_loss"] == pytest.approx(best["dev_answer_loss"].std())
    assert set(summary["select_by"]) == {"answer_loss"}
    assert "| test answer loss |" in capsys.readouterr().out
