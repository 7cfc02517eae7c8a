"""Answers to new texts in Python: every way to a route, scores, the exported BART."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from test_unseen_tasks import ONLY, SCORES
from tiny_answers import PLURALS, TEXTS, gym_inputs, load
from tiny_grids import ONE_EXPERT, Grids
from tiny_runs import ROWS, TRAIN_TASKS, run, typed
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from dataloader.errors import InputError
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.answering import routed as routed_module
from routing_moe.cli.average import main as average
from routing_moe.cli.merge import main as merge
from routing_moe.model.task_vectors import save_task_vectors
from routing_moe.task_choice.texts import TEXTS_FILE

pytestmark = pytest.mark.usefixtures("quick_pictures")


def predictions(run_folder, task, part="test") -> list[str]:
    lines = (run_folder / f"best/predictions/{task}_12_100_{part}.jsonl").read_text().splitlines()
    return [json.loads(line)["prediction"] for line in lines]


# ---- ways to a route


def test_a_train_task_is_answered_as_in_its_predictions(finished):
    model = load(finished)
    for task in TRAIN_TASKS:
        assert model.answer(task, gym_inputs(task, "test")) == predictions(finished, task)
    own = RoutingBartForConditionalGeneration.from_pretrained(finished / "best").routes_for(["count"])
    assert torch.equal(model.task("count").route_LE, own[0])


def test_unlabelled_texts_find_the_nearest_task_of_a_prediction(finished, world):
    folder = world.copy(finished, "answering_nearest")
    assert run(world.gym, world.bart, folder, **ONLY) == 0
    scores = pd.read_csv(folder / SCORES, index_col=0)
    task = load(finished).task("plural", inputs=PLURALS * 2)
    assert [task.description] == list(scores["route"])
    assert load(finished).answer(task, gym_inputs("plural", "test")) == predictions(folder, "plural")
    experts = " ".join(map(str, task.route_LE.argmax(1).tolist()[:2]))
    assert str(task).startswith(f"plural: {task.description}; has seen of the task: 12 unlabelled texts")
    assert f"experts: encoder {experts}; decoder" in str(task)


def test_no_gym_is_needed_but_the_checkpoint_must_have_text_vectors(finished, tmp_path, world):
    alone = shutil.copytree(finished / "best", tmp_path / "checkpoint")
    expected = load(finished).task("plural", inputs=PLURALS).description
    assert load(alone).task("plural", inputs=PLURALS).description == expected
    (alone / TEXTS_FILE).unlink()
    with pytest.raises(InputError, match=r"has no text_vectors.npz.*--train_dir"):
        load(alone).task("plural", inputs=PLURALS)
    assert load(alone).task("plural", inputs=PLURALS, gym=world.gym).description == expected
    kept = (alone / TEXTS_FILE).read_bytes()
    load(alone, max_input_length=9).task("plural", inputs=PLURALS, gym=world.gym)  # in another format
    assert (alone / TEXTS_FILE).read_bytes() == kept


def test_given_routes_are_read_copied_and_replaced(given_run):
    model = load(given_run)
    assert model.task("opposite").experts == {"encoder": [1, 0], "decoder": [1]}
    near = model.task("new", inputs=gym_inputs("count", "dev"))
    assert near.description.startswith("route of count (nearest by text, cosine")
    assert near.experts == {"encoder": [1, 1], "decoder": [1]}
    route = np.array([[1, 0], [0, 1], [0.5, 0.5]])
    assert model.task("new", route=route).experts["decoder"] == [[0.5, 0.5]]
    with pytest.raises(InputError, match=r"must be \(L, E\) = \(3, 2\), rows of weights that sum to 1"):
        model.task("new", route=route[:2])
    with pytest.raises(InputError, match="reads no task vectors"):
        model.task("new", vectors="anywhere")


def test_a_vector_of_a_folder_and_one_learned_from_rows_are_routes(finished, tmp_path):
    model = load(finished)
    row = model.model.config.task_names.index("count")
    vector_D = model.model.task_vectors.weight.detach()[row].numpy()
    save_task_vectors(tmp_path, ["new"], vector_D[None])
    assert torch.equal(model.task("new", vectors=tmp_path).route_LE, model.task("count").route_LE)
    with pytest.raises(InputError, match="has no vector for newer, only for new; did you mean 'new'"):
        model.task("newer", vectors=tmp_path)
    pairs = [tuple(row.split("\t")[:2]) for row in ROWS["plural"]]
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    task = model.task("plural", examples=pairs, steps=3)
    assert (task.description, task.seen) == ("vector learned from 6 examples", "labelled rows of one sample")
    assert torch.equal(task.route_LE, load(finished).task("plural", examples=pairs, steps=3).route_LE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.state_dict().items())


def test_a_route_is_learned_where_there_is_no_router(given_run):
    model = load(given_run)
    pairs = [tuple(row.split("\t")[:2]) for row in ROWS["count"]]
    task = model.task("new", examples=pairs, steps=10, rate=0.5)
    assert task.description == "route learned from 6 examples"
    assert torch.allclose(task.route_LE.sum(dim=1), torch.ones(3))
    assert (task.route_LE - 0.5).abs().max() > 0.1  # it started from equal weights
    assert model.task("opposite").experts == {"encoder": [1, 0], "decoder": [1]}  # the model is unchanged


def test_average_routes_know_every_task(world, finished):
    absent = dict.fromkeys(("router_hidden_dim", "taskvecs_dim", "router_lr", "task_model_lr"))
    average = load(world.run("answering_average", **absent, total_steps=1, avg_routing=True))
    assert (average.task("anything").description, average.task("anything").seen) == ("average", "nothing")
    assert average.task("colour").seen == "labelled rows of all samples"
    assert len(average.answer("anything", TEXTS)) == len(TEXTS)
    assert not (world / "answering_average/best" / TEXTS_FILE).exists()


def test_what_models_have_seen_is_kept_by_everything_that_is_made_of_them(finished_grid, world, tmp_path):
    tuned = [finished_grid / f"models/naming_{sample}_best" for sample in ("12_100", "12_13")]
    one = "labelled rows of one sample: naming_12_100"
    for place, seen in zip(tuned, (one, one.replace("100", "13")), strict=True):
        assert load(place).task("naming").seen == seen
    dense = world.run("seen_dense", **ONE_EXPERT)
    for task, seen in (("colour", "labelled rows of all samples"), ("anything", "nothing")):
        assert load(dense).task(task).seen == seen
    assert load(tuned[0]).task("anything").seen == "unknown"
    load(tuned[0]).export("naming", tmp_path / "exported")
    readme = (tmp_path / "exported/README.md").read_text()
    assert f"it has seen of the task: {one}." in readme
    starts = [dict(bart=tuned[0]), dict(bart=tmp_path / "exported"), dict(vanilla_checkpoint=tuned[0])]
    for number, start in enumerate(starts):
        trained = world.run(f"seen{number}", **start, total_steps=1)
        for given in ({}, dict(inputs=PLURALS)):  # all that a trained task has shown
            assert load(trained).task("colour", **given).seen == "labelled rows of all samples"
        assert load(trained).model.config.weights_seen["naming"] == one
        assert load(trained).task("naming", inputs=PLURALS).seen == one
        assert load(trained).task("new", inputs=PLURALS).seen == "6 unlabelled texts"
    flags = dict(routes_from=trained, model=tuned[1], output_dir=tmp_path / "merged")
    assert merge(typed(flags)) == 0
    together = "labelled rows of all samples"  # of two
    assert load(tmp_path / "merged/init").model.config.weights_seen["naming"] == together
    for places, seen in ((tuned[:1], one), (tuned, "labelled rows of all samples")):
        folder = tmp_path / f"mean{len(places)}"
        assert average(typed(dict(runs=[*places, dense], output_dir=folder))) == 0
        assert load(folder).task("naming").seen == seen
        assert load(folder).task("new").seen == "nothing"
    twice = Grids(world, "seen").run("twice", bart=tuned[0], save_best=True) / "models"
    assert load(twice / "naming_12_100_best").task("naming").seen == one
    assert load(twice / "naming_12_13_best").task("naming").seen == "labelled rows of all samples"


# ---- answers


def test_answers_do_not_depend_on_what_is_answered_together(finished, monkeypatch):
    model = load(finished)
    whole = model.answer("colour", TEXTS)
    monkeypatch.setattr(routed_module, "CHUNK", 2)
    assert model.answer("colour", TEXTS) == whole
    assert [model.answer("colour", [text], batch_size=1)[0] for text in TEXTS] == whole


@pytest.mark.parametrize(("place", "beams"), [("finished", 1), ("soft_run", 3)])
def test_the_score_is_the_mean_log_probability_of_the_answer(place, beams, request):
    model = load(request.getfixturevalue(place), num_beams=beams, max_output_length=5)
    task = model.task("count")
    found = list(model.answers(task, map(routed_module.Query, TEXTS)))
    assert any(len(one.answer) > 0 for one in found)
    for one in found:
        inputs = model.tokenizer([f" [count] {one.input}"], return_tensors="pt")
        routes_1LE = task.route_LE[None]
        limits = dict(num_beams=beams, max_length=6, do_sample=False, early_stopping=False)
        sequence_1T = model.model.generate(**inputs, routes=routes_1LE, **limits)
        with torch.no_grad():
            out = model.model(**inputs, decoder_input_ids=sequence_1T[:, :-1], routes=routes_1LE)
        logits = out.logits.log_softmax(-1)
        each = logits.gather(2, sequence_1T[:, 1:, None])[0, :, 0]
        assert one.score == pytest.approx(float(each.mean()), abs=1e-4)
        assert one.answer == model.tokenizer.decode(sequence_1T[0], skip_special_tokens=True).strip()


def test_options_are_ranked_with_their_scores(finished):
    model = load(finished)
    options = ("green", "a dog", "3")
    assert set(model.answer("colour", TEXTS, options=options)) <= set(options)
    for one in model.answers("colour", [routed_module.Query(text, options) for text in TEXTS]):
        assert list(one.option_scores) == list(options)
        assert one.score == max(one.option_scores.values()) == one.option_scores[one.answer]
    for wrong, message in ((["one"], "'one' is the only option"), (["yes", " "], "an option is empty")):
        with pytest.raises(InputError, match=message):
            model.answer("colour", TEXTS, options=wrong)


def test_text_settings_are_those_of_the_training(world, finished, tmp_path):
    model = load(finished)
    assert (model.texts["max_input_length"], model.texts["num_beams"]) == (24, 1)
    without = shutil.copytree(finished, tmp_path / "without")
    config = json.loads((without / "best/config.json").read_text())
    assert config.pop("text_settings") == model.texts
    (without / "best/config.json").write_text(json.dumps(config))
    assert load(without).texts["max_input_length"] == 32  # as the positions of the model


# ---- the exported BART


def by_transformers(folder, texts) -> list[str]:
    """The answers of an exported BART or adapter, given texts as its README says."""
    readme = (folder / "README.md").read_text()
    source, length = re.search(r"An input is `(.*)TEXT`, tokenized with `max_length=(\d+),", readme).groups()
    named = re.findall(r"`(\w+)=(\d+)`", readme.split("`generate`: ")[1])
    limits = {name: int(value) for name, value in named}
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    answers = []
    for text in texts:
        second, limit = "A second `<s>`" in readme, int(length)
        text = text.lower() if "lower case" in readme else text
        how = dict(truncation=True, split_special_tokens=True, return_tensors="pt")
        tokens = tokenizer(" " * second + source + text, max_length=limit - second, **how)["input_ids"]
        if second:
            tokens = torch.cat([tokens[:, :1], tokens], dim=1)
        answers += tokenizer.batch_decode(model.generate(tokens, **limits), skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def test_the_exported_bart_answers_the_same_by_its_own_readme(finished, tmp_path):
    model = load(finished)
    task = model.task("new", inputs=gym_inputs("opposite", "dev"))
    assert model.export(task, tmp_path / "bart") is None
    texts = [*TEXTS, "two </s> and", " ".join(["word"] * 40)]
    answers = model.answer(task, texts)
    assert by_transformers(tmp_path / "bart", texts) == answers
    again = load(tmp_path / "bart")
    assert again.texts == model.texts
    assert again.answer("new", texts) == answers
    with pytest.raises(InputError, match="bart exists already"):
        model.export(task, tmp_path / "bart")


def test_the_readme_has_every_text_setting(world, tmp_path):
    settings = dict(append_another_bos=True, do_lowercase=True, num_beams=1, max_output_length=5)
    run_folder = world.run("answering_settings", **settings, total_steps=1)
    model = load(run_folder)
    task = model.task('a "{quoted}" \\ name', route=model.task("colour").route_LE.numpy())
    model.export(task, tmp_path / "bart")
    texts = ["Grass", "UP </s>"]
    assert by_transformers(tmp_path / "bart", texts) == model.answer(task, texts)
    assert set(model.answer("colour", TEXTS, options=["Red", "red", "Blue"])) <= {"Red", "Blue"}


def test_a_soft_route_is_exported_only_as_its_largest_weights(soft_run, world, tmp_path):
    model = load(soft_run)
    with pytest.raises(InputError, match=r"mixes the outputs of several experts.*argmax"):
        model.export("count", tmp_path / "bart")
    assert not (tmp_path / "bart").exists()
    model.export("count", tmp_path / "bart", argmax=True)
    one_hot_LE = torch.nn.functional.one_hot(model.task("count").route_LE.argmax(dim=1), 2)
    expected = model.answer(model.task("count", route=one_hot_LE.numpy()), TEXTS)
    assert load(tmp_path / "bart").answer("count", TEXTS) == expected


def test_wrong_arguments_in_python_are_one_clear_error(finished, tmp_path):
    model, other = load(finished), load(shutil.copytree(finished, tmp_path / "other"))
    for call, message in (
        (lambda: load(finished, num_beam=7), "'num_beam' is no text setting; did you mean 'num_beams'"),
        (lambda: load(finished, max_input_length=5000), "max_input_length is 5000, but "),
        (lambda: model.task("colours"), r"no route for colours, .*; did you mean 'colour'\?; .*--like"),
        (lambda: model.task("plural"), "has no route for plural, only for"),  # its vector is random
        (lambda: model.task("a", inputs=["b"], examples=[("c", "d")]), "inputs and examples each determine"),
        (lambda: model.task("a", route=np.full((3, 2), np.nan)), "rows of weights that sum to 1"),
        (lambda: model.task("a", inputs=[]), "task 'a' has no inputs"),
        (lambda: model.task("a", inputs="grass"), "inputs must be a list, not 'grass'"),
        (lambda: model.task("a", examples=["ab"]), "the examples of a must be pairs of"),
        (lambda: model.task("a", examples=[("b", "c")], steps=0), "steps is 0 and rate None; nothing is"),
        (lambda: load(finished, prompt_format="chaat"), "prompt_format is 'chaat'; choose from"),
        (lambda: [*model.answers("colour", [routed_module.Query("a", "bc")])], "must be a list of texts"),
        (lambda: model.answer("colour", None), "texts must be a list, not None"),
        (lambda: model.answer("colour", ["grass", " "]), "text 2: the text is empty"),
        (lambda: model.answer("colour", ["grass", None]), "text 2: None is not a text"),
        (lambda: model.task("a", inputs=["b", None]), "inputs must be a list of texts"),
        (lambda: model.task("a", examples=[("b", 1)]), "the examples of a must be pairs of"),
        (lambda: model.answer(other.task("colour"), TEXTS), f"is a task of {tmp_path}/other/best; make"),
        (lambda: model.export(other.task("colour"), tmp_path / "bart"), "colour is a task of "),
    ):
        with pytest.raises(InputError, match=message):
            call()
