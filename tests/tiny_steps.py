"""Shared by the tests of single steps and of evaluation: settings, encoded examples, files of them, fakes."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_runs import typed
from torch.nn import functional as F
from transformers.models.bart.modeling_bart import shift_tokens_right

from dataloader import Example
from dataloader.encoded import EncodedExamples, EncodedOptions, Ragged
from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings, train_settings
from routing_moe.evaluation.scored_files import TaskFile


def settings_with(**flags):
    """Returns the settings of the steps of a short run without clipping; flag=value changes one."""
    chosen = dict(output_dir="unused", train_batch_size=6, gradient_accumulation_steps=1, total_steps=20)
    chosen |= dict(warmup_ratio=0, learning_rate=0.01, router_lr=0.02, task_model_lr=0.03)
    words = typed(chosen | dict(max_grad_norm="inf", seed=1) | flags)
    return train_settings(parse(TrainSettings, words)).step_settings


def ragged(rows) -> Ragged:
    return Ragged(np.concatenate(rows).astype(np.int32), np.cumsum([0] + [len(row) for row in rows]))


def encoded(sources, outputs, task_ids, n_outputs=None) -> EncodedExamples:
    first = np.cumsum([0, *(n_outputs or [1] * len(sources))])
    return EncodedExamples(ragged(sources), ragged(outputs), first, np.array(task_ids))


def parameters(stepper) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in stepper.model.named_parameters()}


class OneOfSeveral:
    """A fake accelerator of one process of several.

    summed: records (tensor, reduction) of what it would sum with the others. accelerator: does the rest.
    """

    is_local_main_process = False  # no progress bars

    def __init__(self, process_index: int, num_processes: int, accelerator=None):
        self.accelerator = accelerator or SimpleNamespace(device="cpu", autocast=nullcontext)
        self.process_index, self.num_processes, self.summed = process_index, num_processes, []
        self.is_main_process = process_index == 0

    def __getattr__(self, name):
        return getattr(self.accelerator, name)

    def reduce(self, tensor, reduction):
        self.summed.append((tensor, reduction))
        return tensor


def recorded(stepper, gradients: list):
    """Returns the stepper, which now appends the gradients that its optimizer gets to `gradients`."""
    step = stepper.optimizer.step

    def step_and_note():
        gradients.append({name: p.grad.clone() for name, p in stepper.model.named_parameters()})
        step()

    stepper.optimizer.step = step_and_note
    return stepper


def merged_one_by_one(layer, weights_GE) -> list[dict[str, torch.Tensor]]:
    """Returns the merged parameters of a `RoutedLayer`, each sum alone: the specification."""
    named = [dict(expert.named_parameters()) for expert in layer.experts]
    return [
        {name: sum(w * own[name] for w, own in zip(weights_E, named, strict=True)) for name in named[0]}
        for weights_E in weights_GE
    ]


def slow_losses(model, examples, routes_KLE) -> np.ndarray:
    """Returns the losses (R, K), one example and one route at a time."""
    rows = range(len(examples))
    return np.array([[slow_loss(model, examples, i, route_LE) for route_LE in routes_KLE] for i in rows])


def slow_loss(model, examples, i: int, route_LE) -> float:
    batch = examples.collate([i], pad_token_id=model.config.pad_token_id)
    labels = batch.pop("labels")
    del batch["task_ids"]
    start = model.config.decoder_start_token_id
    inputs = shift_tokens_right(labels, model.config.pad_token_id, start)
    with torch.no_grad():
        logits = model(**batch, decoder_input_ids=inputs, routes=route_LE[None]).logits
    return float(F.cross_entropy(logits[0], labels[0], reduction="sum"))


# ---- evaluation

LONGEST = 9  # tokens of an answer
# Models with every kind of routes.
ROUTES = {
    "one-hot": dict(router_mode="gumbel_softmax_st"),
    "soft": dict(router_mode="softmax"),
    "average": dict(route_source="average"),
    "merged parameters": dict(router_mode="softmax", expert_mixing="parameters"),
    "random for each example": dict(route_source="random"),
    "one expert": dict(num_experts=1),
    "a vanilla layer": dict(router_mode="softmax", decoder_vanilla_layers=[0]),
}


class Words:
    """A tokenizer whose texts are the ids of the tokens, without special ones."""

    eos_token_id = 2

    def batch_decode(self, sequences, **kwargs):
        return [" ".join(str(int(i)) for i in row if i > 2) for row in sequences]


def accelerator(**precision) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, **precision)


def file_of(task: str, n: int, n_options: int = 0) -> TaskFile:
    """Returns a file of n examples with inputs of 3 to 20 and answers of 3 to LONGEST tokens.

    n_options: options of every second example.
    """
    draw = np.random.default_rng(n)

    def text(longest: int) -> list[int]:
        return [0, *draw.integers(4, 60, draw.integers(1, longest - 1)), 2]

    inputs = encoded([text(20) for _ in range(n)], [text(LONGEST) for _ in range(n)], [0] * n)
    sample = f"{task}_{n}_13"
    examples = [Example(task, sample, f"input {i}", (f"{i}",)) for i in range(n)]
    if not n_options:
        return TaskFile(task, sample, "dev", "EM", examples, inputs)
    own = [np.arange(n_options) if i % 2 else np.zeros(0, dtype=np.int64) for i in range(n)]
    words = [tuple(f"option {row}" for row in rows) for rows in own]
    options = EncodedOptions(ragged([text(LONGEST) for _ in range(n_options)]), own)
    return TaskFile(task, sample, "dev", "ACC", examples, inputs, "field", words, options)
