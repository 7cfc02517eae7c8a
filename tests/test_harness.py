"""Tasks of lm-evaluation-harness with the plain model of a task's route."""

import json

import pytest
import torch
from tiny_backbones import make_routed, make_tokenizer

lm_eval = pytest.importorskip(
    "lm_eval", reason='lm-evaluation-harness is not installed: "routing-moe[lm_eval]"'
)
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


@pytest.fixture(params=["t5", "qwen2"])
def saved(request, tmp_path):
    """The folder of a saved model of a family."""
    model = make_routed(request.param, dtype=torch.float32)
    model.save_pretrained(tmp_path / "saved")
    make_tokenizer([row["text"] + " bad good [a]" for row in ROWS]).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def evaluated(lm, folder, kind: dict) -> dict:
    """Returns what simple_evaluate reports of a task, and its samples."""
    file = folder.parent / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS))
    task = dict(task="tiny", dataset_path="json", test_split="train", doc_to_text="{{text}}: ") | kind
    task |= dict(dataset_kwargs={"data_files": str(file), "cache_dir": str(folder.parent / "cache")})
    known = TaskManager(include_defaults=False)  # the tasks of the harness take 20 seconds
    return lm_eval.simple_evaluate(model=lm, tasks=[task], task_manager=known, bootstrap_iters=0)


@pytest.mark.parametrize("kind", [CHOICE, ANSWER], ids=["choice", "answer"])
def test_the_results_are_those_of_the_plain_model(saved, kind):
    lm = RoutedLM(str(saved), "a", batch_size=2, device="cpu", max_length=64)
    model = RoutedModel.from_pretrained(saved)
    first, second = (model.to_plain(route_LE) for route_LE in model.routes_for(["a", "b"]))
    assert all(torch.equal(tensor, first.state_dict()[n]) for n, tensor in lm.model.state_dict().items())
    assert any(not torch.equal(tensor, second.state_dict()[n]) for n, tensor in lm.model.state_dict().items())
    plain = HFLM(
        first,
        "seq2seq" if lm.config.is_encoder_decoder else "causal",
        tokenizer=lm.tokenizer,
        max_length=64,
    )
    found, expected = (evaluated(one, saved, kind) for one in (lm, plain))
    for one, other in zip(found["samples"]["tiny"], expected["samples"]["tiny"], strict=True):
        if kind is ANSWER:
            assert one["resps"] == other["resps"]
        else:
            scores = [[option[0][0] for option in sample["resps"]] for sample in (one, other)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert found["results"]["tiny"].keys() == expected["results"]["tiny"].keys()


def test_a_prefix_is_the_task_name_as_in_training(saved):
    lm = RoutedLM(str(saved), "b", prefix=True, batch_size=2, device="cpu", max_length=64)
    assert lm.prefix == " [b] "
    without = RoutedLM(str(saved), "b", batch_size=2, device="cpu", max_length=64)
    found, plain = (
        [one["resps"] for one in evaluated(one, saved, CHOICE)["samples"]["tiny"]] for one in (lm, without)
    )
    assert found != plain


def test_a_soft_route_of_complete_layers_is_refused(make_model, tmp_path):
    model = make_model(2, torch.float32, task_names=["a"], router_mode="softmax")
    model.save_pretrained(tmp_path)
    make_tokenizer(["a text"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a: the route mixes the outputs of several experts"):
        RoutedLM(str(tmp_path), "a")
