"""The study on real tasks: its runs, rates, contrasts and tables."""

import json
from pathlib import Path

import pandas as pd
import pytest
from recorded_commands import SCORES, value_of, write, write_gym

from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings
from routing_moe.studies import real_gym
from routing_moe.studies.real_arms import ARMS, LABELS, TRAIN, arms_of
from routing_moe.studies.real_runs import Branches
from routing_moe.studies.real_settings import RealLabels, RealTrain, RealUnseen
from routing_moe.studies.real_tables import contrasts_of
from routing_moe.studies.real_unseen import STARTS, UnseenRuns
from routing_moe.studies.runs import with_needs

FLAGS = ["--train_dir", "gym", "--model", "my/bart", "--output_dir", "out", "--seeds", "1", "2"]


@pytest.fixture
def gym(recorder, tmp_path):
    """A gym with files for seven tasks, in the working directory of the recorder."""
    write_gym(tmp_path, train="abefg")
    return recorder


GIVEN = dict(train_dir=Path("gym"), model="my/bart", output_dir=Path("out"))


def branches(kind=RealTrain, **flags) -> Branches:
    return Branches(kind(**GIVEN, dry_run=True, **flags))


def command_of(run) -> list[str]:
    (words,) = run.commands()
    return [str(word) for word in words]


def scored(folder: Path | str, loss: float) -> None:
    """Writes what a finished training has: scores of dev and test files."""
    table = pd.DataFrame({"task_prefix": ["a", "b"], "answer_loss": [loss, loss + 1]})
    for part in ("dev", "test"):
        write(Path(folder) / SCORES.replace("test", part), table.to_csv())


# ---- runs


@pytest.mark.parametrize("kind", [RealTrain, RealLabels])
def test_all_arms_continue_the_same_dense_run_for_the_same_steps(gym, kind):
    runs = branches(kind, arms=arms_of(kind.part), total_steps=48)
    if kind is RealLabels:
        write(runs.split_file, json.dumps(dict(train=["a"], dev=[], test=[])))
    for name in arms_of(kind.part):
        run = runs.arm(name, seed=42)
        words = command_of(run)
        settings = TrainSettings(**parse(TrainSettings, words[1:]))
        assert settings.vanilla_checkpoint == "out/dense/seed42"
        assert runs.dense(42) in run.needs
        assert (settings.total_steps, settings.seed, settings.initialize_from_vanilla) == (48, 42, True)
        assert settings.measures == ("answer_loss", "rank_accuracy")
        assert settings.hide_task_names == (ARMS[name].hidden or False)
    assert runs.dense(42).folder != runs.dense(43).folder


def test_groups_and_their_controls_are_clusters_of_the_same_vectors(gym):
    runs, spec = branches(), "clusters:8:4-20"
    routes = dict(gradient=spec, refined=spec, random_1=f"random:{spec}:1", random_2=f"random:{spec}:2")
    for name, own in routes.items():
        run = runs.arm(name, 42)
        assert value_of(command_of(run), "--task_routes") == own
        assert value_of(command_of(run), "--taskvecs") == "out/vectors/seed42"
        assert runs.vectors(42) in run.needs


def test_the_wide_model_has_the_flops_of_one_bart(gym):
    runs = branches()
    wide = runs.arm("wide", 42)
    (counting,) = [need for need in wide.needs if need.result == "seed42.steps_of_multitask"]
    assert value_of(command_of(counting), "--equal_flops") == "out/runs/multitask/seed42"
    write("out/runs/wide/seed42.steps_of_multitask", "7")
    assert value_of(command_of(wide), "--total_steps") == "7"
    assert value_of(command_of(wide), "--widen_ffn") == "2"


def test_a_rate_is_chosen_by_the_dev_answer_loss_of_another_seed(gym):
    runs = Branches(RealTrain(**GIVEN))
    with pytest.raises(RuntimeError, match="no tuning run of multitask"):
        runs.chosen_rate("multitask")
    for rate, loss in zip(runs.rates("multitask"), (1.6, 1.5, 1.7), strict=True):
        scored(runs.arm("multitask", runs.study.tune_seed, rate).folder, loss)
    assert runs.dev_losses("multitask") == {
        1.25e-4: pytest.approx(2.1),
        2.5e-4: pytest.approx(2.0),
        5e-4: pytest.approx(2.2),
    }
    assert [runs.chosen_rate(f"multitask{end}") for end in ("", "_half", "_double")] == [
        2.5e-4,
        1.25e-4,
        5e-4,
    ]
    assert runs.rates("lora") == (5e-4, 1e-3, 2e-3)
    tuned = {run.folder.parent.parent.name for run in runs.tuning()}
    assert tuned == {"multitask", "gradient"}  # the others have their rates
    assert all(run.folder.name == "seed41" for run in runs.tuning())


