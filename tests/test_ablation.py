"""Ablation of experts: routes without them, and scores with a planted useful expert."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from planted_routes import features_of_columns
from tiny_runs import ROWS
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.ablation import Ablation, category_drops, feature_table, routes_without, task_table
from routing_moe.evaluation.scored_files import Decoding, load_task_files
from routing_moe.evaluation.scoring import predict

TASKS = list(ROWS)
FORMAT = TextFormat(max_input_length=24, max_output_length=6)
USEFUL = (2, 1)  # decoder layer 0, expert 1
USERS = ["colour", "plural"]


def test_a_soft_route_is_renormalised(make_model):
    model = make_model(router_mode="softmax")
    own, without = routes_without(model, ["a", "b"]), routes_without(model, ["a", "b"], ((1, 2),))
    expected = own.clone()
    expected[:, 1, 2] = 0
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(without, expected)
    assert torch.equal(without[:, [0, 2, 3]], own[:, [0, 2, 3]])


def test_a_one_hot_route_uses_the_next_best_expert(make_model):
    model = make_model(router_mode="gumbel_softmax_st")
    ranked = model.router_logits(model.task_ids(["a"]))[0].argsort(-1, descending=True)
    best, second = ranked[1, 0].item(), ranked[1, 1].item()
    assert routes_without(model, ["a"], ((1, best),))[0, 1].argmax() == second
    assert torch.equal(routes_without(model, ["a"], ((1, second),)), routes_without(model, ["a"]))
    third = routes_without(model, ["a"], ((1, best), (1, second)))[0, 1].argmax()
    assert third == ranked[1, 2].item()


def test_top_k_uses_the_best_remaining_experts(make_model):
    model = make_model(router_mode="top_k", router_top_k=2)
    best = model.router_logits(model.task_ids(["a"]))[0, 0].argmax().item()
    route_E = routes_without(model, ["a"], ((0, best),))[0, 0]
    assert route_E[best] == 0
    assert (route_E > 0).sum() == 2
    alone = routes_without(model, ["a"], [(0, e) for e in range(3) if e != best])[0, 0]
    assert alone[best] == 1


def test_routes_without_a_router_are_renormalised_or_become_uniform(make_model):
    model = make_model()
    model.use_routes("average")
    assert routes_without(model, ["a"], ((0, 1),))[0, 0].tolist() == [0.5, 0.0, 0.5]
    fixed_NLE = torch.zeros(4, 4, 3, dtype=torch.float64)
    fixed_NLE[..., 0] = 1
    model.use_routes("fixed", fixed_NLE)
    assert routes_without(model, ["a"], ((0, 0),))[0, 0].tolist() == [0.0, 0.5, 0.5]
    assert routes_without(model, ["a"], ((0, 1),))[0, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def tokenizer(originals):
    return AutoTokenizer.from_pretrained(originals.bart)


@pytest.fixture(scope="module")
def planted(originals, tokenizer):
    """A model whose experts are copies of each other, except for the useful one, which only USERS use."""
    torch.manual_seed(0)
    model = RoutingBartForConditionalGeneration.from_bart(
        str(originals.bart), 3, init_eps=0.0, task_names=TASKS, router_input_dim=8
    ).eval()
    routes_NLE = torch.tensor([0.5, 0.0, 0.5]).expand(len(TASKS), 3, 3).clone()
    for task in USERS:
        routes_NLE[TASKS.index(task), USEFUL[0]] = torch.tensor([0.0, 1.0, 0.0])
    model.use_routes("fixed", routes_NLE)
    with torch.no_grad():
        for parameter in model.model.decoder.layers[0].experts[USEFUL[1]].parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return model


def ablation_of(model, tokenizer, files, folder="", **decoding):
    decoding = Decoding(**(dict(num_beams=1, max_output_length=6) | decoding))
    return Ablation(model, tokenizer, files, decoding, Accelerator(cpu=True), folder, {"part": "train"})


def files_of(model, gym, tokenizer, scoring="generate", part="train"):
    ids = {name: row for row, name in enumerate(model.config.task_names)}
    given, ranks = (Gym(gym), TASKS, part, "first", tokenizer, FORMAT, ids), scoring == "rank"
    return load_task_files(*given, with_options=ranks)


def with_own_answers(model, tokenizer, files):
    """Returns the files with the model's own answers as correct answers, and exact match as the metric."""
    ablation = ablation_of(model, tokenizer, files)
    _, predictions, _ = predict(model, tokenizer, files, ablation.decoding, ablation.accelerator)
    return [
        replace(
            file,
            metric="EM",
            examples=[
                replace(e, outputs=(text or "none",)) for e, text in zip(file.examples, texts, strict=True)
            ],
        )
        for file, (texts,) in zip(files, predictions, strict=True)
    ]


