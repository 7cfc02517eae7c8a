"""The conflict gym: what its settings promise, measured on its files and on the drawn skills; its BART."""

import dataclasses
import hashlib
import json
import re
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import contents, typed
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from dataloader.encoding import TextFormat
from dataloader.errors import InputError
from dataloader.gym import Gym
from dataloader.task_splits import load_split
from task.conflict_gym.bart import main as write_bart
from task.conflict_gym.generate import generate, main
from task.conflict_gym.settings import GymSettings, check
from task.conflict_gym.skills import draw_skills
from task.written_folder import saved_settings

UNUSED = Path("unused")
# {(seed, conflict): SHA-256 of paths and bytes of all files}: results were measured on such gyms.
DIGESTS = {  # of all files but gym.json, whose settings have changed
    (101, 0.5): "e2fcdf0df5ae55f6e201c9d4ab0474c99b451fb7d930cfcb37ce5616804b5ae8",
    (201, 1): "079ff63e4bfffb119cbcb1085fa0decb37e538b58416c84d44b13031f13958bf",
}


def written(folder: Path, **changed) -> Path:
    generate(GymSettings(output_dir=folder, **changed))
    return folder


@pytest.fixture(scope="module")
def gym(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("conflict") / "gym")


SMALL = dict(tasks=16, unseen_tasks=4)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("conflict") / "small", **SMALL)


def settings_of(gym: Path) -> GymSettings:
    return GymSettings(output_dir=gym, **saved_settings(GymSettings, gym))


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def rows_of(gym: Path, task: str, part: str) -> list[tuple[str, str]]:
    """All rows of a part, those of several samples one after the other."""
    return [(example.input, example.outputs[0]) for example in Gym(gym).examples(task, part)]


def measured_conflict(gym: Path) -> float:
    """The share of test inputs that two tasks of different skills answer differently, by the skills drawn."""
    settings = settings_of(gym)
    skills = draw_skills(settings)
    number = {word: index for index, word in enumerate(skills.words)}
    skill_of = read(gym / "skill_routes.json")
    different = []
    for task in load_split(gym / "split.json").train:
        for text, answer in rows_of(gym, task, "test"):
            words = tuple(number[word] for word in text.split())
            own = skills.answer(skill_of[task], words)
            assert skills.words[own] == answer
            others = [skill for skill in range(skills.count) if skill != skill_of[task]]
            different.append(np.mean([skills.answer(skill, words) != own for skill in others]))
    return float(np.mean(different))


@pytest.mark.parametrize("conflict", [0.0, 0.25, 1.0])
def test_skills_contradict_on_the_share_of_inputs_that_conflict_says(tmp_path, conflict):
    gym = written(tmp_path / "gym", conflict=conflict, tasks=32, unseen_tasks=1)
    measured, stated = measured_conflict(gym), read(gym / "gym.json")["contradiction"]["mean"]
    assert measured == pytest.approx(stated, abs=0.01)
    assert measured == 0 if conflict == 0 else 0.85 * conflict <= measured <= conflict


@pytest.mark.parametrize("sizes", [{"input_words": 1}, {"input_words": 3, "words": 12, "rows": 8}])
def test_disagreements_are_those_of_all_contested_inputs(sizes):
    settings = GymSettings(output_dir=UNUSED, conflict=0.5, encoder_parts=3, **sizes)
    skills = draw_skills(settings)
    inputs = list(permutations(range(skills.contested), skills.input_words))
    answers = np.array([[skills.answer(skill, words) for words in inputs] for skill in range(skills.count)])
    expected = [(answers != own).mean(axis=1) for own in answers]
    np.testing.assert_allclose(skills.disagreements(), expected, atol=1e-12)


def test_label_noise_is_in_the_given_share_of_train_rows_and_nowhere_else(tmp_path, small):
    noisy = written(tmp_path / "gym", label_noise=0.25, **SMALL)
    clean_files, noisy_files = contents(small), contents(noisy)
    for name, content in clean_files.items():
        if not name.endswith("_train.tsv"):
            assert noisy_files[name] == content or name == "gym.json"
            continue
        lines, other = content.decode().splitlines(), noisy_files[name].decode().splitlines()
        assert [line.split("\t")[0] for line in lines] == [line.split("\t")[0] for line in other]
        assert sum(a != b for a, b in zip(lines, other, strict=True)) == len(lines) / 4


