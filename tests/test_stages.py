"""Recipes of several stages: two stages, Fisher vectors before them, refined routing."""

import json

import pytest
from recorded_commands import value_of, write, write_gym

from routing_moe.studies import recipes, refined_routing, two_stages
from routing_moe.studies.recipes import BART_BASE


@pytest.fixture
def gym(tmp_path):
    return write_gym(tmp_path)


# ---- two stages


def test_both_stages_follow_from_each_other_and_finished_ones_are_kept(recorder, gym):
    flags = ["--train_dir", gym, "--stage1_flags", "--num_experts 4", "--stage2_steps", "50", "--seed", "2"]
    assert two_stages.main(flags) == 0
    assert recorder.names() == ["train", "merge", "train"]
    first, merged, last = (recorder.settings(i) for i in range(3))
    assert dict(output_dir="models/two_stage/stage1", num_experts=4).items() <= first.items()
    assert "seed" not in first
    assert (merged["routes_from"], merged["model"]) == ("models/two_stage/stage1", BART_BASE)
    expected = dict(checkpoint_name="init", router_lr=0, initial_tau=300, anneal_rate=0.12, seed=2)
    assert (expected | dict(no_eval_until=12)).items() <= last.items()
    assert "initialize_from_vanilla" not in last
    assert two_stages.main(flags) == 0  # finished
    assert len(recorder.commands) == 3


def test_both_stages_and_their_merge_have_the_model_of_a_given_first_stage(recorder, gym):
    write("first/run.json", json.dumps({"initialize_from_vanilla": True, "model": "some/bart"}))
    assert two_stages.main(["--train_dir", gym, "--stage1", "first"]) == 0
    assert recorder.names() == ["merge", "train"]
    assert recorder.settings(0)["model"] == "some/bart"
    assert two_stages.main(["stage2", "--train_dir", gym]) == 0


def test_parts_can_be_run_alone(recorder, gym, capsys):
    assert two_stages.main(["stage2", "--train_dir", gym]) == 2
    assert "models/two_stage/init: no such checkpoint; write it with" in capsys.readouterr().err
    assert two_stages.main(["merge", "--stage1", "first", "--stage1_checkpoint", "last", "--seed", "3"]) == 0
    merged = recorder.settings()
    assert (merged["routes_from"], merged["routes_checkpoint_name"], merged["seed"]) == ("first", "last", 3)
    assert two_stages.main(["stage2"]) == 0  # all of it, on the embedded gym
    assert "--resume" in recorder.commands[-1]
    done = len(recorder.commands)
    assert two_stages.main(["stage2"]) == 0  # finished
    assert len(recorder.commands) == done
    assert two_stages.main(["stage2", "--anneal_rate", "0.1"]) == 2
    assert "give --stage2_steps instead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "rates"),
    [
        ("", [1e-5, 1e-5]),
        ("--stage1_flags=--expert_kind=lora", [1e-3, 1e-3]),
        ("--stage1_flags=--expert_kind=lora --expert_kind lora --stage2_learning_rate 0.5", [1e-3, 0.5]),
        ("--stage1_flags=--expert_kind=lora --learning_rate 0.2", [0.2, 0.2]),
        ("--stage1 first", [1e-3]),
    ],
)
def test_both_stages_have_the_rate_of_their_kind_of_experts(recorder, gym, capsys, words, rates):
    write("first/best/config.json", json.dumps({"expert_kind": "lora"}))
    assert two_stages.main(["--train_dir", gym, *words.split()]) == 0
    trained = [value_of(line, "--learning_rate") for line in recorder.commands if "--do_train" in line]
    assert list(map(float, trained)) == rates
    announced = capsys.readouterr().out
    assert all(f"learning rate {recipes.number(rate)}" in announced for rate in rates)


def test_fisher_vectors_are_reduced_and_frozen_in_both_stages(recorder, gym):
    assert two_stages.main(["fisher", "--train_dir", gym, "--dim", "3"]) == 0
    assert recorder.names() == ["fisher", "reduce", "train", "merge", "train"]
    folder = "models/fisher_two_stage/fisher3"
    assert value_of(recorder.commands[1], "--output_dir") == folder
    stage1 = recorder.settings(2)
    assert (stage1["taskvecs"], stage1["freeze_task_model"]) == (folder, True)


# ---- refined routing


