"""Time of R trainings of one architecture: one after the other, and as one model with stacked parameters.

    python benchmarks/stacked_grid.py                    8 learning rates, batch sizes 2, 4 and 8
    python benchmarks/stacked_grid.py --rates 3 --bsz_list 4

The trainings are configurations of a grid with equal sample and batch size, so they see the same batches.
`alone`: `Stepper`, one configuration after the other. `stacked`: every parameter tensor has R copies, a batch
contains the examples of all configurations, and products are batched products. Clipping and AdamW are those
of each configuration. Times are CPU seconds. No command stacks: docs/results/speed.md says why.
"""

import argparse
import copy
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.bart.modeling_bart import BartLearnedPositionalEmbedding, shift_tokens_right

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.comparing import ratio
from benchmarks.finetune_grid import TASK, write_task
from routing_moe.config.finetune import Configuration, finetune_settings
from routing_moe.finetuning.checks import check_finetuning
from routing_moe.finetuning.trial import TrialRunner
from routing_moe.io.accelerator import make_accelerator
from routing_moe.optim.step import Stepper, linear_warmup_decay
from task.skill_gym import TINY_BART

SAMPLE = "100"
RATES = [1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 2e-3, 3e-3]


@dataclass(frozen=True)
class Settings:
    """One field per flag."""

    rates: int
    bsz_list: list[int]
    steps: int
    rounds: int
    threads: int
    seed: int
    device: str = "cpu"


# ---- stacked modules: R configurations, inputs of R * B examples, those of a configuration together


