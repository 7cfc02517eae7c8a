"""Seconds to answer texts along several routes of a decoder-only model, beside peft with as many adapters.

    python benchmarks/llm_answer.py --model models/smollm2 --dtype float32

Low-rank experts with random weights, and the same weights as peft adapters. Each text has one of the experts:
`routes` answers all texts in mixed batches, `in_turn` expert by expert. `peft_in_turn` sets one adapter after
the other, `peft_mixed` gives `adapter_names` for each text. `soft` mixes all experts, with other weights for
each text, which peft cannot; `plain` is the base. Greedy, with as many new tokens for each text. Prints one
JSON line, with the number of texts that all methods with one expert answer alike.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import MEASURED
from routing_moe import RoutedModel
from routing_moe.config.choices import BASE_DTYPES
from routing_moe.config.flags import AT_LEAST_1, REQUIRED

SPREAD = 0.02  # standard deviation of the experts' factors, so that answers differ


@dataclass(frozen=True, kw_only=True)
class LlmAnswerSettings(measuring.BenchmarkSettings):
    program = "python -m benchmarks.llm_answer"
    model: str = MEASURED(REQUIRED, "decoder-only model, a folder or a hub name")
    dtype: str = MEASURED("float32", "precision of the base", choices=BASE_DTYPES)
    num_experts: int = MEASURED(8, "experts, each a route and an adapter", range=AT_LEAST_1)
    lora_rank: int = MEASURED(8, "rank of an expert", range=AT_LEAST_1)
    texts: int = MEASURED(64, "texts, which take turns among the experts", range=AT_LEAST_1)
    batch_size: int = MEASURED(64, "most texts of a batch", range=AT_LEAST_1)
    length: int = MEASURED(48, "tokens of a text", range=AT_LEAST_1)
    new_tokens: int = MEASURED(16, "tokens of an answer", range=AT_LEAST_1)
    rounds: int = MEASURED(3, "rounds; each runs all", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, LlmAnswerSettings, argv, __doc__)


def run(settings: LlmAnswerSettings) -> dict:
    E, device, plain = settings.num_experts, settings.device, measuring.named_model(settings).eval()
    names = [f"expert{e}" for e in range(E)]
    fields = dict(lora_rank=settings.lora_rank, lora_targets="all", task_names=names, route_source="fixed")
    routed = RoutedModel.from_backbone(plain, E, **fields).eval()
    adapted = with_adapters(measuring.named_model(settings).eval(), routed, settings.model)
    texts_NS = torch.randint(3, plain.config.vocab_size, (settings.texts, settings.length), device=device)
    which_N = torch.arange(settings.texts, device=device) % E
    soft_NLE = torch.rand(settings.texts, routed.config.num_layers, E, device=device).softmax(dim=-1)
    mine = [torch.where(which_N == e)[0] for e in range(E)]
    batches = torch.arange(settings.texts, device=device).split(settings.batch_size)
    in_turn = [batch for of_expert in mine for batch in of_expert.split(settings.batch_size)]
    exactly = dict(max_new_tokens=settings.new_tokens, min_new_tokens=settings.new_tokens, do_sample=False)
    answers = {}

    def answering(name: str, model, parts, of_batch) -> None:
        """Answers all texts; decoder-only models of transformers return the text with its answer."""
        answers[name] = torch.empty(settings.texts, settings.new_tokens, dtype=torch.long, device=device)
        for i in parts:
            ids = texts_NS[i]
            tokens = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), **exactly, **of_batch(i)
            )
            answers[name][i] = tokens[:, -settings.new_tokens :]

    def adapter_of(i):
        adapted.set_adapter(names[which_N[i[0]]])
        return {}

    one_hot_NLE = torch.eye(E, device=device)[which_N][:, None].expand_as(soft_NLE)
    calls = {
        "routes": (routed, batches, lambda i: {"routes": one_hot_NLE[i]}),
        "in_turn": (routed, in_turn, lambda i: {"routes": one_hot_NLE[i]}),
        "soft": (routed, batches, lambda i: {"routes": soft_NLE[i]}),
        "peft_in_turn": (adapted, in_turn, adapter_of),
        "peft_mixed": (adapted, batches, lambda i: {"adapter_names": [names[e] for e in which_N[i]]}),
        "plain": (measuring.named_model(settings).eval(), batches, lambda i: {}),
    }
    timed = {
        name: measuring.timed(lambda name=name, call=call: answering(name, *call), device)
        for name, call in calls.items()
    }
    variants = measuring.measure(timed, settings.rounds)
    pairs = [(slow, "routes") for slow in ("peft_in_turn", "peft_mixed", "in_turn", "plain")]
    alike = [answers[name] for name in ("in_turn", "peft_in_turn", "peft_mixed")]
    equal_N = torch.stack([(other == answers["routes"]).all(dim=1) for other in alike]).all(dim=0)
    return {
        "variants": variants,
        "ratios": measuring.ratios(variants, [*pairs, ("soft", "plain")], {"": "median_s"}),
        "equal_answers": int(equal_N.sum()),
        "different_from_plain": int((answers["routes"] != answers["plain"]).any(dim=1).sum()),
    }


@torch.no_grad()
def with_adapters(plain, routed: RoutedModel, base: str) -> PeftModel:
    """Returns the plain model with an adapter of peft for each expert, whose weights are drawn here."""
    for layer in routed.lora_layers:
        for linear in layer.linear_maps.values():
            linear.lora_B.normal_(std=SPREAD)
    adapted = None
    for e, name in enumerate(routed.config.task_names):
        route_LE = torch.eye(routed.config.num_experts)[e].expand(routed.config.num_layers, -1)
        with tempfile.TemporaryDirectory() as folder:
            routed.to_adapter(route_LE, folder, base)
            if adapted is None:
                adapted = PeftModel.from_pretrained(plain, folder, adapter_name=name)
            else:
                adapted.load_adapter(folder, adapter_name=name)
    return adapted.eval()


if __name__ == "__main__":
    sys.exit(main())
