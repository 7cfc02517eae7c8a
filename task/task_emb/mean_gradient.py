"""The mean over examples of the gradient of log p(y | x), and its random projection."""

import re
from collections.abc import Iterable
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from dataloader.errors import InputError
from routing_moe.io.precision import chosen_precision
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
    log_likelihood: LogLikelihood, parameters: Parameters, batches: Iterable[Batch]
) -> Parameters:
    """Returns the mean of the gradients of all examples, summed over experts.

    A batch takes one backward pass of its sum. Raises ValueError without examples.
    """
    likelihoods = vmap(log_likelihood, in_dims=(None, 0))
    of_batch = grad(lambda parameters, batch: likelihoods(parameters, batch).sum())
    sums: Parameters = {}
    n = 0
    for batch in batches:
        gradients = summed_over_experts(of_batch(parameters, batch))
        sums = {name: sums[name] + gradient for name, gradient in gradients.items()} if sums else gradients
        n += len(next(iter(batch.values())))
    if n == 0:
        raise ValueError("no examples: the vector is a mean over examples")
    return {name: total / n for name, total in sums.items()}


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
    """Computes the mean gradient of a task, projected part by part.

    parts: {part: [start, end]}; {} for --parts whole. Raises InputError if vectors would have too many
    dimensions.
    """

    def __init__(self, settings):
        super().__init__(settings)
        # Not by make_accelerator, which would allow TF32 on a GPU for "no".
        self.uses_bf16 = chosen_precision(settings.mixed_precision) == "bf16"
        # vmap supports the operations of eager attention, but no fused attention kernel.
        self.model.set_attn_implementation("eager")
        self.model.requires_grad_(False)  # otherwise torch keeps a second graph, of all weights
        parameters = summed_over_experts(chosen_parameters(self.model, settings.weights))
        by_part = divided(parameters, settings.parts)
        sizes = [sum(tensor.numel() for tensor in tensors) for tensors in by_part.values()]
        dimensions = [dimension_of(n, settings.projection_dim) for n in sizes]
        if sum(dimensions) > MAX_DIMENSIONS:
            raise InputError(
                f"--weights {settings.weights} --projection_dim {settings.projection_dim}: vectors would "
                f"have {sum(dimensions)} dimensions, more than {MAX_DIMENSIONS}; give another "
                "--projection_dim, such as 4096"
            )
        spans = map(list, pairwise(accumulate(dimensions, initial=0)))
        self.parts = {} if settings.parts == "whole" else dict(zip(by_part, spans, strict=True))

    def vector_of(self, task: str) -> np.ndarray:
        by_part = divided(self.gradient_of(task), self.settings.parts)
        generator = torch.Generator().manual_seed(self.settings.projection_seed)
        dim = self.settings.projection_dim
        return torch.cat([projected(tensors, dim, generator) for tensors in by_part.values()]).numpy()

    def gradient_of(self, task: str) -> Parameters:
        """Returns {parameter of a plain BART: mean gradient} of a task's (or sample's) train examples.

        The gradient is along the task's route.
        """
        model, examples = self.model, self.encoded(task)
        parameters = chosen_parameters(model, self.settings.weights)
        batches = fisher_batches(examples, model, self.settings.max_tokens_per_micro_batch, n_parameters=1)
        route_1LE = route_of(model, self.source.of(task)[0].task)
        likelihood = bart_log_likelihood(model, model.plan_routes(route_1LE))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.uses_bf16):
            return mean_gradient(likelihood, parameters, batches)


@torch.no_grad()
def route_of(model, task: str) -> Tensor:
    """Returns the task's own route (1, L, E) if the model was trained on it, else the average route.

    A route of any other task may come from a vector that has seen rows outside the sample at hand.
    """
    config = model.config
    if config.routes_by_task and task in config.trained_tasks and task in config.task_names:
        return model.routes_for([task])
    return average(model, torch.zeros(1))
