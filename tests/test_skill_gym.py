"""The embedded gym and its tiny BART: contents of the files, and reproducibility."""

import csv
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from task.skill_gym import TINY_BART, pretraining
from task.skill_gym.denoising import add_noise, infill, permute_sentences
from task.skill_gym.descriptions import DESCRIPTIONS
from task.skill_gym.formats import FORMATS
from task.skill_gym.generate import POOL_ROWS, SAMPLE_SEEDS, TEST_ROWS, generate, main
from task.skill_gym.pretrain import main as pretrain
from task.skill_gym.pretrain_settings import PretrainSettings
from task.skill_gym.skills import PROBLEMS
from task.skill_gym.stories import document
from task.skill_gym.tasks import TASKS
from task.skill_gym.tokenizer import train_tokenizer
from task.skill_gym.world import VOCABULARIES

METRICS = {
    "EM",
    "ACC",
    "QA-F1",
    "Classification-F1",
    "Matthew-Correlation",
    "Pearson-Correlation",
    "Rouge-L",
}
MASK, STOP = 4, 9


@pytest.fixture(scope="module")
def gym(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gym")
    generate(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_BART)


def read(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def files_of(gym: Path, task: str, part: str) -> dict[str, list[list[str]]]:
    return {path.name: read(path) for path in sorted((gym / task).glob(f"*_{part}.tsv"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------- the gym


def test_same_seed_writes_the_same_bytes_and_another_seed_writes_other_rows(gym, tmp_path, capsys):
    main(["--output_dir", str(tmp_path / "again")])
    main(["--output_dir", str(tmp_path / "other"), "--seed", "1"])
    once, again, other = contents(gym), contents(tmp_path / "again"), contents(tmp_path / "other")
    assert once == again
    assert once.keys() == other.keys()
    assert all((once[name] == other[name]) == (not name.endswith(".tsv")) for name in once)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_has_all_samples_and_no_duplicate_inputs(gym, task):
    k = 16 if task.classes else 32
    rows = 16 * len(task.classes) or 32
    few_shot = [f"{task.name}_{k}_{seed}" for seed in SAMPLE_SEEDS]
    pool = [f"{task.name}_{POOL_ROWS}_0"] if task.split == "train" else []
    train, dev, test = (files_of(gym, task.name, part) for part in ("train", "dev", "test"))

    for part, files in (("train", train), ("dev", dev), ("test", test)):
        assert list(files) == [f"{sample}_{part}.tsv" for sample in sorted(pool + few_shot)]
    assert [len(train[f"{sample}_train.tsv"]) for sample in few_shot] == [rows] * 5
    assert all(len(train[f"{sample}_train.tsv"]) == POOL_ROWS for sample in pool)
    assert {len(content) for content in dev.values()} == {rows}
    assert len({str(content) for content in test.values()}) == 1
    one_test = next(iter(test.values()))
    assert len(one_test) == TEST_ROWS

    everything = one_test + [row for files in (train, dev) for content in files.values() for row in content]
    assert all(len(row) >= 2 and all(field and field == field.strip() for field in row) for row in everything)
    assert max(Counter(row[0] for row in everything).values()) == 1


def test_the_pool_is_the_first_sample_of_a_train_task(gym):
    for task in TASKS:
        if task.split == "train":
            assert next(iter(files_of(gym, task.name, "dev"))) == f"{task.name}_{POOL_ROWS}_0_dev.tsv"


@pytest.mark.parametrize("task", [task for task in TASKS if task.classes], ids=lambda task: task.name)
def test_classes_are_equally_frequent_in_every_file(gym, task):
    for part in ("train", "dev", "test"):
        for content in files_of(gym, task.name, part).values():
            counts = Counter(row[1] for row in content)
            assert set(counts) == set(task.classes)
            assert len(set(counts.values())) == 1


@pytest.mark.parametrize("task", [task for task in TASKS if not task.classes], ids=lambda task: task.name)
def test_no_answer_is_frequent_in_tasks_without_classes(gym, task):
    answers = Counter(row[1] for row in next(iter(files_of(gym, task.name, "test").values())))
    assert answers.most_common(1)[0][1] <= 0.3 * TEST_ROWS


# -------------------------------------------------------------------------------------------- splits


def test_unseen_tasks_are_new_combinations_of_skills_formats_and_vocabularies_of_train_tasks():
    train = [task for task in TASKS if task.split == "train"]
    seen = {trait for task in train for trait in (*task.skills, task.format, task.vocabulary)}
    combinations = {(task.skills, task.format, task.vocabulary) for task in train}
    for task in TASKS:
        if task.split != "train":
            assert {*task.skills, task.format, task.vocabulary} <= seen
            assert (task.skills, task.format, task.vocabulary) not in combinations
    assert Counter(task.split for task in TASKS) == {"train": 24, "dev": 4, "test": 8}
    assert seen == {*FORMATS, *VOCABULARIES, *(skill for skills in PROBLEMS for skill in skills)}


def test_json_tables_agree_with_the_tasks(gym):
    names = [task.name for task in TASKS]
    split, metrics, ontology = (
        json.loads((gym / f"{table}.json").read_text()) for table in ("split", "metrics", "ontology")
    )
    assert len(set(names)) == len(names)
    assert sorted(path.name for path in gym.iterdir() if path.is_dir()) == sorted(names)
    assert split["all"] == names
    assert sorted(split["train"] + split["dev"] + split["test"]) == sorted(names)
    assert {name: metrics[name] for name in names} == metrics
    assert set(metrics.values()) == METRICS
    assert sorted(name for subs in ontology.values() for group in subs.values() for name in group) == sorted(
        names
    )
    assert 4 <= len(ontology) <= 7
    for subcategories in ontology.values():
        in_category = {name for group in subcategories.values() for name in group}
        assert in_category & set(split["train"])
        assert in_category & set(split["test"])


def test_skill_table_agrees_with_the_names_of_the_tasks(gym):
    with open(gym / "skills.csv", newline="") as file:
        table = {row.pop("task"): row for row in csv.DictReader(file)}
    assert list(table) == [task.name for task in TASKS]
    for name, row in table.items():
        assert set(row.values()) <= {"0", "1"}
        assert {column.split(":")[1] for column, value in row.items() if value == "1"} == set(name.split("-"))


def test_every_task_has_a_unique_description_and_the_file_holds_it(gym):
    assert list(DESCRIPTIONS) == [task.name for task in TASKS]
    assert len(set(DESCRIPTIONS.values())) == len(TASKS)
    assert json.loads((gym / "descriptions.json").read_text()) == DESCRIPTIONS


# ------------------------------------------------------------------------------------ the tiny model


def test_tokenizer_round_trips_any_text_and_uses_the_ids_of_bart(tokenizer):
    assert tokenizer.is_fast
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3, 4]
    assert tokenizer(" the hen")["input_ids"][0] == 0
    assert tokenizer(" the hen")["input_ids"][-1] == 2
    rng = random.Random(0)
    codes = [code for code in range(1, 0x3000) if not 0xD800 <= code < 0xE000] + [0x1F600, 0x20BB7]
    noise = ["".join(map(chr, rng.choices(codes, k=30))) for _ in range(50)]
    for text in [" the hen", "Zoë's  naïve\tcafé\n", "日本語 😀", *noise]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_shipped_tokenizer_equals_a_newly_trained_one(tmp_path, tokenizer):
    train_tokenizer().save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_words_of_the_gym_are_single_tokens_and_inputs_are_short(gym, tokenizer):
    lengths = []
    for task in TASKS:
        for text, answer, *_ in next(iter(files_of(gym, task.name, "test").values())):
            words = [word for word in f"{text} {answer}".split() if word.isalpha()]
            assert all(len(tokenizer.tokenize(" " + word)) == 1 for word in words)
            lengths.append(len(tokenizer(f" [{task.name}] {text}")["input_ids"]))
    assert max(lengths) <= 48
    assert sum(lengths) / len(lengths) <= 32


def test_shipped_model_loads_and_stays_small():
    model = AutoModelForSeq2SeqLM.from_pretrained(TINY_BART, dtype=torch.float32)
    config = model.config
    assert 0.7e6 <= model.num_parameters() <= 2e6
    assert sum(path.stat().st_size for path in TINY_BART.rglob("*")) <= 6 * 2**20
    assert (config.model_type, config.max_position_embeddings) == ("bart", 1024)
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert (config.decoder_start_token_id, config.forced_eos_token_id) == (2, 2)
    assert model(input_ids=torch.full((1, 600), 5), labels=torch.full((1, 3), 5)).loss.isfinite()


def test_shipped_model_copies_a_document_and_knows_the_world(tokenizer):
    model = AutoModelForSeq2SeqLM.from_pretrained(TINY_BART, dtype=torch.float32).eval()
    rng = random.Random("unseen documents")
    texts = [" " + document(rng) for _ in range(40)]
    facts = [fact for vocabulary in VOCABULARIES.values() for fact in vocabulary.facts]
    gaps = [f" it is true that {fact.statement('<mask>')} ." for fact in facts]
    both = tokenizer(texts + gaps, return_tensors="pt", padding=True)
    written = tokenizer.batch_decode(
        model.generate(**both, max_new_tokens=80, num_beams=1), skip_special_tokens=True
    )
    copied = [text.strip() == out.strip() for text, out in zip(texts, written, strict=False)]
    known = [fact.value in out.split() for fact, out in zip(facts, written[len(texts) :], strict=True)]
    assert sum(copied) / len(copied) >= 0.7
    assert sum(known) / len(known) >= 0.7


# -------------------------------------------------------------------------------------- pre-training


def test_infilling_masks_the_given_ratio_with_one_mask_per_span():
    rng = random.Random(0)
    hidden = total = 0
    for _ in range(300):
        ids = [rng.randrange(10, 1000) for _ in range(rng.randint(10, 50))]
        noisy = infill(rng, ids, MASK, ratio=0.3)
        kept = [token for token in noisy if token != MASK]
        remaining = iter(ids)
        assert all(token in remaining for token in kept)  # in the original order
        assert (MASK, MASK) not in pairwise(noisy)
        hidden, total = hidden + len(ids) - len(kept), total + len(ids)
    assert hidden / total == pytest.approx(0.3, abs=0.02)


def test_permutation_keeps_every_sentence_intact():
    ids = [11, 12, STOP, 21, STOP, 31, 32, 33, STOP, 41]
    sentences = {(11, 12, STOP), (21, STOP), (31, 32, 33, STOP), (41,)}
    results = {tuple(permute_sentences(random.Random(seed), ids, STOP)) for seed in range(200)}
    assert len(results) == 24
    for result in results:
        assert Counter(result) == Counter(ids)
        text = " ".join(map(str, result))
        assert all(" ".join(map(str, sentence)) in text for sentence in sentences)


def test_noise_sometimes_copies_the_document_and_never_changes_its_input():
    ids = list(range(10, 40))
    results = [add_noise(random.Random(seed), ids, MASK, STOP) for seed in range(500)]
    assert ids == list(range(10, 40))
    assert sum(result == ids for result in results) / 500 == pytest.approx(0.1, abs=0.04)


def test_the_target_of_a_batch_is_the_document_and_a_step_always_gives_the_same_batch(tokenizer):
    settings = PretrainSettings(output_dir=Path("unused"), batch_size=4)
    batch, again = (pretraining.batch(tokenizer, settings, step=7) for _ in range(2))
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    rng = random.Random(f"{settings.seed} 7")
    for labels in batch["labels"]:
        target = tokenizer.decode(labels[labels != -100], skip_special_tokens=True)
        assert target == " " + document(rng)


def test_pretraining_text_contains_no_row_of_the_gym(gym):
    rng = random.Random(0)
    text = " ".join(document(rng) for _ in range(20_000))
    for task in TASKS:
        for row in next(iter(files_of(gym, task.name, "test").values())):
            assert row[0] not in text


def test_three_steps_of_pretraining_write_a_model_that_loads(tmp_path, capsys):
    pretrain(f"--output_dir {tmp_path} --steps 3 --batch_size 4 --d_model 32 --layers 1".split())
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.dtype == torch.float16
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.decode(tokenizer(" the hen")["input_ids"]) == "<s> the hen</s>"


def test_a_state_of_other_settings_is_an_error(tmp_path, capsys):
    torch.save({"settings": {"steps": 6}}, tmp_path / "pretraining.pt")
    assert pretrain(["--output_dir", str(tmp_path), "--steps", "3"]) == 2
    fault = (
        f"error: --steps is 3, but in {tmp_path}/pretraining.pt it was 6; give this value, or delete the file"
    )
    assert fault in capsys.readouterr().err


def test_resumed_pretraining_reaches_the_same_weights(tmp_path, tokenizer, monkeypatch):
    settings = PretrainSettings(output_dir=tmp_path, steps=6, batch_size=4, d_model=32, layers=1)
    straight, _ = pretraining.pretrain(settings, tokenizer)
    plain_batch = pretraining.batch

    def batch_until_step_five(tokenizer, settings, step):
        if step == 5:
            raise KeyboardInterrupt
        return plain_batch(tokenizer, settings, step)

    monkeypatch.setattr(pretraining, "SAVE_EVERY", 2)
    monkeypatch.setattr(pretraining, "batch", batch_until_step_five)
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(settings, tokenizer, tmp_path / "state.pt")
    monkeypatch.setattr(pretraining, "batch", plain_batch)
    resumed, _ = pretraining.pretrain(settings, tokenizer, tmp_path / "state.pt")
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
