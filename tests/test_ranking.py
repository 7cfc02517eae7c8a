"""Option ranking and the measures beside a metric: brute force, by hand, and whole runs and grids."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from mistakes import Place
from tiny_runs import NO_LEARNING, TINY_BART, run, write_ranked_gym
from tiny_steps import ROUTES, Words, accelerator, encoded, ragged
from torch.nn import functional as F
from transformers import AutoTokenizer
from transformers.models.bart.modeling_bart import shift_tokens_right

from dataloader import Example, Gym, TextFormat
from dataloader.encoded import EncodedOptions
from routing_moe.evaluation import option_ranking as ranking
from routing_moe.evaluation.batches import routes_of_file
from routing_moe.evaluation.route_losses import losses_of_files
from routing_moe.evaluation.scored_files import Decoding, TaskFile, load_task_files
from routing_moe.evaluation.scoring import answer, predict
from routing_moe.results.scores import read_scores

OPTIONS = [("x", "y", "z"), ("y", "w"), ("z", "x"), ("w", "x", "y", "z"), ("v", "x"), ("y", "z")]
TOKENS = {"x": [0, 7, 2], "y": [0, 9, 11, 30, 2], "z": [0, 12, 2]}
TOKENS |= {"w": [0, 13, 14, 2], "v": [0, *range(20, 31), 2]}
ALL = ("performance", "answer_loss", "rank_accuracy")
DECODING = Decoding(num_beams=1, max_output_length=5, batch_size=4, random_draws=2, measures=ALL)
COLUMNS = ["answer_loss", "loss_per_answer", "rank_accuracy"]


@pytest.fixture
def file():
    """A test file of task "b" whose six examples have inputs and options of different lengths."""
    draw = np.random.default_rng(5)
    sources = [[0, *draw.integers(4, 60, length), 2] for length in (3, 9, 1, 14, 6, 6)]
    examples = [Example("b", "b_6_13", f"input {i}", (own[0],)) for i, own in enumerate(OPTIONS)]
    rows = {name: row for row, name in enumerate(TOKENS)}
    own_rows = [np.array([rows[name] for name in own]) for own in OPTIONS]
    options = EncodedOptions(ragged(list(TOKENS.values())), own_rows)
    inputs = encoded(sources, [[0, 4, 2]] * len(sources), [1] * len(sources))
    return TaskFile("b", "b_6_13", "test", "ACC", examples, inputs, "field", list(OPTIONS), options)


def brute_force(model, file: TaskFile, routes) -> list[list[float]]:
    """Scores each (example, option) pair alone, unpadded, with every expert on every example."""
    scores = []
    for i, own in enumerate(file.options):
        source = torch.tensor([file.encoded.sources[i].tolist()])
        scores.append([])
        for option in own:
            labels = torch.tensor([TOKENS[option]])
            start = shift_tokens_right(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
            inputs = dict(input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=start)
            logits = model(**inputs, routes=routes[[i if len(routes) > 1 else 0]], sparse=False).logits[0]
            total = 0.0
            for t, token in enumerate(TOKENS[option]):
                total += float(logits[t, token] - logits[t].exp().sum().log())
            scores[-1].append(total / len(TOKENS[option]))
    return scores


@pytest.mark.parametrize("kind", ROUTES)
@torch.no_grad()
def test_ranking_equals_brute_force_for_every_kind_of_routes(make_model, file, kind):
    model = make_model(bart_fields=dict(init_std=0.4), **ROUTES[kind])
    decoding = Decoding(scoring="rank", random_draws=2, batch_size=4)
    other = replace(file, task="a", sample="a_6_13")  # goes through the model in the same batches
    _, draws = answer(model, Words(), [other, file], decoding, accelerator())
    all_routes = list(routes_of_file(model, file, decoding))
    assert len(draws) == len(all_routes) == (2 if "random" in kind else 1)
    for drawn, routes in zip(draws, all_routes, strict=True):
        expected = brute_force(model, file, routes)
        for i, own in enumerate(file.options):
            assert list(drawn.option_scores[i]) == list(own)
            assert list(drawn.option_scores[i].values()) == pytest.approx(expected[i], abs=1e-10)
            assert drawn.texts[i] == own[int(np.argmax(expected[i]))]
    assert len({text for drawn in draws for text in drawn.texts}) > 1


def test_another_loss_reaches_training_dev_losses_and_ranking(make_model, file, examples, monkeypatch):
    model, one_loss = make_model(**ROUTES["soft"]), F.cross_entropy
    batch, decoding = examples.collate([0, 1], pad_token_id=1), Decoding(scoring="rank")

    def numbers():
        with torch.no_grad():
            ((answers,),) = answer(model, Words(), [file], decoding, accelerator())
            ranked = [value for own in answers.option_scores for value in own.values()]
            (losses,) = losses_of_files(model, [file], decoding, accelerator())
            trained = model.train()(**batch).loss.item()
        return np.array([trained, *losses["loss"], *losses["smoothed_loss"], *ranked])

    before = numbers()
    monkeypatch.setattr("routing_moe.model.loss.F.cross_entropy", lambda *a, **k: 3 * one_loss(*a, **k))
    np.testing.assert_allclose(numbers(), 3 * before, rtol=1e-12)


def test_batches_and_groups_do_not_change_scores(make_model, file, monkeypatch):
    model = make_model(**ROUTES["soft"])

    def scored(batch_size, most_tokens, most_projected):
        monkeypatch.setattr(ranking, "MOST_TOKENS", most_tokens)
        monkeypatch.setattr(ranking, "MOST_PROJECTED", most_projected)
        decoding = Decoding(scoring="rank", batch_size=batch_size)
        ((answers,),) = answer(model, Words(), [file], decoding, accelerator())
        return answers.texts, np.concatenate([list(own.values()) for own in answers.option_scores])

    texts, scores = scored(64, 16384, 2048)
    for sizes in ((1, 16384, 2048), (4, 60, 5), (64, 1, 1)):
        other_texts, other_scores = scored(*sizes)
        assert other_texts == texts
        assert other_scores == pytest.approx(scores, abs=1e-12)


def test_each_input_is_encoded_once(make_model, file, monkeypatch):
    monkeypatch.setattr(ranking, "MOST_TOKENS", 1)
    model = make_model(router_mode="softmax")
    seen = []
    model.model.encoder.register_forward_hook(lambda module, given, output: seen.append(len(output[0])))
    answer(model, Words(), [file], Decoding(scoring="rank", batch_size=4), accelerator())
    assert sum(seen) == len(file.examples)


def test_the_first_of_equal_options_is_chosen(make_model, file, monkeypatch):
    monkeypatch.setattr(ranking, "MOST_TOKENS", 1)
    file.encoded_options.rows[0] = np.array([0, 0, 0])  # as for options that differ after --max_output_length
    ((answers,),) = answer(make_model(), Words(), [file], Decoding(scoring="rank"), accelerator())
    assert len(set(answers.option_scores[0].values())) == 1
    assert answers.texts[0] == file.options[0][0] == "x"


def test_examples_without_options_are_generated_and_others_ranked(make_model, file):
    model, decoding = make_model(), Decoding(max_output_length=5, num_beams=1)
    _, (generated,), _ = predict(model, Words(), [file], decoding, accelerator())
    file.options[3] = file.options[4] = ()
    ((answers,),) = answer(model, Words(), [file], replace(decoding, scoring="rank"), accelerator())
    assert [answers.texts[i] for i in (3, 4)] == [generated[0][i] for i in (3, 4)]
    assert [scores is None for scores in answers.option_scores] == [i in (3, 4) for i in range(6)]


# ---- options


@pytest.mark.parametrize("fields", [{}, dict(do_lowercase=True), dict(append_another_bos=True)])
def test_options_are_tokenized_as_training_labels_are(tmp_path, fields):
    write_ranked_gym(tmp_path)
    tokenizer, text_format = AutoTokenizer.from_pretrained(TINY_BART), TextFormat(24, 8, **fields)
    arguments = (Gym(tmp_path), ["given", "plural"], "test", "first", tokenizer, text_format)
    given, plural = load_task_files(*arguments, {"given": 0, "plural": 1}, with_options=True)
    assert (plural.option_source, plural.options, plural.encoded_options) == (None, None, None)
    assert given.option_source == "field"
    lower = fields.get("do_lowercase")
    assert given.options[0] == (("no", "yes", "may be") if lower else ("No", "Yes", "may be"))
    for i, example in enumerate(given.examples):
        accepted = given.encoded.outputs[given.encoded.first_output[i]]
        shown = example.outputs[0].lower() if lower else example.outputs[0]
        row = given.encoded_options.rows[i][given.options[i].index(shown)]
        assert given.encoded_options.tokens[row].tolist() == accepted.tolist()
    without = load_task_files(*arguments, {"given": 0, "plural": 1})
    assert [file.options for file in without] == [None, None]


# ---- measures


@pytest.fixture
def without_options(file) -> TaskFile:
    """The same examples as a file of task "a" without options."""
    return TaskFile("a", "a_6_13", "test", "EM", file.examples, file.encoded)


def measured(model, files, using=None, **changed) -> pd.DataFrame:
    scores, *_ = predict(model, Words(), files, replace(DECODING, **changed), using or accelerator())
    return scores[COLUMNS].astype(float)


@torch.no_grad()
def test_the_answer_loss_is_that_of_the_stock_bart(make_model, file, without_options):
    model = make_model(bart_fields=dict(init_std=0.8), **ROUTES["one-hot"])
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
def test_rank_accuracy_is_the_share_of_likeliest_options(make_model, file, without_options, scoring):
    model = planted(make_model, "yxwzv")
    # Of the options xyz, yw, zx, wxyz, vx, yz the first is accepted; the model chooses y, y, x, y, x, y.
    files = [file, without_options]
    found = measured(model, files, scoring=scoring)["rank_accuracy"]
    assert found.tolist() == pytest.approx([2 / 6, np.nan], nan_ok=True)
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
def ranked(world):
    """Returns a place with a run of one step that ranked and measured its dev and test answers."""
    gym = write_ranked_gym(world / "ranked" / "gym")
    flags = dict(scoring="rank", measures=list(ALL), do_predict=True, predict_split="test", **NO_LEARNING)
    world.run("ranked/out", train_dir=gym, **flags)
    return Place(world / "ranked", gym, world.bart)


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_ranks_and_measures_tasks_with_options(ranked):
    dev = pd.read_csv(ranked.out / "1-steps/dev_results.csv")
    assert dev["scoring"].tolist() == ["generate", "rank (labels of all samples)"]
    assert dev["rank_accuracy"].isna().tolist() == [True, False]  # colour, label
    losses = pd.read_csv(ranked.out / "losses.csv")
    assert losses["dev_answer_loss"].item() == pytest.approx(dev["answer_loss"].mean())
    for part in ("dev", "test"):
        scores = read_scores(ranked.out / f"best/eval-test_tasks-{part}-performance.csv")
        assert scores["rank_accuracy"].isna().tolist() == [False, False, True]  # given, listed, plural
        assert scores["scoring"].tolist() == ["rank (field)", "rank (input)", "generate"]


def test_predictions_are_the_most_likely_options_and_have_all_scores(ranked):
    folder = ranked.out / "best/predictions"
    given = lines_of(folder / "given_6_13_test.jsonl")
    for line in given:
        assert list(line["scores"]) == ["No", "Yes", "may be"]
        assert line["prediction"] == max(line["scores"], key=line["scores"].get)
    listed, generated = lines_of(folder / "listed_6_13_test.jsonl")
    assert list(listed["scores"]) == ["cat", "cow"]
    assert "scores" not in generated
    assert all("scores" not in line for line in lines_of(folder / "plural_12_100_test.jsonl"))


def test_a_prediction_ranks_as_its_run_did_unless_the_flag_is_given(ranked):
    flags = dict(do_train=False, do_predict=True, predict_split="test", initialize_from_vanilla=None)
    flags |= dict(measures=list(ALL))
    before = read_scores(ranked.out / "best/eval-test_tasks-test-performance.csv")
    assert run(ranked.gym, ranked.bart, ranked.out, **flags, prefix="again-", model=None) == 0
    again = read_scores(ranked.out / "best/again-eval-test_tasks-test-performance.csv")
    pd.testing.assert_frame_equal(again, before)
    assert run(ranked.gym, ranked.bart, ranked.out, **flags, prefix="free-", scoring="generate") == 0
    free = read_scores(ranked.out / "best/free-eval-test_tasks-test-performance.csv")
    assert "scoring" not in free
    assert free["performance"][2] == before["performance"][2]