def test_a_lookup_by_oracle_route_and_counted_word_answers_every_test_row(tmp_path):
    """The lookup table is made of train rows, without the functions that wrote them."""
    gym = written(tmp_path / "gym", rows=256, conflict=0.5, tasks=32, unseen_tasks=4)
    routes, split = read(gym / "oracle_routes.json"), load_split(gym / "split.json")
    contested = set(draw_skills(settings_of(gym)).words[:20])

    def key(task: str, text: str) -> tuple[int, int, str]:
        a, b, words = *routes[task].values(), text.split()
        return a, b, words[a % 2 if words[0] in contested else 0]

    table: dict[tuple[int, int, str], set[str]] = {}
    for task in split.train:
        for text, answer in rows_of(gym, task, "train"):
            table.setdefault(key(task, text), set()).add(answer)
    assert len(table) == 16 * 40
    for task in split.all:
        for text, answer in rows_of(gym, task, "test"):
            assert table[key(task, text)] == {answer}


def test_the_loader_accepts_the_gym_and_unseen_tasks_have_five_samples_of_one_test_file(gym):
    loaded, split = Gym(gym), load_split(gym / "split.json")
    assert all(loaded.pool(split.all, part) for part in ("train", "dev", "test"))
    assert loaded.tasks() == sorted(split.all)
    assert (len(split.train), split.dev, len(split.test)) == (64, (), 16)
    assert {loaded.metric(task) for task in split.all} == {"EM"}
    for task in split.train:
        assert loaded.samples(task) == [f"{task}_48_0"]
        assert [len(rows_of(gym, task, part)) for part in ("train", "dev", "test")] == [48, 24, 64]
    for task in split.test:
        assert loaded.samples(task) == [f"{task}_16_{seed}" for seed in (100, 13, 21, 42, 87)]
        tests = {(gym / task / f"{sample}_test.tsv").read_bytes() for sample in loaded.samples(task)}
        assert len(tests) == 1
        assert [len(rows_of(gym, task, part)) for part in ("train", "dev", "test")] == [80, 80, 5 * 64]


@pytest.mark.parametrize(("seed", "conflict"), DIGESTS)
def test_gyms_of_published_results_are_written_again_byte_for_byte(seed, conflict, tmp_path):
    assert main(["--output_dir", str(tmp_path / "gym"), f"--seed={seed}", f"--conflict={conflict}"]) == 0
    digest = hashlib.sha256()
    (tmp_path / "gym/gym.json").unlink()
    for path, content in sorted(contents(tmp_path / "gym").items()):
        digest.update(path.encode() + b"\0" + content)
    assert digest.hexdigest() == DIGESTS[seed, conflict]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"tasks": 15}, "--tasks is 15; it must be at least 16"),
        ({"words": 40, "conflict": 0.08}, "3 contested words are fewer than the 4 parts of one side"),
        ({"words": 15}, "15 contested words make 210 inputs, but a task needs 224"),
        ({"conflict": 0.95, "words": 20}, "1 uncontested words make 0 inputs, but a task needs 13"),
    ],
)
def test_a_wrong_setting_is_one_error_that_says_what_would_be_right(changed, problem):
    with pytest.raises(InputError, match=re.escape(problem)) as caught:
        check(dataclasses.replace(GymSettings(output_dir=UNUSED), **changed))
    assert len(caught.value.problems) == 1


