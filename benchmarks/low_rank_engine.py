"""Processor time of low-rank experts in any model, beside peft's adapters with the same weights.

    python benchmarks/low_rank_engine.py --repeats 15

Ratios are over the plain model: its forward pass, or its step (forward and backward) with all weights
trained. Weights are random, nothing is downloaded; peft is an extra. Prints one JSON line; README.md explains
it.
"""

import copy
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, Qwen2Config, T5Config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import MEASURED, ratio
from routing_moe import RoutedModel
from routing_moe.config.flags import AT_LEAST_1, Range
from routing_moe.model.loading import auto_class

B, S, T, RANK, VOCAB = 16, 48, 24, 8, 2000
TOKENS = dict(vocab_size=VOCAB, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
QWEN2 = dict(hidden_size=256, intermediate_size=768, num_attention_heads=8, num_key_value_heads=4)
T5 = dict(d_model=256, d_ff=1024, num_heads=8, d_kv=32, dropout_rate=0.0)
BACKBONES = {
    "qwen2": Qwen2Config(**QWEN2, **TOKENS, num_hidden_layers=4, tie_word_embeddings=True),
    "t5": T5Config(**T5, **TOKENS, num_layers=2),
}


@dataclass(frozen=True, kw_only=True)
class Settings(measuring.Settings):
    program = "python -m benchmarks.low_rank_engine"
    experts: tuple[int, ...] = MEASURED(
        (4, 16), "experts per layer", range=Range(lambda value: 2 <= value <= B, f"from 2 to {B}")
    )
    repeats: int = MEASURED(5, "rounds; each runs everything once", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, Settings, argv, __doc__)


def run(settings: Settings) -> dict:
    runs, ratios = {}, {}
    for backbone in BACKBONES:
        plain, inputs, labels = plain_model_and_batch(backbone)
        calls = {f"plain_{name}": call for name, call in runs_of_plain(plain, inputs, labels).items()}
        for E in settings.experts:
            of_experts = runs_of_experts(plain, inputs, labels, E).items()
            calls |= {f"{E}_{name}": call for name, call in of_experts}
        runs |= {f"{backbone}_{name}": timed(call) for name, call in calls.items()}
    variants = measuring.measure(runs, settings.repeats)
    for name in runs:  # over the plain model's forward pass or step
        plain_run = f"{name.partition('_')[0]}_plain_{name.rpartition('_')[2]}"
        ratios[name] = ratio(variants, name, plain_run, "min_s")
    return {"variants": variants, "ratios": ratios}


def timed(run: Callable) -> Callable[[], dict[str, float]]:
    """Returns a function that runs this and returns its seconds of processor time."""

    def call() -> dict[str, float]:
        start = time.process_time()
        run()
        return {"s": time.process_time() - start}

    return call


def plain_model_and_batch(backbone: str) -> tuple[PreTrainedModel, dict[str, Tensor], Tensor]:
    """Returns a plain model, its inputs and labels: those of a decoder-only model are its last T inputs."""
    config = BACKBONES[backbone]
    plain = auto_class(config).from_config(config)
    ids_BS = torch.randint(2, VOCAB, (B, S))
    inputs = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}
    if not config.is_encoder_decoder:
        return plain, inputs, ids_BS.masked_fill(torch.arange(S) < S - T, -100)
    labels_BT = torch.randint(2, VOCAB, (B, T))
    inputs["decoder_input_ids"] = plain.prepare_decoder_input_ids_from_labels(labels_BT)
    return plain, inputs, labels_BT


def runs_of_plain(plain: PreTrainedModel, inputs: dict, labels: Tensor) -> dict[str, Callable]:
    """Returns {name: function} of a plain model."""

    def step() -> None:
        plain.zero_grad()
        plain(**inputs, labels=labels).loss.backward()

    return {"forward": torch.no_grad()(lambda: plain(**inputs)), "step": step}


def runs_of_experts(plain: PreTrainedModel, inputs: dict, labels: Tensor, E: int) -> dict[str, Callable]:
    """Returns {name: function} of a routed model and of peft with the same weights, whose logits are equal.

    Example b has the route of expert b mod E, or a soft route of its own.
    """
    fields = dict(lora_alpha=2 * RANK, label_smoothing=0.0)
    model = RoutedModel.from_backbone(copy.deepcopy(plain), E, RANK, "all", **fields).train()
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.02)
    of_peft, L, experts_B = with_peft(plain, model), model.config.num_layers, torch.arange(B) % E
    one_hot_BLE = F.one_hot(experts_B, E).float()[:, None].repeat(1, L, 1)
    soft_BLE, names = torch.randn(B, L, E).softmax(-1), [f"e{e}" for e in experts_B]

    def step(routes_BLE: Tensor) -> None:
        model.zero_grad()
        model(**inputs, labels=labels, routes=routes_BLE).loss.backward()

    def step_of_peft() -> None:  # in training, it runs one adapter at a time
        of_peft.zero_grad()
        for e in range(E):
            own = {name: tensor[experts_B == e] for name, tensor in (inputs | {"labels": labels}).items()}
            of_peft.set_adapter(f"e{e}")
            of_peft(**own).loss.backward()

    forwards = {
        "one_hot_forward": lambda: model(**inputs, routes=one_hot_BLE),
        "soft_forward": lambda: model(**inputs, routes=soft_BLE),
        "peft_one_hot_forward": lambda: of_peft(**inputs, adapter_names=names),
    }
    forwards = {name: torch.no_grad()(forward) for name, forward in forwards.items()}
    logits = [forwards[name]().logits for name in ("one_hot_forward", "peft_one_hot_forward")]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    return forwards | {
        "one_hot_step": lambda: step(one_hot_BLE),
        "soft_step": lambda: step(soft_BLE.clone().requires_grad_()),
        "peft_one_hot_step": step_of_peft,
    }


def with_peft(plain: PreTrainedModel, model: RoutedModel) -> PeftModel:
    """Returns a copy of the plain model with a routed model's experts as peft's adapters e0, e1, ..."""
    E, L = model.config.num_experts, model.config.num_layers
    with tempfile.TemporaryDirectory() as folder:
        for e, one_hot_E in enumerate(torch.eye(E)):
            model.to_adapter(one_hot_E.expand(L, E), f"{folder}/e{e}", base="plain")
        adapted = PeftModel.from_pretrained(copy.deepcopy(plain), f"{folder}/e0", adapter_name="e0")
        for e in range(1, E):
            adapted.load_adapter(f"{folder}/e{e}", f"e{e}")
    return adapted.eval()  # there is no dropout; in training mode peft refuses mixed batches


if __name__ == "__main__":
    sys.exit(main())
