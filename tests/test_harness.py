"""Tasks of lm-evaluation-harness with the plain model of a task's route."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny_backbones import make_routed, make_tokenizer

lm_eval = pytest.importorskip("lm_eval", reason='harness not installed: "routing-moe[lm_eval]"')
from datasets import Dataset  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from dataloader.errors import InputError  # noqa: E402
from routing_moe import RoutedModel  # noqa: E402
from routing_moe.answering.harness import RoutedLM  # noqa: E402

ROWS = [
    {"text": "the plot was thin", "options": ["bad", "good"], "label": 0},
    {"text": "a fine film", "options": ["bad", "good"], "label": 1},
    {"text": "dull", "options": ["bad", "good"], "label": 0},
]
CHOICE = dict(output_type="multiple_choice", doc_to_choice="options", doc_to_target="label")
ANSWER = dict(
    output_type="generate_until",
    doc_to_target="{{options[label]}}",
    generation_kwargs={"max_gen_toks": 3, "until": ["\n"]},
)


def saved(family: str, folder):
    """Returns the folder, in which it has saved a model of a family."""
    make_routed(family, dtype=torch.float32).save_pretrained(folder)
    make_tokenizer([row["text"] + " bad good [a]" for row in ROWS]).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _without_versions(monkeypatch):
    """The harness asks pip for the versions of all packages, which takes a second."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


def evaluated(lm, kind: dict) -> dict:
    """Returns what simple_evaluate reports of a task, and its samples."""
    task = dict(task="tiny", custom_dataset=lambda **_: {"test": Dataset.from_list(ROWS)})
    task |= dict(test_split="test", doc_to_text="{{text}}: ") | kind
    known = TaskManager(include_defaults=False)  # the tasks of the harness take 20 seconds
    return lm_eval.simple_evaluate(model=lm, tasks=[task], task_manager=known, bootstrap_iters=0)


@pytest.mark.parametrize(
    ("family", "kind"), [("t5", CHOICE), ("qwen2", ANSWER)], ids=["t5-choice", "qwen2-answer"]
)
def test_the_results_are_those_of_the_plain_model(family, kind, tmp_path):
    folder = saved(family, tmp_path)
    lm = RoutedLM(str(folder), "a", batch_size=2, device="cpu", max_length=64)
    model = RoutedModel.from_pretrained(folder)
    first, second = (model.to_plain(model.routes_for([task])[0]) for task in ("a", "b"))  # not as one batch
    assert all(torch.equal(tensor, first.state_dict()[n]) for n, tensor in lm.model.state_dict().items())
    assert any(not torch.equal(tensor, second.state_dict()[n]) for n, tensor in lm.model.state_dict().items())
    backend = "seq2seq" if lm.config.is_encoder_decoder else "causal"
    plain = HFLM(first, backend, tokenizer=lm.tokenizer, max_length=64)
    found, expected = (evaluated(one, kind) for one in (lm, plain))
    for one, other in zip(found["samples"]["tiny"], expected["samples"]["tiny"], strict=True):
        if kind is ANSWER:
            assert one["resps"] == other["resps"]
        else:
            scores = [[option[0][0] for option in sample["resps"]] for sample in (one, other)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert found["results"]["tiny"].keys() == expected["results"]["tiny"].keys()


def test_a_prefix_is_the_task_name_as_in_training(tmp_path):
    folder = str(saved("qwen2", tmp_path))
    lm = RoutedLM(folder, "b", prefix=True, batch_size=2, device="cpu", max_length=64)
    assert lm.prefix == " [b] "
    without = RoutedLM(folder, "b", batch_size=2, device="cpu", max_length=64)
    found, plain = (evaluated(one, CHOICE)["samples"]["tiny"] for one in (lm, without))
    assert [one["resps"] for one in found] != [one["resps"] for one in plain]
    with pytest.raises(InputError, match="has no route for zzz, only for"):
        RoutedLM(folder, "zzz")
    config = json.loads(Path(folder, "config.json").read_text())
    for texts, prefix in ({"hide_task_names": True}, " [task] "), ({"prompt_format": "chat"}, None):
        Path(folder, "config.json").write_text(json.dumps(config | {"text_settings": texts}))
        with nullcontext() if prefix else pytest.raises(InputError, match=r"prefix: .* was trained on chats"):
            assert RoutedLM(folder, "b", prefix=True, device="cpu", max_length=64).prefix == prefix


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(router_mode="softmax"), "a: the route mixes the outputs of several experts"),
        (dict(route_source="random"), "draws a route for each example"),
    ],
)
def test_routes_that_are_no_plain_model_are_refused(fields, message, make_model, tmp_path):
    make_model(2, torch.float32, task_names=["a"], **fields).save_pretrained(tmp_path)
    make_tokenizer(["a text"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        RoutedLM(str(tmp_path), "a")
