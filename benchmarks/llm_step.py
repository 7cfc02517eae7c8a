"""Seconds and memory of a training step of a decoder-only model with low-rank experts, beside peft.

    python benchmarks/llm_step.py
    python benchmarks/llm_step.py --model models/smollm2 --dtype float32

Without --model: random weights of the shape of Qwen2.5-0.5B. All variants use gradient checkpointing. On a
CPU without instructions for bfloat16, products of its backward pass take minutes: --dtype float32, or fewer
--layers.
`experts` is a step of `routing-moe train`: a router mixes low-rank experts, each example has another route.
`one_hot`: each example has one of the experts, `one_expert`: there is only one. `peft` is one adapter of the
same rank on the same maps, trained as its documentation says. `peft_projected` projects only the states that
predict a label, as experts do. Each has a process of its own. Memory is the peak above the loaded model: of
the resident set, or allocated on a GPU. Prints one JSON line.
"""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import MEASURED
from dataloader.encoded import EncodedExamples, Ragged
from routing_moe import RoutedModel
from routing_moe.config.choices import BASE_DTYPES
from routing_moe.config.flags import AT_LEAST_1
from routing_moe.config.shared import StepSettings
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.memory import peak_memory_gb
from routing_moe.model.loss import projected_at, with_targets
from routing_moe.optim.layers import checkpoint_layers
from routing_moe.optim.step import Stepper

SIZES = {
    "tiny": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, vocab_size=200)
    | dict(num_attention_heads=4, num_key_value_heads=2),
    "0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, vocab_size=151936)
    | dict(num_attention_heads=14, num_key_value_heads=2),
}
OURS, PEFT = ("one_expert", "one_hot", "experts"), ("peft", "peft_projected")
TASKS = [f"task{i}" for i in range(16)]


@dataclass(frozen=True, kw_only=True)
class LlmStepSettings(measuring.BenchmarkSettings):
    program = "python -m benchmarks.llm_step"
    model: str | None = MEASURED(None, "decoder-only model, a folder or a hub name (default: random weights)")
    model_size: str = MEASURED("0.5b", "size of the model", choices=SIZES)
    layers: int | None = MEASURED(None, "layers (default: those of the size)", range=AT_LEAST_1)
    dtype: str = MEASURED("bfloat16", "precision of the base", choices=BASE_DTYPES)
    num_experts: int = MEASURED(8, "experts per layer", range=AT_LEAST_1)
    lora_rank: int = MEASURED(8, "rank of an expert, and of the adapter of peft", range=AT_LEAST_1)
    batch_size: int = MEASURED(4, "examples of a step", range=AT_LEAST_1)
    length: int = MEASURED(128, "tokens of an input with its answer", range=AT_LEAST_1)
    answer_length: int = MEASURED(16, "tokens of an answer, which have labels", range=AT_LEAST_1)
    steps: int = MEASURED(3, "measured steps, after one that is not", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, LlmStepSettings, argv, __doc__)


def run(settings: LlmStepSettings) -> dict:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as processes:  # raises if one is killed
        variants = {name: processes.submit(measured, name, settings).result() for name in (*OURS, *PEFT)}
    pairs = list(product(OURS, PEFT))
    fields = {"_median_s": "median_s", "_memory_gb": "memory_gb"}
    return {"variants": variants, "ratios": measuring.ratios(variants, pairs, fields)}


def measured(variant: str, settings: LlmStepSettings) -> dict[str, float]:
    """Returns the seconds of a step, and the memory of training in GB."""
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    torch.manual_seed(settings.seed)
    model = load_model(settings)
    examples = random_examples(settings, model.config.vocab_size)
    if settings.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak of the resident set to its current size
    loaded = peak_memory_gb()
    step = (step_of_experts if variant in OURS else step_of_peft)(model, examples, settings, variant)
    numbers = count()
    timed = measuring.timed(lambda: step(next(numbers)), settings.device)
    times = measuring.measure({variant: timed}, settings.steps)[variant]
    return times | {"memory_gb": peak_memory_gb() - loaded}


def load_model(settings: LlmStepSettings):
    dtype = getattr(torch, settings.dtype)
    if settings.model:
        return AutoModelForCausalLM.from_pretrained(settings.model, dtype=dtype).to(settings.device)
    config = Qwen2Config(**SIZES[settings.model_size], tie_word_embeddings=True)
    config.num_hidden_layers = settings.layers or config.num_hidden_layers
    config.layer_types = config.layer_types[: config.num_hidden_layers]
    return AutoModelForCausalLM.from_config(config, dtype=dtype).to(settings.device)


def random_examples(settings: LlmStepSettings, vocab_size: int) -> EncodedExamples:
    B, T = settings.batch_size, settings.answer_length
    draw = np.random.default_rng(settings.seed)
    tokens_BS = draw.integers(3, vocab_size, (B, settings.length), dtype=np.int32)
    parts = np.split(tokens_BS, [settings.length - T], axis=1)
    rows = [Ragged(part.ravel(), np.arange(B + 1) * part.shape[1]) for part in parts]
    return EncodedExamples(*rows, np.arange(B + 1), np.arange(B) % len(TASKS), decoder_only=True)


# ---- steps


def step_of_experts(model, examples: EncodedExamples, settings: LlmStepSettings, variant: str) -> Callable:
    """Returns the optimizer step of all commands. Examples take turns among the tasks."""
    fields = dict(lora_rank=settings.lora_rank, lora_targets="all", task_names=TASKS)
    fields["num_experts"] = E = 1 if variant == "one_expert" else settings.num_experts
    if variant == "one_hot":
        fields["route_source"] = "fixed"
    routed = RoutedModel.from_backbone(model, **fields, router_mode="softmax").train()
    if variant == "one_hot":
        one_hot_NE = torch.eye(E)[torch.arange(len(TASKS)) % E]
        routed.task_routes.copy_(one_hot_NE[:, None].expand_as(routed.task_routes))
    steps = StepSettings(learning_rate=1e-3, router_lr=1e-3, task_model_lr=1e-2, gradient_checkpointing=True,
                         train_batch_size=settings.batch_size, max_tokens_per_micro_batch=0)  # fmt: skip
    return Stepper(routed, examples, steps, make_accelerator("no")).step


def step_of_peft(model, examples: EncodedExamples, settings: LlmStepSettings, variant: str) -> Callable:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=settings.lora_rank, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora).train()
    adapted.enable_input_require_grads()  # which checkpointing of a frozen model needs
    checkpoint_layers(adapted.base_model.model)
    optimizer = torch.optim.AdamW((p for p in adapted.parameters() if p.requires_grad), lr=1e-3, fused=True)
    batch = examples.collate(range(len(examples)), pad_token_id=0)
    batch = {name: t.to(model.device) for name, t in batch.items() if name != "task_ids"}
    labels_BS = batch.pop("labels")

    def step(number: int) -> None:
        if variant == "peft":
            loss = adapted(**batch, labels=labels_BS, use_cache=False).loss
        else:
            predicted = with_targets(model, batch, labels_BS)[1].flatten()
            places = (predicted != -100).nonzero()[:, 0]
            with projected_at(model, places):
                logits_KV = adapted(**batch, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits_KV.float(), predicted[places])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    sys.exit(main())