def test_refined_routing_trains_one_bart_computes_vectors_and_refines_a_mixture(recorder, gym):
    flags = ["--train_dir", gym, "--dense_steps", "20", "--total_steps", "24", "--output_dir", "mine"]
    assert refined_routing.main([*flags, "--dense_flags", "--seed 5", "--each_sample"]) == 0
    assert recorder.names() == ["train", "gradient", "gradient", "train", "train"]
    dense, mixture, unseen = (recorder.settings(i) for i in (0, 3, 4))
    assert dict(hide_task_names=True, seed=5, total_steps=20, save_period=2).items() <= dense.items()
    words = recorder.commands[1]
    first = words.index("--checkpoint_names")
    assert words[first + 1 : first + 7] == [f"{step}-steps" for step in range(10, 21, 2)]
    assert value_of(words, "--model") == "mine/dense"
    assert (mixture["task_routes"], mixture["taskvecs"]) == ("clusters:auto", "mine/vectors")
    expected = dict(reassign_every=2, reassign_from=4, reassign_until=12, hide_task_names=True)
    expected["reassign_splits"] = 2
    assert (expected | dict(vanilla_checkpoint="mine/dense")).items() <= mixture.items()
    assert (unseen["predict_split"], unseen["task_routes"]) == ("test", "lowest_loss")
    assert refined_routing.main(flags) == 0  # finished
    assert len(recorder.commands) == 5


@pytest.mark.parametrize(
    ("flags", "names", "missing"),
    [
        ("--refine_steps 0", ["train", "gradient", "train", "train"], {"reassign_every", "hide_task_names"}),
        ("--from_model", ["train", "gradient", "train", "train"], {"vanilla_checkpoint"}),
        ("--start_routes ontology", ["train", "train", "train"], {"taskvecs"}),
        ("--start_routes ontology --from_model", ["train", "train"], {"taskvecs", "vanilla_checkpoint"}),
        (
            "--start_routes ontology --from_model --each_sample",
            ["train", "gradient", "train", "train"],
            {"taskvecs", "vanilla_checkpoint"},
        ),
    ],
)
def test_each_stage_of_refined_routing_may_be_left_out(recorder, gym, flags, names, missing):
    assert refined_routing.main(["--train_dir", gym, "--total_steps", "9", *flags.split()]) == 0
    assert recorder.names() == names
    mixture, stages = (
        recorder.settings(-2),
        {"reassign_every", "hide_task_names", "vanilla_checkpoint", "taskvecs"},
    )
    assert stages - set(mixture) == missing
    assert mixture["task_routes"] == ("ontology" if "ontology" in flags else "clusters:auto")


def test_unseen_tasks_may_have_the_route_of_the_nearest_cluster(recorder, gym, capsys):
    by_vector = ["--train_dir", gym, "--unseen", "nearest_cluster"]
    assert refined_routing.main(by_vector) == 0
    assert "task_routes" not in recorder.settings(-1)
    assert refined_routing.main([*by_vector, "--start_routes", "ontology"]) == 2
    assert "--unseen nearest_cluster needs vectors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "rates"),
    [
        ("", [0.003, 0.006]),
        ("--learning_rate 0.01", [0.01, 0.02]),
        ("--mixture_rate 0.02", [0.003, 0.02]),
        ("--from_model", [0.003, 0.003]),
        ("--train_dir gym", [1e-5, 1e-5]),
        ("--expert_kind lora", [0.003, 0.02]),
        ("--train_dir gym --expert_kind lora", [1e-5, 1e-3]),
        ("--mixture_rate 0.5 --expert_kind lora", [0.003, 0.5]),
    ],
)
def test_experts_that_start_from_the_dense_run_have_a_higher_rate_on_a_conflict_gym(
    recorder, gym, flags, rates
):
    assert refined_routing.main(flags.split()) == 0
    trained = [
        value_of(command, "--learning_rate") for command in recorder.commands if "--do_train" in command
    ]
    assert list(map(float, trained)) == rates


def test_the_dense_run_has_a_third_of_the_steps(recorder, gym):
    assert refined_routing.main(["--train_dir", gym, "--total_steps", "7"]) == 0
    assert recorder.settings(0)["total_steps"] == 3
    assert recorder.settings(2)["total_steps"] == 7


@pytest.mark.parametrize(("score", "is_noted"), [(0.2, False), (0.14, True)])
def test_a_dense_run_that_has_hardly_learned_is_noted(recorder, gym, capsys, score, is_noted):
    write("mine/dense/best/eval-dev-performance.csv", f"performance,constant\n{score},0.1\n{score},0.1\n")
    assert refined_routing.main(["--train_dir", gym, "--output_dir", "mine"]) == 0
    assert ("note: the dense run has barely learned anything" in capsys.readouterr().err) == is_noted
