"""The study on real tasks: its runs, rates, contrasts and tables."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from recorded_commands import SCORES, value_of, write, write_gym

from benchmarks import reproduction
from dataloader.errors import InputError
from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings
from routing_moe.studies import real_gym
from routing_moe.studies.real_arms import ARMS, LABELS, TRAIN, arms_of
from routing_moe.studies.real_runs import Branches, rows_of_rates
from routing_moe.studies.real_settings import RealLabels, RealTrain, RealUnseen
from routing_moe.studies.real_starts import STARTS
from routing_moe.studies.real_tables import MEASURES, contrasts_of, tables_of_starts
from routing_moe.studies.real_unseen import UnseenRuns
from routing_moe.studies.runs import NESTED, with_needs

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
    """Writes what a finished training has: dev losses, scores of dev and test files."""
    write(Path(folder) / "losses.csv", f",steps,dev_answer_loss\n0,1,9.0\n1,2,{loss}\n")
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
        assert settings.select_by == "answer_loss"
        assert settings.hide_task_names == (ARMS[name].hidden or False)
    assert runs.dense(42).folder != runs.dense(43).folder


def test_arms_are_evaluated_several_times_and_runs_without_scores_at_their_end(gym):
    runs = branches(total_steps=50, dense_steps=40)
    assert value_of(command_of(runs.arm("multitask", 42)), "--eval_period") == "13"
    assert value_of(command_of(runs.arm("multitask", 41, rate=1e-4)), "--eval_period") == "50"
    assert value_of(command_of(runs.dense(42)), "--eval_period") == "40"


def test_groups_and_their_controls_are_clusters_of_the_same_vectors(gym):
    runs, spec = branches(), "clusters:8:4-20"
    draws = dict(
        random_1=f"random:{spec}:421", random_2=f"random:{spec}:422", random_hidden=f"random:{spec}:421"
    )
    routes = dict(gradient=spec, refined=spec) | draws
    for name, own in routes.items():
        run = runs.arm(name, 42)
        assert value_of(command_of(run), "--task_routes") == own
        assert value_of(command_of(run), "--taskvecs") == "out/vectors/seed42"
        assert runs.vectors(42) in run.needs


def test_gradients_with_shuffled_answers_are_subtracted_on_demand(gym):
    assert (RealTrain(**GIVEN).minus_shuffled, RealLabels(**GIVEN).minus_shuffled) == (0, 1)
    for shuffles, expected in ((0, None), (2, "2")):
        run = branches(minus_shuffled=shuffles).vectors(42)
        assert value_of(command_of(run), "--minus_shuffled") == expected
        steps = branches().vectors(42).work[0].steps
        assert run.work[0].steps == pytest.approx((1 + shuffles) * steps, abs=3)


def test_a_bart_under_low_rank_experts_is_frozen_or_has_the_rate_of_multitask(gym):
    runs = branches()
    write("out/rates.json", json.dumps(dict(multitask=2e-4, lora_tasks=3e-3)))
    command = command_of(runs.arm("lora_tasks_trained", 42))
    assert [value_of(command, f"--{name}") for name in ("learning_rate", "base_lr")] == ["0.003", "0.0002"]
    assert "--base_lr" not in command_of(runs.arm("lora_tasks", 42))


def test_the_wide_model_has_the_flops_of_one_bart(gym):
    runs = branches()
    wide = runs.arm("wide", 42)
    (counting,) = [need for need in wide.needs if need.result == "seed42.steps_of_multitask"]
    assert value_of(command_of(counting), "--equal_flops") == "out/runs/multitask/seed42"
    write("out/runs/wide/seed42.steps_of_multitask", "7")
    assert value_of(command_of(wide), "--total_steps") == "7"
    assert value_of(command_of(wide), "--widen_ffn") == "2"


def test_a_rate_is_chosen_by_the_dev_answer_loss_of_another_seed_and_kept(gym):
    runs = Branches(RealTrain(**GIVEN, arms=("multitask", "multitask_half", "multitask_double", "lora")))
    with pytest.raises(RuntimeError, match="no learning rate of multitask was chosen"):
        runs.chosen_rate("multitask")
    assert {run.folder.parent.parent.name for run in runs.tuning()} == {"multitask", "lora"}
    assert all(run.folder.name == "seed41" for run in runs.tuning())
    for rate, loss in zip(runs.rates("multitask"), (1.6, 1.5, 1.7), strict=True):
        scored(runs.arm("multitask", 41, rate).folder, loss)
    runs.choose_rates()
    chosen = [runs.chosen_rate(f"multitask{end}") for end in ("", "_half", "_double")]
    assert chosen == [2.5e-4, 1.25e-4, 5e-4]
    rows = {row["rate"]: row for row in rows_of_rates(runs)}
    assert [rows[rate]["dev_answer_loss"] for rate in ("0.000125", "0.00025")] == ["1.6000", "1.5000"]
    assert (rows["0.00025"]["chosen"], rows["0.00025"]["at_edge"]) == (True, False)
    scored(runs.arm("multitask", 41, runs.rates("multitask")[0]).folder, 0.1)
    runs.choose_rates()
    assert runs.chosen_rate("multitask") == 2.5e-4
    assert runs.rates("lora") == (5e-4, 1e-3, 2e-3)
    assert {run.folder.parent.parent.name for run in runs.tuning()} == {"lora"}


def test_the_relabelled_gym_is_written_first_and_its_oracle_has_its_routes(gym):
    runs = branches(RealLabels)
    relabelling, *_ = with_needs([runs.arm("oracle", 42)])
    assert (relabelling.folder, value_of(command_of(relabelling), "--share")) == (Path("out/gym"), "0.5")
    words = command_of(runs.arm("oracle", 42))
    assert value_of(words, "--task_routes") == "out/gym/oracle_routes.json"
    assert value_of(words, "--custom_tasks_splits") == "out/gym/split.json"


def test_tuning_comes_before_all_arms_and_a_second_call_trains_nothing(gym, capsys):
    words = ["train", *FLAGS, "--jobs", "2", "--arms", "multitask", "gradient", "--rates", "2e-4", "1e-4"]
    real_gym.main(words)
    trained = gym.named("train")
    dense, tuning, others = trained[0], trained[1:5], trained[5:]
    assert value_of(dense, "--output_dir") == "out/dense/seed41"
    assert all("/tuning/" in value_of(command, "--output_dir") for command in tuning)
    assert not any("--do_predict" in command for command in [dense, *tuning])
    # Arms read their rows in another order than the dense run.
    assert value_of(dense, "--seed") == "1041"
    assert {value_of(command, "--seed") for command in tuning} == {"41"}
    arms = [command for command in others if "out/runs" in value_of(command, "--output_dir")]
    assert [value_of(command, "--learning_rate") for command in arms] == ["0.0001"] * 6
    assert len(others) == 6 + 2  # gradient and random_1 have one rate; the dense runs of both seeds
    real_gym.main(words)
    assert gym.named("train") == trained


def test_tables_compare_dev_chosen_arms_and_learnable_tasks(gym):
    words = ["train", *FLAGS, "--arms", "multitask", "random_1", "gradient", "--rates", "1e-4"]
    for name, loss in (("multitask", 1.0), ("random_1", 0.9), ("gradient", 0.8)):
        for seed in (1, 2):
            scored(f"out/runs/{name}/seed{seed}", loss)
    assert real_gym.main(words) == 0
    (compared,) = gym.named("compare_runs")
    assert value_of(compared, "--baseline") == "multitask"
    assert value_of(compared, "--learnable") == "multitask:0.05"
    assert value_of(compared, "--contrasts") == "gradient:random_1"
    assert Path("out/tuning.csv").exists() is False  # one rate


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
    runs.choose_rates()
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
        "multitask_mean": "out/starts/multitask_mean",
        "best_merged": "trained/runs/gradient/seed42",
    }
    merged = command_of(runs.finetuned("best_merged", 42))
    assert value_of(merged, "--route_training") == "merged"
    assert value_of(merged, "--select_by") == "answer_loss"
    assert "--learning_rate_list" in merged
    assert "--learning_rate_list" not in command_of(runs.finetuned("mhr_routes", 42))  # rates of logits
    assert value_of(merged, "--eval_period") == "20"  # of 60 steps
    for evaluations, period in ((1, "60"), (7, "9")):  # rounded up: no more evaluations than told
        other = RealUnseen(**GIVEN, trained=Path("trained"), seeds=(42, 43), evaluations=evaluations)
        assert value_of(command_of(UnseenRuns(other).finetuned("best_merged", 42)), "--eval_period") == period
    zero_shot = [run.name for run in runs.arms() if run.name.startswith("zero_shot")]
    assert zero_shot == [
        f"zero_shot/{name}/seed{seed}" for seed in (42, 43) for name in ("multitask", "multitask_more")
    ]
    scoring = command_of(runs.zero_shot("multitask_more", 42))
    assert value_of(scoring, "--checkpoint") == "out/starts/multitask_more/seed42/best"
    assert value_of(scoring, "--custom_tasks_splits") == "out/split.json"
    fast = UnseenRuns(replace(runs.study, mixed_precision="bf16"))
    for run in (fast.zero_shot("multitask", 42), fast.baselines(), fast.finetuned("multitask", 42)):
        assert value_of(command_of(run), "--mixed_precision") == "bf16"
    mean, more = runs.mean(), runs.continued(42)
    assert command_of(mean)[2:4] == ["trained/runs/multitask/seed42", "trained/runs/multitask/seed43"]
    assert value_of(command_of(more), "--total_steps") == "50"
    assert value_of(command_of(more), "--learning_rate") == "0.000125"  # that of the arm


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--trained none", "--trained none: is no folder of real_gym_study.sh train"),
        ("--starts mhr_meen", "--starts mhr_meen: not one of"),
        ("--best gradiant", "--best gradiant: not one of"),
        ("--sections all", "--sections all: not one of dev, test"),
        ("--seeds 7", "--seeds 7: trained has no finished run of multitask"),
    ],
)
def test_mistakes_about_starts_are_named_and_nothing_is_kept(trained, capsys, words, error):
    flags = [*FLAGS[:-3], "--trained", "trained", "--seeds", "42", *words.split()]
    assert real_gym.main(["unseen", *flags]) == 2
    assert error in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_best_arm_and_the_seeds_of_a_mean_stay_those_of_the_first_call(trained):
    first = unseen()
    first.before()
    assert first.best == "gradient"
    for seed in (42, 43):
        scored(first.trained.arm("task_random", seed).folder, 0.1)
    assert unseen().best == "gradient"
    runs = [str(first.trained.arm("multitask", seed).folder) for seed in (42, 43)]
    write(first.mean().folder / "averaged.json", json.dumps({"made_of": {run: {} for run in runs}}))
    unseen().before()
    other = UnseenRuns(replace(first.study, seeds=(42,), starts=("multitask_mean",)))
    with pytest.raises(InputError, match="--seeds 42: multitask_mean in out is the mean of 42 43"):
        other.before()
    without = UnseenRuns(replace(first.study, seeds=(42,)))
    assert "multitask_mean" not in without.starts
    without.before()


def test_tables_of_starts_need_no_fine_tuning(trained, capsys):
    assert tables_of_starts(unseen()) == 1
    assert "no table" in capsys.readouterr().err
    for name in ("multitask", "multitask_more"):
        write(f"out/zero_shot/{name}/seed42/best/eval-test_tasks-test-performance.csv")
    assert tables_of_starts(unseen()) == 0
    files = [value_of(words, "--output_file") for words in trained.named("compute_arg")]
    assert files == [f"out/tables/zero_shot/{measure}.csv" for measure in MEASURES]


def test_tables_of_starts_have_each_measure(trained):
    for name in ("direct", "multitask"):
        write(f"out/few_shot/{name}/seed42/summary.csv")
    assert tables_of_starts(unseen()) == 0
    gains = trained.named("compute_arg")
    assert [value_of(words, "--metric") for words in gains] == [f"test_{measure}" for measure in MEASURES]
    assert value_of(gains[0], "--learnable") == "direct:0.05"
    assert value_of(gains[0], "--dev_baselines") == "out/baselines/best/eval-test_tasks-dev-performance.csv"
    for name in ("multitask", "multitask_more"):
        write(f"out/zero_shot/{name}/seed42/best/eval-test_tasks-test-performance.csv")
    assert tables_of_starts(unseen()) == 0
    *_, gains = trained.named("compute_arg")
    assert value_of(gains, "--output_file") == "out/tables/zero_shot/performance.csv"
    assert value_of(gains, "--names") == "multitask"
    assert "--learnable" not in gains


# ---- tables, flags


def test_contrasts_are_those_of_the_best_dividing_arm_the_oracle_and_the_controls():
    losses = dict(multitask=1.5, multitask_half=1.4, random_1=1.1, random_2=1.6, gradient=1.3, lora=1.2)
    contrasts = ("gradient:multitask_half", "gradient:random_1", "gradient:random_2")
    assert contrasts_of(losses) == contrasts
    hidden = dict(multitask=1.5, multitask_hidden=1.7, random_hidden=1.6)
    assert contrasts_of(hidden) == ("random_hidden:multitask_hidden",)
    losses = dict(multitask=1.5, random_hidden=1.6, refined_random=1.2, oracle=1.1, multitask_half=1.3)
    expected = ("refined_random:multitask_half", "oracle:multitask_half", "refined_random:random_hidden")
    assert contrasts_of(losses) == expected
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


def test_a_dry_run_has_the_flags_of_variables_and_reads_the_source_of_the_relabelled_gym(gym, monkeypatch):
    monkeypatch.delenv(NESTED, raising=False)
    monkeypatch.setenv("DATA_DIR", "gym")
    monkeypatch.setenv("SHARE", "0.25")
    assert real_gym.main(["labels", "--model", "my/bart", "--output_dir", "out", "--dry_run"]) == 0
    ((name, part, *words),) = gym.commands
    assert (name, part, value_of(words, "--model")) == ("reproduction", "real-gym-labels", "my/bart")
    assert {"--train_dir=gym", "--share=0.25"} <= set(words)
    assert reproduction.gym_and_split(branches(RealLabels))[0] == Path("gym")


def test_flags_of_a_model_that_an_earlier_call_made_are_noted(gym):
    made = dict(settings=dict(total_steps=200, do_lowercase=True))
    write("bart/warm_up/run.json", json.dumps(made))
    study = RealTrain(train_dir=Path("gym"), english_bart=Path("bart"), denoising_steps=300)
    (note,) = study.resolved().notes()
    assert "--denoising_steps is 300, but in the model of bart" in note
    assert replace(study, denoising_steps=200).resolved().notes() == []
    assert RealTrain(**GIVEN, english_bart=Path("bart"), denoising_steps=300).notes() == []


def test_help_lists_arms_and_starts(capsys):
    for part, names in ((TRAIN, arms_of(TRAIN)), (LABELS, arms_of(LABELS)), ("unseen", STARTS)):
        with pytest.raises(SystemExit):
            real_gym.main([part, "--help"])
        text = capsys.readouterr().out
        assert all(f"    {name} " in text for name in names)
