"""The quickstart and the comparison of task vectors: their runs, and the flags of their commands."""

import json

import pytest

from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings
from routing_moe.studies import quickstart, task_vectors
from routing_moe.studies.recipes import TrainingRecipe
from routing_moe.studies.runs import Run, with_needs
from routing_moe.studies.two_stages import TwoStages
from routing_moe.studies.vectors import Computing
from task.task_emb.gradient import GradientSettings
from task.task_emb.reduce import ReduceSettings

KINDS = {
    "routing_moe.cli.train": TrainSettings,
    "routing_moe.studies.two_stages": TwoStages,
    "task.task_emb.gradient": GradientSettings,
    "task.task_emb.reduce": ReduceSettings,
}


def parsed(run: Run) -> list[tuple[str, dict]]:
    """Returns (last name of the module, flags) of the commands of a run, whose flags must exist."""
    return [
        (module.split(".")[-1], parse(KINDS[module], flags, further=[])) for module, *flags in run.commands()
    ]


def test_the_quickstart_trains_four_models_for_the_same_total_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/conflict_gym").mkdir(parents=True)
    (tmp_path / "data/conflict_gym/split.json").write_text('{"train": ["t000"], "dev": [], "test": ["t001"]}')
    refined, learned, dense, oracle = runs = quickstart.Quickstart(dense_steps=20, total_steps=10).runs()
    assert {run.needs[0].name for run in runs} == {"gym"}
    assert [run.result for run in runs] == ["best/eval-test_tasks-test-performance.csv"] * 4
    commands = [command for run in runs for command in parsed(run)]
    assert [name for name, _ in commands] == ["train", "gradient", "train", "train"] + ["train", "train"] * 3
    trained = {flags["output_dir"]: flags for _, flags in commands if "do_train" in flags}
    assert {folder: flags["total_steps"] for folder, flags in trained.items()} == {
        f"{refined.folder}/dense": 20,
        str(refined.folder): 10,
        str(learned.folder): 30,
        str(dense.folder): 30,
        str(oracle.folder): 30,
    }
    assert trained[str(learned.folder)]["router_lr"] == 0.01
    assert trained[str(refined.folder)]["reassign_until"] == 5
    assert trained[str(oracle.folder)]["task_routes"] == "data/conflict_gym/oracle_routes.json"
    assert {flags["model"] for flags in trained.values()} == {"data/conflict_gym_bart/width16"}
    assert {flags["predict_split"] for _, flags in commands if "predict_split" in flags} == {"test"}


@pytest.fixture
def vectors(tmp_path) -> task_vectors.Runs:
    given = dict(train_dir=tmp_path / "gym", model="bart", total_steps=70)
    study = task_vectors.TaskVectorsStudy(output_dir=tmp_path / "study", **given).resolved()
    return task_vectors.Runs(study, TrainingRecipe.chosen(study))


@pytest.mark.parametrize("kind", ["random", "text", "fisher"])
def test_vectors_are_computed_reduced_and_frozen_in_both_stages(vectors, kind):
    run = vectors.run(kind, 43)
    *needs, _ = dict.fromkeys(with_needs([run]))
    folders = ["vectors"] if kind == "random" else ["raw_vectors", "vectors"]
    assert [need.folder for need in needs] == [vectors.study.output_dir / name / kind for name in folders]
    (module, method, *flags), further = needs[0].commands()[0], []
    computed = parse(Computing, flags, further=further)
    assert (module, method, computed["model"]) == ("routing_moe.studies.vectors", kind, "bart")
    assert further == (["--taskvecs_dim", "64"] if kind == "random" else [])
    if kind != "random":
        ((_, reduced),) = parsed(needs[1])
        assert (reduced["dim"], reduced["transform"]) == (64, "log" if kind == "fisher" else "none")
    (_, stages), (_, scores) = parsed(run)
    assert (stages["taskvecs"], stages["total_steps"]) == (needs[-1].folder, 70)
    assert stages["stage1_flags"] == "--freeze_task_model --seed 43"
    assert scores["output_dir"] == str(run.folder)


def test_trained_vectors_are_those_of_the_two_stages(vectors):
    run = vectors.run("trained", 42)
    (_, stages), _ = parsed(run)
    assert "taskvecs" not in stages
    assert (run.needs, stages["stage1_flags"]) == ((), "--seed 42")


def test_what_vectors_have_seen_is_that_of_their_meta_file(vectors):
    assert vectors.seen_by("text") == "unknown"
    folder = vectors.vectors("text").folder
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"seen": "unlabelled inputs of all samples"}))
    assert vectors.seen_by("text") == "unlabelled inputs of all samples"
    assert vectors.seen_by("trained") == "unlabelled inputs of one sample"