class StackedProduct(torch.autograd.Function):
    """x @ weight^T + bias for (R, n, in), (R, out, in), (R, out); the gradients are contiguous."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        transposed = weight.transpose(1, 2)
        return torch.baddbmm(bias[:, None], x, transposed) if ctx.has_bias else torch.bmm(x, transposed)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        bias = grad.sum(1) if ctx.has_bias else None
        return torch.bmm(grad, weight), torch.bmm(grad.transpose(1, 2), x), bias


class Stacked(nn.Module):
    """R copies of a linear layer, a layer norm or an embedding."""

    def __init__(self, of: nn.Module, weight: nn.Parameter, bias: nn.Parameter | None):
        super().__init__()
        self.weight, self.bias = weight, bias
        self.eps, self.scale = getattr(of, "eps", None), getattr(of, "embed_scale", 1.0)


class StackedLinear(Stacked):
    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(self.weight), -1, x.shape[-1])
        return StackedProduct.apply(rows, self.weight, self.bias).view(*x.shape[:-1], -1)


class StackedNorm(Stacked):
    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:], eps=self.eps).view(len(self.weight), -1, x.shape[-1])
        return torch.addcmul(self.bias[:, None], normed, self.weight[:, None]).view(x.shape)


class StackedEmbedding(Stacked):
    def forward(self, ids: Tensor) -> Tensor:
        R, V, D = self.weight.shape
        first = torch.arange(R).repeat_interleave(len(ids) // R)[:, None] * V
        return F.embedding(ids + first, self.weight.view(R * V, D)) * self.scale


class StackedPositions(Stacked):
    def forward(self, ids: Tensor, cache_length: int = 0, position_ids: Tensor | None = None) -> Tensor:
        B, T = len(ids) // len(self.weight), ids.shape[1]
        rows = self.weight[:, 2 + cache_length : 2 + cache_length + T]
        return rows[:, None].expand(-1, B, -1, -1).reshape(len(ids), T, -1)


KINDS = {
    nn.Linear: StackedLinear,
    nn.LayerNorm: StackedNorm,
    BartLearnedPositionalEmbedding: StackedPositions,
    nn.Embedding: StackedEmbedding,
}


def stacked(bart, R: int):
    """Returns a plain BART with R copies of every parameter, (R, ...) each."""
    made: dict[int, nn.Parameter] = {}

    def copies(parameter):
        if parameter is None:
            return None
        return made.setdefault(id(parameter), nn.Parameter(torch.stack([parameter.detach()] * R)))

    def replace(module):
        for name, child in list(module.named_children()):
            kind = next((kind for kind in KINDS if isinstance(child, kind)), None)
            if kind:
                bias = copies(getattr(child, "bias", None))
                setattr(module, name, KINDS[kind](child, copies(child.weight), bias))
            else:
                replace(child)
        return module

    return replace(copy.deepcopy(bart))


class StackedStepper:
    """Steps of R configurations with equal batches."""

    def __init__(self, stepper: Stepper, recipes: list):
        self.one, self.recipes, config = stepper, recipes, stepper.model.config
        self.bart = stacked(stepper.model.to_bart(torch.ones(config.num_layers, 1)), len(recipes)).train()
        self.parameters = list(self.bart.parameters())
        # (parameters, AdamW's averages and step counts) of each configuration, with and without weight decay.
        self.groups = []
        for decays in (True, False):
            own = [p for p in self.parameters if (p.ndim > 2) == decays]
            tensors = [p.detach() for p in own], *([torch.zeros_like(p) for p in own] for _ in range(2))
            counts = [torch.zeros(()) for _ in own]
            states = [(*([t[r] for t in ts] for ts in tensors), counts) for r in range(len(recipes))]
            self.groups.append((decays, own, states))

    def step(self, step: int) -> Tensor:
        """Runs one step of every configuration; returns their losses (R,)."""
        indices, choices, groups = self.one.split(step)
        losses_R = sum(self._backward(indices[group], choices[group]) for group in groups)
        self._clip()
        self._update(step)
        return losses_R

    def _backward(self, indices, choices) -> Tensor:
        config, R = self.one.model.config, len(self.recipes)
        batch = self.one.examples.collate(indices, choices, pad_token_id=config.pad_token_id)
        del batch["task_ids"]
        batch = {name: tensor.repeat(R, 1) for name, tensor in batch.items()}
        labels = batch.pop("labels")
        decoded = shift_tokens_right(labels, config.pad_token_id, config.decoder_start_token_id)
        hidden = self.bart.model(**batch, decoder_input_ids=decoded, use_cache=False)[0]
        logits = self.bart.lm_head(hidden[labels != -100])
        smoothing = config.label_smoothing
        losses = F.cross_entropy(logits, labels[labels != -100], reduction="none", label_smoothing=smoothing)
        losses_R = losses.view(R, -1).sum(1)
        losses_R.sum().backward()
        return losses_R.detach()

    def _clip(self) -> None:
        norms = [torch.linalg.vector_norm(p.grad.view(len(p), -1), dim=1) for p in self.parameters]
        limits_R = torch.tensor([recipe.max_grad_norm for recipe in self.recipes])
        factors_R = (limits_R / (torch.linalg.vector_norm(torch.stack(norms), dim=0) + 1e-6)).clamp(max=1)
        for p in self.parameters:
            p.grad.mul_(factors_R.view(-1, *[1] * (p.ndim - 1)))

    def _update(self, step: int) -> None:
        for decays, own, states in self.groups:
            gradients = [p.grad.unbind(0) for p in own]
            torch._foreach_add_(states[0][-1], 1)
            for r, (recipe, (parameters, first, second, counts)) in enumerate(
                zip(self.recipes, states, strict=True)
            ):
                factor = linear_warmup_decay(step, recipe.warmup_steps, recipe.total_steps)
                torch._fused_adamw_(
                    parameters,
                    [gradient[r] for gradient in gradients],
                    first,
                    second,
                    max_exp_avg_sqs=[],
                    state_steps=counts,
                    amsgrad=False,
                    lr=recipe.learning_rate * factor,
                    beta1=0.9,
                    beta2=0.999,
                    weight_decay=recipe.weight_decay if decays else 0.0,
                    eps=recipe.adam_epsilon,
                    maximize=False,
                )
        for p in self.parameters:
            p.grad = None


# ---- measuring


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(argv)
    load = os.getloadavg()[0]
    measuring.prepare(settings)
    with tempfile.TemporaryDirectory() as folder:
        runner = trial_runner(Path(folder), settings)
        variants, differences = {}, {}
        for bsz in settings.bsz_list:
            found, differences[f"bsz{bsz}"] = steps(runner, settings, bsz)
            variants |= {f"{name}_bsz{bsz}": values for name, values in found.items()}
        variants |= {f"{name}_dev": values for name, values in decoding(runner, settings).items()}
    works = [f"bsz{bsz}" for bsz in settings.bsz_list] + ["dev"]
    ratios = {work: ratio(variants, f"alone_{work}", f"stacked_{work}") for work in works}
    fields = dict(variants=variants, ratios=ratios, largest_loss_difference=differences)
    measuring.print_report("stacked_grid", settings, load, **fields)


def trial_runner(folder: Path, settings: Settings) -> TrialRunner:
    write_task(folder / "gym" / TASK, (SAMPLE,), settings.seed)
    given = dict(
        do_train=True, quiet=True, task_dir=str(folder / "gym" / TASK), output_dir=str(folder / "grid"),
        learning_rate_list=RATES[: settings.rates], bsz_list=settings.bsz_list, warmup_steps=0,
        model=str(TINY_BART), max_input_length=128, max_output_length=16,
    )  # fmt: skip
    return TrialRunner(check_finetuning(finetune_settings(given), set(given)).settings, None)


def steps(runner: TrialRunner, settings: Settings, bsz: int) -> tuple[dict, float]:
    """Returns CPU seconds per step of all configurations, and the largest relative difference of a loss."""
    (sample,) = runner.settings.samples
    model = runner.starts.of(sample, None)[0]
    examples, accelerator = runner.file(sample, "train").encoded, make_accelerator(None)
    recipes = [
        runner.settings.recipe(Configuration(sample, lr, bsz), 1.0)
        for lr in runner.settings.learning_rate_list
    ]
    alone = [Stepper(copy.deepcopy(model), examples, recipe, accelerator) for recipe in recipes]
    together = StackedStepper(Stepper(model, examples, recipes[0], accelerator), recipes)
    losses: dict[str, list[Tensor]] = {"alone": [], "stacked": []}

    def run_alone(numbers):
        rows = [[stepper.step(step)["loss"] for step in numbers] for stepper in alone]
        losses["alone"].append(torch.tensor(rows))

    def run_stacked(numbers):
        losses["stacked"].append(torch.stack([together.step(step) for step in numbers], dim=1))

    runs = {"alone": by_blocks(run_alone, settings.steps), "stacked": by_blocks(run_stacked, settings.steps)}
    found = measuring.measure(runs, settings.rounds, {})
    first, second = losses["alone"][0], losses["stacked"][0]  # of the warm-up round
    return found, float(((first - second) / first).abs().max())


def by_blocks(run, n: int):
    """Returns a function that runs the next n steps and returns their mean CPU seconds."""
    position = 0

    def block() -> dict[str, float]:
        nonlocal position
        start = time.process_time()
        run(range(position, position + n))
        position += n
        return {"s": (time.process_time() - start) / n}

    return block


def decoding(runner: TrialRunner, settings: Settings) -> dict:
    """Returns CPU seconds to decode the dev file greedily with all configurations' models.

    Raises RuntimeError if their tokens differ.
    """
    (sample,), R = runner.settings.samples, settings.rates
    model, examples = runner.starts.of(sample, None)[0].eval(), runner.file(sample, "dev").encoded
    plain = model.to_bart(torch.ones(model.config.num_layers, 1))
    together = stacked(plain, R).eval()
    batch = examples.collate(np.arange(len(examples)), pad_token_id=model.config.pad_token_id)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    repeated = {name: tensor.repeat(R, 1) for name, tensor in inputs.items()}
    limits, found = dict(num_beams=1, do_sample=False, max_length=17), {}

    def run_alone(_):
        found["alone"] = torch.cat([plain.generate(**inputs, **limits) for _ in range(R)])

    def run_stacked(_):
        found["stacked"] = together.generate(**repeated, **limits)

    runs = {"alone": by_blocks(run_alone, 1), "stacked": by_blocks(run_stacked, 1)}
    measured = measuring.measure(runs, settings.rounds, {})
    if not torch.equal(found["alone"], found["stacked"]):
        raise RuntimeError("the stacked model decodes other tokens")
    return measured


def parse_settings(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stacked_grid",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--rates", type=int, choices=range(1, len(RATES) + 1), default=8, help="configurations (default 8)")
    add("--bsz_list", nargs="+", type=int, default=[2, 4, 8], help="batch sizes (default 2 4 8)")
    add("--steps", type=int, default=4, help="steps per round (default 4)")
    add("--rounds", type=int, default=5, help="runs of each variant, in turns (default 5)")
    add("--threads", type=int, default=1, help="CPU threads; 0: torch's choice (default 1)")
    add("--seed", type=int, default=0)
    return Settings(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
