"""The embedded gym and its tiny BART: contents of the files, and reproducibility."""

import hashlib
import random

import pytest
import torch
from tiny_runs import contents
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from task.skill_gym import TINY_BART
from task.skill_gym.generate import main
from task.skill_gym.world import VOCABULARIES

# Of the names and bytes of all files but gym.json: results were measured on these.
DIGEST = "9ec76e9b4b46aeb24a9be603f79b1472a4da547d69a4e59efb93e8028f345f92"


@pytest.fixture(scope="module")
def gym(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gym") / "gym"
    assert main(["--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_BART)


def test_same_seed_writes_the_same_bytes_and_another_seed_writes_other_rows(gym, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["--output_dir", str(other), "--seed", "1"]) == 0
    first, second = contents(gym), contents(other)
    assert first.keys() == second.keys()
    different = {name for name in first if first[name] != second[name]}
    assert different == {name for name in first if name.endswith(".tsv")} | {"gym.json"}
    assert first.pop("gym.json") == b'{\n  "settings": {\n    "seed": 0\n  }\n}\n'
    digest = hashlib.sha256()
    for name, content in sorted(first.items()):
        digest.update(name.encode() + b"\0" + content)
    assert digest.hexdigest() == DIGEST
    assert main(["--output_dir", str(other)]) == 2
    assert "--seed is 0, but in" in capsys.readouterr().err


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


def test_shipped_model_knows_the_world(tokenizer):
    model = AutoModelForSeq2SeqLM.from_pretrained(TINY_BART, dtype=torch.float32).eval()
    facts = [fact for vocabulary in VOCABULARIES.values() for fact in vocabulary.facts]
    texts = [f" it is true that {fact.statement('<mask>')} ." for fact in facts]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    answers = model.generate(**batch, max_new_tokens=30, num_beams=1)
    written = tokenizer.batch_decode(answers, skip_special_tokens=True)
    known = [fact.value in text.split() for fact, text in zip(facts, written, strict=True)]
    assert sum(known) / len(known) >= 0.7