@pytest.fixture(scope="module")
def ablation(planted, originals, tokenizer, tmp_path_factory):
    """Every expert ablated, one at a time."""
    files = with_own_answers(planted, tokenizer, files_of(planted, originals.gym, tokenizer))
    ablation = ablation_of(planted, tokenizer, files, tmp_path_factory.mktemp("planted"))
    ablation.run(ablation.all_experts())
    assert set(ablation.sets.finished(()).values()) == {1.0}
    return ablation


@pytest.fixture(scope="module")
def scores_ST(ablation):
    return ablation.table(ablation.all_experts())


def test_only_tasks_whose_route_changes_are_scored(ablation):
    assert sorted(ablation.sets.finished((USEFUL,))) == sorted(f"{task}_12_100" for task in USERS)
    assert ablation.sets.finished(((0, 1),)) == {}
    assert len(ablation.sets.finished(((0, 0),))) == 4


def test_tables_show_the_drop_of_the_useful_expert(ablation, scores_ST, originals):
    ontology = Ontology.load(originals.gym / "ontology.json")
    tasks = task_table(ablation, ablation.all_experts(), scores_ST, ontology)
    assert len(tasks) == 9 * 4
    hurt = tasks[tasks["drop"] != 0]
    assert (hurt["drop"] > 0.2).all()
    assert set(hurt["task"]) == set(USERS)
    assert set(zip(hurt["layer"], hurt["expert"], strict=True)) == {("dec 0", 1)}
    assert (hurt["before"] - hurt["after"] == hurt["drop"]).all()
    categories = category_drops(tasks, ontology).set_index(["layer", "expert", "category"]).sort_index()
    useful = categories.xs(("dec 0", 1))
    drops = tasks[(tasks["layer"] == "dec 0") & (tasks["expert"] == 1)].set_index("task")["drop"]
    assert useful.loc["words", "drop"] == pytest.approx(drops[["colour", "opposite", "plural"]].mean())
    assert useful.loc["all", "users"] == 2
    assert useful.loc["all", "others"] == 0
    assert categories.loc[("enc 0", 0, "all"), "others"] == pytest.approx(useful.loc["all", "drop"] / 8)
    colour = tasks[tasks["task"] == "colour"].set_index(["layer", "expert"]).sort_index()
    assert colour.loc[("dec 0", 1), "others"] == 0
    assert colour.loc[("enc 0", 0), "others"] == pytest.approx(colour.loc[("dec 0", 1), "drop"] / 8)


def test_the_experts_of_a_feature_are_used_and_missed_by_its_tasks(ablation, scores_ST):
    features, ontology = features_of_columns({"kind:a": [1, 0, 0, 1]}, TASKS), Ontology({})
    table = feature_table(ablation, {"kind:a": (USEFUL,)}, scores_ST, features, ontology).set_index("group")
    assert table.loc["with feature", "weight"] == 1
    assert table.loc["without feature", ["weight", "drop"]].tolist() == [0, 0]
    useful_T = scores_ST.loc["base"] - scores_ST.loc["dec0.1"]
    assert table.loc["with feature", "drop"] == pytest.approx(useful_T[USERS].mean())