def test_words_that_are_too_few_to_keep_the_skills_apart_are_an_error(tmp_path):
    """Permutations of three words that differ everywhere are the rotations, or the swaps: too few skills."""
    sizes = dict(words=3, encoder_parts=3, decoder_parts=3, unseen_tasks=0, rows=2, dev_rows=2, test_rows=2)
    with pytest.raises(InputError, match="--words is 3: too few for 9 skills"):
        written(tmp_path / "gym", **sizes)
    assert not (tmp_path / "gym").exists()


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path, capsys):
    gym, other = tmp_path / "gym", tmp_path / "other"
    flags = ["--tasks", "16", "--unseen_tasks", "1"]
    assert main(["--output_dir", str(gym), *flags]) == 0
    finished = contents(gym)
    assert main(["--output_dir", str(gym), *flags]) == 0
    assert "already written with these settings" in capsys.readouterr().out
    other.mkdir()
    file = other / "thesis.txt"
    file.write_text("results")
    for folder, error in (
        (gym, f"--tasks is 64, but in {gym}/gym.json it was 16; name a new folder, or delete this one"),
        (other, f"--output_dir {other} is not empty and has no gym.json; name a new folder"),
        (file, f"--output_dir {file}: {file} is a file; name a folder"),
    ):
        assert main(["--output_dir", str(folder), "--unseen_tasks", "1"]) == 2
        assert capsys.readouterr().err.splitlines() == [f"error: {error}"]
    assert contents(gym) == finished
    (gym / "gym.json").write_text('{"settings": {"seed": 0}}')
    assert main(["--output_dir", str(gym)]) == 2
    error = f"{gym}/gym.json does not have the settings of routing-moe conflict-gym; name another folder"
    assert capsys.readouterr().err.splitlines() == [f"error: {error}"]


TINY = dict(tasks=4, unseen_tasks=2, encoder_parts=2, decoder_parts=2, rows=8, dev_rows=4, test_rows=6)


def made(folder: Path, *flags: str, **settings) -> tuple[Path, Path]:
    """Folders of a small gym and of its BART."""
    generate(GymSettings(output_dir=folder / "gym", **(TINY | settings)))
    assert write_bart(["--gym", str(folder / "gym"), "--output_dir", str(folder / "bart"), *flags]) == 0
    return folder / "gym", folder / "bart"


@pytest.fixture(scope="module")
def opaque(tmp_path_factory):
    return made(tmp_path_factory.mktemp("opaque"))


@pytest.mark.parametrize(
    ("names", "example"), [("opaque", "[ t001 ] {}"), ("telling", "[ e{} - d{} - t001 ] {}")]
)
def test_texts_are_whole_words_and_answers_decode_to_themselves(tmp_path, names, example):
    folder, bart = made(tmp_path, names=names)
    gym, tokenizer = Gym(folder), AutoTokenizer.from_pretrained(bart)
    parts = list(json.loads((folder / "oracle_routes.json").read_text()).values())[1].values()
    for task in gym.tasks():
        for row in gym.examples(task, "train"):
            for texts in (TextFormat(), TextFormat(hide_task_names=True)):
                ids = tokenizer(texts.source(row), split_special_tokens=True)["input_ids"]
                assert tokenizer.unk_token_id not in ids
                assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
            assert tokenizer.convert_ids_to_tokens(ids[1:4]) == ["[", "task", "]"]
            label = tokenizer(texts.target(row.outputs[0]))["input_ids"]
            assert len(label) == 3
            assert tokenizer.decode(label, skip_special_tokens=True) == row.outputs[0]
            if task.endswith("t001"):
                ids = tokenizer(TextFormat().source(row))["input_ids"]
                text = example.format(*(parts if names == "telling" else ()), row.input)
                assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_tokens_are_the_words_the_names_and_brackets_with_the_special_ids_of_bart(opaque):
    tokenizer = AutoTokenizer.from_pretrained(opaque[1])
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert len(tokenizer) == 5 + len("[]-") + len(["task"]) + 6 + 40
    assert tokenizer("zzz")["input_ids"] == [0, 3, 2]


@pytest.mark.parametrize(("width", "layers", "heads", "init_std"), [(16, 2, 4, None), (6, 1, 2, 0.02)])
def test_the_model_has_the_given_sizes_and_random_weights(opaque, tmp_path, width, layers, heads, init_std):
    flags = dict(gym=opaque[0], width=width, layers=layers, init_std=init_std)
    assert write_bart(typed(flags | dict(output_dir=tmp_path / "bart"))) == 0
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "bart")
    config = model.config
    assert (config.d_model, config.encoder_layers, config.decoder_layers) == (width, layers, layers)
    assert (config.encoder_attention_heads, config.decoder_attention_heads) == (heads, heads)
    assert (config.pad_token_id, config.decoder_start_token_id, config.forced_eos_token_id) == (1, 2, 2)
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "bart"))
    assert model.model.shared.weight.std().item() == pytest.approx(init_std or 0.1, rel=0.2)
