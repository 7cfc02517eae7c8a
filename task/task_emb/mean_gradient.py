"""The mean over examples of the gradient of log p(y | x), and its random projection."""

import math
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from dataloader.errors import InputError
from routing_moe.io.precision import chosen_precision
from routing_moe.model.flops import Work, example_flops
from routing_moe.model.lora import is_of_expert
from routing_moe.model.route_sources import average
from task.task_emb.extractors import MAX_DIMENSIONS, BartExtractor
from task.task_emb.fisher_information import (
    Batch,
    LogLikelihood,
    Parameters,
    bart_log_likelihood,
    fisher_batches,
)

EXPERT = re.compile(r"\.experts\.\d+\.")
LAYER = re.compile(r"model\.(encoder|decoder)\.layers\.(\d+)\.")
WITHOUT_GRADIENT = ("router.", "task_vectors.")  # routes are constants
BLOCK = 2**20  # coordinates of a gradient that are projected at once
PATTERNS = {  # of the names of the parameters, by `gradient.WEIGHTS`
    "embeddings": r"model\.shared\.",  # also the weights of the output layer, if it shares them
    "encoder": r"model\.encoder\.layers\.",
    "decoder": r"model\.decoder\.layers\.",
    "layers": r"model\.(encoder|decoder)\.layers\.",
    "all": "",
    "updates": "",
}

# ---- weights


def chosen_parameters(model, weights: str) -> Parameters:
    """Returns the parameters of a (routing) BART by name, detached. weights: one of `gradient.WEIGHTS`.

    Raises KeyError for another choice.
    """
    named = {name: p for name, p in model.named_parameters() if not name.startswith(WITHOUT_GRADIENT)}
    of_updates = weights == "updates"
    chosen = {
        name: p.detach()
        for name, p in named.items()
        if re.match(PATTERNS[weights], name) and is_of_expert(name) == of_updates
    }
    if not chosen:
        raise InputError(f"--weights {weights}: the model has no low-rank experts")
    return chosen


def summed_over_experts(tensors: Parameters) -> Parameters:
    """Returns the tensors under the names of a plain BART, those of a layer's experts summed.

    The sum is the gradient by a shift of all experts together. If they are equal, it is that of one layer.
    """
    sums: Parameters = {}
    for name, tensor in tensors.items():
        plain = EXPERT.sub(".", name)
        sums[plain] = sums[plain] + tensor if plain in sums else tensor
    return sums


def divided(tensors: Parameters, division: str) -> dict[str, list[Tensor]]:
    """Returns {part: its tensors}, in the order of the model.

    division: "whole": one part of this name; "sides": "encoder", "decoder"; "layers": "encoder.0", ...
    The last two are for tensors of layers, with the names of a plain BART.
    """
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        side_and_layer = LAYER.match(name)
        n_words = {"whole": 0, "sides": 1, "layers": 2}[division]
        part = ".".join(side_and_layer.groups()[:n_words]) if n_words else "whole"
        parts.setdefault(part, []).append(tensor)
    return parts


# ---- gradients


def mean_gradient(
    log_likelihood: LogLikelihood, parameters: Parameters, batches: Iterable[Batch], clip: float = math.inf
) -> Parameters:
    """Returns the mean of the gradients of all examples, summed over experts, each clipped to norm `clip`.

    The norm is that of all parameters together. Without a finite `clip`, a batch takes one backward pass of
    its sum; otherwise one gradient per example is held. Raises ValueError without examples.
    """
    likelihoods = vmap(log_likelihood, in_dims=(None, 0))
    of_batch = grad(lambda parameters, batch: likelihoods(parameters, batch).sum())
    of_examples = vmap(grad(log_likelihood), in_dims=(None, 0))
    sums: Parameters = {}
    n = 0
    for batch in batches:
        if clip == math.inf:
            gradients = summed_over_experts(of_batch(parameters, batch))
        else:
            gradients = sum_of_clipped(summed_over_experts(of_examples(parameters, batch)), clip)
        sums = {name: sums[name] + gradient for name, gradient in gradients.items()} if sums else gradients
        n += len(next(iter(batch.values())))
    if n == 0:
        raise ValueError("no examples: the vector is a mean over examples")
    return {name: total / n for name, total in sums.items()}


def sum_of_clipped(gradients_B: Parameters, clip: float) -> Parameters:
    """Returns the sum over examples of their gradients, scaled down to norms of at most `clip`.

    gradients_B: {name: (B, ...)}.
    """
    squares_B = sum(gradient_B.flatten(1).square().sum(dim=1) for gradient_B in gradients_B.values())
    factors_B = (clip / squares_B.sqrt()).clamp(max=1.0)  # 1 for a gradient of zeros
    return {name: torch.tensordot(factors_B, gradient_B, dims=1) for name, gradient_B in gradients_B.items()}


# ---- projection


def dimension_of(n: int, projection_dim: int) -> int:
    """Returns the dimension of the projection of n coordinates; projection_dim: 0 for none."""
    return min(n, projection_dim or n)