def test_the_relabelled_gym_is_written_first_and_its_oracle_has_its_routes(gym):
    runs = branches(RealLabels)
    relabelling, *_ = with_needs([runs.arm("oracle", 42)])
    assert (relabelling.folder, value_of(command_of(relabelling), "--share")) == (Path("out/gym"), "0.5")
    words = command_of(runs.arm("oracle", 42))
    assert value_of(words, "--task_routes") == "out/gym/oracle_routes.json"
    assert value_of(words, "--custom_tasks_splits") == "out/gym/split.json"


def test_a_whole_part_ends_with_tables_and_a_second_call_does_nothing_else(gym):
    assert real_gym.main(["train", *FLAGS, "--arms", "multitask", "gradient", "--rates", "1e-4"]) in (0, 1)
    assert gym.names().count("train") == 2 * 3  # the dense run and two arms for each seed
    assert gym.names().count("gradient") == 2
    before = len(gym.commands)
    real_gym.main(["train", *FLAGS, "--arms", "multitask", "gradient", "--rates", "1e-4"])
    assert "train" not in gym.names()[before:]


# ---- unseen tasks


@pytest.fixture
def trained(gym):
    """The folder of the first part, with settings and finished runs of two arms."""
    study = RealTrain(**GIVEN | dict(output_dir=Path("trained"), seeds=(42, 43)))
    study.save_settings()
    runs = Branches(study)
    for seed in (42, 43):
        for name in ("multitask", "gradient"):
            scored(runs.arm(name, seed).folder, 1.0)
        for rate in study.rates:
            scored(runs.arm("multitask", 41, rate).folder, rate)
    return gym


def unseen() -> UnseenRuns:
    return UnseenRuns(RealUnseen(**GIVEN, trained=Path("trained"), seeds=(42, 43)))


def test_starts_are_those_whose_runs_are_there(trained):
    runs = unseen()
    assert runs.starts == ("direct", "multitask", "multitask_more", "multitask_mean", "best_merged")
    assert set(runs.split.test) == {"c", "d"}
    checkpoints = {name: command_of(runs.finetuned(name, 42))[3] for name in runs.starts}
    assert checkpoints == {
        "direct": "None",
        "multitask": "trained/runs/multitask/seed42",
        "multitask_more": "out/starts/multitask_more/seed42",
        "multitask_mean": "out/starts/multitask_mean/seed42",
        "best_merged": "trained/runs/gradient/seed42",
    }
    merged = command_of(runs.finetuned("best_merged", 42))
    assert value_of(merged, "--route_training") == "merged"
    assert value_of(merged, "--select_by") == "answer_loss"
    mean, more = runs.mean(42), runs.continued(42)
    assert command_of(mean)[2:4] == ["trained/runs/multitask/seed42", "trained/runs/multitask/seed43"]
    assert value_of(command_of(more), "--total_steps") == "50"
    assert value_of(command_of(more), "--learning_rate") == "0.000125"  # that of the arm


def test_a_folder_without_the_first_part_is_named(gym, capsys):
    assert real_gym.main(["unseen", *FLAGS, "--trained", "none"]) == 2
    assert "--trained none: has no study.json" in capsys.readouterr().err


# ---- tables, flags


def test_contrasts_compare_the_best_by_dev_loss_and_groups_with_random_ones():
    losses = dict(multitask=1.5, multitask_half=1.4, random_1=1.6, random_2=1.6, gradient=1.3, lora=1.2)
    assert contrasts_of(losses) == ("lora:multitask_half", "gradient:random_1", "gradient:random_2")
    assert contrasts_of(dict(multitask=1.5, gradient=1.6)) == ()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["train"], "--train_dir is not given"),
        (["train", *FLAGS, "--arms", "multitask", "gradiant"], "no arm 'gradiant'"),
        (["train", *FLAGS, "--arms", "multitask", "oracle"], "no arm 'oracle'"),
        (["train", *FLAGS, "--arms", "gradient"], "--arms lacks multitask"),
        (["train", *FLAGS, "--tune_seed", "2"], "--seeds holds 2, the seed that rates are tuned with"),
        (["train", *FLAGS, "--clusters", "8"], "--clusters is '8'"),
    ],
)
def test_mistakes_are_named(gym, capsys, words, error):
    assert real_gym.main(words) == 2
    assert error in capsys.readouterr().err


def test_help_lists_arms_and_starts(capsys):
    for part, names in ((TRAIN, arms_of(TRAIN)), (LABELS, arms_of(LABELS)), ("unseen", STARTS)):
        with pytest.raises(SystemExit):
            real_gym.main([part, "--help"])
        text = capsys.readouterr().out
        assert all(f"    {name} " in text for name in names)
