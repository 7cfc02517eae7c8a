"""Gradients of log p(answer | input) as task vectors: their mean squares (Fisher information), or their mean.

The diagonal empirical Fisher information: TASK2VEC (Achille et al. 2019, arXiv 1902.03545), Vu et al. (2020,
arXiv 2005.00770). Projected gradients: LESS (Xia et al. 2024, arXiv 2402.04333).
"""

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from dataloader.batching import micro_batches
from dataloader.encoded import IGNORED_LABEL, EncodedExamples
from dataloader.errors import InputError
from routing_moe.io.precision import chosen_precision
from routing_moe.model.base import is_of_base
from routing_moe.model.injection import stacks
from routing_moe.model.lora import is_of_expert
from routing_moe.model.loss import with_targets
from routing_moe.task_choice.choice import Resolver
from routing_moe.task_choice.choose import Chooser
from task.task_emb.methods import BartMethod, TrainingMethod

MAX_GRADIENT_NUMBERS = 2**28  # in the gradients of all examples of a batch together: 1 GiB in float32
BLOCK = 2**20  # coordinates of a gradient that are projected at once
EXPERT = re.compile(r"\.experts\.\d+\.")
Parameters = dict[str, Tensor]
Batch = dict[str, Tensor]  # the first dimension of every tensor is the batch dimension
LogLikelihood = Callable[[Parameters, Batch], Tensor]  # of one example, without batch dimension; in nats

# ---- the likelihood of an answer


def log_likelihood_of(model, route_1LE: Tensor | None = None) -> LogLikelihood:
    """Returns the function log p(answer | input), summed over tokens, of a model in eval mode.

    route_1LE: (1, L, E), for several experts. The function's batches: `fisher_batches`.
    """

    def log_likelihood(parameters: Parameters, example: Batch) -> Tensor:
        labels_T, read = example["labels"], example.get("decoder_input_ids", example["input_ids"])
        is_later_TT = torch.ones(len(read), len(read), device=labels_T.device).tril() == 0
        later = blocked(is_later_TT)[None, None]
        inputs = dict(input_ids=example["input_ids"][None], routes=route_1LE, use_cache=False)
        if "decoder_input_ids" in example:
            inputs |= dict(attention_mask=example["source_mask"][None], decoder_attention_mask=later)
            inputs["decoder_input_ids"] = example["decoder_input_ids"][None]
        else:  # the padding comes after all tokens
            inputs |= dict(attention_mask=later, logits_to_keep=len(labels_T))
        (logits_TV,) = functional_call(model, parameters, kwargs=inputs).logits
        return -nn.functional.cross_entropy(logits_TV, labels_T, ignore_index=IGNORED_LABEL, reduction="sum")

    return log_likelihood


def blocked(is_blocked: Tensor) -> Tensor:
    """Returns the additive attention mask; the library inspects one of 0 and 1, which vmap does not allow."""
    return is_blocked.float() * torch.finfo(torch.float32).min


def fisher_batches(examples: EncodedExamples, model, max_tokens: int, n_parameters: int) -> Iterator[Batch]:
    """Yields all examples, each with its first accepted answer, in batches of similar length.

    max_tokens: padded tokens of a batch, 0: no limit; n_parameters: whose gradient is kept for each example.
    """
    most = max(1, MAX_GRADIENT_NUMBERS // n_parameters)
    for indices in micro_batches(*examples.lengths(), max_tokens=max_tokens or None, max_examples=most):
        batch = examples.collate(indices, pad_token_id=model.config.pad_token_id)
        tensors, labels = with_targets(model, {"input_ids": batch["input_ids"]}, batch["labels"])
        if examples.decoder_only:  # only positions from the first answer on are projected to the vocabulary
            labels = labels[:, (labels != IGNORED_LABEL).any(dim=0).nonzero()[0, 0] :]
        tensors |= {"source_mask": blocked(batch["attention_mask"] == 0)[:, None, None], "labels": labels}
        yield {name: tensor.to(model.device) for name, tensor in tensors.items()}


def chosen_parameters(model, weights: str) -> Parameters:
    """Returns the parameters of a mixture by name, detached. weights: as --weights."""
    sides = [f"{name}." for name in stacks(model) if is_of_base(name)]  # decoder last
    starts = {"encoder": sides[:-1], "decoder": sides[-1:], "layers": sides}.get(weights, [""])
    is_chosen = is_of_expert if weights == "updates" else is_of_base  # not the router: routes are constants
    # Also the weights of the output layer, if it shares them.
    embeddings = model.get_input_embeddings().weight
    chosen = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if name.startswith(tuple(starts))
        and is_chosen(name)
        and (weights != "embeddings" or parameter is embeddings)
    }
    if not chosen:
        what = "low-rank expert" if weights == "updates" else weights
        raise InputError(f"--weights {weights}: the model has no {what}")
    return chosen


