"""`export --rank`: the nearest updates of a rank, their error, and what they change in the next tokens."""

import json
import re

import pytest
import torch
from peft import PeftModel
from tiny_backbones import make_differ, write_plain
from tiny_runs import typed, write_bart
from transformers import BartForConditionalGeneration

from routing_moe import Routed, RoutedModel, RoutingBartForConditionalGeneration
from routing_moe.answering.queries import Query
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.cli.export import main as export
from routing_moe.model.adapter_files import factors_of, nearest

TEXTS = ["the sky", "grass and snow", "coal"]


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_factors_are_those_of_the_optimum_and_singular_values_those_of_the_product(rank):
    A, B = torch.randn(12, 20).double(), torch.randn(12, 7).double()
    U, S, Vh = torch.linalg.svd(B.T @ A, full_matrices=False)
    new_A, new_B, found = nearest(A, B, rank)
    assert (new_A.shape, new_B.shape) == ((rank, 20), (rank, 7))
    torch.testing.assert_close(new_B.T @ new_A, (U[:, :rank] * S[:rank]) @ Vh[:rank])
    torch.testing.assert_close(found, S)


def mixture(family: str, folder, rank: int = 2):
    """Writes a mixture of three experts; returns it loaded."""
    fields = dict(lora_rank=rank, lora_alpha=6, lora_targets="all", route_source="fixed", task_names=["a"])
    if family == "bart":
        plain = BartForConditionalGeneration.from_pretrained(place := write_bart(folder / "plain"))
        model = RoutingBartForConditionalGeneration.from_bart(plain, 3, expert_kind="lora", **fields)
    else:
        model = RoutedModel.from_backbone(place := write_plain(folder / "plain", family, TEXTS), 3, **fields)
    make_differ(model)
    save_checkpoint(model, load_tokenizer(place, model.config.vocab_size), folder / "mixture")
    return Routed.load(folder / "mixture")


@pytest.mark.parametrize(("family", "starts"), [("bart", [2, 0]), ("t5", [0]), ("llama", None)])
def test_what_the_log_says_is_what_transformers_and_peft_compute(family, starts, tmp_path, capfd):
    routed = mixture(family, tmp_path)
    (tmp_path / "new.tsv").write_text("".join(f"{text}\tx\n" for text in TEXTS))
    flags = dict(checkpoint=tmp_path / "mixture", examples=tmp_path / "new.tsv", steps=1)
    words = [*typed(flags), "--as", "adapter", "--rank", "2", "--output_dir", str(tmp_path / "out")]
    assert export(words) == 0
    log = capfd.readouterr().err
    task = routed.task("new", examples=[(text, "x") for text in TEXTS], steps=1)
    whole = routed.model.to_plain(task.route_LE)
    base = routed.model.to_plain(torch.zeros_like(task.route_LE))
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    cut = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert cut.peft_config["default"].r == 2
    encoded, kl, same = routed.task_file("new", list(map(Query, TEXTS))).encoded, [], 0
    for i in range(len(TEXTS)):
        inputs = encoded.prompts([i], pad_token_id=0)
        inputs |= {} if starts is None else {"decoder_input_ids": torch.tensor([starts])}
        with torch.no_grad():
            p, q = (model(**inputs).logits[0, -1].double().log_softmax(-1) for model in (whole, cut))
        kl.append(float(p.exp() @ (p - q)))
        same += int(p.argmax() == q.argmax())
    found = re.search(r"next token: mean (\S+), largest (\S+); .*: (\d) of 3 equal", log).groups()
    assert list(map(float, found)) == pytest.approx([sum(kl) / 3, max(kl), same], rel=0.05, abs=1e-6)
    assert max(kl) > 1e-4
    exact, merged = whole.state_dict(), cut.merge_and_unload().state_dict()
    lost, total = (
        sum(float((exact[n] - other[n]).square().sum()) for n in exact) for other in (merged, before)
    )
    error = f"relative error of its updates {(lost / total) ** 0.5:.2g}\n"
    assert f"adapter of rank 2 (vLLM: --max-lora-rank 8), {error}" in log


def test_a_rank_that_suffices_changes_nothing(tmp_path):
    model, route_LE = mixture("llama", tmp_path).model, torch.full((3, 3), 1 / 3)
    (exact, none), (large, nothing) = factors_of(model, route_LE), factors_of(model, route_LE, 6)
    assert none == nothing == 0
    for name, pair in exact.items():
        assert all(map(torch.equal, pair, large[name]))


def test_the_log_names_the_rank_for_vllm_and_mistakes_are_one_error(tmp_path, capfd):
    mixture("t5", tmp_path, rank=200)
    (tmp_path / "soft.json").write_text(json.dumps({"new": [[0.2, 0.3, 0.5]] * 4}))
    words = ["--checkpoint", str(tmp_path / "mixture"), "--output_dir", str(tmp_path / "out")]
    words += ["--task", "new", "--task_routes", str(tmp_path / "soft.json")]
    for more, code, message in (
        (["--rank", "2"], 2, "--rank is for adapters: give --as adapter"),
        (["--as", "gguf"], 2, "--as gguf: the base is a t5, must be one of llama, mistral, qwen2, qwen3"),
        (["--as", "adapter"], 0, "adapter of rank 600 (vLLM: too high, --rank 512)"),
    ):
        assert export([*words, *more]) == code
        assert message in capfd.readouterr().err