def projected(tensors: list[Tensor], projection_dim: int, generator: torch.Generator) -> Tensor:
    """Returns the coordinates of the tensors, projected to at most `projection_dim`, float64 on the CPU.

    The projection is a count-sketch (feature hashing: Weinberger et al. 2009, arXiv 0902.2206): each
    coordinate is added, with a random sign, to one random coordinate of the result. Inner products are kept
    in expectation, and the matrix, of one number per coordinate, is drawn block by block. It depends on the
    generator and on the shapes alone.
    """
    n = sum(tensor.numel() for tensor in tensors)
    D = dimension_of(n, projection_dim)
    blocks = (block.cpu().double() for tensor in tensors for block in tensor.flatten().split(BLOCK))
    if n == D:
        return torch.cat(list(blocks))
    sketch_D = torch.zeros(D, dtype=torch.float64)
    for block in blocks:
        drawn = torch.randint(2 * D, block.shape, generator=generator)  # coordinate and sign
        sums_DS = torch.bincount(drawn, weights=block, minlength=2 * D).view(D, 2)
        sketch_D += sums_DS[:, 0] - sums_DS[:, 1]
    return sketch_D


# ---- the extractor


class GradientExtractor(BartExtractor):
    """Computes the mean gradient of a task at one or more checkpoints, projected part by part.

    A vector is divided into parts, and each part into one projected gradient per checkpoint, in the order of
    --checkpoint_names. parts: {part: [start, end]}; {} for --parts whole. flops: of the last vector, forward
    and backward (`flops.py`); the layers of one side count as those of both. Raises InputError if vectors
    would have too many dimensions.
    """

    def __init__(self, settings):
        super().__init__(settings)
        others = [saved.load().to(self.model.device).eval() for saved in settings.found_models()[1:]]
        self.models = [self.model, *others]
        # Not by make_accelerator, which would allow TF32 on a GPU for "no".
        self.uses_bf16 = chosen_precision(settings.mixed_precision) == "bf16"
        for model in self.models:
            # vmap supports the operations of eager attention, but no fused attention kernel.
            model.set_attn_implementation("eager")
            model.requires_grad_(False)  # otherwise torch keeps a second graph, of all weights
        parameters = summed_over_experts(chosen_parameters(self.model, settings.weights))
        by_part = divided(parameters, settings.parts)
        sizes = [sum(tensor.numel() for tensor in tensors) for tensors in by_part.values()]
        dimensions = [dimension_of(n, settings.projection_dim) * len(self.models) for n in sizes]
        if sum(dimensions) > MAX_DIMENSIONS:
            raise InputError(
                f"--weights {settings.weights} --projection_dim {settings.projection_dim}: vectors would "
                f"have {sum(dimensions)} dimensions, more than {MAX_DIMENSIONS}; give another "
                "--projection_dim, such as 4096"
            )
        spans = map(list, pairwise(accumulate(dimensions, initial=0)))
        self.parts = {} if settings.parts == "whole" else dict(zip(by_part, spans, strict=True))
        self.flops = 0.0

    def vector_of(self, task: str) -> np.ndarray:
        self.flops = 0.0
        gradients = [divided(self.gradient_of(task, model), self.settings.parts) for model in self.models]
        generator = torch.Generator().manual_seed(self.settings.projection_seed)
        vectors = [
            projected(by_part[part], self.settings.projection_dim, generator)
            for part in gradients[0]
            for by_part in gradients
        ]
        return torch.cat(vectors).numpy()

    def gradient_of(self, task: str, model) -> Parameters:
        """Returns {parameter of a plain BART: mean gradient} of a task's (or sample's) train examples.

        The gradient is along the task's route. model: one of `models`.
        """
        examples = self.encoded(task)
        clip, tokens = self.settings.clip, self.settings.max_tokens_per_micro_batch
        parameters = chosen_parameters(model, self.settings.weights)
        n_parameters = 1  # held per example
        if clip < math.inf:
            n_parameters = sum(p.numel() for p in parameters.values())
        batches = fisher_batches(examples, model, tokens, n_parameters)
        route_1LE = route_of(model, self.source.of(task)[0].task)
        likelihood = bart_log_likelihood(model, model.plan_routes(route_1LE))
        batches = self.counted(batches, model.config, float((route_1LE > 0).sum(-1).float().mean()))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.uses_bf16):
            return mean_gradient(likelihood, parameters, batches, clip)

    def counted(self, batches: Iterable[Batch], config, used: float) -> Iterator[Batch]:
        """Yields the batches, and adds the FLOPs of their gradients. used: experts of a layer in a route."""
        weights = self.settings.weights
        embeddings = weights in ("embeddings", "all")
        work = Work(
            used,
            layers=weights not in ("embeddings", "updates"),
            updates=weights == "updates",
            inputs=embeddings,
            projection=embeddings,
            router=False,
            vectors=False,
        )
        for batch in batches:
            B, T = batch["labels"].shape
            self.flops += B * example_flops(config, work, batch["input_ids"].shape[1], T, T)
            yield batch


@torch.no_grad()
def route_of(model, task: str) -> Tensor:
    """Returns the task's own route (1, L, E) if the model was trained on it, else the average route.

    A route of any other task may come from a vector that has seen rows outside the sample at hand.
    """
    config = model.config
    if config.routes_by_task and task in config.trained_tasks and task in config.task_names:
        return model.routes_for([task])
    return average(model, torch.zeros(1))