# ---- Fisher information


def diagonal_fisher(
    log_likelihood: LogLikelihood, parameters: Parameters, batches: Iterable[Batch]
) -> Parameters:
    """Returns the mean over examples of the squared gradient by each parameter, in its shape, in float64."""
    gradients_of = vmap(grad(log_likelihood), in_dims=(None, 0))
    sums, n = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}, 0
    for batch in batches:
        for name, gradient_B in gradients_of(parameters, batch).items():  # of every example, (B, ...)
            sums[name] += gradient_B.square().sum(dim=0, dtype=torch.float64)
        n += len(next(iter(batch.values())))
    return {name: total / n for name, total in sums.items()}


def fisher_vector(fisher: Parameters, by_unit: bool) -> Tensor:
    """Returns the task vector (D,), float64: a number of each weight, or the mean of each output unit.

    A unit is the filter of Achille et al. 2019.
    """
    if by_unit:
        fisher = {name: v.flatten(1).mean(dim=1) if v.ndim > 1 else v for name, v in fisher.items()}
    return torch.cat([value.flatten() for value in fisher.values()])


class Fisher(TrainingMethod):
    def __init__(self, settings):
        super().__init__(settings)
        self.model.set_attn_implementation("eager")  # vmap supports no fused attention kernel
        if settings.weights == "adapters":
            insert_adapters(self.model, settings.bottleneck, settings.seed)
        else:
            self.model.requires_grad_(False)
            for name in chosen_parameters(self.model, settings.weights):
                self.model.get_parameter(name).requires_grad_(True)

    def vector_of(self, task: str, samples: str) -> np.ndarray:
        examples = self.encoded(task, samples)
        self.train_on(task, examples)
        return fisher_vector(self.fisher_of(examples), self.settings.weights == "layers").cpu().numpy()

    def fisher_of(self, examples: EncodedExamples) -> Parameters:
        """Returns the Fisher information of the trained weights as they are now."""
        parameters = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        n_parameters = sum(p.numel() for p in parameters.values())
        batches = fisher_batches(examples, self.model, self.settings.max_tokens_per_micro_batch, n_parameters)
        return diagonal_fisher(log_likelihood_of(self.model), parameters, batches)


# Bottleneck adapters (Houlsby et al. 2019) after every sub-layer, before the residual connection: after these
# linear maps of BARTs, T5s, and Llamas and their relatives.
LAST_OF_SUBLAYERS = re.compile(
    r"(attn\.out_proj|fc2|Attention\.o|DenseReluDense\.wo|attn\.o_proj|mlp\.down_proj)$"
)
INIT_STD = 0.01  # of Houlsby et al.: near the identity


class Adapter(nn.Module):
    """Wraps a `sublayer` with an adapter: h = sublayer(x), then h + up(gelu(down(h)))."""

    def __init__(self, sublayer: nn.Linear, bottleneck: int):
        super().__init__()
        D = sublayer.out_features
        self.sublayer = sublayer
        self.down, self.up = nn.Linear(D, bottleneck), nn.Linear(bottleneck, D)

    @property
    def weight(self) -> Tensor:  # whose type a T5 looks at
        return self.sublayer.weight

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.sublayer(hidden)
        return hidden + self.up(nn.functional.gelu(self.down(hidden)))


