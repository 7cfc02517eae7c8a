"""`export --rank`: the nearest updates of a rank, their error, and what they change in the next tokens."""

import re

import pytest
import torch
from peft import PeftModel
from tiny_backbones import make_differ, write_plain
from tiny_runs import typed, write_bart

from routing_moe import Routed, RoutedModel
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


def mixture(family: str, folder):
    """Writes a mixture of three experts of rank 2; returns it loaded."""
    plain = write_bart(folder / "plain") if family == "bart" else write_plain(folder / "plain", family, TEXTS)
    sizes = dict(
        lora_rank=2, lora_alpha=6, lora_targets="all", route_source="fixed", task_names=["a", "b", "c"]
    )
    model = RoutedModel.from_backbone(plain, 3, **sizes)
    make_differ(model)
    save_checkpoint(model, load_tokenizer(plain, model.config.vocab_size), folder / "mixture")
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
        sum(float((exact[name] - other[name]).square().sum()) for name in exact) for other in (merged, before)
    )
    error = f"relative error of its updates {(lost / total) ** 0.5:.2g}\n"
    assert f"adapter of rank 2 (vLLM: --max-lora-rank 8), {error}" in log


def test_a_rank_that_suffices_changes_nothing_and_512_is_the_highest_of_vllm(tmp_path, capfd):
    model = mixture("llama", tmp_path).model
    route_LE = torch.full((3, 3), 1 / 3)
    exact, large = factors_of(model, route_LE), factors_of(model, route_LE, 6)
    assert exact[1] == large[1] == 0
    for name, pair in exact[0].items():
        assert all(map(torch.equal, pair, large[0][name]))
    words = ["--checkpoint", str(tmp_path / "mixture"), "--output_dir", str(tmp_path / "out"), "--rank", "2"]
    assert export([*words, "--task", "a"]) == 2
    assert "--rank is for adapters" in capfd.readouterr().err
    assert export([*words, "--adapters"]) == 0
    assert "rank 2" in capfd.readouterr().err