def insert_adapters(model: nn.Module, bottleneck: int, seed: int) -> None:
    """Inserts adapters into every layer of a model; all other parameters are frozen."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for path in [name for name, _ in model.named_modules() if LAST_OF_SUBLAYERS.search(name)]:
        owner, _, name = path.rpartition(".")
        owner = model.get_submodule(owner)
        adapter = Adapter(getattr(owner, name), bottleneck)
        for linear in (adapter.down, adapter.up):
            nn.init.normal_(linear.weight, std=INIT_STD, generator=generator)
            nn.init.zeros_(linear.bias)
        setattr(owner, name, adapter.to(adapter.sublayer.weight))


# ---- mean gradients


def mean_gradient(
    log_likelihood: LogLikelihood, parameters: Parameters, batches: Iterable[Batch]
) -> Parameters:
    """Returns the mean over examples of the gradient, summed over experts. One backward pass per batch."""
    likelihoods = vmap(log_likelihood, in_dims=(None, 0))
    gradient_of = grad(lambda parameters, batch: likelihoods(parameters, batch).sum())
    sums, n = {}, 0
    for batch in batches:
        for name, gradient in summed_over_experts(gradient_of(parameters, batch)).items():
            sums[name] = sums[name] + gradient if n else gradient
        n += len(next(iter(batch.values())))
    return {name: total / n for name, total in sums.items()}


def summed_over_experts(tensors: Parameters) -> Parameters:
    """Returns the tensors under the names of a plain model: gradients by a shift of all experts together."""
    sums: Parameters = {}
    for name, tensor in tensors.items():
        plain = EXPERT.sub(".", name)
        sums[plain] = sums[plain] + tensor if plain in sums else tensor
    return sums


def projected(tensors: list[Tensor], projection_dim: int, generator: torch.Generator) -> Tensor:
    """Returns the coordinates of the tensors, projected to at most `projection_dim`, float64 on the CPU.

    A count-sketch (Weinberger et al. 2009, arXiv 0902.2206): each coordinate is added, with a random sign, to
    one random coordinate of the result. Inner products are kept in expectation.
    """
    n = sum(tensor.numel() for tensor in tensors)
    D = min(n, projection_dim or n)
    blocks = (block.cpu().double() for tensor in tensors for block in tensor.flatten().split(BLOCK))
    if n == D:
        return torch.cat(list(blocks))
    sketch_D = torch.zeros(D, dtype=torch.float64)
    for block in blocks:
        drawn = torch.randint(2 * D, block.shape, generator=generator)  # coordinate and sign
        sums_DS = torch.bincount(drawn, weights=block, minlength=2 * D).view(D, 2)
        sketch_D += sums_DS[:, 0] - sums_DS[:, 1]
    return sketch_D


class Gradient(BartMethod):
    def __init__(self, settings):
        if settings.task_names and settings.hide_task_names:
            raise InputError("--task_names and --hide_task_names: give that of the model's training")
        super().__init__(settings)
        # Not by make_accelerator, which would allow TF32 on a GPU for "no".
        self.uses_bf16 = chosen_precision(settings.mixed_precision) == "bf16"
        self.model.set_attn_implementation("eager")  # vmap supports no fused attention kernel
        self.model.requires_grad_(False)  # otherwise torch keeps a second graph, of all weights

    def vector_of(self, task: str, samples: str) -> np.ndarray:
        gradient = self.gradient_of(task, self.encoded(task, samples))
        generator = torch.Generator().manual_seed(self.settings.projection_seed)
        return projected(list(gradient.values()), self.settings.projection_dim, generator).numpy()

    def gradient_of(self, task: str, examples: EncodedExamples) -> Parameters:
        """Returns {parameter of a plain model: mean gradient} along the task's route."""
        model, parameters = self.model, chosen_parameters(self.model, self.settings.weights)
        batches = fisher_batches(examples, model, self.settings.max_tokens_per_micro_batch, n_parameters=1)
        likelihood = log_likelihood_of(model, route_of(model, task))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.uses_bf16):
            return mean_gradient(likelihood, parameters, batches)


@torch.no_grad()
def route_of(model, task: str) -> Tensor:
    """Returns the task's route (1, L, E) if the model was trained on it, else the average route."""
    # Another route may come from a vector that has seen rows outside the sample at hand.
    config, own = model.config, Resolver.of(model.config, model.config.trained_tasks, rule="stored")
    has_own = config.num_experts > 1 and task in config.trained_tasks and own.has(task)
    chooser = Chooser(model, own if has_own else Resolver("average", ()))
    return chooser.route(chooser.choose(task))[None]
